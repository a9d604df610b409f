"""The trainer as the story sees it: one optimizer step, log-probs of a text, weights to publish."""

import math
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import cast

from megatron.core.models.gpt import GPTModel
from megatron.core.transformer.transformer_layer import TransformerLayer
from torch import Tensor

from apriel_mcore.bridge.names import Chunk, Spec
from apriel_mcore.bridge.plan import Coordinates, make_plan
from apriel_mcore.bridge.reshard import LoadReport, load_hf_weights
from apriel_mcore.bridge.shape import ModelShape
from apriel_mcore.config.schema import Loss, Train, keeps_params
from apriel_mcore.data.packing import fill, plan_digest
from apriel_mcore.errors import TrainingError
from apriel_mcore.mcore import parallel
from apriel_mcore.mcore.fp8 import PlainParameters, write_back
from apriel_mcore.mcore.model import build_model
from apriel_mcore.mcore.optimizer import build_optimizer, force_param_sync
from apriel_mcore.mcore.parallel import Ranks
from apriel_mcore.mcore.rows import PackedRow, pack, pad_multiple, row_length
from apriel_mcore.mcore.step import StepSums, accumulate_gradients, prepare, score
from apriel_mcore.obs.spans import span
from apriel_mcore.types import Batch, Sample, StepStats


class MegatronLearner:
    """seams.Learner on Megatron-Core; every rank holds one and calls it in step with the others."""

    def __init__(self, shape: ModelShape, train: Train, loss: Loss, *, ranks: Ranks) -> None:
        """Random weights; `load_hf` or mcore/checkpoint.py fills them."""
        self.ranks = ranks
        self.model = build_model(shape, train)
        self.optimizer = build_optimizer(self.model, train)
        prepare(self.model)
        self._step = 0
        self._train = train
        self._loss = loss
        self._device = parallel.device()

    @property
    def step(self) -> int:
        """Optimizer steps taken: the version of the current weights."""
        return self._step

    @property
    def num_data_ranks(self) -> int:
        """Data-parallel size that batches are packed for."""
        return self.ranks.sizes.data

    @property
    def pad_multiple(self) -> int:
        """Each sample of a batch is padded to a multiple of this many tokens."""
        return pad_multiple(self.ranks)

    @property
    def spec(self) -> Spec:
        """Which of Megatron's layer specs names the parameters."""
        return "te" if self._train.device == "cuda" else "local"

    @property
    def coordinates(self) -> Coordinates:
        """This rank's place and the layers that it holds, as the model reports them."""
        return Coordinates(
            tensor_rank=self.ranks.tensor,
            pipeline_rank=self.ranks.pipeline,
            data_rank=self.ranks.data,
            context_rank=self.ranks.context,
            chunks=tuple(_describe(chunk) for chunk in self.model.chunks),
        )

    def chunks(self) -> list[Mapping[str, Tensor]]:
        """The parameters of each model chunk of this rank, as of `step`; collective.

        Those kept in FP8 are made when they are asked for: writing to them changes nothing.
        """
        force_param_sync(self.model)
        return [PlainParameters(chunk) for chunk in self.model.chunks]

    @span("train")
    def train_step(self, batch: Batch) -> StepStats:
        """One optimizer step; the returned numbers are equal on all ranks."""
        started = time.monotonic()
        assert batch.pad_multiple % self.pad_multiple == 0, "packed for another layout"
        self._check_same_batch(batch)
        mine = [[batch.samples[i] for i in row.sample_ids] for row in batch.rows[self.ranks.data]]
        self.optimizer.zero_grad()
        sums = accumulate_gradients(
            self.model,
            self._pack(mine, batch.pad_multiple, shared_prompts=batch.shared_prompts),
            settings=self._loss,
            num_rollouts=batch.num_rollouts,
            num_tokens=batch.num_response_tokens,
        )
        if not math.isfinite(sums.loss):
            raise TrainingError(f"step {self._step + 1}: the loss is {sums.loss}; the weights are unchanged")
        grad_norm = self.optimizer.update()
        if not math.isfinite(grad_norm):
            raise TrainingError(f"step {self._step + 1}: the gradient norm is {grad_norm}")
        self._step += 1
        return self._stats(batch, sums, grad_norm=grad_norm, seconds=time.monotonic() - started)

    @span("probe")
    def logprobs(self, tokens_T: Sequence[int]) -> list[float]:
        """Log-prob of each token after the first under the current weights at temperature 1, nats,
        equal on all ranks."""
        text = Sample(
            domain="",
            prompt_T=tuple(tokens_T[:1]),
            response_T=tuple(tokens_T[1:]),
            logprobs_T=(0.0,) * (len(tokens_T) - 1),
            advantage=0.0,
            version=self._step,
        )
        return score(self.model, self._pack([[text]], self.pad_multiple)).tolist()

    def load_hf(self, folder: Path) -> LoadReport:
        """Weights of a Hugging Face folder of the same shape; step and optimizer state stay."""
        plan = make_plan(self.model.shape, self.ranks.sizes, self.spec)
        values = [dict(chunk) for chunk in self.chunks()]
        report = load_hf_weights(values, plan, self.coordinates, folder)
        self.adopt_weights(values)
        return report

    def adopt_weights(self, values: Sequence[Mapping[str, Tensor]]) -> None:
        """FP8 weights and the optimizer's float32 masters take over `values`, the parameters of each chunk by
        name; weights of another kind hold them already."""
        for chunk, found in zip(self.model.chunks, values, strict=True):
            write_back(chunk, found)
        # Not from FP8 weights: the masters would begin with their rounding.
        state = {f"model{number}": dict(found) for number, found in enumerate(values)}
        self.optimizer.adam.reload_model_params(state if keeps_params(self._train.fp8) else None)

    def resume_at(self, step_number: int) -> None:
        """Weights and optimizer are those after `step_number` steps (mcore/checkpoint.py)."""
        self._step = step_number
        self.optimizer.resume_at(step_number)

    def _check_same_batch(self, batch: Batch) -> None:
        """Every rank made its own plan of the step; TrainingError on one that made another."""
        ours = plan_digest(batch)
        first = self.ranks.broadcast(ours.encode()).decode()
        if ours != first:
            raise TrainingError(
                f"step {self._step + 1}: this rank packed batch {ours[:12]}, the first rank {first[:12]}: "
                "start every rank with the same code and recipe"
            )

    def _pack(
        self, rows: list[list[Sample]], multiple: int, *, shared_prompts: bool = False
    ) -> list[PackedRow]:
        """The micro-batches of one run of the schedule.

        Megatron's interleaved schedule wants a multiple of the stages, and with two stages it mixes up
        the shapes of what it sends forward and backward: it gets rows of one length, and empty ones.
        """
        row_multiple = self._train.row_multiple
        lengths = [
            row_length(row, multiple, row_multiple=row_multiple, shared_prompts=shared_prompts)
            for row in rows
        ]
        sizes = self.ranks.sizes
        if sizes.virtual_pipeline > 1:
            rows = rows + [[]] * (-len(rows) % sizes.pipeline)
            lengths = [max(lengths)] * len(rows)
        return [
            pack(
                row,
                multiple=multiple,
                length=length,
                ranks=self.ranks,
                device=self._device,
                shared_prompts=shared_prompts,
            )
            for row, length in zip(rows, lengths, strict=True)
        ]

    def _stats(self, batch: Batch, sums: StepSums, *, grad_norm: float, seconds: float) -> StepStats:
        tokens = max(1.0, sums.tokens)
        return StepStats(
            loss=sums.loss,
            grad_norm=grad_norm,
            lr=self.optimizer.lr,
            entropy=sums.entropy / tokens,
            clip_fraction=sums.clipped_tokens / tokens,
            logprob_abs_diff=sums.abs_log_ratio / tokens,
            kl_rollout_train=sums.k3 / tokens,
            tokens_trained=int(sums.tokens),
            packing_fill=fill(batch, seq_len=self._train.seq_len),
            seconds=seconds,
        )


def _describe(chunk: GPTModel) -> Chunk:
    first_layer = cast(TransformerLayer, chunk.decoder.layers[0])
    return Chunk(
        layer_offset=first_layer.layer_number - 1,
        num_layers=len(chunk.decoder.layers),
        first=chunk.pre_process,
        last=chunk.post_process,
    )

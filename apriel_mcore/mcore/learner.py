"""The trainer as the story sees it: one optimizer step, log-probs of a text, weights to publish."""

import math
import time
from collections.abc import Sequence
from pathlib import Path

from megatron.core.models.gpt import GPTModel

from apriel_mcore.bridge.shape import ModelShape
from apriel_mcore.config.schema import Loss, Train
from apriel_mcore.errors import TrainingError
from apriel_mcore.mcore import model as model_builder
from apriel_mcore.mcore import optimizer as optimizer_builder
from apriel_mcore.mcore import parallel, rows
from apriel_mcore.mcore.parallel import Ranks
from apriel_mcore.mcore.rows import PackedRow
from apriel_mcore.mcore.step import StepSums, accumulate_gradients, prepare, score
from apriel_mcore.types import Batch, Sample, StepStats


class MegatronLearner:
    """seams.Learner on Megatron-Core; every rank holds one and calls it in step with the others."""

    def __init__(
        self, shape: ModelShape, train: Train, loss: Loss, *, ranks: Ranks, temperature: float
    ) -> None:
        """Random weights; `load_hf` or mcore/checkpoint.py fills them. `temperature` is the sampler's."""
        self.ranks = ranks
        self.model = model_builder.build(shape, train)
        self.optimizer = optimizer_builder.build(self.model, train)
        prepare(self.model)
        self._step = 0
        self._train = train
        self._loss = loss
        self._temperature = temperature
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
        return rows.pad_multiple(self.ranks)

    def chunks(self) -> list[GPTModel]:
        """The unwrapped model chunks of this rank, holding the weights of `step`; collective."""
        optimizer_builder.force_param_sync(self.model)
        return self.model.chunks

    def train_step(self, batch: Batch) -> StepStats:
        """One optimizer step; the returned numbers are equal on all ranks."""
        started = time.monotonic()
        assert batch.pad_multiple % self.pad_multiple == 0, "packed for another layout"
        sums = accumulate_gradients(
            self.model,
            self._rows_of(batch),
            settings=self._loss,
            temperature=self._temperature,
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
        packed = self._complete([self._pack([text], self.pad_multiple)])
        return score(self.model, packed).tolist()

    def load_hf(self, folder: Path) -> None:
        """Weights of a Hugging Face folder of the same shape; step and optimizer start afresh."""
        from apriel_mcore.bridge import reshard

        reshard.load_hf_weights(self.model.chunks, self.model.shape, folder, self.ranks)
        self.adopt_weights()

    def adopt_weights(self) -> None:
        """The optimizer's float32 masters take over weights that were written into the chunks."""
        self.optimizer.adam.reload_model_params()

    def resume_at(self, step_number: int) -> None:
        """Weights and optimizer are those after `step_number` steps (mcore/checkpoint.py)."""
        self._step = step_number

    def _rows_of(self, batch: Batch) -> list[PackedRow]:
        """This data rank's micro-batches, one behind the other."""
        mine = batch.rows[self.ranks.data]
        packed = [self._pack([batch.samples[i] for i in row.sample_ids], batch.pad_multiple) for row in mine]
        return self._complete(packed)

    def _complete(self, packed: list[PackedRow]) -> list[PackedRow]:
        """The interleaved schedule wants a multiple of the stages: empty rows fill up."""
        sizes = self.ranks.sizes
        missing = -len(packed) % sizes.pipeline if sizes.virtual_pipeline > 1 else 0
        return packed + [self._pack([], self.pad_multiple)] * missing

    def _pack(self, samples: list[Sample], multiple: int) -> PackedRow:
        return rows.pack(samples, multiple=multiple, ranks=self.ranks, device=self._device)

    def _stats(self, batch: Batch, sums: StepSums, *, grad_norm: float, seconds: float) -> StepStats:
        tokens = max(1.0, sums.tokens)
        num_rows = sum(map(len, batch.rows))
        real_tokens = sum(sample.num_tokens for sample in batch.samples)
        return StepStats(
            loss=sums.loss,
            grad_norm=grad_norm,
            lr=self.optimizer.lr,
            entropy=sums.entropy / tokens,
            clip_fraction=sums.clipped_tokens / tokens,
            logprob_abs_diff=sums.abs_log_ratio / tokens,
            kl_rollout_train=sums.k3 / tokens,
            tokens_trained=int(sums.tokens),
            packing_fill=real_tokens / (num_rows * self._train.seq_len),
            seconds=seconds,
        )

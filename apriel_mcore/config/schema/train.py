"""The trainer: its ranks, its optimizer, what it saves."""

from typing import Literal

from apriel_mcore.config.schema.fields import (
    Beta,
    LearningRate,
    Natural,
    NonNegative,
    Positive,
    PositiveFloat,
    Section,
)
from apriel_mcore.config.schema.fp8 import EmulatedFp8, EngineFp8, Fp8, NoFp8, keeps_params


class Parallel(Section, frozen=True, kw_only=True):
    """Ranks: tensor x pipeline x context x data. All of them train; servers are elsewhere."""

    tensor: Positive = 1
    pipeline: Positive = 1
    virtual_pipeline: Positive = 1
    """Model chunks per pipeline stage (interleaved schedule when above 1)."""
    context: Positive = 1
    data: Positive = 1
    sequence: bool = False
    distributed_optimizer: bool = False
    overlap_grad_reduce: bool = False
    overlap_param_gather: bool = False

    @property
    def world_size(self) -> int:
        """Trainer ranks in all."""
        return self.tensor * self.pipeline * self.context * self.data

    def __post_init__(self) -> None:
        if self.virtual_pipeline > 1 and self.pipeline == 1:
            raise ValueError("virtual_pipeline > 1 needs pipeline > 1")
        if self.sequence and self.tensor == 1:
            raise ValueError("sequence = true needs tensor > 1")
        if self.overlap_param_gather and not self.distributed_optimizer:
            raise ValueError("overlap_param_gather = true needs distributed_optimizer = true")
        if self.overlap_param_gather and not self.overlap_grad_reduce:
            raise ValueError("overlap_param_gather = true needs overlap_grad_reduce = true")


class Optimizer(Section, frozen=True, kw_only=True):
    """AdamW."""

    lr: LearningRate
    betas: tuple[Beta, Beta] = (0.9, 0.999)
    eps: PositiveFloat = 1e-8
    weight_decay: NonNegative = 0.01
    """Not applied to norms and biases."""
    clip_grad: PositiveFloat = 0.3
    warmup_steps: Natural = 0
    schedule: Literal["constant", "linear", "cosine"] = "constant"
    min_lr: NonNegative = 0.0

    def __post_init__(self) -> None:
        if self.min_lr > self.lr:
            raise ValueError(f"min_lr = {self.min_lr:g} exceeds lr = {self.lr:g}")


class Train(Section, frozen=True, kw_only=True):
    """The trainer."""

    num_steps: Positive
    groups_per_step: Positive
    """Bg: groups of one optimizer step."""
    seq_len: Positive
    """Longest packed row, in tokens."""
    share_prompts: bool = False
    """Compute a prompt once for all answers of its group that stand in one row. Only on CPUs, where attention
    is ours, and on one context rank."""
    device: Literal["cpu", "cuda"] = "cpu"
    precision: Literal["bf16", "fp32"] = "bf16"
    threads: Natural = 0
    """CPU threads per rank; 0: cores divided by local ranks."""
    recompute: Literal["none", "selective", "full"] = "none"
    """What backward computes again: selective is the feed-forward part of each layer, full is all of it."""
    fp8: Fp8 = NoFp8()
    optimizer: Optimizer
    parallel: Parallel = Parallel()

    @property
    def row_multiple(self) -> int:
        """Tokens that a packed row is padded to a multiple of, so that FP8 products on every rank can run."""
        parallel = self.parallel
        return self.fp8.ALIGNMENT * parallel.context * (parallel.tensor if parallel.sequence else 1)

    def __post_init__(self) -> None:
        if isinstance(self.fp8, EngineFp8):
            self._check_fp8()
        if self.share_prompts and (self.device == "cuda" or self.parallel.context > 1):
            raise ValueError(
                'share_prompts = true needs device = "cpu" and parallel.context = 1; set it to false'
            )
        if isinstance(self.fp8, EmulatedFp8) and self.device == "cuda":
            raise ValueError(
                'fp8.kind = "emulated" shows on a CPU what FP8 does; with device = "cuda" use "tensorwise", '
                '"delayed", "blockwise" or "mxfp8"'
            )

    def _check_fp8(self) -> None:
        if self.device == "cpu":
            raise ValueError(
                'fp8: Transformer Engine computes FP8 on CUDA devices only; with device = "cpu" use '
                'fp8.kind = "emulated" to see what FP8 does, or "off"'
            )
        if self.precision != "bf16":
            raise ValueError('fp8: what is not FP8 is bfloat16; set precision = "bf16", or fp8.kind = "off"')
        if keeps_params(self.fp8) and not self.parallel.distributed_optimizer:
            raise ValueError(
                "fp8.params = true needs parallel.distributed_optimizer = true, which alone turns masters "
                "into FP8 weights"
            )
        multiple = self.row_multiple
        if self.seq_len % multiple:
            up = -(-self.seq_len // multiple) * multiple
            raise ValueError(
                f"seq_len = {self.seq_len} is no multiple of {multiple}, which FP8 asks of a row at this "
                f"layout; use {up}"
            )


class Cluster(Section, frozen=True, kw_only=True):
    """The GPUs that `train.device = "cuda"` finds. Trainer and pool take whole nodes, as many as their
    layouts need; only where weights are published through shared memory do they share one."""

    gpus_per_node: Positive = 8
    gpu_memory_gb: PositiveFloat = 80.0
    """Of one GPU, in units of 1e9 bytes."""

    def nodes_of(self, num_gpus: int) -> int:
        """Whole nodes that hold `num_gpus` GPUs."""
        return -(-num_gpus // self.gpus_per_node)


class Checkpoint(Section, frozen=True, kw_only=True):
    """When the run's state is saved, and how many are kept."""

    every: Positive = 50
    keep: Positive = 2
    """The latest ones; a run whose newest checkpoint is damaged continues from the one before."""
    keep_best: Natural = 1
    """Also those with the highest mean held-out accuracy, of the steps that were evaluated (`eval.every`)."""

    @property
    def most_on_disk(self) -> int:
        """Checkpoints at one time, the one being written included."""
        return self.keep + self.keep_best + 1

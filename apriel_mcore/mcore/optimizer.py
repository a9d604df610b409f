"""How do gradients become weights? Megatron's AdamW with float32 masters, and its schedule.

The schedule steps before the update, so that the first update already has a learning rate (with W
warm-up steps, update k uses k/W of the full rate up to k = W); Megatron's training loop steps it after
and spends its first update at rate 0.
"""

from dataclasses import dataclass

import torch
from megatron.core.optimizer import USING_PYTORCH_OPTIMIZER, OptimizerConfig, get_megatron_optimizer
from megatron.core.optimizer.optimizer import ChainedOptimizer
from megatron.core.optimizer_param_scheduler import OptimizerParamScheduler, get_canonical_lr_for_logging

from apriel_mcore.config.schema import EngineFp8, Train
from apriel_mcore.errors import TrainingError
from apriel_mcore.fp8 import kind_of
from apriel_mcore.mcore.model import Model, dtype_of
from apriel_mcore.obs.spans import span


@dataclass(frozen=True, kw_only=True)
class Optimizer:
    """AdamW and its schedule."""

    adam: ChainedOptimizer
    schedule: OptimizerParamScheduler

    @property
    def implementation(self) -> str:
        """Class that does the arithmetic: Transformer Engine's or apex's FusedAdam, or torch's AdamW."""
        inner = self.adam.chained_optimizers[0].optimizer
        name = f"{type(inner).__module__.partition('.')[0]}.{type(inner).__name__}"
        return f"{name}(fused)" if USING_PYTORCH_OPTIMIZER else name

    @property
    def lr(self) -> float:
        """Learning rate of the latest update."""
        lr = get_canonical_lr_for_logging(self.adam.param_groups)
        assert lr is not None, "no parameter group follows the schedule"
        return lr

    def resume_at(self, step: int) -> None:
        """The schedule stands where `step` updates have been taken."""
        self.schedule.num_steps = 0
        self.schedule.step(increment=step)

    def zero_grad(self) -> None:
        """Before every step: in float32 the last update left `grad` pointing into the buffer that backward
        adds `grad` to."""
        self.adam.zero_grad()

    @span("optimizer")
    def update(self) -> float:
        """Clips, updates the weights, returns the gradient norm before clipping (over all ranks)."""
        self.schedule.step(increment=1)
        done, grad_norm, _ = self.adam.step()
        if not done:
            raise TrainingError("the optimizer skipped its step: a gradient is not finite")
        assert grad_norm is not None, "the norm is taken in order to clip"
        return float(grad_norm)


def build_optimizer(model: Model, train: Train) -> Optimizer:
    """For the trainable parameters of `model`; norms and biases are not decayed."""
    settings = train.optimizer
    config = OptimizerConfig(
        optimizer="adam",
        lr=settings.lr,
        min_lr=settings.min_lr,
        adam_beta1=settings.betas[0],
        adam_beta2=settings.betas[1],
        adam_eps=settings.eps,
        weight_decay=settings.weight_decay,
        clip_grad=settings.clip_grad,
        bf16=train.precision == "bf16",
        params_dtype=dtype_of(train),
        use_distributed_optimizer=train.parallel.distributed_optimizer,
        overlap_param_gather=train.parallel.overlap_param_gather,
        fp8_recipe=kind_of(train.fp8) if isinstance(train.fp8, EngineFp8) else None,
    )
    adam = get_megatron_optimizer(config, list(model.wrapped), use_gloo_process_groups=False)
    assert isinstance(adam, ChainedOptimizer)
    for group in adam.param_groups:
        # The schedule has them too. Here they would be part of the group's name in a checkpoint, which
        # could then not continue under another learning rate.
        del group["max_lr"], group["min_lr"]
        if USING_PYTORCH_OPTIMIZER:  # Megatron builds torch's AdamW without asking for its one-pass kernel
            group["fused"] = True
    schedule = OptimizerParamScheduler(
        adam,
        init_lr=0.0,
        max_lr=settings.lr,
        min_lr=settings.min_lr,
        lr_warmup_steps=settings.warmup_steps,
        # Megatron asks that the decay outlast the warm-up, also where nothing decays.
        lr_decay_steps=max(train.num_steps, settings.warmup_steps + 1),
        lr_decay_style=settings.schedule,
        start_wd=settings.weight_decay,
        end_wd=settings.weight_decay,
        wd_incr_steps=0,
        wd_incr_style="constant",
    )
    return Optimizer(adam=adam, schedule=schedule)


def force_param_sync(model: Model) -> None:
    """Waits until every rank's parameters are those of the latest update.

    With overlap_param_gather the gather of updated parameters runs inside the next forward; until
    then `parameters()` are old, silently.
    """
    for chunk in model.wrapped:
        if chunk.ddp_config.overlap_param_gather:
            chunk.start_param_sync(force_sync=True)
    if torch.cuda.is_available():
        torch.cuda.synchronize()

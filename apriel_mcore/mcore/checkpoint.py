"""What does a run's checkpoint hold, and how does it come back? Megatron's distributed checkpoint.

    learner --stage: copied to host memory--> Staged (mcore/staged.py) --> checkpoints/step_000020/
    checkpoints/step_000020/ --load--> a learner of any other layout

Beside Megatron's files lies state.json: what the loop must remember. Nothing else has to be saved: the
learning rate is a function of the step, and the trainer draws no random numbers (no dropout).
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import accumulate
from pathlib import Path
from typing import Any

import torch
from megatron.core import dist_checkpointing
from megatron.core.dist_checkpointing.strategies.fully_parallel import FullyParallelSaveStrategyWrapper
from megatron.core.fp8_utils import is_float8tensor
from megatron.core.optimizer import USING_PYTORCH_OPTIMIZER
from megatron.core.optimizer.distrib_optimizer import DistributedOptimizer

from apriel_mcore.bridge.receipt import digest_of_tensor
from apriel_mcore.checkpoint_folder import STATE_FILE
from apriel_mcore.errors import InputError
from apriel_mcore.mcore import parallel
from apriel_mcore.mcore.learner import MegatronLearner
from apriel_mcore.mcore.staged import Staged, StagingStrategy


def stage(folder: Path, learner: MegatronLearner) -> Staged:
    """This rank's share of weights and optimizer state as of now, in host memory, to be written into
    `folder`, which exists and is empty. Collective; the learner may go on when it returns.

    At least one step must have been taken: a fresh optimizer has no state to write.
    """
    assert learner.step > 0, "nothing is trained yet: the model folder is the checkpoint of step 0"
    strategy = StagingStrategy()
    dist_checkpointing.save(
        sharded(learner, is_loading=False),
        str(folder),
        FullyParallelSaveStrategyWrapper(strategy, parallel.group("replica")),  # pyright: ignore
        async_sharded_save=True,
        async_strategy="mcore",
    )
    return strategy.staged


def load(folder: Path, learner: MegatronLearner) -> dict[str, Any]:
    """Weights, optimizer state and step into `learner`, whatever its layout; the loop's state. Collective.

    InputError when `folder` is not a complete checkpoint; on every rank, when its masters are not those of
    its weights.
    """
    try:
        saved = json.loads((folder / STATE_FILE).read_text())
    except (OSError, json.JSONDecodeError) as error:
        raise InputError(f"{folder}: not a complete checkpoint ({error}); choose another step") from None
    with _loadable(learner):
        state = dist_checkpointing.load(sharded(learner, is_loading=True), str(folder))
        assert isinstance(state, dict)
        for name, chunk in _named_chunks(learner):
            chunk.load_state_dict(state[name])
        weights = _digests(learner)
        learner.optimizer.adam.load_state_dict(state["optimizer"])
        _check_masters(folder, learner, weights)
    learner.resume_at(saved["step"])
    return saved["loop"]


def _digests(learner: MegatronLearner) -> dict[str, str]:
    """Of each weight that is not kept in FP8, by chunk and name; in bfloat16, for weights that were saved so
    know less than their masters."""
    return {
        f"{number}.{name}": digest_of_tensor(weight.detach().bfloat16())
        for number, chunk in enumerate(learner.model.chunks)
        for name, weight in chunk.named_parameters()
        if not is_float8tensor(weight)
    }


def _check_masters(folder: Path, learner: MegatronLearner, weights: Mapping[str, str]) -> None:
    """The distributed optimizer has just made the weights anew from its masters: they must be as before."""
    learner.chunks()  # where masters are shared out, the other ranks' parts arrive only now
    own = [name for name, digest in _digests(learner).items() if digest != weights[name]]
    found_R = [json.loads(one) for one in learner.ranks.gather(json.dumps(own).encode())]
    if any(found_R):
        shown = "; ".join(
            f"rank {rank}: {len(found)} of them, first {found[0]}"
            for rank, found in enumerate(found_R)
            if found
        )
        raise InputError(
            f"{folder}: the optimizer's master weights are not those of the model ({shown}): it was written "
            "wrongly; choose another step"
        )


def load_weights(folder: Path, learner: MegatronLearner) -> None:
    """The model's weights alone into `learner`, whatever its layout and precision: of a checkpoint of
    training, or of one that `apriel convert` wrote. Collective."""
    learner.chunks()
    state = dist_checkpointing.load(_sharded_model(learner), str(folder))
    assert isinstance(state, dict)
    for name, chunk in _named_chunks(learner):
        chunk.load_state_dict(state[name])
    learner.adopt_weights([state[name] for name, _ in _named_chunks(learner)])


def _named_chunks(learner: MegatronLearner) -> list[tuple[str, Any]]:
    """Megatron's optimizer looks for these names in the model's state."""
    chunks = learner.model.chunks
    return [("model" if len(chunks) == 1 else f"model{i}", chunk) for i, chunk in enumerate(chunks)]


def sharded(learner: MegatronLearner, *, is_loading: bool) -> dict[str, Any]:
    """Which part of which global tensor this rank holds, of weights and optimizer state."""
    learner.chunks()  # parameters of the latest update, not those of the one before
    metadata = _how_sharded()
    state = _sharded_model(learner)
    model_state = state["model"] if len(learner.model.chunks) == 1 else state
    with _at_their_places(learner):
        state["optimizer"] = learner.optimizer.adam.sharded_state_dict(
            model_state, is_loading=is_loading, metadata=metadata
        )
    return state


def _sharded_model(learner: MegatronLearner) -> dict[str, Any]:
    """Which part of which global tensor this rank holds, of the weights."""
    return {name: chunk.sharded_state_dict(metadata=_how_sharded()) for name, chunk in _named_chunks(learner)}


def _how_sharded() -> dict[str, Any]:
    return {
        "distrib_optim_sharding_type": "fully_reshardable",
        "singleton_local_shards": False,
        "chained_optim_avoid_prefix": True,
        "dp_cp_group": parallel.group("replica"),
    }


@contextmanager
def _at_their_places(learner: MegatronLearner) -> Iterator[None]:
    """Helps Megatron's distributed optimizer to save each parameter's numbers under its own name.

    It joins its buckets without the padding between them, and then looks for parameters where they lie with
    padding: behind a padded bucket it would save the numbers of others, and say nothing.
    """
    optimizers = _distributed_optimizers(learner)
    for optimizer in optimizers:
        optimizer.get_parameter_state_dp_zero = _with_padding(optimizer)
    try:
        yield
    finally:
        for optimizer in optimizers:
            del optimizer.get_parameter_state_dp_zero


def _with_padding(optimizer: DistributedOptimizer) -> Any:
    original = optimizer.get_parameter_state_dp_zero

    def get_state(*, use_gloo_comm: bool, empty_data: bool, return_on_all_ranks: bool) -> Any:
        state: Any = original(
            use_gloo_comm=use_gloo_comm, empty_data=empty_data, return_on_all_ranks=return_on_all_ranks
        )
        for number, buffer in enumerate(optimizer.buffers):
            for tensors in state[number].values() if state else ():
                for key in ("param", *optimizer.optimizer_state_keys):
                    tensors[key] = _spread(tensors[key], buffer.buckets)
        return state

    return get_state


def _spread(joined: torch.Tensor, buckets: Sequence[Any]) -> torch.Tensor:
    """What was joined without padding, each bucket at its place; the same tensor where that is no change."""
    sizes = [bucket.numel_unpadded for bucket in buckets]
    if [bucket.offset for bucket in buckets] == [0, *accumulate(sizes[:-1])]:
        return joined
    whole = joined.new_zeros(buckets[-1].offset + sizes[-1])
    for bucket, part in zip(buckets, joined.split(sizes), strict=True):
        whole[bucket.offset : bucket.offset + bucket.numel_unpadded] = part
    return whole


def _distributed_optimizers(learner: MegatronLearner) -> list[DistributedOptimizer]:
    chained = learner.optimizer.adam.chained_optimizers
    return [optimizer for optimizer in chained if isinstance(optimizer, DistributedOptimizer)]


@contextmanager
def _loadable(learner: MegatronLearner) -> Iterator[None]:
    """Helps Megatron's distributed optimizer to load into torch's AdamW.

    It asks for moments before it can describe them. torch keeps a `step` tensor in each parameter's
    state, which Megatron does not expect there: it gets the one it has. And Megatron gives all parameters
    the same tensor, which each of them would count up.
    """
    optimizers = _distributed_optimizers(learner) if USING_PYTORCH_OPTIMIZER else []
    for optimizer in optimizers:
        if not optimizer.optimizer.state:
            optimizer._init_optimizer_states_with_dummy_values()
        optimizer._set_main_param_and_optimizer_states = _with_step(optimizer)
    try:
        yield
    finally:
        for optimizer in optimizers:
            del optimizer._set_main_param_and_optimizer_states
            for state in optimizer.optimizer.state.values():
                state["step"] = state["step"].clone()


def _with_step(optimizer: DistributedOptimizer) -> Any:
    original = optimizer._set_main_param_and_optimizer_states

    def set_states(model_param: Any, tensors: dict[str, torch.Tensor]) -> None:
        group, order = optimizer.model_param_group_index_map[model_param]
        main_param = optimizer.optimizer.param_groups[group]["params"][order]
        step = optimizer.optimizer.state[main_param]["step"]
        original(model_param, {"step": step, **tensors})

    return set_states

"""What does a run's checkpoint hold, and how does it come back? Megatron's distributed checkpoint.

    learner --stage: copied to host memory--> Staged (mcore/staged.py) --> checkpoints/step_000020/
    checkpoints/step_000020/ --load--> a learner of any other layout

Beside Megatron's files lies state.json: what the loop must remember. Nothing else has to be saved: the
learning rate is a function of the step, and the trainer draws no random numbers (no dropout).
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from megatron.core import dist_checkpointing
from megatron.core.dist_checkpointing.strategies.fully_parallel import FullyParallelSaveStrategyWrapper
from megatron.core.optimizer import USING_PYTORCH_OPTIMIZER
from megatron.core.optimizer.distrib_optimizer import DistributedOptimizer

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

    InputError when `folder` is not a complete checkpoint.
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
        learner.optimizer.adam.load_state_dict(state["optimizer"])
    learner.resume_at(saved["step"])
    return saved["loop"]


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
def _loadable(learner: MegatronLearner) -> Iterator[None]:
    """Helps Megatron's distributed optimizer to load into torch's AdamW.

    It asks for moments before it can describe them. torch keeps a `step` tensor in each parameter's
    state, which Megatron does not expect there: it gets the one it has. And Megatron gives all parameters
    the same tensor, which each of them would count up.
    """
    optimizers = [
        optimizer
        for optimizer in learner.optimizer.adam.chained_optimizers
        if isinstance(optimizer, DistributedOptimizer) and USING_PYTORCH_OPTIMIZER
    ]
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

"""How does a run survive its process? Weights and optimizer state, written whole or not at all.

    checkpoints/step_000020.partial/  --all ranks wrote, rename-->  checkpoints/step_000020/
        Megatron's distributed checkpoint: loads at any other layout
        state.json: what the loop must remember

The folder gets its name when it is complete, so a name without `.partial` is the marker. Nothing else
has to be saved: the learning rate is a function of the step, and the trainer draws no random numbers
(no dropout).
"""

import json
import queue
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from megatron.core import dist_checkpointing
from megatron.core.dist_checkpointing.strategies import filesystem_async
from megatron.core.dist_checkpointing.strategies.fully_parallel import FullyParallelSaveStrategyWrapper
from megatron.core.dist_checkpointing.strategies.torch import TorchDistSaveShardedStrategy
from megatron.core.optimizer import USING_PYTORCH_OPTIMIZER
from megatron.core.optimizer.distrib_optimizer import DistributedOptimizer

from apriel_mcore.errors import InputError
from apriel_mcore.mcore import parallel
from apriel_mcore.mcore.learner import MegatronLearner

STATE_FILE = "state.json"
_NAME = re.compile(r"step_(\d+)")


def folder_of(root: Path, step: int) -> Path:
    """Where the checkpoint of a step belongs."""
    return root / f"step_{step:06d}"


def save(folder: Path, learner: MegatronLearner, loop_state: dict[str, Any]) -> None:
    """Writes `folder`, collective; `loop_state` is rank 0's and must be JSON.

    An older checkpoint of that name is replaced once the new one is complete. At least one step must
    have been taken: a fresh optimizer has no state to write.
    """
    assert learner.step > 0, "nothing is trained yet: the model folder is the checkpoint of step 0"
    partial = folder.with_name(folder.name + ".partial")
    if dist.get_rank() == 0:
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
    dist.barrier()
    # Megatron's queue of write results belongs to a helper process that it spawns and never ends. The
    # writing threads are ours: a queue of this process, put in its place, serves and leaves nothing behind.
    filesystem_async._results_queue = queue.Queue()  # pyright: ignore[reportAttributeAccessIssue]
    strategy = FullyParallelSaveStrategyWrapper(TorchDistSaveShardedStrategy(), parallel.group("replica"))
    dist_checkpointing.save(_sharded(learner, is_loading=False), str(partial), strategy)  # pyright: ignore
    if dist.get_rank() == 0:
        (partial / STATE_FILE).write_text(json.dumps({"step": learner.step, "loop": loop_state}))
        shutil.rmtree(folder, ignore_errors=True)
        partial.rename(folder)
    dist.barrier()


def load(folder: Path, learner: MegatronLearner) -> dict[str, Any]:
    """Weights, optimizer state and step into `learner`, whatever its layout; the loop's state. Collective.

    InputError when `folder` is not a complete checkpoint.
    """
    try:
        saved = json.loads((folder / STATE_FILE).read_text())
    except (OSError, json.JSONDecodeError) as error:
        raise InputError(f"{folder}: not a complete checkpoint ({error}); choose another step") from None
    with _loadable(learner):
        state = dist_checkpointing.load(_sharded(learner, is_loading=True), str(folder))
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


def latest(root: Path) -> Path | None:
    """The complete checkpoint of the highest step under `root`, or None."""
    found = _complete(root)
    return found[-1] if found else None


def prune(root: Path, keep: int) -> None:
    """Deletes all but the `keep` latest complete checkpoints, and what a broken save left; rank 0 only."""
    assert keep > 0
    for folder in [*_complete(root)[:-keep], *root.glob("step_*.partial")]:
        shutil.rmtree(folder)


def _complete(root: Path) -> list[Path]:
    """Complete checkpoints by step."""
    found = [(int(name[1]), path) for path in root.glob("step_*") if (name := _NAME.fullmatch(path.name))]
    return [path for _, path in sorted(found) if (path / STATE_FILE).exists()]


def _named_chunks(learner: MegatronLearner) -> list[tuple[str, Any]]:
    """Megatron's optimizer looks for these names in the model's state."""
    chunks = learner.model.chunks
    return [("model" if len(chunks) == 1 else f"model{i}", chunk) for i, chunk in enumerate(chunks)]


def _sharded(learner: MegatronLearner, *, is_loading: bool) -> dict[str, Any]:
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

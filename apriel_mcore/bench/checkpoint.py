"""How long does a checkpoint stop the training loop, against Megatron's save that writes before it returns?

    blocking   dist_checkpointing.save                      the loop stands still until bytes are synced
    ours       begin | steps go on, bytes are written and read back | advance: index, manifest, name

One rank, 135M shape, bf16 with float32 masters and moments. `blocked_seconds` is all that the loop waits for:
begin, the look after every step, and the completion. The steps taken meanwhile share cores with the writing.
"""

import argparse
import queue
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from apriel_mcore.bench.rounds import ratio
from apriel_mcore.bench.shapes import SHAPES
from apriel_mcore.bench.step import LOSS, make_batch, train_section

Numbers = dict[str, float | str]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Where, how often, and the size of the step that goes on meanwhile."""
    parser.add_argument(
        "--folder", type=Path, default=Path(tempfile.gettempdir()), help="on the disk to measure"
    )
    parser.add_argument("--rounds", type=int, default=3, help="figures are medians")
    parser.add_argument("--samples", type=int, default=4, help="sequences of a step")
    parser.add_argument("--prompt", type=int, default=32, help="prompt tokens of each")
    parser.add_argument("--response", type=int, default=96, help="response tokens of each")
    parser.add_argument("--threads", type=int, default=1)


def run(args: argparse.Namespace) -> Numbers:
    """Seconds that saving stops the loop, 135M shape, against Megatron's blocking save."""
    from apriel_mcore.mcore import parallel
    from apriel_mcore.mcore.learner import MegatronLearner

    section = train_section("bf16", args.threads)
    ranks = parallel.start(section, seed=0)
    learner = MegatronLearner(SHAPES["135m"], section, LOSS, ranks=ranks)
    batch = make_batch(args)
    learner.train_step(batch)
    with tempfile.TemporaryDirectory(dir=args.folder, prefix="apriel-bench-") as root:
        numbers = _measure(Path(root), learner, lambda: learner.train_step(batch), rounds=args.rounds)
    parallel.stop()
    return numbers


def _measure(root: Path, learner: Any, step: Callable[[], object], *, rounds: int) -> Numbers:
    found: dict[str, list[float]] = {}
    num_bytes = 0
    for _ in range(rounds):
        quiet = _seconds(step)
        blocking = _seconds(lambda: _save_blocking(root, learner))
        num_bytes = sum(path.stat().st_size for path in root.rglob("*.distcp"))
        shutil.rmtree(root / "blocking")
        ours = _save_behind(root, learner, step) | {"blocking_seconds": blocking, "step_seconds": quiet}
        for name, value in ours.items():
            found.setdefault(name, []).append(value)
    numbers: Numbers = {name: statistics.median(values) for name, values in sorted(found.items())}
    numbers["blocked_ratio_to_blocking"] = ratio(found["blocked_seconds"], found["blocking_seconds"])
    numbers["gigabytes"] = num_bytes / 1e9
    return numbers


def _save_behind(root: Path, learner: Any, step: Callable[[], object]) -> dict[str, float]:
    """One save of ours with steps going on."""
    from apriel_mcore import checkpoint_folder
    from apriel_mcore.mcore.background_save import BackgroundSave

    saver = BackgroundSave(root, learner, ranks=learner.ranks, tell=print)
    started = time.perf_counter()
    begin = _seconds(lambda: saver.begin(learner.step, {}))
    steps, looks = [], []
    done = False
    while not done:
        steps.append(_seconds(step))
        before = time.perf_counter()
        done = saver.advance(wait=False)
        looks.append(time.perf_counter() - before)
    saver.close()
    shutil.rmtree(checkpoint_folder.complete(root)[-1])
    return {
        "begin_seconds": begin,
        "blocked_seconds": begin + sum(looks),
        "step_seconds_meanwhile": statistics.median(steps),
        "seconds_until_complete": time.perf_counter() - started,
    }


def _save_blocking(root: Path, learner: Any) -> None:
    """Megatron's save as it is, but for the process that it would leave behind."""
    from megatron.core import dist_checkpointing
    from megatron.core.dist_checkpointing.strategies import filesystem_async
    from megatron.core.dist_checkpointing.strategies.torch import TorchDistSaveShardedStrategy

    from apriel_mcore.mcore.checkpoint import sharded

    folder = root / "blocking"
    folder.mkdir()
    filesystem_async._results_queue = queue.Queue()  # pyright: ignore[reportAttributeAccessIssue]
    dist_checkpointing.save(sharded(learner, is_loading=False), str(folder), TorchDistSaveShardedStrategy())


def _seconds(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started

"""Which groups were trained, with which rewards, and where does each lie on disk?

    rollouts/step_000001.jsonl.zst   the groups of a step, each a zstd frame of its own
    rollouts/trained.jsonl           one line a step: a TrainedStep, which says where every group is

A resumed run writes its steps again; the later line of a step counts. Shape suffix: _G the rollouts of a
group, in the group's order.
"""

import io
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec
import zstandard

from apriel_mcore.disk import patiently
from apriel_mcore.types import Batch, Group, ShapedReward

HEAD_CHARS = 160
_DIGITS = 4


class TrainedGroup(msgspec.Struct, frozen=True, kw_only=True):
    """A group of a step in short."""

    id: int
    domain: str
    problem: str
    head: str
    """How the question begins."""
    offset: int
    """Of its frame in the step's file, bytes."""
    size: int
    version: int
    task_G: tuple[float, ...]
    """Unshaped reward."""
    total_G: tuple[float, ...]
    """Shaped reward."""
    advantage_G: tuple[float | None, ...]
    """None for a rollout that was masked: it shifted the baseline and was not trained."""
    success_G: tuple[bool, ...]
    status_G: tuple[str, ...]
    tokens_G: tuple[int, ...]
    truncated_G: tuple[bool, ...]
    version_G: tuple[int, ...]
    """Version that began each rollout."""
    seconds_G: tuple[float, ...]
    server_G: tuple[str, ...]


class TrainedStep(msgspec.Struct, frozen=True, kw_only=True):
    """A line of trained.jsonl."""

    step: int
    groups: tuple[TrainedGroup, ...]


def step_file(rollouts: Path, step: int) -> Path:
    """Where the groups of a step lie."""
    return rollouts / f"step_{step:06d}.jsonl.zst"


def write_groups(path: Path, groups: Sequence[Group]) -> list[tuple[int, int]]:
    """Groups in training order, replacing the file whole; offset and size of each group's frame."""
    compress = zstandard.ZstdCompressor(level=3).compress
    frames = [compress(msgspec.json.encode(group) + b"\n") for group in groups]
    partial = path.with_suffix(".partial")

    def write() -> None:
        partial.write_bytes(b"".join(frames))
        partial.replace(path)

    patiently(write, where=path)
    places: list[tuple[int, int]] = []
    for frame in frames:
        places.append((sum(places[-1]) if places else 0, len(frame)))
    return places


def read_groups(path: Path) -> list[Group]:
    """The groups of one step's file."""
    decoder = msgspec.json.Decoder(Group)
    return [decoder.decode(line) for line in _lines(path)]


def _lines(path: Path) -> Iterator[bytes]:
    reader = zstandard.ZstdDecompressor().stream_reader(path.open("rb"), read_across_frames=True)
    with reader, io.BufferedReader(reader) as lines:
        yield from lines


def index_line(
    step: int,
    groups: Sequence[Group],
    shaped_P_G: Sequence[Sequence[ShapedReward]],
    batch: Batch,
    places: Sequence[tuple[int, int]],
) -> bytes:
    """The line of trained.jsonl for a step whose groups lie at `places`."""
    advantages = _advantages(groups, batch)
    line = TrainedStep(
        step=step,
        groups=tuple(
            _in_short(group, shaped_G, advantage_G, place)
            for group, shaped_G, advantage_G, place in zip(
                groups, shaped_P_G, advantages, places, strict=True
            )
        ),
    )
    return msgspec.json.encode(line) + b"\n"


def _advantages(groups: Sequence[Group], batch: Batch) -> list[tuple[float | None, ...]]:
    """Advantage of every rollout by group: samples come in the rollouts' order, without the masked ones."""
    samples = iter(batch.samples)
    sample = next(samples, None)
    found: list[tuple[float | None, ...]] = []
    for group in groups:
        row: list[float | None] = []
        for rollout in group.rollouts_G:
            if sample is not None and sample.response_T == rollout.tokens_T:
                row.append(round(sample.advantage, _DIGITS))
                sample = next(samples, None)
            else:
                row.append(None)
        found.append(tuple(row))
    return found


def _in_short(
    group: Group,
    shaped_G: Sequence[ShapedReward],
    advantage_G: tuple[float | None, ...],
    place: tuple[int, int],
) -> TrainedGroup:
    rollouts_G = group.rollouts_G
    question = group.problem.messages[-1].content if group.problem.messages else ""
    return TrainedGroup(
        id=group.id,
        domain=group.problem.domain,
        problem=group.problem.id,
        head=" ".join(question[: 2 * HEAD_CHARS].split())[:HEAD_CHARS],
        offset=place[0],
        size=place[1],
        version=group.version,
        task_G=tuple(round(shaped.task, _DIGITS) for shaped in shaped_G),
        total_G=tuple(round(shaped.total, _DIGITS) for shaped in shaped_G),
        advantage_G=advantage_G,
        success_G=tuple(rollout.verdict.success for rollout in rollouts_G),
        status_G=tuple(rollout.verdict.status for rollout in rollouts_G),
        tokens_G=tuple(len(rollout.tokens_T) for rollout in rollouts_G),
        truncated_G=tuple(rollout.truncated for rollout in rollouts_G),
        version_G=tuple(rollout.version_first for rollout in rollouts_G),
        seconds_G=tuple(round(rollout.seconds, 3) for rollout in rollouts_G),
        server_G=tuple(rollout.server for rollout in rollouts_G),
    )

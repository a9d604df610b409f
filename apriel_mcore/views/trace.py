"""The timeline of a run as a file that Perfetto opens: trainer ranks, servers, judges, on one clock.

Chrome's trace event format, gzipped: complete events ("X", microseconds) in lanes, one process a trainer
rank, a server or a domain's judges, and a counter of requests in flight by server.
Source: the Trace Event Format, https://docs.google.com/document/d/1CvAClvFfyA5R-PhYUmn5OOQtYMH4h6I0nSsKchNAySU
"""

import gzip
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec

from apriel_mcore.errors import InputError
from apriel_mcore.obs import timeline
from apriel_mcore.obs.spans import STORY, Span
from apriel_mcore.rundir import existing

_MICROS = 1e6


class Slice(msgspec.Struct, frozen=True):
    """A span and whose it is."""

    process: str
    span: Span
    step: int


def write(run_dir: Path, *, steps: Sequence[int] | None, out: Path | None) -> Path:
    """Write the trace of all steps, or of those from the first to the last given; returns the file.

    InputError when the run has no timeline, or none of those steps.
    """
    folder = existing(run_dir).timeline
    low, high = (steps[0], steps[1]) if steps else (0, 1 << 62)
    slices = [
        Slice(_process(line, span), span, line.step)
        for line in timeline.read(folder)
        if low <= line.step <= high
        for span in line.spans
    ]
    if not slices:
        there = {line.step for line in timeline.read(folder)}
        asked = f" of the steps {low} to {high}: it has {min(there)} to {max(there)}" if there else ""
        raise InputError(f"{folder}: no timeline{asked or '; a run writes it with its first step'}")
    target = out or run_dir / "trace.json.gz"
    with gzip.open(target, "wb", compresslevel=5) as file:
        file.write(b'{"displayTimeUnit":"ms","traceEvents":[\n')
        file.write(b",\n".join(map(msgspec.json.encode, events(slices))))
        file.write(b"\n]}\n")
    return target


def _process(line: timeline.TimelineStep, span: Span) -> str:
    return f"trainer rank {line.rank} ({line.host})" if span.lane == STORY else span.lane


def events(slices: Sequence[Slice]) -> Iterator[dict[str, Any]]:
    """Trace events; slices of one process that overlap without nesting go to lanes of their own."""
    origin = min(one.span.start for one in slices)
    for pid, process in enumerate(sorted({one.process for one in slices}, key=_trainer_first), start=1):
        mine = sorted(
            (one for one in slices if one.process == process),
            key=lambda one: (one.span.start, -one.span.seconds),
        )
        yield {"ph": "M", "pid": pid, "name": "process_name", "args": {"name": process}}
        yield {"ph": "M", "pid": pid, "name": "process_sort_index", "args": {"sort_index": pid}}
        lanes: list[list[float]] = []
        for one in mine:
            yield _complete(one, pid, _lane(lanes, one.span), origin)
        if len(lanes) > 1:
            yield from _in_flight(mine, pid, origin)


def _trainer_first(process: str) -> tuple[bool, str]:
    return not process.startswith("trainer"), process


def _lane(lanes: list[list[float]], span: Span) -> int:
    """The first lane where the span fits: after what is there, or inside of it. `lanes` holds open ends."""
    end = span.start + span.seconds
    for number, open_ends in enumerate(lanes, start=1):
        while open_ends and open_ends[-1] <= span.start:
            open_ends.pop()
        if not open_ends or end <= open_ends[-1]:
            open_ends.append(end)
            return number
    lanes.append([end])
    return len(lanes)


def _complete(one: Slice, pid: int, lane: int, origin: float) -> dict[str, Any]:
    return {
        "ph": "X",
        "name": one.span.name,
        "pid": pid,
        "tid": lane,
        "ts": round((one.span.start - origin) * _MICROS, 1),
        "dur": round(one.span.seconds * _MICROS, 1),
        "args": {"step": one.step},
    }


def _in_flight(slices: Sequence[Slice], pid: int, origin: float) -> Iterator[dict[str, Any]]:
    """How many spans of a process are open, whenever that changes."""
    changes = [(one.span.start, 1) for one in slices]
    changes += [(one.span.start + one.span.seconds, -1) for one in slices]
    running = 0
    for moment, change in sorted(changes, key=lambda one: (one[0], -one[1])):
        running += change
        micros = round((moment - origin) * _MICROS, 1)
        yield {"ph": "C", "name": "in flight", "pid": pid, "ts": micros, "args": {"spans": running}}

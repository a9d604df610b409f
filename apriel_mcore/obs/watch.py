"""Which process is the run waiting for? Signs of life of every rank, and alarms that name the culprit.

    every rank   thread --every beat_s--> RUN_DIR/pulse/rankN.json: host, pid, what it does, since when
    first rank   thread: a phase of the loop lasts too long --blame--> alarm

Too long is `watch.stall_after_s`, or a multiple of the median of what the phase took lately. A stall is told
when it is noticed and again whenever it has lasted twice as long. A rank that is stopped, swapped out or hung
in a library that holds the interpreter does not beat: that names it.
"""

import logging
import os
import platform
import threading
import time
from collections import defaultdict, deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from statistics import median
from typing import Self

import msgspec

from apriel_mcore.config.schema import Watch
from apriel_mcore.obs import spans
from apriel_mcore.obs.spans import STORY, Span

_log = logging.getLogger(__name__)

FLOOR_S = 60.0
FIRST_S = 900.0
"""Before anything is known of a phase: first rollouts, compilation, cold caches."""
ENOUGH = 3
_KEPT = 32
_MISSED_BEATS = 4


class Pulse(msgspec.Struct, frozen=True, kw_only=True):
    """The last sign of life of a rank."""

    rank: int
    host: str
    pid: int
    time: float
    doing: str
    """Its verb of the story; empty between two."""
    since: float

    @property
    def name(self) -> str:
        """As a person would look for it."""
        return f"trainer rank {self.rank} (pid {self.pid} on {self.host})"


class Phases:
    """How long the loop's phases took lately, and how long is too long."""

    def __init__(self, settings: Watch) -> None:
        self._settings = settings
        self._seconds: dict[str, deque[float]] = defaultdict(lambda: deque(maxlen=_KEPT))

    def note(self, phase: str, seconds: float) -> None:
        """A phase ended."""
        self._seconds[phase].append(seconds)

    def limit(self, phase: str) -> float:
        """Seconds after which the phase has stalled."""
        after = self._settings.stall_after_s
        if after == "off":
            return float("inf")
        if after != "auto":
            return after
        known = self._seconds[phase]
        if len(known) < ENOUGH:
            return FIRST_S
        return max(FLOOR_S, self._settings.stall_factor * median(known))


class Watchman:
    """The thread of one rank. Use as `with`."""

    def __init__(
        self, settings: Watch, folder: Path, *, rank: int, alarm: Callable[[str], None] | None
    ) -> None:
        """`alarm` on the first rank alone: it watches for all."""
        self._settings = settings
        self._folder = folder
        self._rank = rank
        self._alarm = alarm
        self._phases = Phases(settings)
        self._current: Span | None = None
        self._told = 0.0
        """Seconds that the current phase had lasted when it was told."""
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="watch", daemon=True)

    def __enter__(self) -> Self:
        self._folder.mkdir(exist_ok=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        (self._folder / f"rank{self._rank}.json").unlink(missing_ok=True)

    def _run(self) -> None:
        while not self._stop.wait(self._settings.beat_s):
            try:
                self.look(time.time())
            except OSError as error:  # a full disk is told by who cannot go on without it
                _log.warning("no sign of life could be left: %s", error)

    def look(self, now: float) -> None:
        """One beat: leave a pulse, and on the first rank see whether the loop stalls."""
        doing = spans.doing()
        story = next((span for span in doing if span.lane == STORY), None)
        self._leave_pulse(story, now)
        self._follow(story, now)
        if self._alarm is None or story is None:
            return
        waited = now - story.start
        if waited > max(self._phases.limit(story.name), 2 * self._told):
            self._told = waited
            pulses = read_pulses(self._folder)
            late = blame(story, doing, pulses, now=now, beat_s=self._settings.beat_s)
            self._alarm(f"stalled: {story.name} for {waited:.0f} s; {late}")

    def _follow(self, story: Span | None, now: float) -> None:
        """Notice the end of a phase."""
        if self._current and self._current != story:
            self._phases.note(self._current.name, now - self._current.start)
        if self._current != story:
            self._current, self._told = story, 0.0

    def _leave_pulse(self, story: Span | None, now: float) -> None:
        pulse = Pulse(
            rank=self._rank,
            host=platform.node(),
            pid=os.getpid(),
            time=now,
            doing=story.name if story else "",
            since=story.start if story else now,
        )
        path = self._folder / f"rank{self._rank}.json"
        partial = path.with_suffix(".partial")
        partial.write_bytes(msgspec.json.encode(pulse))
        partial.replace(path)


def read_pulses(folder: Path) -> list[Pulse]:
    """Of every rank that left one, by rank."""
    pulses: list[Pulse] = []
    for path in folder.glob("rank*.json"):
        with suppress(FileNotFoundError):  # its rank has just ended
            pulses.append(msgspec.json.decode(path.read_bytes(), type=Pulse))
    return sorted(pulses, key=lambda pulse: pulse.rank)


def blame(story: Span, doing: Sequence[Span], pulses: Sequence[Pulse], *, now: float, beat_s: float) -> str:
    """Who keeps the loop waiting, in words; `doing` is of the first rank, which asks servers and judges."""
    silent = [pulse for pulse in pulses if now - pulse.time > _MISSED_BEATS * beat_s]
    if silent:
        return "; ".join(f"{one.name} has given no sign of life for {now - one.time:.0f} s" for one in silent)
    if story.name != "wait":
        elsewhere = [pulse for pulse in pulses if pulse.doing != story.name]
        if elsewhere:
            return "; ".join(f"{one.name} is {_where(one, now)}" for one in elsewhere)
    inside = [span for span in doing if span.lane != STORY]
    if not inside:
        return "nothing is asked of any server or judge: see the alarms and the servers' logs"
    return "; ".join(_by_lane(inside, now))


def _where(pulse: Pulse, now: float) -> str:
    return f"in {pulse.doing} for {now - pulse.since:.0f} s" if pulse.doing else "between two phases"


def _by_lane(doing: Sequence[Span], now: float) -> list[str]:
    """What each server or domain's judges are doing, who has been at it longest first."""
    lanes: dict[str, list[Span]] = defaultdict(list)
    for span in doing:
        lanes[span.lane].append(span)
    oldest_first = sorted(lanes.items(), key=lambda entry: min(span.start for span in entry[1]))
    return [
        f"{lane}: {len(open_spans)} x {open_spans[0].name}, the oldest for "
        f"{now - min(span.start for span in open_spans):.0f} s"
        for lane, open_spans in oldest_first
    ]

"""Which of a million rollouts are asked for, and what did they say?

    trained.jsonl --refresh--> columns in memory (about 50 bytes a rollout) --Query--> a page of rows
    step_*.jsonl.zst --one frame--> a group with its texts

Texts stay on disk: a group is read when it is opened, and a search reads one group after the other, newest
first, for a moment at a time. Shape suffixes: _N rollouts in the order trained, _K groups.
"""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import msgspec
import numpy as np
import zstandard
from numpy.typing import NDArray

from apriel_mcore.obs.trained import TrainedGroup, TrainedStep, step_file
from apriel_mcore.views.growing import Growing
from apriel_mcore.views.tail import Tail

PAGE_ROWS = 50
END_CHARS = 64
MAX_GROUP_BYTES = 1 << 28
_FLOATS = ("task", "total", "advantage", "seconds")
_INTS = ("step", "group", "tokens", "version", "lag", "domain", "status", "server", "slot")

type Mask = NDArray[np.bool_]


class Query(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Which rollouts; an empty word or an open end asks for all."""

    domain: str = ""
    status: str = ""
    server: str = ""
    finish: Literal["", "whole", "truncated"] = ""
    step_min: float = -np.inf
    step_max: float = np.inf
    reward_min: float = -np.inf
    reward_max: float = np.inf
    tokens_min: float = -np.inf
    tokens_max: float = np.inf
    version_min: float = -np.inf
    version_max: float = np.inf
    lag_min: float = -np.inf
    text: str = ""
    """Somewhere in the question or the answer, in any case; see `Shelf.search`."""
    order: Literal["step", "task", "total", "advantage", "tokens", "seconds", "lag"] = "step"
    descending: bool = True
    offset: int = 0
    """Rows before the page; groups before the search."""


class _Turn(msgspec.Struct):
    role: str
    content: str


class _Question(msgspec.Struct):
    messages: tuple[_Turn, ...]
    source: str
    id: str
    reference: dict[str, Any]


class _Said(msgspec.Struct):
    text: str
    verdict: dict[str, Any]


class GroupTexts(msgspec.Struct):
    """What a group's frame holds beside tokens."""

    problem: _Question
    rollouts_G: tuple[_Said, ...]


class Shelf:
    """The trained rollouts of one run."""

    def __init__(self, rollouts: Path) -> None:
        self._rollouts = rollouts
        self._tail = Tail(rollouts / "trained.jsonl")
        self._decoder = msgspec.json.Decoder(TrainedStep)
        self._texts = msgspec.json.Decoder(GroupTexts)
        self._floats = {name: Growing(np.float32) for name in _FLOATS}
        self._ints = {name: Growing(np.int32) for name in _INTS}
        self._truncated = Growing(np.bool_)
        self._success = Growing(np.bool_)
        self._places_K: list[tuple[int, int, int]] = []
        """Step, offset and size of each group's frame."""
        self._starts_K: list[int] = []
        """First row of each group."""
        self._heads_K: list[str] = []
        self.words: dict[str, list[str]] = {"domain": [], "status": [], "server": []}
        """What the codes of a column stand for."""
        self._codes: dict[str, dict[str, int]] = {"domain": {}, "status": {}, "server": {}}
        self.last_step = 0

    def __len__(self) -> int:
        return len(self._truncated)

    def refresh(self) -> bool:
        """Take in some of what was trained since the last look; whether there is more."""
        for line in self._tail.lines():
            try:
                step = self._decoder.decode(line)
            except msgspec.DecodeError:
                continue  # torn by a killed attempt; the resumed run writes the step again
            self._forget_from(step.step)
            for group in step.groups:
                self._take(step.step, group)
            self.last_step = step.step
        return self._tail.has_more

    def column(self, name: str) -> NDArray[Any]:
        """A column over all rollouts."""
        if name == "truncated":
            return self._truncated.values
        if name == "success":
            return self._success.values
        return (self._floats[name] if name in self._floats else self._ints[name]).values

    def page(self, query: Query) -> dict[str, Any]:
        """Rows of a page in order, and how many there are in all; `text` is not looked at."""
        rows = np.flatnonzero(self.matching(query))
        values = self.column(query.order)[rows]
        order = np.argsort(-values if query.descending else values, kind="stable")
        rows = rows[order]
        page = rows[query.offset : query.offset + PAGE_ROWS]
        texts = {group: self._texts_if_there(group) for group in {*self.column("group")[page].tolist()}}
        return {
            "total": len(rows),
            "of": len(self),
            "rows": [row | {"end": _end(texts[row["group"]], row)} for row in map(self.row, page.tolist())],
        }

    def _texts_if_there(self, group: int) -> GroupTexts | None:
        """None when the user removed the step's file to free space."""
        try:
            return self.texts(group)
        except FileNotFoundError:
            return None

    def search(self, query: Query, *, seconds: float) -> dict[str, Any]:
        """Rows whose texts hold `query.text`, newest groups first, from the `offset`-th group on.

        Reads for at most about `seconds`; `next` is the offset to go on with, -1 after the last group.
        """
        mask = self.matching(query)
        groups = np.unique(self.column("group")[mask])[::-1]
        wanted, give_up = query.text.casefold(), time.monotonic() + seconds
        found: list[dict[str, Any]] = []
        position = query.offset
        while position < len(groups) and len(found) < PAGE_ROWS and time.monotonic() < give_up:
            found += self._hits(int(groups[position]), mask, wanted)
            position += 1
        return {
            "rows": found,
            "next": position if position < len(groups) else -1,
            "searched": position,
            "of": len(groups),
        }

    def _hits(self, group: int, mask: Mask, wanted: str) -> Iterator[dict[str, Any]]:
        texts = self._texts_if_there(group)
        if texts is None:
            return
        asked = any(wanted in turn.content.casefold() for turn in texts.problem.messages)
        for row, rollout in zip(self._rows_of(group), texts.rollouts_G, strict=True):
            said = rollout.text
            if mask[row] and (asked or wanted in said.casefold()):
                shown = self.row(row)
                yield shown | {"end": _end(texts, shown)}

    def matching(self, query: Query) -> Mask:
        """Which rollouts a query asks for, all but its text."""
        mask = np.ones(len(self), dtype=np.bool_)
        for name in ("domain", "status", "server"):
            if word := getattr(query, name):
                mask &= self.column(name) == self._codes[name].get(word, -1)
        if query.finish:
            mask &= self.column("truncated") == (query.finish == "truncated")
        bounds = {
            "step": (query.step_min, query.step_max),
            "task": (query.reward_min, query.reward_max),
            "tokens": (query.tokens_min, query.tokens_max),
            "version": (query.version_min, query.version_max),
            "lag": (query.lag_min, np.inf),
        }
        for name, (low, high) in bounds.items():
            if low > -np.inf:
                mask &= self.column(name) >= low
            if high < np.inf:
                mask &= self.column(name) <= high
        return mask

    def row(self, row: int) -> dict[str, Any]:
        """One rollout as the page shows it."""
        numbers = {name: round(float(self._floats[name].values[row]), 4) for name in _FLOATS}
        counts = {name: int(self._ints[name].values[row]) for name in ("step", "group", "tokens", "version")}
        rest = {name: int(self._ints[name].values[row]) for name in ("lag", "slot")}
        words = {name: self.words[name][int(self._ints[name].values[row])] for name in self.words}
        flags = {name: bool(self.column(name)[row]) for name in ("truncated", "success")}
        return numbers | counts | rest | words | flags | {"row": row, "head": self._heads_K[counts["group"]]}

    def group(self, group: int) -> dict[str, Any]:
        """A group with its texts. KeyError when there is no such group, OSError when its file is gone."""
        if not 0 <= group < len(self._places_K):
            raise KeyError(group)
        texts = self.texts(group)
        return {
            "group": group,
            "problem": msgspec.to_builtins(texts.problem),
            "rollouts": [
                self.row(row) | msgspec.to_builtins(said)
                for row, said in zip(self._rows_of(group), texts.rollouts_G, strict=True)
            ],
        }

    def texts(self, group: int) -> GroupTexts:
        """Question and answers, from disk."""
        step, offset, size = self._places_K[group]
        with step_file(self._rollouts, step).open("rb") as file:
            file.seek(offset)
            frame = file.read(size)
        return self._texts.decode(zstandard.decompress(frame, max_output_size=MAX_GROUP_BYTES))

    def _rows_of(self, group: int) -> range:
        """Rows of a group."""
        ends = [*self._starts_K[group + 1 : group + 2], len(self)]
        return range(self._starts_K[group], ends[0])

    def _take(self, step: int, group: TrainedGroup) -> None:
        number, size = len(self._places_K), len(group.task_G)
        self._places_K.append((step, group.offset, group.size))
        self._starts_K.append(len(self))
        self._heads_K.append(group.head)
        self._floats["task"].extend(group.task_G)
        self._floats["total"].extend(group.total_G)
        self._floats["advantage"].extend([np.nan if one is None else one for one in group.advantage_G])
        self._floats["seconds"].extend(group.seconds_G)
        self._truncated.extend(group.truncated_G)
        self._success.extend(group.success_G)
        ints = {
            "step": [step] * size,
            "group": [number] * size,
            "tokens": group.tokens_G,
            "version": group.version_G,
            "lag": [step - 1 - version for version in group.version_G],
            "domain": [self._code("domain", group.domain)] * size,
            "status": [self._code("status", status) for status in group.status_G],
            "server": [self._code("server", server) for server in group.server_G],
            "slot": range(size),
        }
        for name, values in ints.items():
            self._ints[name].extend(values)

    def _code(self, column: str, word: str) -> int:
        codes = self._codes[column]
        if word not in codes:
            codes[word] = len(codes)
            self.words[column].append(word)
        return codes[word]

    def _forget_from(self, step: int) -> None:
        """Drop what an earlier attempt wrote of this step and later ones."""
        if step > self.last_step:
            return
        kept = int(np.searchsorted(self.column("step"), step))
        num_groups = int(self.column("group")[kept - 1]) + 1 if kept else 0
        for growing in (*self._floats.values(), *self._ints.values(), self._truncated, self._success):
            growing.cut(kept)
        del self._places_K[num_groups:], self._starts_K[num_groups:], self._heads_K[num_groups:]


def _end(texts: GroupTexts | None, row: dict[str, Any]) -> str:
    """How an answer ends, which is where its result stands."""
    return texts.rollouts_G[row["slot"]].text[-END_CHARS:].strip() if texts else "(its text was removed)"

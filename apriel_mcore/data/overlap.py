"""Does a problem repeat a benchmark's prompt? Shared runs of words say so.

prompts of a benchmark --words, runs of n--> runs  <--runs of n-- each turn of a problem
          of fewer than 5 words, marks kept--> whole <--whole------
"""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import msgspec

from apriel_mcore.config.schema import Decontaminate
from apriel_mcore.data.ngrams import runs, words, words_and_marks
from apriel_mcore.data.rows import json_lines
from apriel_mcore.errors import InputError

SHORTEST = 5
"""Words: shorter benchmark prompts say too little to be found inside a text; they must be all of it."""


class Match(NamedTuple):
    """A shared run of words."""

    benchmark: str
    words: str


class Searched(NamedTuple):
    """How many of a benchmark's prompts are searched for."""

    prompts: int = 0
    inside: int = 0
    """Found inside a turn, by their runs of words."""
    whole: int = 0
    """Too short for that: found as a whole turn. What is in neither count has nothing to search for."""


class Benchmarks:
    """The runs of words of all benchmark prompts."""

    def __init__(self, ngram: int) -> None:
        self._ngram = ngram
        self._runs: dict[int, dict[str, str]] = {}  # by length: run of words -> benchmark
        self._whole: dict[str, str] = {}  # words and marks of a short prompt -> benchmark
        self.searched: dict[str, Searched] = {}
        """By benchmark."""

    def add(self, benchmark: str, prompt: str) -> None:
        """Search for this prompt too; if shorter than the n-gram, whole; if very short, alone."""
        found, whole = words(prompt), _whole(prompt)
        is_inside = len(found) >= SHORTEST
        is_whole = not is_inside and whole != ""
        before = self.searched.get(benchmark, Searched())
        self.searched[benchmark] = Searched(
            before.prompts + 1, before.inside + is_inside, before.whole + is_whole
        )
        if is_whole:
            self._whole.setdefault(whole, benchmark)
        if is_inside:
            length = min(self._ngram, len(found))
            known = self._runs.setdefault(length, {})
            for run in runs(found, length):
                known.setdefault(run, benchmark)

    def match(self, text: str) -> Match | None:
        """The first run of words that a benchmark has too, or the whole text where it is a short prompt."""
        whole = _whole(text) if self._whole else ""
        if whole in self._whole:
            return Match(self._whole[whole], whole)
        found = words(text)
        for length, known in self._runs.items():
            for run in runs(found, length):
                if run in known:
                    return Match(known[run], run)
        return None


def _whole(text: str) -> str:
    """What a text says and how it is punctuated, but not how it is spaced: 12 * 13 is not 12 + 13."""
    return " ".join(words_and_marks(text))


def open_benchmarks(settings: Decontaminate) -> Benchmarks:
    """The benchmarks of a recipe, read.

    InputError naming the file and line that cannot be used, or the file without a prompt to search for.
    """
    found = Benchmarks(settings.ngram)
    for name, path in settings.benchmarks.items():
        key = f"data.decontaminate.benchmarks.{name}"
        for prompt in _prompts(Path(path).expanduser(), key):
            found.add(name, prompt)
        searched = found.searched.get(name, Searched())
        if searched.inside + searched.whole == 0:
            raise InputError(
                f"{key}: {path}: {searched.prompts} prompts, none with words to search for; write the "
                "benchmark's prompts to it, or leave it out"
            )
    return found


class _Prompt(msgspec.Struct, frozen=True):
    prompt: str


def _prompts(file: Path, key: str) -> Iterator[str]:
    if not file.is_file():
        raise InputError(f"{key}: {file}: no such file; correct the path or write its prompts to it")
    for place, row in json_lines(file.read_bytes(), str(file)):
        try:
            yield msgspec.convert(row, _Prompt).prompt
        except msgspec.ValidationError as error:
            raise InputError(f"{key}: {place}: {error}; each row needs a `prompt`") from None

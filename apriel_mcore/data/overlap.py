"""Does a problem repeat a benchmark's prompt? Shared runs of words say so.

prompts of a benchmark --words, runs of n--> set of hashes <--runs of n-- a problem's text
"""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import msgspec

from apriel_mcore.config.schema import Decontaminate
from apriel_mcore.data.ngrams import runs, words
from apriel_mcore.data.rows import json_lines
from apriel_mcore.errors import InputError

SHORTEST = 5
"""Words: shorter benchmark prompts say too little to be searched for."""


class Match(NamedTuple):
    """A shared run of words."""

    benchmark: str
    words: str


class Benchmarks:
    """The runs of words of all benchmark prompts."""

    def __init__(self, ngram: int) -> None:
        self._ngram = ngram
        self._runs: dict[int, dict[str, str]] = {}  # by length: run of words -> benchmark

    def add(self, benchmark: str, prompt: str) -> None:
        """Search for this prompt too; one shorter than the n-gram must occur whole."""
        found = words(prompt)
        length = min(self._ngram, len(found))
        if length < SHORTEST:
            return
        known = self._runs.setdefault(length, {})
        for run in runs(found, length):
            known.setdefault(run, benchmark)

    def match(self, text: str) -> Match | None:
        """The first run of words that a benchmark has too."""
        found = words(text)
        for length, known in self._runs.items():
            for run in runs(found, length):
                if run in known:
                    return Match(known[run], run)
        return None


def open_benchmarks(settings: Decontaminate) -> Benchmarks:
    """The benchmarks of a recipe, read. InputError naming the file and line that cannot be used."""
    found = Benchmarks(settings.ngram)
    for name, path in settings.benchmarks.items():
        for prompt in _prompts(Path(path).expanduser(), f"data.decontaminate.benchmarks.{name}"):
            found.add(name, prompt)
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

"""Does a problem repeat a benchmark's prompt? Shared runs of words say so.

prompts of a benchmark --words, runs of n--> set of hashes <--runs of n-- a problem's text
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import msgspec

from apriel_mcore.config.schema import Decontaminate
from apriel_mcore.data.rows import json_lines
from apriel_mcore.errors import InputError

SHORTEST = 5
"""Words: shorter benchmark prompts say too little to be searched for."""

_WORD = re.compile(r"\w+")


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
        words = _words(prompt)
        length = min(self._ngram, len(words))
        if length < SHORTEST:
            return
        runs = self._runs.setdefault(length, {})
        for run in _runs(words, length):
            runs.setdefault(run, benchmark)

    def match(self, text: str) -> Match | None:
        """The first run of words that a benchmark has too."""
        words = _words(text)
        for length, runs in self._runs.items():
            for run in _runs(words, length):
                if run in runs:
                    return Match(runs[run], run)
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


def _words(text: str) -> list[str]:
    return _WORD.findall(text.lower())


def _runs(words: list[str], length: int) -> Iterator[str]:
    for start in range(len(words) - length + 1):
        yield " ".join(words[start : start + length])

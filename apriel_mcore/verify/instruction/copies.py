"""Constraints on repeating: the prompt, a part of it, or a phrase with one word changed."""

import re
from collections.abc import Iterator

from apriel_mcore.verify.instruction.args import Count, Index, Phrase
from apriel_mcore.verify.instruction.tokens import has_word, parts

_SIX_STARS = re.compile(r"\*{6}")


def starts_with_prompt(answer: str, *, prompt_to_repeat: Phrase) -> bool:
    """Starts with the prompt, word for word, in any case."""
    return _plain(answer).startswith(_plain(prompt_to_repeat))


def is_prompt(answer: str, *, prompt_to_repeat: Phrase) -> bool:
    """The prompt and nothing else, in any case."""
    return _plain(answer) == _plain(prompt_to_repeat)


def is_prompt_times(answer: str, *, prompt_to_repeat: Phrase, N: Count) -> bool:
    """The prompt so many times, six asterisks between them, and nothing else."""
    copies = _SIX_STARS.split(answer)
    return len(copies) == N and all(_plain(copy) == _plain(prompt_to_repeat) for copy in copies)


def is_span(answer: str, *, prompt_to_repeat: Phrase, n_start: Index, n_end: Index) -> bool:
    """The prompt's characters from one index to the other, in any case.

    Prompts say "including" the last index; published checkers leave it out. Either is right.
    """
    spans = (prompt_to_repeat[n_start:n_end], prompt_to_repeat[n_start : n_end + 1])
    return has_word(answer) and _plain(answer) in map(_plain, spans)


def varied_phrase(answer: str, *, phrase: Phrase, small_n: Count) -> bool:
    """So many variants of the phrase, each with exactly one word changed, not the first or the last."""
    original = phrase.split()
    variants = [found.split() for found in _spans(answer, original[0], original[-1])]
    return len(variants) == small_n and all(
        len(variant) == len(original)
        and sum(word != other for word, other in zip(variant, original, strict=True)) == 1
        for variant in variants
    )


def two_responses(answer: str) -> bool:
    """Two different responses with six asterisks between them; empty ones only at the edges."""
    responses = parts(answer, _SIX_STARS)
    return len(responses) == 2 and responses[0] != responses[1]


def _spans(answer: str, first: str, last: str) -> Iterator[str]:
    """From each first word to the nearest last one in its line."""
    begin = re.compile(rf"(?<!\w){re.escape(first)} ")
    end = re.compile(rf" {re.escape(last)}(?!\w)")
    for line in answer.split("\n"):
        place = 0
        while (begun := begin.search(line, place)) and (ended := end.search(line, begun.end())):
            yield line[begun.start() : ended.end()]
            place = ended.end()


def _plain(text: str) -> str:
    return text.strip().lower()

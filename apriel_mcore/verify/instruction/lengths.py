"""Constraints on how many words, letters, sentences and paragraphs there are."""

import re

from apriel_mcore.verify.instruction.args import Count, Phrase, Relation, holds
from apriel_mcore.verify.instruction.sentences import split_sentences
from apriel_mcore.verify.instruction.tokens import has_letter, parts, spaced_words, words

_STARS = re.compile(r"\*\*\*")
_SPACED_STARS = re.compile(r"\* ?\* ?\*")
_BLANK_LINE = re.compile(r"\n[ \t]*\n")
_LOWERCASE_WORD = re.compile(r"\b[a-z]+\b")
_LATIN_LETTER = re.compile(r"[A-Za-z]")
_FIRST_WORD = re.compile(r"['\"]*([^\s.,?!'\"]*)")


def number_words(answer: str, *, num_words: Count, relation: Relation) -> bool:
    """Words in all."""
    return holds(len(words(answer)), relation, num_words)


def number_sentences(answer: str, *, num_sentences: Count, relation: Relation) -> bool:
    """Sentences in all."""
    return holds(len(split_sentences(answer)), relation, num_sentences)


def number_letters(answer: str, *, N: Count, relation: Relation) -> bool:
    """Letters a to z in all, in any case; a text without any letter has no number of letters."""
    return has_letter(answer) and holds(len(_LATIN_LETTER.findall(answer)), relation, N)


def number_paragraphs(answer: str, *, num_paragraphs: Count) -> bool:
    """Exactly so many paragraphs with the divider `***` between them; empty ones only at the edges."""
    return len(parts(answer, _STARS)) == num_paragraphs


def two_paragraphs_by_stars(answer: str) -> bool:
    """Two paragraphs with the divider `***` between them."""
    return len(parts(answer, _STARS)) == 2


def two_paragraphs_by_blank_line(answer: str) -> bool:
    """Two paragraphs with blank lines between them."""
    return len(_paragraphs(answer)) == 2


def nth_paragraph_first_word(
    answer: str, *, num_paragraphs: Count, nth_paragraph: Count, first_word: Phrase
) -> bool:
    """Exactly so many paragraphs with blank lines between them, the n-th starting with the word."""
    found = _paragraphs(answer)
    if len(found) != num_paragraphs or nth_paragraph > num_paragraphs:
        return False
    start = _FIRST_WORD.match(found[nth_paragraph - 1])
    return start is not None and start.group(1).lower() == first_word.strip().lower()


def three_measured_paragraphs(answer: str, *, n_sent: Count, n_words: Count) -> bool:
    """Three paragraphs with `***` or `* * *` between them, of so many sentences of so many words each."""
    paragraphs = parts(answer, _SPACED_STARS)
    sentences = [split_sentences(paragraph) for paragraph in paragraphs]
    return len(paragraphs) == 3 and all(
        len(found) == n_sent and all(len(spaced_words(sentence)) == n_words for sentence in found)
        for found in sentences
    )


def few_lowercase_words(answer: str, *, N: Count) -> bool:
    """At most so many words in small letters only, in a text that has letters."""
    return has_letter(answer) and len(_LOWERCASE_WORD.findall(answer)) <= N


def unique_words(answer: str) -> bool:
    """Two words or more, and none occurs twice, in any case."""
    found = spaced_words(answer)
    return len(found) > 1 and len(found) == len(set(found))


def _paragraphs(answer: str) -> list[str]:
    return [part.strip() for part in _BLANK_LINE.split(answer) if words(part)]

"""Constraints on words and letters: which occur, how often, in what case, how many in all."""

import re

from apriel_mcore.verify.instruction.registry import (
    Count,
    Letter,
    Phrase,
    Phrases,
    Relation,
    constraint,
    holds,
    words,
)
from apriel_mcore.verify.instruction.sentences import split_sentences

_SHOUTABLE = re.compile(r"\w[\w.&-]*")  # hyphenated words and abbreviations count once
_ENGLISH_SHARE = 0.9


@constraint("keywords:existence")
def has_keywords(answer: str, *, keywords: Phrases) -> bool:
    """Every keyword occurs, in any case, also inside a longer word."""
    lowered = answer.lower()
    return all(keyword.lower() in lowered for keyword in keywords)


@constraint("keywords:forbidden_words")
def lacks_words(answer: str, *, forbidden_words: Phrases) -> bool:
    """No forbidden word occurs as a word of its own, in any case."""
    return not any(
        re.search(rf"(?<!\w){re.escape(word)}(?!\w)", answer, re.IGNORECASE) for word in forbidden_words
    )


@constraint("keywords:frequency")
def keyword_frequency(answer: str, *, keyword: Phrase, frequency: Count, relation: Relation) -> bool:
    """How often the keyword occurs, in any case, also inside a longer word."""
    return holds(answer.lower().count(keyword.lower()), relation, frequency)


@constraint("keywords:letter_frequency")
def letter_frequency(answer: str, *, letter: Letter, let_frequency: Count, let_relation: Relation) -> bool:
    """How often a letter (or another symbol) occurs, in any case."""
    return holds(answer.lower().count(letter.lower()), let_relation, let_frequency)


@constraint("length_constraints:number_words")
def number_words(answer: str, *, num_words: Count, relation: Relation) -> bool:
    """Words in all."""
    return holds(len(words(answer)), relation, num_words)


@constraint("length_constraints:number_sentences")
def number_sentences(answer: str, *, num_sentences: Count, relation: Relation) -> bool:
    """Sentences in all."""
    return holds(len(split_sentences(answer)), relation, num_sentences)


@constraint("change_case:english_capital")
def all_capitals(answer: str) -> bool:
    """English, and no lower-case letter."""
    return answer.isupper() and _looks_english(answer)


@constraint("change_case:english_lowercase")
def all_lowercase(answer: str) -> bool:
    """English, and no capital letter."""
    return answer.islower() and _looks_english(answer)


@constraint("change_case:capital_word_frequency")
def capital_word_frequency(answer: str, *, capital_frequency: Count, capital_relation: Relation) -> bool:
    """Words written in capitals only."""
    capitals = [word for word in _SHOUTABLE.findall(answer) if word.isupper()]
    return holds(len(capitals), capital_relation, capital_frequency)


@constraint("punctuation:no_comma")
def no_comma(answer: str) -> bool:
    """Not a single comma."""
    return "," not in answer


def _looks_english(answer: str) -> bool:
    """Nearly all letters are in the basic Latin alphabet: other scripts fail, and so does text without any.

    Statistical language detection is unreliable on short text and on text in one case.
    """
    letters = [symbol for symbol in answer if symbol.isalpha()]
    return bool(letters) and sum(symbol.isascii() for symbol in letters) >= _ENGLISH_SHARE * len(letters)

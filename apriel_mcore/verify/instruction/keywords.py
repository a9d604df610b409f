"""Constraints on single words and letters: which occur, how often, and where."""

import re
from itertools import pairwise

from apriel_mcore.verify.instruction.args import (
    Count,
    Letter,
    Phrase,
    Phrases,
    Relation,
    first_phrase,
    holds,
)
from apriel_mcore.verify.instruction.sentences import split_sentences
from apriel_mcore.verify.instruction.tokens import bare, penn_words, spaced_words

_SHORTEST_PALINDROME = 3  # every "a" and "I" would be one


def existence(answer: str, *, keywords: Phrases) -> bool:
    """Every keyword occurs, in any case, also inside a longer word."""
    return all(_count(answer, keyword) for keyword in keywords)


def forbidden_words(answer: str, *, forbidden_words: Phrases) -> bool:
    """No forbidden word occurs as a word of its own, in any case."""
    return not any(_has_whole(answer, word) for word in forbidden_words)


def exclude_word(answer: str, *, keyword: Phrase) -> bool:
    """The word does not occur as a word of its own, in any case."""
    return not _has_whole(answer, keyword)


def frequency(answer: str, *, keyword: Phrase, frequency: Count, relation: Relation) -> bool:
    """How often the keyword occurs, in any case, also inside a longer word."""
    return holds(_count(answer, keyword), relation, frequency)


def exact_frequency(
    answer: str, *, keyword: Phrase, frequency: Count, relation: Relation = "at least"
) -> bool:
    """Exactly so often: the prompt says "should appear N times" and never states the row's `relation`."""
    return _count(answer, keyword) == frequency


def once(answer: str, *, keyword: Phrase) -> bool:
    """The keyword occurs exactly once."""
    return _count(answer, keyword) == 1


def once_and_twice(answer: str, *, keyword1: Phrase, keyword2: Phrase) -> bool:
    """The first keyword occurs exactly once, the second exactly twice."""
    return _count(answer, keyword1) == 1 and _count(answer, keyword2) == 2


def word_position(answer: str, *, keyword: Phrase | Phrases, n: Count, m: Count) -> bool:
    """The m-th word of the n-th sentence is the keyword; punctuation is no word."""
    sentences = split_sentences(answer)
    if len(sentences) < n:
        return False
    words = spaced_words(sentences[n - 1])
    return len(words) >= m and words[m - 1] == bare(first_phrase(keyword))


def start_end(answer: str) -> bool:
    """The first word is also the last one, of at least two, and nothing follows it, not even a dot."""
    words = spaced_words(answer)
    return len(words) > 1 and words[0] == words[-1] == answer.split()[-1].casefold()


def palindrome(answer: str) -> bool:
    """Some word of at least three letters, not all the same, reads the same backwards."""
    return any(
        len(word) >= _SHORTEST_PALINDROME and word.isalpha() and word == word[::-1] and len(set(word)) > 1
        for word in spaced_words(answer)
    )


def no_adjacent_consecutive(answer: str) -> bool:
    """Two words or more; none starts with the letter that follows its neighbour's first in the alphabet."""
    initials = [word[0] for word in spaced_words(answer)]
    return len(initials) > 1 and not any(
        "a" <= left < right <= "z" and ord(right) - ord(left) == 1 for left, right in pairwise(initials)
    )


def first_word_of_answer(answer: str, *, first_word: Phrase) -> bool:
    """The answer starts with the word."""
    return spaced_words(answer)[:1] == [bare(first_word)]


def last_word_of_answer(answer: str, *, last_word: Phrase) -> bool:
    """The word comes last; punctuation may follow."""
    return spaced_words(answer)[-1:] == [bare(last_word)]


def first_word_of_sentences(answer: str, *, first_word: Phrase | Phrases) -> bool:
    """Every sentence starts with the word."""
    expected = bare(first_phrase(first_word))
    sentences = split_sentences(answer)
    return bool(sentences) and all(spaced_words(sentence)[:1] == [expected] for sentence in sentences)


def last_word_of_sentences(answer: str, *, last_word: Phrase | Phrases) -> bool:
    """Every sentence ends with the word, punctuation aside."""
    expected = bare(first_phrase(last_word))
    sentences = split_sentences(answer)
    return bool(sentences) and all(spaced_words(sentence)[-1:] == [expected] for sentence in sentences)


def letter_frequency(answer: str, *, letter: Letter, let_frequency: Count, let_relation: Relation) -> bool:
    """How often a letter (or another symbol) occurs, in any case."""
    return holds(answer.lower().count(letter.lower()), let_relation, let_frequency)


def capital_words(answer: str, *, capital_frequency: Count, capital_relation: Relation) -> bool:
    """How many words are in capitals only; "I" is one."""
    return holds(sum(map(str.isupper, penn_words(answer))), capital_relation, capital_frequency)


def no_comma(answer: str) -> bool:
    """Not a single comma."""
    return "," not in answer


def no_dot(answer: str) -> bool:
    """Not a single dot."""
    return "." not in answer


def no_exclamation(answer: str) -> bool:
    """Not a single exclamation mark."""
    return "!" not in answer


def every_word_in_brackets(answer: str) -> bool:
    """Each token between white space is in square brackets of its own."""
    return all(
        len(token) > 2 and token[0] == "[" and token[-1] == "]" and token.count("[") == 1
        for token in answer.split()
    )


def _count(answer: str, keyword: str) -> int:
    return answer.lower().count(keyword.strip().lower())


def _has_whole(answer: str, word: str) -> bool:
    pattern = rf"(?<!\w){re.escape(word.strip())}(?!\w)"
    return re.search(pattern, answer, re.IGNORECASE) is not None

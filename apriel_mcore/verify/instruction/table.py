"""Which constraints exist? Kind -> check; the check's keyword-only parameters are the arguments it takes.

The first 25 are IFEval's (arXiv 2311.07911), the others those of its training set, IFEvalG
(allenai/IF_multi_constraints_upto5); kinds and arguments carry the names of the data.
"""

from collections.abc import Callable
from typing import Any, NamedTuple, get_type_hints

import msgspec

from apriel_mcore.errors import InputError, did_you_mean
from apriel_mcore.verify.instruction import copies, keywords, language, layout, lengths

type Check = Callable[..., bool]

CHECKS: dict[str, Check] = {
    "change_case:capital_word_frequency": keywords.capital_words,
    "change_case:english_capital": language.all_capitals,
    "change_case:english_lowercase": language.all_lowercase,
    "combination:repeat_prompt": copies.starts_with_prompt,
    "combination:two_responses": copies.two_responses,
    "detectable_content:number_placeholders": layout.placeholders,
    "detectable_content:postscript": layout.postscript,
    "detectable_format:constrained_response": layout.one_of_three_answers,
    "detectable_format:json_format": layout.is_json,
    "detectable_format:multiple_sections": layout.sections,
    "detectable_format:number_bullet_lists": layout.bullets,
    "detectable_format:number_highlighted_sections": layout.highlights,
    "detectable_format:title": layout.title,
    "keywords:existence": keywords.existence,
    "keywords:forbidden_words": keywords.forbidden_words,
    "keywords:frequency": keywords.frequency,
    "keywords:letter_frequency": keywords.letter_frequency,
    "language:response_language": language.in_language,
    "length_constraints:nth_paragraph_first_word": lengths.nth_paragraph_first_word,
    "length_constraints:number_paragraphs": lengths.number_paragraphs,
    "length_constraints:number_sentences": lengths.number_sentences,
    "length_constraints:number_words": lengths.number_words,
    "punctuation:no_comma": keywords.no_comma,
    "startend:end_checker": layout.ends_with,
    "startend:quotation": layout.quoted,
    # IFEvalG
    "copy:copy": copies.is_prompt,
    "copy:copying_multiple": copies.is_prompt_times,
    "copy:copying_simple": copies.is_prompt,
    "copy:repeat_phrase": copies.varied_phrase,
    "count:count_increment_word": keywords.once_and_twice,
    "count:count_unique": lengths.unique_words,
    "count:counting_composition": lengths.three_measured_paragraphs,
    "count:lowercase_counting": lengths.few_lowercase_words,
    "detectable_format:bigram_wrapping": layout.pairs_in_angles,
    "detectable_format:sentence_hyphens": layout.sentences_joined_by_hyphens,
    "detectable_format:square_brackets": keywords.every_word_in_brackets,
    "first_word:first_word_answer": keywords.first_word_of_answer,
    "first_word:first_word_sent": keywords.first_word_of_sentences,
    "keywords:exclude_word_harder": keywords.exclude_word,
    "keywords:keyword_specific_position": keywords.word_position,
    "keywords:no_adjacent_consecutive": keywords.no_adjacent_consecutive,
    "keywords:palindrome": keywords.palindrome,
    "keywords:start_end": keywords.start_end,
    "keywords:word_count_different_numbers": keywords.exact_frequency,
    "keywords:word_once": keywords.once,
    "last_word:last_word_answer": keywords.last_word_of_answer,
    "last_word:last_word_sent": keywords.last_word_of_sentences,
    "letters:letter_counting": lengths.number_letters,
    "letters:letter_counting2": keywords.letter_frequency,
    "new:copy_span_idx": copies.is_span,
    "paragraphs:paragraphs": lengths.two_paragraphs_by_stars,
    "paragraphs:paragraphs2": lengths.two_paragraphs_by_blank_line,
    "punctuation:punctuation_dot": keywords.no_dot,
    "punctuation:punctuation_exclamation": keywords.no_exclamation,
}


class Kind(NamedTuple):
    """A constraint and the record of its arguments."""

    check: Check
    args: type[msgspec.Struct]


def _kind(check: Check) -> Kind:
    """Parameters become fields; one with a default may be left out of a row."""
    hints = get_type_hints(check, include_extras=True)
    given = {name: hint for name, hint in hints.items() if name not in ("answer", "return")}
    defaults = check.__kwdefaults__ or {}
    fields = [
        (name, hint, defaults[name]) if name in defaults else (name, hint) for name, hint in given.items()
    ]
    record = msgspec.defstruct(check.__name__, fields, frozen=True, kw_only=True, forbid_unknown_fields=True)
    return Kind(check, record)


KINDS = {kind: _kind(check) for kind, check in CHECKS.items()}


def bind(kind: str, args: dict[str, Any]) -> Callable[[str], bool]:
    """The constraint as a function of the answer alone; InputError on an unknown kind or wrong arguments."""
    if kind not in KINDS:
        raise InputError(f"unknown constraint {kind!r}; {did_you_mean(kind, sorted(KINDS))}")
    check, record = KINDS[kind]
    try:
        values = msgspec.structs.asdict(msgspec.convert(args, record))
    except msgspec.ValidationError as error:
        raise InputError(f"constraint {kind!r}: {error}") from error
    return lambda answer: check(answer, **values)

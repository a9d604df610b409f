"""Constraints on form: how the answer starts and ends, its parts, and formats of the whole.

A part that is asked for has to hold a word: empty titles, bullets, sections and postscripts do not count.
"""

import re

import msgspec

from apriel_mcore.verify.instruction.args import Count, Phrase
from apriel_mcore.verify.instruction.sentences import split_sentences
from apriel_mcore.verify.instruction.tokens import has_word

_PLACEHOLDER = re.compile(r"\[([^\[\]\n]*)\]")
_HIGHLIGHT = re.compile(r"\*([^*\n]*)\*")
_STRONG = re.compile(r"\*\*([^*\n]*)\*\*")
_BULLET = re.compile(r"^[ \t]*(?:-|\*(?!\*))(.*)$", re.MULTILINE)
_FENCE, _JSON = "```", "json"
_WRAPPED_PAIRS = re.compile(r"(?:<<[^\s<>]+\s+[^\s<>]+>>\s*)+(?:<<[^\s<>]+>>|[^\s<>]+)?")
_JOINT = re.compile(r"(?<=[.!?])-(?=\S)")
_POSTSCRIPTS = {
    "P.S.": re.compile(r"\bp\.\s?s\.", re.IGNORECASE),
    "P.P.S": re.compile(r"\bp\.\s?p\.\s?s", re.IGNORECASE),
}
_CHOICES = ("My answer is yes.", "My answer is no.", "My answer is maybe.")


def ends_with(answer: str, *, end_phrase: Phrase) -> bool:
    """The phrase comes last, in any case; quotation marks around the whole do not matter."""
    return answer.strip().strip('"').lower().endswith(end_phrase.strip().lower())


def quoted(answer: str) -> bool:
    """Double quotation marks around the whole answer, and something in between."""
    stripped = answer.strip()
    return len(stripped) > 2 and stripped[0] == stripped[-1] == '"' and has_word(stripped)


def placeholders(answer: str, *, num_placeholders: Count) -> bool:
    """At least so many `[placeholders]`."""
    return sum(map(has_word, _PLACEHOLDER.findall(answer))) >= num_placeholders


def postscript(answer: str, *, postscript_marker: Phrase) -> bool:
    """A postscript with its marker, and something after it."""
    marker = postscript_marker.strip()
    pattern = _POSTSCRIPTS.get(marker) or re.compile(re.escape(marker), re.IGNORECASE)
    found = pattern.search(answer)
    return found is not None and has_word(answer[found.end() :])


def title(answer: str) -> bool:
    """A `<<title>>` in one line."""
    closed = [part for line in answer.splitlines() for part in line.split(">>")[:-1]]
    return any("<<" in part and has_word(part.rpartition("<<")[2]) for part in closed)


def bullets(answer: str, *, num_bullets: Count) -> bool:
    """Exactly so many lines that start with `-` or a single `*`."""
    return sum(map(has_word, _BULLET.findall(answer))) == num_bullets


def highlights(answer: str, *, num_highlights: Count) -> bool:
    """At least so many `*highlighted*` or `**highlighted**` spans."""
    return sum(map(has_word, _HIGHLIGHT.findall(answer) + _STRONG.findall(answer))) >= num_highlights


def sections(answer: str, *, section_spliter: Phrase, num_sections: Count) -> bool:
    """At least so many numbered headings, such as `Section 1`, each with text below it."""
    contents = re.split(rf"{re.escape(section_spliter.strip())}\s?\d+", answer)[1:]
    return sum(map(has_word, contents)) >= num_sections


def one_of_three_answers(answer: str) -> bool:
    """Contains one of the three sentences that the prompt offers."""
    return any(choice in answer for choice in _CHOICES)


def is_json(answer: str) -> bool:
    """A JSON object or array and nothing else, in a code fence or not; a lone text or number is no format."""
    written = answer.strip()
    if written.startswith(_FENCE):
        written = written.removeprefix(_FENCE)
        labeled = written[: len(_JSON)].lower() == _JSON
        written = written[len(_JSON) * labeled :].removesuffix(_FENCE)
    try:
        value = msgspec.json.decode(written)
    except (msgspec.DecodeError, RecursionError):
        return False
    return isinstance(value, dict | list)


def pairs_in_angles(answer: str) -> bool:
    """Words two by two in double angular brackets, as `<<I am>> <<at home>>`; an odd one may be left over."""
    return _WRAPPED_PAIRS.fullmatch(answer.strip()) is not None


def sentences_joined_by_hyphens(answer: str) -> bool:
    """Two sentences or more, a hyphen between each two and no space."""
    joined = _JOINT.split(answer.strip())
    return len(joined) > 1 and all(
        part == part.strip() and len(split_sentences(part)) == 1 for part in joined
    )

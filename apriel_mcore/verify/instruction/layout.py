"""Constraints on form: how the answer starts and ends, its parts, and formats of the whole."""

import re

import msgspec

from apriel_mcore.verify.instruction.registry import Count, Phrase, constraint, words

_PLACEHOLDER = re.compile(r"\[[^\[\]\n]*\]")
_HIGHLIGHT = re.compile(r"\*([^*\n]*)\*")
_STRONG = re.compile(r"\*\*([^*\n]*)\*\*")
_TITLE = re.compile(r"<<([^<>\n]*)>>")
_DIVIDER = re.compile(r"\*\*\*")
_BLANK_LINE = re.compile(r"\n[ \t]*\n")
_FENCED = re.compile(r"```(?:json)?\s*(.*?)\s*(?:```)?", re.DOTALL | re.IGNORECASE)
_FIRST_WORD = re.compile(r"[\"']*([^\s.,?!'\"]*)")
_POSTSCRIPTS = {
    "P.S.": re.compile(r"\bp\.[ \t]?s\.", re.IGNORECASE),
    "P.P.S": re.compile(r"\bp\.[ \t]?p\.[ \t]?s", re.IGNORECASE),
}
_CHOICES = ("My answer is yes.", "My answer is no.", "My answer is maybe.")


@constraint("startend:end_checker")
def ends_with(answer: str, *, end_phrase: Phrase) -> bool:
    """The phrase comes last, in any case; quotation marks around the whole do not matter."""
    return answer.strip().strip('"').lower().endswith(end_phrase.strip().lower())


@constraint("startend:quotation")
def quoted(answer: str) -> bool:
    """Double quotation marks around the whole answer, and something in between."""
    stripped = answer.strip()
    return len(stripped) > 2 and stripped[0] == stripped[-1] == '"' and bool(stripped[1:-1].strip())


@constraint("combination:repeat_prompt")
def repeats_prompt(answer: str, *, prompt_to_repeat: Phrase) -> bool:
    """Starts with the prompt, word for word, in any case."""
    return answer.strip().lower().startswith(prompt_to_repeat.strip().lower())


@constraint("combination:two_responses")
def two_responses(answer: str) -> bool:
    """Two different responses with six asterisks between them; empty ones only at the edges."""
    parts = [part.strip() for part in answer.split("******")]
    if not all(parts[1:-1]):
        return False
    responses = [part for part in parts if part]
    return len(responses) == 2 and responses[0] != responses[1]


@constraint("detectable_content:number_placeholders")
def placeholders(answer: str, *, num_placeholders: Count) -> bool:
    """At least so many `[placeholders]`."""
    return len(_PLACEHOLDER.findall(answer)) >= num_placeholders


@constraint("detectable_content:postscript")
def postscript(answer: str, *, postscript_marker: Phrase) -> bool:
    """A postscript with its marker."""
    pattern = _POSTSCRIPTS.get(postscript_marker)
    if pattern is None:
        return postscript_marker.lower() in answer.lower()
    return pattern.search(answer) is not None


@constraint("detectable_format:title")
def has_title(answer: str) -> bool:
    """A `<<title>>` that is not empty."""
    return any(title.strip() for title in _TITLE.findall(answer))


@constraint("detectable_format:number_bullet_lists")
def bullets(answer: str, *, num_bullets: Count) -> bool:
    """Exactly so many lines that start with `-` or a single `*`."""
    lines = [line.lstrip() for line in answer.splitlines()]
    return num_bullets == sum(
        line.startswith("-") or (line.startswith("*") and not line.startswith("**") and len(line) > 1)
        for line in lines
    )


@constraint("detectable_format:number_highlighted_sections")
def highlights(answer: str, *, num_highlights: Count) -> bool:
    """At least so many `*highlighted*` or `**highlighted**` spans that are not empty."""
    spans = _HIGHLIGHT.findall(answer) + _STRONG.findall(answer)
    return sum(bool(span.strip()) for span in spans) >= num_highlights


@constraint("detectable_format:multiple_sections")
def sections(answer: str, *, section_spliter: Phrase, num_sections: Count) -> bool:
    """At least so many numbered headings, such as `Section 1`."""
    return len(re.findall(rf"{re.escape(section_spliter.strip())}\s?\d+", answer)) >= num_sections


@constraint("detectable_format:constrained_response")
def constrained(answer: str) -> bool:
    """Contains one of the three sentences that the prompt offers."""
    return any(choice in answer for choice in _CHOICES)


@constraint("detectable_format:json_format")
def is_json(answer: str) -> bool:
    """A JSON object or array and nothing else, in a code fence or not."""
    fenced = _FENCED.fullmatch(answer.strip())
    try:
        value = msgspec.json.decode(fenced.group(1) if fenced else answer)
    except (msgspec.DecodeError, RecursionError):
        return False
    return isinstance(value, dict | list)


@constraint("length_constraints:number_paragraphs")
def paragraphs(answer: str, *, num_paragraphs: Count) -> bool:
    """Exactly so many paragraphs with the divider `***` between them; empty ones only at the edges."""
    parts = [part.strip() for part in _DIVIDER.split(answer)]
    return all(parts[1:-1]) and sum(bool(part) for part in parts) == num_paragraphs


@constraint("length_constraints:nth_paragraph_first_word")
def nth_paragraph_first_word(
    answer: str, *, num_paragraphs: Count, nth_paragraph: Count, first_word: Phrase
) -> bool:
    """Exactly so many paragraphs with blank lines between them, the n-th starting with the word."""
    parts = [part.strip() for part in _BLANK_LINE.split(answer) if words(part)]
    if len(parts) != num_paragraphs or nth_paragraph > num_paragraphs:
        return False
    start = _FIRST_WORD.match(parts[nth_paragraph - 1])
    return start is not None and start.group(1).lower() == first_word.strip().lower()

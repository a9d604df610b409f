"""Does a text call a function, in whatever form? Where no function fits, an answer says so and calls none.

Looked for are marks, not calls that can be read: what a model writes to be run must not pass as prose because
it is cut short, fenced, within a sentence, or in another model's form.
"""

import re
from collections.abc import Iterable

from apriel_mcore.verify.answer import calls_text

_MARKS = re.compile(
    r"<(?:\w++:)?+[|\uff5c]?(?:tool|function|invoke|parameter|python_tag|action)"  # <tool_call>, <function=f>
    r"|\[tool_calls?\]"
    r"|\bto=functions\b"
    r"|\baction input\s*+:"
    r"|[\"'](?:name|function|tool|arguments|args|parameters)[\"']\s*+:"  # a field of a call in JSON
    r"|\w\(\s*+\w++\s*+=\s*+[\"'\[{]",  # f(city="Paris"
    re.IGNORECASE,
)
_BEFORE = (
    r"(?i:\btool[_ ]?calls?\s*+[:=]\s*+[\"'`*]*+)",  # tool_call: f
    r"(?i:(?:^|\n)[^\w\n]*+(?:action|tool|function|name|call)\s*+[:=]\s*+[\"'`*]*+)",  # Action: f alone
)
_AFTER = (
    r"(?:\.\w++)?+\(",  # f(, f.call(
    r"[\"']\s*+:",  # "f":
    r"[\"'`*]*+\s*+[:=]?\s*+\{",  # f: {"x": 1}
    r"\s*+\(\s*+\w++\s*+[=:]",  # f (x = 1)
)


def calls_something(answer: str, names: Iterable[str]) -> bool:
    """Whether a final answer has a mark of a call, or one of the functions in the place of a call."""
    if calls_text(answer) or _MARKS.search(answer):
        return True
    spellings = {spelled for name in names for spelled in (name, name.replace(".", "_"))}
    named = rf"(?:{'|'.join(map(re.escape, sorted(spellings, key=len, reverse=True)))})"
    called, alone = _BEFORE
    places = (
        rf"(?<!\w){named}(?:{'|'.join(_AFTER)})",
        rf"{called}{named}\b",
        rf"{alone}{named}[\"'`*]*+[^\S\n]*+(?:\n|$)",
    )
    return any(re.search(place, answer) for place in places)

"""Does a text call a function, in whatever form? Where no function fits, an answer says so and calls none.

Looked for are marks, not calls that can be read: what a model writes to be run must not pass as prose because
it is cut short, fenced, within a sentence, or in another model's form.
"""

import re
from collections.abc import Iterable

from apriel_mcore.verify.answer import calls_text

_MARKS = re.compile(
    r"<\|?tool_calls?\b"
    r"|[\"'](?:name|function|arguments|parameters)[\"']\s*+:"  # a field of a call in JSON
    r"|\w\(\s*+\w++\s*+=\s*+[\"'\[{]",  # f(city="Paris"
    re.IGNORECASE,
)


def calls_something(answer: str, names: Iterable[str]) -> bool:
    """Whether a final answer has a mark of a call, or one of the functions with brackets or as a key."""
    if calls_text(answer) or _MARKS.search(answer):
        return True
    spellings = {spelled for name in names for spelled in (name, name.replace(".", "_"))}
    named = "|".join(map(re.escape, sorted(spellings)))
    return re.search(rf"(?<!\w)(?:{named})(?:\(|[\"']\s*+:)", answer) is not None

"""Problems from a local file, one JSON object a line: messages (or prompt), verifier, reference."""

from pathlib import Path
from typing import Any

import msgspec

from apriel_mcore.config.schema import JsonlSource
from apriel_mcore.data.item import Item
from apriel_mcore.errors import InputError
from apriel_mcore.types import Message

ANSWER_KEYS = {
    "math": "answer",
    "text": "answer",
    "code": "tests",
    "instruction": "instructions",
    "logic": "entry",
    "puzzles": "facts",
    "calls": "answer",
    "choice": "answer",
}
"""What a reference must hold, by verifier; the verifier itself checks the rest before the run."""


class Row(msgspec.Struct, frozen=True):
    """One line. Other keys are allowed and ignored: files carry notes of their own."""

    verifier: str
    reference: dict[str, Any]
    messages: list[Message] = []
    prompt: str = ""
    split_key: str = ""
    """Empty: the text of the last user turn, spaces folded."""

    def __post_init__(self) -> None:
        if bool(self.messages) == bool(self.prompt):
            raise ValueError("give `messages` or `prompt`, one of the two")
        if self.messages and self.messages[-1].role not in ("user", "tool"):
            raise ValueError("`messages` must end with the question, a user turn")
        if self.verifier not in ANSWER_KEYS:
            raise ValueError(f"verifier {self.verifier!r} is unknown; use one of {', '.join(ANSWER_KEYS)}")
        key = ANSWER_KEYS[self.verifier]
        if self.reference.get(key) in (None, "", [], {}):
            raise ValueError(f"no answer: `reference` of a {self.verifier} row needs `{key}`")


def items(source: JsonlSource) -> list[Item]:
    """Every row; blank lines are skipped. InputError naming file, line and remedy at the first bad one."""
    file = Path(source.path).expanduser()
    try:
        text = file.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise InputError(f"{file}: no such file; correct `path` or create it") from None
    except (IsADirectoryError, PermissionError, UnicodeDecodeError) as error:
        raise InputError(f"{file}: cannot be read as UTF-8 text: {error}") from None
    numbered = enumerate(text.split("\n"), start=1)
    found = [_item(line, f"{file}:{number}") for number, line in numbered if line.strip()]
    if not found:
        raise InputError(f"{file}: holds no row; write one JSON object a line")
    return found


def _item(line: str, where: str) -> Item:
    try:
        row = msgspec.json.decode(line, type=Row)
    except msgspec.ValidationError as error:
        raise InputError(f"{where}: {error}; correct or delete the line") from None
    except msgspec.DecodeError as error:
        raise InputError(f"{where}: not a JSON object: {error}; write one object a line") from None
    messages = tuple(row.messages) or (Message("user", row.prompt),)
    return Item(
        messages=messages,
        verifier=row.verifier,
        reference=row.reference,
        split_key=row.split_key or " ".join(messages[-1].content.split()),
    )

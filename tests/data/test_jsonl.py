"""Local files: every row read, or the file and line that is wrong."""

import json
from pathlib import Path
from typing import Any

import pytest

from apriel_mcore.config.schema import JsonlSource
from apriel_mcore.data import jsonl
from apriel_mcore.data.item import Item
from apriel_mcore.errors import InputError
from apriel_mcore.types import Message

ROW: dict[str, Any] = {"prompt": "What is 2 + 2?", "verifier": "math", "reference": {"answer": "4"}}


def read(tmp_path: Path, *lines: str) -> list[Item]:
    (tmp_path / "rows.jsonl").write_text("\n".join(lines), encoding="utf-8")
    return jsonl.items(JsonlSource(path=str(tmp_path / "rows.jsonl")))


def without(key: str, **changes: Any) -> dict[str, Any]:
    return {name: value for name, value in {**ROW, **changes}.items() if name != key}


def test_rows_of_both_forms(tmp_path: Path) -> None:
    chat = [{"role": "system", "content": "Be brief"}, {"role": "user", "content": "2  +\n2"}]
    first, second = read(
        tmp_path,
        json.dumps({**ROW, "id": 7}),
        "",
        json.dumps(without("prompt", messages=chat, split_key="k")),
        "",
    )
    assert first.messages == (Message("user", "What is 2 + 2?"),)
    assert (first.verifier, first.reference, first.split_key) == ("math", {"answer": "4"}, "What is 2 + 2?")
    assert second.messages == (Message("system", "Be brief"), Message("user", "2  +\n2"))
    assert second.split_key == "k"


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (without("reference"), "missing required field `reference`"),
        (without("verifier"), "missing required field `verifier`"),
        (without("prompt"), "give `messages` or `prompt`"),
        (without("", messages=[{"role": "user", "content": "?"}]), "give `messages` or `prompt`"),
        (without("prompt", messages=[{"role": "assistant", "content": "!"}]), "must end with the question"),
        (
            without("prompt", messages=[{"role": "boss", "content": "?"}]),
            r"Invalid enum value 'boss'.*messages",
        ),
        (without("", verifier="maths"), "verifier 'maths' is unknown; use one of math, text, code"),
        (without("", reference={}), "no answer: `reference` of a math row needs `answer`"),
        (without("", reference={"answer": ""}), "no answer"),
        (without("", verifier="code"), "a code row needs `tests`"),
        (without("", prompt=3), r"Expected `str`, got `int` - at `\$.prompt`"),
        ([1], "Expected `object`, got `array`"),
    ],
)
def test_a_bad_row_is_named_by_file_and_line(tmp_path: Path, row: Any, message: str) -> None:
    with pytest.raises(InputError, match=rf"rows\.jsonl:2: .*{message}.*; correct or delete the line"):
        read(tmp_path, json.dumps(ROW), json.dumps(row))


@pytest.mark.parametrize("line", ["{", "not json", "NaN"])
def test_bad_json_is_named_by_file_and_line(tmp_path: Path, line: str) -> None:
    with pytest.raises(InputError, match=r"rows\.jsonl:3: not a JSON object: .*one object a line"):
        read(tmp_path, json.dumps(ROW), "", line)


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"none\.jsonl: no such file; correct `path`"):
        jsonl.items(JsonlSource(path=str(tmp_path / "none.jsonl")))


def test_file_that_is_no_text(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_bytes(b"\xff\xfe")
    with pytest.raises(InputError, match=r"rows\.jsonl: cannot be read as UTF-8 text"):
        jsonl.items(JsonlSource(path=str(tmp_path / "rows.jsonl")))
    with pytest.raises(InputError, match="cannot be read"):
        jsonl.items(JsonlSource(path=str(tmp_path)))


def test_empty_file(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="holds no row"):
        read(tmp_path, "", "  ")

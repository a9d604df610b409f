"""Numbers of a table are whole, whatever its width."""

import re
import sys

import pytest
from rich.table import Table

from apriel_mcore.views import terminal

NAME = "a source with a name of many words " * 3


def told(capsys: pytest.CaptureFixture[str]) -> str:
    table = Table(title="counts")
    terminal.add_columns(table, "source", *(f"tokens {q}" for q in range(6)))
    table.add_row(NAME, *(["12345678", "0.720-0.800", "64 x 4"] * 2))
    terminal.show(table)
    return capsys.readouterr().out


def test_a_pipe_gets_whole_rows(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    assert NAME.strip() in told(capsys)


def test_a_narrow_terminal_folds_words_alone(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    said = told(capsys)
    assert NAME.strip() not in said
    for number in ("12345678", "0.720-0.800", "64 x 4"):
        assert len(re.findall(re.escape(number), said)) == 2

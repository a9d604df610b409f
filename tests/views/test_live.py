"""What should be seen at once stands on stderr where there is no table."""

import json
from pathlib import Path
from types import SimpleNamespace

import pytest

from apriel_mcore.config.load import load
from apriel_mcore.views.live import LiveView

QUICKSTART = Path(__file__).parents[2] / "recipes" / "quickstart.toml"


def test_alarms_go_to_stderr(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    events = tmp_path / "events.jsonl"
    with LiveView(load(QUICKSTART), events) as view:
        with events.open("w") as file:
            for name in ("phase", "alarm"):
                file.write(json.dumps({"event": name, "message": f"a {name}"}) + "\n")
        view.refresh()
    said = capsys.readouterr()
    assert "a phase" in said.out and "a alarm" in said.err and "a alarm" not in said.out


def test_a_full_disk_is_said_once_and_its_end_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    free = [10, 10, 10**9, 10**9]
    monkeypatch.setattr(
        "apriel_mcore.views.live.shutil.disk_usage", lambda path: SimpleNamespace(free=free.pop(0))
    )
    with LiveView(load(QUICKSTART), tmp_path / "events.jsonl") as view:
        for _ in range(4):
            view.refresh()
    said = capsys.readouterr().err
    assert said.count("stands still until there is space") == 1
    assert said.count("has space again") == 1

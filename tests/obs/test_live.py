"""What should be seen at once stands on stderr where there is no table."""

import json
from pathlib import Path

import pytest

from apriel_mcore.config.load import load
from apriel_mcore.obs.live import LiveView

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

"""Offline for real: every attempt's folder is the whole run, under one id; repeated steps are not lost."""

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from apriel_mcore.obs.runlog import Event
from apriel_mcore.obs.wandb_writer import WandbWriter

pytest.importorskip("wandb", reason="needs the `track` extra")


def step(number: int, loss: float) -> Event:
    return {"event": "step", "time": 1.0, "step": number, "loss": loss, "note": "no number"}


def attempt(folder: Path, past: list[Event], events: list[Event], *, failed: bool = False) -> None:
    writer = WandbWriter(
        mode="offline", project="apriel", name="demo", folder=folder, config={"seed": 3}, past=past
    )
    for event in events:
        writer.write(event)
    writer.close(failed=failed)
    newest = max((folder / "wandb").glob("offline-run-*"))
    give_up = time.monotonic() + 30  # W&B's own process writes the file, and may do so after `finish`
    while not any(record.WhichOneof("record_type") == "exit" for record in records(newest)):
        assert time.monotonic() < give_up, "W&B never wrote the end of the run"
        time.sleep(0.05)


def records(folder: Path) -> Iterator[Any]:
    """What W&B wrote: protocol buffers in LevelDB's log format, blocks of 32 KiB after 7 bytes of its own."""
    from wandb.proto.wandb_internal_pb2 import Record

    [path] = folder.glob("run-*.wandb")
    content, at, whole = path.read_bytes(), 7, b""
    while at + 7 <= len(content):
        left = 32768 - at % 32768
        if left < 7:
            at += left
            continue
        size, kind = int.from_bytes(content[at + 4 : at + 6], "little"), content[at + 6]
        whole += content[at + 7 : at + 7 + size]
        at += 7 + size
        if kind in (1, 4):  # full, or the last part
            record = Record()
            record.ParseFromString(whole)
            yield record
            whole = b""


def history(folder: Path) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    for record in records(folder):
        if record.WhichOneof("record_type") == "history":
            items = record.history.item
            rows.append({item.key or item.nested_key[0]: json.loads(item.value_json) for item in items})
    return rows


def test_a_resumed_attempt_holds_the_whole_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_SILENT", "true")
    first = [step(1, 0.5), step(2, 0.4), step(3, 0.3)]
    attempt(tmp_path, [], [{"event": "start", "time": 0.0, "step": 0}, *first], failed=True)
    evaluation: Event = {"event": "eval", "time": 2.0, "step": 3, "accuracy_mean": 0.7}
    time.sleep(1.0)  # W&B names its folders by the second
    resume: Event = {"event": "resume", "time": 2.0, "step": 2}
    attempt(tmp_path, first, [resume, step(3, 0.2), evaluation])

    folders = sorted((tmp_path / "wandb").glob("offline-run-*"))
    assert len({folder.name.rpartition("-")[2] for folder in folders}) == 1, "one id"
    losses = [[(row["step"], row.get("step/loss")) for row in history(folder)] for folder in folders]
    assert losses[0] == [(1, 0.5), (2, 0.4), (3, 0.3)]
    assert losses[-1] == [(1, 0.5), (2, 0.4), (3, 0.2), (3, None)]
    assert history(folders[-1])[-1]["eval/accuracy_mean"] == 0.7
    metrics = [one.metric for one in records(folders[-1]) if one.WhichOneof("record_type") == "metric"]
    assert any(metric.glob_name == "*" and metric.step_metric == "step" for metric in metrics)

"""The page is made from events alone, is self-contained, and escapes what models write."""

import json
import re
from pathlib import Path

import pytest

from apriel_mcore.errors import InputError
from apriel_mcore.obs import compare, report
from apriel_mcore.obs.charts import Series, lines
from apriel_mcore.obs.runlog import read_events

DOMAINS = ("math", "code")


def step(number: int) -> dict[str, object]:
    shared = {
        "event": "step",
        "time": 0.0,
        "step": number,
        "reward_mean": number / 10,
        "logprob_abs_diff": 0.01,
        "lag_mean": 1.0,
        "lag_max": 2,
        "entropy": 0.5,
        "grad_norm": 1.0,
        "length_penalty_mean": -0.1,
        "tokens_per_s": 100.0,
        "time_wait_s": 1.0,
        "time_train_s": 2.0,
        "time_publish_s": 0.5,
    }
    per_domain = {
        f"{key}.{name}": value
        for name in DOMAINS
        for key, value in {
            "reward": 0.5,
            "solve_rate": 0.5,
            "trained_share": 0.5,
            "target_share": 0.5,
            "tokens_mean": 9.0,
            "tokens_p10": 5,
            "tokens_p90": 12,
        }.items()
    }
    return shared | per_domain


def evaluation(number: int, answer: str) -> dict[str, object]:
    event: dict[str, object] = {"event": "eval", "time": 0.0, "step": number, "accuracy_mean": 0.25}
    for name in DOMAINS:
        event |= {
            f"accuracy.{name}": 0.2,
            f"constant.{name}": 0.1,
            f"tokens_mean.{name}": 8.0,
            f"count.{name}": 4,
        }
    event["samples"] = [
        {"domain": "math", "problem": "1", "prompt": "2 + 2?", "answer": answer, "score": 1.0, "tokens": 3}
    ]
    return event


def run(folder: Path, events: list[dict[str, object]]) -> Path:
    folder.mkdir()
    (folder / "events.jsonl").write_text("".join(json.dumps(event) + "\n" for event in events))
    return folder


def test_the_page_is_self_contained_and_small(tmp_path: Path) -> None:
    events = [evaluation(0, "before"), *map(step, range(1, 101)), evaluation(100, "after")]
    page = report.write(run(tmp_path / "demo", events)).read_text()
    assert len(page) < 400_000
    assert not re.search(r"<script|https?://|@import|src=", page)
    assert "prefers-color-scheme:dark" in page
    assert 'name="viewport"' in page
    assert page.count("<svg") == 12


def test_answers_are_shown_before_and_after_and_escaped(tmp_path: Path) -> None:
    events = [evaluation(0, "<script>alert(1)</script>"), step(1), evaluation(1, "4")]
    page = report.write(run(tmp_path / "demo", events)).read_text()
    assert "&lt;script&gt;alert(1)" in page
    assert "<script>" not in page


def test_a_run_without_a_step_still_has_a_page(tmp_path: Path) -> None:
    begun = [{"event": "start", "time": 0.0, "step": 0}]
    page = report.write(run(tmp_path / "demo", begun)).read_text()
    assert "No optimizer step yet" in page


def test_a_folder_that_is_no_run_gets_no_page(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no run"):
        report.write(tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_line_stays_inside_its_picture() -> None:
    svg = lines([Series(name="x", color="#000", points=[(0, -5), (10, 500)])], title="x", y_low=None)
    points = re.search(r'points="([^"]+)"', svg)
    assert points
    for pair in points.group(1).split():
        x, y = map(float, pair.split(","))
        assert 0 <= x <= 460
        assert 0 <= y <= 220


def test_a_resume_takes_back_what_came_after_its_step(tmp_path: Path) -> None:
    torn = '{"event": "step", "st'
    folder = run(
        tmp_path / "demo", [step(1), step(2), step(3), {"event": "resume", "time": 0.0, "step": 1}, step(2)]
    )
    with (folder / "events.jsonl").open("a") as file:
        file.write(torn)
    steps = [event["step"] for event in read_events(folder / "events.jsonl") if event["event"] == "step"]
    assert steps == [1, 2]


def test_runs_are_compared_in_one_table(tmp_path: Path) -> None:
    events = [evaluation(0, "a"), step(1), step(2), evaluation(2, "b")]
    rows = compare.table([run(tmp_path / "one", events), run(tmp_path / "two", events)]).splitlines()
    assert rows[0].startswith("| run | math | code | mean |")
    assert [row.split(" | ")[0] for row in rows[2:]] == ["| one", "| two"]
    assert "0.20 -> 0.20 (8 -> 8 tok)" in rows[2]
    assert "0.15 -> 0.15" in rows[2]


def test_an_unfinished_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no finished run"):
        compare.table([run(tmp_path / "one", [evaluation(0, "a")])])

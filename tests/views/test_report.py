"""A report is one file that loads nothing, small whatever the run, and inert whatever models write."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from apriel_mcore.bench.made_run import make_run
from apriel_mcore.errors import InputError
from apriel_mcore.obs.runlog import read_events
from apriel_mcore.obs.trained import step_file
from apriel_mcore.views import compare, report
from apriel_mcore.views.assets import ASSETS, MODULES, asset, bundle

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


def content_of(page: str) -> dict[str, Any]:
    found = re.search(r'<script type="application/json" id="content">(.*?)</script>', page, re.DOTALL)
    assert found
    return json.loads(found[1])


def test_a_report_is_one_file_that_loads_nothing(tmp_path: Path) -> None:
    page = report.write(make_run(tmp_path / "demo", steps=20)).read_text()
    head, _, _ = page.partition('<script type="application/json"')
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', head)
    assert policy
    assert "default-src 'none'" in policy[1]
    assert "unsafe" not in policy[1]
    assert page.count("<script") == 2
    assert not re.search(r"""(src|href)=["'](?!data:)""", head)
    content = content_of(page)
    assert content["card"]["step"] == 20
    assert content["steps"]["last_B"][-1] == 20
    domains = {group["rollouts"][0]["domain"] for group in content["groups"]}
    assert domains == set(content["card"]["domains"])


def test_what_models_write_stays_text(tmp_path: Path) -> None:
    hostile = "</script><script>alert(1)</script><!--"
    page = report.write(
        run(tmp_path / "demo", [evaluation(0, hostile), step(1), evaluation(1, "4")])
    ).read_text()
    assert page.count("<script") == 2
    assert content_of(page)["card"]["evals"][0]["samples"][0]["answer"] == hostile


def test_a_run_without_a_step_still_has_a_page(tmp_path: Path) -> None:
    begun = [{"event": "start", "time": 0.0, "step": 0}]
    page = report.write(run(tmp_path / "demo", begun)).read_text()
    assert content_of(page)["card"]["step"] == 0


def test_a_run_whose_texts_were_removed_still_has_a_page(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "demo", steps=4)
    for number in (1, 2, 3):
        step_file(folder / "rollouts", number).unlink()
    content = content_of(report.write(folder).read_text())
    assert {row["step"] for group in content["groups"] for row in group["rollouts"]} == {4}
    shutil.rmtree(folder / "rollouts")
    assert content_of(report.write(folder).read_text())["groups"] == []


def test_a_folder_that_is_no_run_gets_no_page(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no run"):
        report.write(tmp_path)
    assert not list(tmp_path.iterdir())


def test_modules_stand_after_what_they_import() -> None:
    assert {*MODULES, "style.css"} == ASSETS
    for place, name in enumerate(MODULES):
        imported = re.findall(r'from "\./([\w.]+)"', asset(name))
        assert all(MODULES.index(one) < place for one in imported), name
    assert not re.search(r"^(import|export) ", bundle(), re.MULTILINE)
    assert "innerHTML" not in bundle()


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


def test_a_run_that_goes_on_says_so_in_the_table(tmp_path: Path) -> None:
    events = [evaluation(0, "a"), step(1), step(2), evaluation(2, "b"), step(3)]
    one, two = (run(tmp_path / name, events) for name in ("one", "two"))
    (one / "resolved.toml").write_text("train.num_steps = 30\n")
    (two / "resolved.toml").write_text("train.num_steps = 2\n")
    rows = compare.table([one, two, run(tmp_path / "three", [evaluation(0, "a")])]).splitlines()
    assert rows[2].startswith("| one (unfinished: step 3 of 30, evaluated at 2) |")
    assert rows[3].startswith("| two |")
    assert rows[-1] == "not in the table: three (step 0 of 0, 1 evaluation(s))"


def test_runs_of_other_domains_stand_in_one_table(tmp_path: Path) -> None:
    narrow = {key: value for key, value in evaluation(0, "").items() if "code" not in key}
    folders = [
        run(tmp_path / "narrow", [narrow, step(1), narrow]),
        run(tmp_path / "both", [evaluation(0, ""), step(1), evaluation(1, "")]),
    ]
    rows = compare.table(folders).splitlines()
    assert rows[0].startswith("| run | math | code | mean |")
    assert rows[2].split(" | ")[2] == "-"


def test_what_cannot_be_compared_is_said(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"nothing to compare: one .*two evaluations"):
        compare.table([run(tmp_path / "one", [evaluation(0, "a")])])
    with pytest.raises(InputError, match="nowhere: no such folder"):
        compare.table([tmp_path / "one", tmp_path / "nowhere"])

"""`apriel data`: what a recipe's problems are, and whether their golds verify."""

import json
from pathlib import Path

import pytest

from apriel_mcore import cli
from tests.data.test_prompts import CHATML, renderer

RECIPE = """
model.kind = "folder"
model.path = "{model}"
domains.math.ratio = 1.0
domains.math.suffix = " Box it."
domains.math.sources.rows.kind = "files"
domains.math.sources.rows.paths = ["{rows}"]
domains.math.sources.rows.layout.kind = "math_columns"
rollout.max_output_tokens = 8
rollout.servers.kind = "local"
rollout.servers.max_model_len = 256
reward.length.kind = "none"
train.num_steps = 1
train.groups_per_step = 1
train.seq_len = 256
train.optimizer.lr = 1e-5
verify.kind = "local"
verify.workers = 1
"""


@pytest.fixture
def recipe(tmp_path: Path) -> str:
    (tmp_path / "model").mkdir()
    renderer(tmp_path / "model", CHATML)
    rows = [{"problem": f"{n} + 0?", "answer": n} for n in range(8)] + [{"problem": "x", "answer": ""}]
    rows.append({"problem": "odd", "answer": "4 + 3"})
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    (tmp_path / "r.toml").write_text(RECIPE.format(model=tmp_path / "model", rows=tmp_path / "rows.jsonl"))
    return str(tmp_path / "r.toml")


def test_stats_count_problems_and_rejects(recipe: str, capsys: pytest.CaptureFixture[str]) -> None:
    cli.main(["data", "stats", recipe])
    said = capsys.readouterr().out
    assert "no_answer" in said and "benchmarks searched for: none" in said


def test_stats_say_how_much_of_a_benchmark_is_searched_for(
    recipe: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "400")
    prompts = ["find the number of ordered pairs", "5 + 0?", " "]
    (tmp_path / "b.jsonl").write_text("\n".join(json.dumps({"prompt": prompt}) for prompt in prompts))
    cli.main(["data", "stats", recipe, f"data.decontaminate.benchmarks.aime={tmp_path / 'b.jsonl'}"])
    said = " ".join(capsys.readouterr().out.split())
    assert "aime (2 of 3 prompts, 1 as whole turns)" in said and "contaminated" in said


def test_stats_show_what_is_nearly_repeated(
    recipe: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """`0 + 0?` has three words and marks, all of which `1 + 0?` to `7 + 0?` have, beside their own."""
    monkeypatch.setenv("COLUMNS", "400")
    near = ("data.near_duplicates.kind=overlap", "data.near_duplicates.ngram=1")
    cli.main(["data", "stats", recipe, *near, "data.near_duplicates.threshold=0.6"])
    said = capsys.readouterr().out.splitlines()
    (reason,) = [line for line in said if "near_duplicate" in line]
    (overlap,) = [line for line in said if "domains.math.sources.rows" in line and line != reason]
    assert " 7 " in reason and " 7 " in overlap
    cli.main(["data", "stats", recipe, *near, "data.near_duplicates.threshold=0.8"])
    assert "near_duplicate" not in capsys.readouterr().out


def test_sample_prints_the_prompt_and_its_gold(recipe: str, capsys: pytest.CaptureFixture[str]) -> None:
    cli.main(["data", "sample", recipe, "--num", "1"])
    said = capsys.readouterr().out
    assert said.count("===") == 1 and "Box it." in said and r"\boxed{" in said
    with pytest.raises(SystemExit) as end:
        cli.main(["data", "sample", recipe, "--domain", "none"])
    assert end.value.code == 2


def test_verify_lists_refused_golds_and_refuses_wrong_ones(
    recipe: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cli.main(["data", "verify", recipe, "--wrong", "20", "--json", str(tmp_path / "failures.jsonl")])
    said = capsys.readouterr().out
    (row,) = [line for line in said.splitlines() if "rows" in line and "%" in line]
    cells = [
        cell.strip() for cell in row.replace("\N{BOX DRAWINGS LIGHT VERTICAL}", "|").strip("| ").split("|")
    ]
    assert cells == ["math", "rows", "1", "9", "9", "100.00%", "20", "0"]
    assert (tmp_path / "failures.jsonl").read_text() == ""

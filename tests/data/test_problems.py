"""The dataset: nothing twice, nothing too long, nothing in both parts, and the same every time."""

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from apriel_mcore.config.load import load as load_recipe
from apriel_mcore.config.load import validate
from apriel_mcore.config.schema import RunConfig
from apriel_mcore.data import problems
from apriel_mcore.errors import InputError
from apriel_mcore.types import Message, Problem

RECIPE = Path(__file__).parents[2] / "recipes" / "quickstart.toml"


class Characters:
    """Renders one token a character."""

    def render(self, messages: Sequence[Message]) -> tuple[int, ...]:
        return tuple(ord(char) for message in messages for char in message.content)


def config(path: Path, **changes: Any) -> RunConfig:
    """One domain read from `path`; `changes` go into the domain."""
    domain = {"ratio": 1.0, "sources": {"file": {"kind": "jsonl", "path": str(path)}}, **changes}
    tree = {
        "name": "test",
        "model": {"kind": "folder", "path": "."},
        "domains": {"math": domain},
        "rollout": {"max_output_tokens": 20, "servers": {"kind": "local", "max_model_len": 60}},
        "reward": {"length": {"kind": "none"}},
        "train": {"num_steps": 1, "groups_per_step": 1, "seq_len": 50, "optimizer": {"lr": 1e-5}},
    }
    return validate(tree, where="test")


def write(path: Path, *prompts: str, **fields: Any) -> Path:
    rows = [
        {"prompt": prompt, "verifier": "math", "reference": {"answer": "4"}, **fields} for prompt in prompts
    ]
    path.write_text("\n".join(json.dumps(row) for row in rows))
    return path


def everything(dataset: problems.Dataset) -> tuple[Problem, ...]:
    return (*dataset.train["math"], *dataset.held_out["math"])


def test_long_and_repeated_prompts_are_dropped_and_counted(tmp_path: Path) -> None:
    """Room is min(max_model_len, seq_len) - budget = 30."""
    file = write(tmp_path / "f.jsonl", "2 + 2", "2  +\t2", "x" * 30, "x" * 31, "x" * 31, "3 + 1")
    dataset = problems.load(config(file), Characters())
    assert dataset.rejected == {"math": {"duplicate": 2, "too_long": 1}}
    assert sorted(p.messages[0].content for p in everything(dataset)) == ["2 + 2", "3 + 1", "x" * 30]


def test_a_domains_own_budget_makes_room(tmp_path: Path) -> None:
    file = write(tmp_path / "f.jsonl", "1 + 1", "x" * 31)
    assert problems.load(config(file, max_output_tokens=19), Characters()).rejected == {"math": {}}


def test_system_and_suffix_reach_the_prompt(tmp_path: Path) -> None:
    file = write(tmp_path / "f.jsonl", "2 + 2", "3 + 1", "5 - 1")
    dataset = problems.load(config(file, system="Brief. ", suffix=" = ?"), Characters())
    (problem,) = [p for p in everything(dataset) if p.messages[-1].content == "2 + 2 = ?"]
    assert problem.messages == (Message("system", "Brief. "), Message("user", "2 + 2 = ?"))
    assert "".join(map(chr, problem.prompt_T)) == "Brief. 2 + 2 = ?"


def test_a_rows_own_system_prompt_stays(tmp_path: Path) -> None:
    chat = [{"role": "system", "content": "Mine."}, {"role": "user", "content": "2 + 2"}]
    row = {"messages": chat, "verifier": "math", "reference": {"answer": "4"}}
    (tmp_path / "f.jsonl").write_text(json.dumps(row) + "\n" + json.dumps({**row, "messages": chat[1:]}))
    found = everything(problems.load(config(tmp_path / "f.jsonl", system="Ours."), Characters()))
    assert sorted(p.messages[0].content for p in found) == ["Mine.", "Ours."]


def test_one_split_key_is_never_in_both_parts_and_order_does_not_matter(tmp_path: Path) -> None:
    prompts = [f"{number} + 0" for number in range(200)]
    dataset = problems.load(config(write(tmp_path / "a.jsonl", *prompts)), Characters())
    assert not {p.split_key for p in dataset.train["math"]} & {p.split_key for p in dataset.held_out["math"]}
    assert 20 <= len(dataset.held_out["math"]) <= 60, "a fifth, within chance"
    again = problems.load(config(write(tmp_path / "b.jsonl", *prompts[::-2])), Characters())
    held_out = {p.id for p in dataset.held_out["math"]}
    assert {p.id for p in again.held_out["math"]} == held_out & {p.id for p in everything(again)}


def test_a_shared_split_key_keeps_paraphrases_together(tmp_path: Path) -> None:
    rows = [
        {"prompt": f"{key}, phrasing {n}", "verifier": "math", "reference": {"answer": "4"}, "split_key": key}
        for key in "abcdefghijklmnopqrst"
        for n in range(5)
    ]
    (tmp_path / "f.jsonl").write_text("\n".join(map(json.dumps, rows)))
    dataset = problems.load(config(tmp_path / "f.jsonl"), Characters())
    sizes = Counter(p.split_key for p in everything(dataset))
    for part in (dataset.train, dataset.held_out):
        assert all(count == sizes[key] for key, count in Counter(p.split_key for p in part["math"]).items())
    assert dataset.train["math"] and dataset.held_out["math"]


def test_a_domain_left_without_problems_is_refused(tmp_path: Path) -> None:
    file = write(tmp_path / "f.jsonl", "x" * 31)
    with pytest.raises(
        InputError, match=r"domains\.math: no problem .*'too_long': 1.*up to 30 tokens.*raise"
    ):
        problems.load(config(file), Characters())


def test_errors_name_the_recipe_key(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"^domains\.math\.sources\.file: .*none\.jsonl: no such file"):
        problems.load(config(tmp_path / "none.jsonl"), Characters())


def test_the_quickstart_recipe_loads_with_hundreds_of_problems_a_domain() -> None:
    overrides = ["rollout.servers.max_model_len=4000", "train.seq_len=4000"]  # characters, not tokens
    dataset = problems.load(load_recipe(RECIPE, overrides), Characters())
    for domain, train in dataset.train.items():
        held_out = dataset.held_out[domain]
        assert len(train) >= 250 and len(held_out) >= 48, domain
        assert not {p.split_key for p in train} & {p.split_key for p in held_out}, domain
        assert len({p.id for p in (*train, *held_out)}) == len(train) + len(held_out), domain
        assert not any(dataset.rejected[domain].values())
        assert {p.domain for p in train} == {domain} and all(p.prompt_T and p.reference for p in train)

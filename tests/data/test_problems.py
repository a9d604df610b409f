"""The dataset: nothing twice, nothing too long, nothing in both parts, and the same every time."""

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from apriel_mcore.config.load import load as load_recipe
from apriel_mcore.config.load import resolved, validate
from apriel_mcore.config.schema import RunConfig
from apriel_mcore.data import problems
from apriel_mcore.data.wheels import wheel_path
from apriel_mcore.errors import ConfigError, InputError
from apriel_mcore.types import Message, Problem

RECIPE = Path(__file__).parents[2] / "recipes" / "quickstart.toml"


class Characters:
    """Renders one token a character."""

    prefill = "<think>\n"

    def render(self, messages: Sequence[Message], *, tools: Sequence[dict[str, Any]] = ()) -> tuple[int, ...]:
        text = "".join(json.dumps(tool) for tool in tools) + "".join(m.content for m in messages)
        return tuple(ord(char) for char in text)


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
    assert dataset.rejected == {"math": {"duplicate": 1, "too_long": 2}}
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
    assert problem.prefill == "<think>\n"


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
        InputError, match=r"domains\.math: no problem .*'too_long': 1.*leaves 30 tokens.*raise"
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
        assert set(dataset.rejected[domain]) == ({"ambiguous", "wrong_gold"} if domain == "logic" else set())
        assert {p.domain for p in train} == {domain} and all(p.prompt_T and p.reference for p in train)


def test_a_prompt_of_another_domain_is_dropped_and_named(tmp_path: Path) -> None:
    """The suffix of a domain does not hide that the question is the same."""
    source = {"kind": "jsonl", "path": str(write(tmp_path / "f.jsonl", "2 + 2", "3 + 1", "5 - 1"))}
    tree = resolved(config(tmp_path / "f.jsonl"))
    tree["domains"]["logic"] = {"ratio": 0.0, "sources": {"again": source}, "suffix": "!"}
    dataset = problems.load(validate(tree, where="test"), Characters())
    assert dataset.rejected == {"math": {}, "logic": {"duplicate": 3}}
    assert {reject.detail for reject in dataset.rejects} == {"of a prompt in domains.math.sources.file"}


def test_what_is_too_long_for_one_domain_is_asked_in_another(tmp_path: Path) -> None:
    """Logic's budget of 5 leaves 45 tokens to a prompt, math's 20 leave 30."""
    tree = resolved(config(write(tmp_path / "f.jsonl", "x" * 35, "2 + 2", "3 + 1", "5 - 1")))
    source = {"kind": "jsonl", "path": str(write(tmp_path / "g.jsonl", "x" * 35))}
    tree["domains"]["logic"] = {"ratio": 0.0, "max_output_tokens": 5, "sources": {"other": source}}
    dataset = problems.load(validate(tree, where="test"), Characters())
    assert dataset.rejected == {"math": {"too_long": 1}, "logic": {}}
    assert len((*dataset.train["logic"], *dataset.held_out["logic"])) == 1


def collected(path: Path, **source: Any) -> dict[str, Any]:
    return {"kind": "files", "paths": [str(path)], "layout": {"kind": "math_columns"}, **source}


def test_rows_that_cannot_be_used_are_counted_and_written(tmp_path: Path) -> None:
    rows = [{"problem": f"{n} + 0", "answer": n} for n in range(9)]
    rows += [{"problem": "7 + 7", "answer": None}, {"problem": "x" * 31, "answer": "1"}, {"other": 1}]
    (tmp_path / "f.jsonl").write_text("\n".join(map(json.dumps, rows)))
    dataset = problems.load(config(tmp_path, sources={"s": collected(tmp_path / "f.jsonl")}), Characters())
    assert dataset.rejected == {"math": {"no_answer": 1, "too_long": 1, "other_columns": 1}}
    assert len(everything(dataset)) == 9
    problems.write_rejects(dataset, tmp_path / "rejects.jsonl")
    written = [json.loads(line) for line in (tmp_path / "rejects.jsonl").read_text().splitlines()]
    assert [(row["place"].rpartition(":")[2], row["reason"]) for row in written] == [
        ("10", "no_answer"),
        ("11", "too_long"),
        ("12", "other_columns"),
    ]


def test_a_line_that_is_not_json_is_set_aside_with_its_place(tmp_path: Path) -> None:
    lines = [json.dumps({"problem": f"{n} + 0", "answer": n}) for n in range(9)]
    (tmp_path / "f.jsonl").write_text("\n".join([lines[0], "{oops", *lines[1:]]))
    dataset = problems.load(config(tmp_path, sources={"s": collected(tmp_path / "f.jsonl")}), Characters())
    (reject,) = dataset.rejects
    assert reject.reason == "not_json" and reject.detail
    assert reject.place.endswith("f.jsonl:2") and len(everything(dataset)) == 9


def test_a_wrong_layout_is_an_error_that_shows_the_first_row(tmp_path: Path) -> None:
    (tmp_path / "f.jsonl").write_text(json.dumps({"question": "q", "answer": "1"}))
    with pytest.raises(InputError, match=r"'other_columns': 1.*f\.jsonl:1: no column 'problem'.*layout"):
        problems.load(config(tmp_path, sources={"s": collected(tmp_path / "f.jsonl")}), Characters())


@pytest.mark.parametrize("part", ["train", "held_out"])
def test_a_source_can_be_one_part_as_a_whole(tmp_path: Path, part: str) -> None:
    (tmp_path / "f.jsonl").write_text(
        "\n".join(json.dumps({"problem": f"{n}", "answer": n}) for n in range(50))
    )
    ours = {"kind": "jsonl", "path": str(write(tmp_path / "g.jsonl", "a", "b", "c", "d", "e"))}
    sources = {"whole": collected(tmp_path / "f.jsonl", part=part), "ours": ours}
    dataset = problems.load(config(tmp_path, sources=sources), Characters())
    assert {p.source for p in getattr(dataset, part)["math"]} >= {"whole"}
    assert sum(p.source == "whole" for p in getattr(dataset, part)["math"]) == 50


def test_contaminated_problems_are_set_aside_with_the_shared_words(tmp_path: Path) -> None:
    (tmp_path / "b.jsonl").write_text(json.dumps({"prompt": "a b c d e f"}))
    file = write(tmp_path / "f.jsonl", "so A, b c d e f?", "a b c", "x", "y")
    tree = resolved(config(file))
    tree["data"] = {"decontaminate": {"benchmarks": {"aime": str(tmp_path / "b.jsonl")}, "ngram": 5}}
    dataset = problems.load(validate(tree, where="test"), Characters())
    (reject,) = dataset.rejects
    assert (reject.reason, reject.detail) == ("contaminated", "aime: a b c d e")


@pytest.mark.parametrize("asked", ["a b c d e f", "2 * 3"])
def test_a_benchmarks_prompt_in_any_turn_is_contamination(tmp_path: Path, asked: str) -> None:
    (tmp_path / "b.jsonl").write_text(json.dumps({"prompt": asked}))
    found, other = {"role": "user", "content": asked}, {"role": "user", "content": "sure?"}
    chats = [
        [found],
        [found, {"role": "assistant", "content": "6"}, other],
        [{"role": "system", "content": asked}, other],
        [other],
        [{"role": "user", "content": "2 + 3"}],
        [{"role": "user", "content": "3 + 3"}],
    ]
    rows = [{"messages": chat, "verifier": "math", "reference": {"answer": "6"}} for chat in chats]
    (tmp_path / "f.jsonl").write_text("\n".join(map(json.dumps, rows)))
    tree = resolved(config(tmp_path / "f.jsonl"))
    tree["data"] = {"decontaminate": {"benchmarks": {"aime": str(tmp_path / "b.jsonl")}}}
    dataset = problems.load(validate(tree, where="test"), Characters())
    assert dataset.rejected == {"math": {"contaminated": 3}}
    assert {reject.detail.partition(": ")[0] for reject in dataset.rejects} == {"aime"}


def test_near_duplicates_of_any_domain_are_set_aside_with_the_first(tmp_path: Path) -> None:
    """What is too long is not used, and so nothing repeats it."""
    letters = " ".join("ghijklmnopqrstuv")  # 31 characters
    first = write(tmp_path / "f.jsonl", "a b c d e f", letters, "2 + 2")
    second = write(tmp_path / "g.jsonl", "A b c d e f 7", letters[:-2], "2 - 2")
    tree = resolved(config(first))
    other = {"ratio": 0.0, "sources": {"other": {"kind": "jsonl", "path": str(second)}}}
    tree["domains"]["logic"] = other
    assert problems.load(validate(tree, where="test"), Characters()).rejected["logic"] == {}
    tree["data"] = {"near_duplicates": {"kind": "overlap", "threshold": 0.7, "ngram": 3}}
    dataset = problems.load(validate(tree, where="test"), Characters())
    (reject,) = (reject for reject in dataset.rejects if reject.reason != "too_long")
    assert (reject.domain, reject.source, reject.reason) == ("logic", "other", "near_duplicate")
    assert reject.detail.startswith("of a prompt in domains.math.sources.file: 80% shared with ")
    kept = (*dataset.train["logic"], *dataset.held_out["logic"])
    assert {problem.messages[-1].content for problem in kept} == {letters[:-2], "2 - 2"}
    tree["data"]["near_duplicates"]["domains"] = ["math"]
    assert problems.load(validate(tree, where="test"), Characters()).rejected["logic"] == {}
    tree["data"]["near_duplicates"]["domains"] = ["maths"]
    with pytest.raises(
        ConfigError, match=r"near_duplicates\.domains names 'maths'; the recipe has math, logic"
    ):
        validate(tree, where="test")


def test_refused_golds_leave_the_data_set_as_rejects(tmp_path: Path) -> None:
    dataset = problems.load(config(write(tmp_path / "f.jsonl", "1", "2", "3", "4")), Characters())
    bad = everything(dataset)[0]
    left = problems.set_aside(dataset, {bad.id: "no"})
    assert bad.id not in {p.id for p in everything(left)} and len(everything(left)) == 3
    assert [(r.reason, r.detail) for r in left.rejects] == [("gold_refused", "no")]


@pytest.mark.parametrize("shown_by", ["template", "system"])
def test_functions_are_shown_by_the_template_or_in_a_system_prompt(shown_by: str) -> None:
    try:
        wheel_path("bfcl-eval")
    except InputError as error:
        pytest.skip(str(error))
    source = {"kind": "bfcl", "categories": ["live_parallel"]}
    room = {"max_output_tokens": 20, "servers": {"kind": "local", "max_model_len": 60_000}}
    tree = resolved(config(Path(), sources={"bfcl": source}, tools=shown_by, system="Ours."))
    tree["rollout"], tree["train"]["seq_len"] = room, 50_000
    found = everything(problems.load(validate(tree, where="test"), Characters()))
    assert len(found) == 16
    own = [problem for problem in found if not problem.messages[0].content.startswith("Ours.")]
    assert 0 < len(own) < 16, "some rows bring a system prompt of their own"
    for problem in found:
        prompt = "".join(map(chr, problem.prompt_T))
        name = problem.reference["functions"][0]["name"].replace(".", "_")
        assert prompt.count(f'"name": "{name}"') == 1
        in_system = "<available_tools>" in problem.messages[0].content
        assert in_system == (shown_by == "system")

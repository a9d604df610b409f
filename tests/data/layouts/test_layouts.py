"""Every published format, on rows of its very schema: what is used, what is set aside and why."""

import base64
import json
import pickle
import zlib
from typing import Any

import pytest

from apriel_mcore.config.schema import layouts as kinds
from apriel_mcore.data import layouts
from apriel_mcore.data.item import Unusable
from apriel_mcore.data.layouts.packed import unpack_tests
from apriel_mcore.verify.puzzles import judge


def question(layout: Any, row: Any) -> str:
    return layouts.item(layout, row).messages[-1].content


def reference(layout: Any, row: Any) -> dict[str, Any]:
    return layouts.item(layout, row).reference


def reason(layout: Any, row: Any) -> str:
    with pytest.raises(Unusable) as unusable:
        layouts.item(layout, row)
    return unusable.value.reason


def orz(task: str, answer: str) -> list[dict[str, Any]]:
    return [
        {"from": "human", "value": task},
        {"from": "assistant", "ground_truth": {"value": answer}},
    ]


def test_open_reasoner_zero_as_a_list_and_as_columns() -> None:
    layout = kinds.OpenReasonerZero()
    row = orz("What is 2 + 2?", "4")
    for form in (row, {"0": row[0], "1": row[1]}):
        assert question(layout, form) == "What is 2 + 2?"
        assert reference(layout, form) == {"answer": "4", "format": "boxed", "gold": r"\boxed{4}"}
    assert reference(layout, orz("q", r"so $\boxed{\frac12}$"))["answer"] == r"\frac12"
    assert reason(layout, orz("q", " ")) == "no_answer"
    assert reason(layout, orz("  ", "4")) == "no_question"
    assert reason(layout, {"problem": "q", "answer": "4"}) == "other_columns"


@pytest.mark.parametrize(
    ("layout", "row", "answer"),
    [
        (kinds.MathColumns(), {"problem": "q", "answer": "4"}, "4"),
        (kinds.MathColumns(), {"problem": "q", "answer": 70}, "70"),
        (kinds.MathColumns(question="question"), {"question": "q", "answer": "$4$"}, "4"),
        (
            kinds.MathColumns(question="question", answer_in="after_hashes"),
            {"question": "q", "answer": "3+1 <<3+1=4>>\n#### 4"},
            "4",
        ),
        (
            kinds.MathColumns(answer="solution", answer_in="boxed"),
            {"problem": "q", "solution": r"So \boxed{3}, no: \boxed{x^{2}}."},
            "x^{2}",
        ),
    ],
)
def test_math_columns(layout: kinds.MathColumns, row: Any, answer: str) -> None:
    assert reference(layout, row)["answer"] == answer


def test_math_columns_filters_and_gaps() -> None:
    year = kinds.MathColumns(where={"url": "2024_AIME"})
    row = {"problem": "q", "answer": "4", "url": "https://example.org/2024_AIME_I"}
    assert reference(year, row)["answer"] == "4"
    assert reason(year, row | {"url": "2023_AIME_I"}) == "filtered"
    checked = kinds.MathColumns(any_true="correctness_math_verify")
    assert reference(checked, row | {"correctness_math_verify": [False, True]})["answer"] == "4"
    assert reason(checked, row | {"correctness_math_verify": [False]}) == "filtered"
    assert reason(checked, row | {"correctness_math_verify": None}) == "filtered"
    assert reason(kinds.MathColumns(), {"problem": "q", "answer": None}) == "no_answer"
    assert reason(kinds.MathColumns(answer_in="boxed"), {"problem": "q", "answer": "4"}) == "no_answer"
    assert reason(kinds.MathColumns(answer_in="after_hashes"), {"problem": "q", "answer": "4"}) == "no_answer"
    assert reason(kinds.MathColumns(answer="gold"), row) == "other_columns"


def test_eurus_keeps_math_only() -> None:
    row = {
        "prompt": [{"role": "system", "content": "s"}, {"role": "user", "content": "q"}],
        "ability": "math",
        "reward_model": {"ground_truth": "4", "style": "rule"},
    }
    layout = kinds.EurusMath()
    assert question(layout, row) == "q" and reference(layout, row)["answer"] == "4"
    assert reason(layout, row | {"ability": "code"}) == "filtered"
    assert reason(layout, row | {"prompt": row["prompt"][:1]}) == "no_question"


def taco(**changes: Any) -> dict[str, Any]:
    tests = {"inputs": ["1 2\n", ["3", "4"]], "outputs": ["3\n", ["7"]]}
    row = {"question": "Add.", "input_output": json.dumps(tests), "difficulty": "EASY", "starter_code": ""}
    return row | changes


def test_taco_programs() -> None:
    found = reference(kinds.Taco(), taco())
    assert found["tests"] == [{"stdin": "1 2\n", "expected": "3\n"}, {"stdin": "3\n4", "expected": "7"}]
    assert found["entry_point"] == ""
    assert len(reference(kinds.Taco(max_tests=1), taco())["tests"]) == 1
    assert reason(kinds.Taco(skip_difficulties=("HARD", "VERY_HARD")), taco(difficulty="HARD")) == "filtered"
    assert reason(kinds.Taco(), taco(input_output="")) == "no_answer"
    assert reason(kinds.Taco(), taco(input_output='{"inputs": [], "outputs": []}')) == "no_answer"
    assert reason(kinds.Taco(), taco(input_output='{"inputs": ["1"], "outputs": []}')) == "no_answer"


def test_taco_functions() -> None:
    tests = {"fn_name": "add", "inputs": [[1, 2]], "outputs": [[3]]}
    plain = taco(input_output=json.dumps(tests), starter_code=None)
    assert reference(kinds.Taco(), plain)["tests"] == [{"args": [1, 2], "expected": 3}]
    assert reference(kinds.Taco(), plain)["sequences"] == "lenient"  # JSON has no tuples
    assert reference(kinds.Taco(), plain)["entry_point"] == "add"
    method = taco(input_output=json.dumps(tests), starter_code="class Solution:\n    def add(self, a, b):")
    assert reference(kinds.Taco(), method)["entry_point"] == "Solution.add"
    assert "class Solution" in question(kinds.Taco(), method)
    assert reason(kinds.Taco(), taco(input_output=json.dumps(tests | {"inputs": ["1"]}))) == "no_answer"


@pytest.mark.parametrize(
    "tests",
    [
        {"inputs": ["1", "2"], "outputs": ["", [" ", "\n"]]},
        {"inputs": ["1"], "outputs": [None]},
        {"inputs": [["1", None]], "outputs": ["2"]},
        {"fn_name": "f", "inputs": [[1], [2]], "outputs": [[None], [None]]},
    ],
)
def test_tests_that_a_silent_program_passes_or_that_hold_null_are_no_answer(tests: Any) -> None:
    assert reason(kinds.Taco(), taco(input_output=json.dumps(tests))) == "no_answer"


def test_a_blank_output_among_others_stays() -> None:
    tests = {"inputs": ["1", "2"], "outputs": ["", "x"]}
    found = reference(kinds.Taco(), taco(input_output=json.dumps(tests)))
    assert [test["expected"] for test in found["tests"]] == ["", "x"]


@pytest.mark.parametrize(("testtype", "output"), [("stdin", " \n"), ("functional", "null")])
def test_livecodebench_with_nothing_to_answer(testtype: str, output: str) -> None:
    tests = [{"input": "1", "output": output, "testtype": testtype}]
    row = livecode(testtype, public_test_cases=json.dumps(tests), private_test_cases=packed("[]"))
    assert reason(kinds.LiveCodeBench(), row) == "no_answer"


def packed(tests: object) -> str:
    return base64.b64encode(zlib.compress(pickle.dumps(tests))).decode()


def livecode(testtype: str, **changes: Any) -> dict[str, Any]:
    test = {"input": "1\n2", "output": "3", "testtype": testtype}
    row = {
        "question_content": "Add.",
        "public_test_cases": json.dumps([test]),
        "private_test_cases": packed(json.dumps([test] * 20)),
        "starter_code": "",
        "metadata": "{}",
    }
    return row | changes


def test_livecodebench() -> None:
    assert len(reference(kinds.LiveCodeBench(), livecode("stdin"))["tests"]) == 15
    method = livecode("functional", starter_code="class Solution:\n", metadata='{"func_name": "add"}')
    found = reference(kinds.LiveCodeBench(max_tests=2), method)
    assert found["tests"] == [{"args": [1, 2], "expected": 3}] * 2
    assert found["entry_point"] == "Solution.add"
    assert reason(kinds.LiveCodeBench(), livecode("stdin", private_test_cases="%%%")) == "no_answer"


class Bomb:
    def __reduce__(self) -> Any:
        return exec, ("raise SystemExit('executed')",)


@pytest.mark.parametrize(
    "content",
    [Bomb(), [Bomb()], print, {"a": 1}],
)
def test_a_pickle_that_would_run_something_is_refused(content: object) -> None:
    with pytest.raises(Unusable):
        unpack_tests(packed(content))


def test_human_eval_mbpp_and_cruxeval() -> None:
    row = {
        "prompt": "def f(x):\n",
        "entry_point": "f",
        "canonical_solution": "    return x + 1\n",
        "test": "def check(candidate):\n    assert candidate(1) == 2\n",
    }
    found = reference(kinds.HumanEval(), row)
    assert found["tests"] == [{"args": [1], "expected": 2, "compare": "value"}]
    assert found["entry_point"] == "f"
    assert "return x + 1" in found["gold"] and "return" not in question(kinds.HumanEval(), row)
    assert reason(kinds.HumanEval(), row | {"test": "x = 1"}) == "no_answer"


DEEP = "-" * 30_000 + "1"


@pytest.mark.parametrize(
    ("layout", "row"),
    [
        (kinds.CruxEval(), {"function": "def f(x): return x", "input": "1", "output": DEEP}),
        (kinds.CruxEval(), {"function": "def f(x): return x", "input": "1", "output": "{[1]}"}),
        (kinds.Mbpp(), {"prompt": "p", "test": f"assert f(1) == {DEEP}"}),
        (kinds.Mbpp(), {"prompt": "p", "test": "x = 1; assert f(1) == 1"}),
        (kinds.Mbpp(), {"prompt": "p", "test": f"assert f(0x{'f' * 5000}) == 1"}),
        (
            kinds.HumanEval(),
            {"prompt": DEEP, "entry_point": "f", "canonical_solution": "", "test": "assert c(1) == c(2)"},
        ),
    ],
)
def test_programs_that_cannot_be_read_make_the_row_unusable(layout: Any, row: Any) -> None:
    assert reason(layout, row) in ("no_answer", "tests_not_plain")


def test_mbpp_shows_an_indented_assert() -> None:
    row = {"prompt": "p", "test": "if True:\n    assert f(1) == 1"}
    assert "\nassert f(1) == 1\n" in question(kinds.Mbpp(), row)


def test_human_evals_other_asserts_run_as_they_are_with_the_prompts_helpers() -> None:
    prompt = 'def double(x):\n    return 2 * x\n\ndef halve(x):\n    """Half."""\n'
    test = "def check(candidate):\n    assert candidate(double(3)) > 2"
    row = {
        "prompt": prompt,
        "entry_point": "halve",
        "canonical_solution": "    return x // 2",
        "test": test,
    }
    found = reference(kinds.HumanEval(), row)
    assert (found["tests"], found["entry_point"]) == ([], "halve")
    assert found["asserts"].startswith("def double(x)") and found["asserts"].endswith(test)
    assert "def halve" not in found["asserts"]
    assert reason(kinds.HumanEval(), row | {"prompt": "def double("}) == "no_answer"

    row = {"prompt": "Add one.", "test": "assert f(1) == 2\nassert f((1,)) == [float('nan')]"}
    assert reason(kinds.Mbpp(), row) == "tests_not_plain"
    row["test"] = "assert f(1) == 2\nassert f(5) == 6"
    assert "f(1) == 2" in question(kinds.Mbpp(), row) and "f(5)" not in question(kinds.Mbpp(), row)

    row = {"function": "def f(x):\n    return x + 1", "input": "1", "output": "2"}
    assert reference(kinds.CruxEval(), row)["tests"] == [{"args": [], "expected": 2}]
    assert reason(kinds.CruxEval(), row | {"output": "b'x'"}) == "no_answer"


def constraints(**args: Any) -> str:
    return repr([{"instruction_id": ["length_constraints:number_words"], "kwargs": [args]}])


def test_multi_constraints() -> None:
    row = {
        "key": "1",
        "messages": [{"role": "user", "content": "Write."}],
        "ground_truth": constraints(num_words=5, relation="at least", keyword=None),
        "constraint": "x",
    }
    layout = kinds.MultiConstraints()
    assert reference(layout, row)["instructions"] == [
        {"kind": "length_constraints:number_words", "args": {"num_words": 5, "relation": "at least"}}
    ]
    assert reason(layout, row | {"ground_truth": "__import__('os').abort()"}) == "no_answer"
    assert reason(layout, row | {"ground_truth": "[]"}) == "no_answer"
    assert reason(layout, row | {"ground_truth": constraints(num_words="many")}) == "unknown_constraint"
    assert reason(layout, {"prompt": "x"}) == "other_columns"


def test_ifeval_with_parquets_nulls_and_floats() -> None:
    args = {"num_words": 5.0, "relation": "at least", "letter": None}
    row = {"prompt": "Write.", "instruction_id_list": ["length_constraints:number_words"], "kwargs": [args]}
    (found,) = reference(kinds.IfEval(), row)["instructions"]
    assert (
        found["args"] == {"num_words": 5, "relation": "at least"} and type(found["args"]["num_words"]) is int
    )
    assert reason(kinds.IfEval(), row | {"kwargs": []}) == "no_answer"


def logic(task: str = "space_reasoning", rate: Any = 0.5, **game: Any) -> dict[str, Any]:
    puzzle = {"question": "q", "answer": "Left", "difficulty": 1, "metadata": {"size": 4}} | game
    info = {"task": task, "game_data_str": json.dumps(puzzle)}
    return {"question": "q?", "info": json.dumps(info), "avg@16_qwen3_4b_instruct_2507": rate}


def test_intellect3_logic() -> None:
    layout = kinds.Intellect3Logic(min_solve_rate=0.1, max_solve_rate=0.9)
    found = reference(layout, logic())
    assert found["task"] == "space_reasoning" and found["gold"] == r"\boxed{Left}"
    assert found["facts"] == {"question": "q", "answer": "Left", "size": 4}
    assert judge.verify(found, "<think>Right</think>" + r"\boxed{left}").success
    mines = logic("minesweeper", metadata={"current_mines": [[0, 1]]}, answer=None)
    assert reference(layout, mines)["gold"] == "[[0,1]]"
    assert reference(layout, logic("numbrix", metadata={"grid": [[1]]}, answer=[[1]]))["gold"] == "[[1]]"
    assert reason(layout, logic(rate=0.05)) == "filtered"
    assert reason(layout, logic(rate=None)) == "no_solve_rate"
    assert reason(layout, logic(answer=None)) == "unknown_puzzle"
    assert reason(layout, logic("bbh_snarks")) == "unknown_puzzle"
    assert reason(layout, logic("sudoku")) == "unknown_puzzle"
    for task in ("arc_agi", "dyck_language_errors", "gpqa_diamond", "bbeh"):
        assert reason(layout, logic(task=task)) == "filtered"
    assert reason(layout, logic() | {"info": "not json"}) == "no_answer"

"""Every benchmark of the table, from a small file of its published schema to a verdict on its gold."""

import base64
import json
import pickle
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from apriel_mcore.config.load import load as load_recipe
from apriel_mcore.errors import ConfigError, InputError
from apriel_mcore.evaluation import tasks
from apriel_mcore.evaluation.benchmark import choose, definitions
from apriel_mcore.evaluation.tasks import Scope, Task
from apriel_mcore.types import Message
from apriel_mcore.verify import choice, math
from apriel_mcore.verify.instruction import judge as instruction

QUICKSTART = Path(__file__).parents[2] / "recipes" / "quickstart.toml"
TESTS = json.dumps([{"input": "1 2", "output": "3", "testtype": "stdin"}])
PRIVATE = base64.b64encode(zlib.compress(pickle.dumps(TESTS))).decode()

ROWS: dict[str, list[dict[str, Any]]] = {
    "aime25": [{"problem": "What is 6 * 7?", "answer": "42", "id": "0"}],
    "gpqa": [
        {
            "Question": "Which is even?",
            "Correct Answer": "two",
            "Incorrect Answer 1": "one",
            "Incorrect Answer 2": "three",
            "Incorrect Answer 3": "five",
        }
    ],
    "mmlu_pro": [{"question": "Even?", "options": ["one", "two"], "answer": "B", "category": "math"}],
    "livecodebench": [
        {
            "question_content": "Add two numbers.",
            "public_test_cases": TESTS,
            "private_test_cases": PRIVATE,
            "starter_code": "",
            "metadata": "{}",
            "difficulty": "easy",
        }
    ],
    "ifeval": [
        {"key": 1, "prompt": "No commas.", "instruction_id_list": ["punctuation:no_comma"], "kwargs": [{}]}
    ],
    "math500": [
        {"problem": "Half?", "answer": "\\frac{1}{2}", "subject": "Algebra", "level": 3, "unique_id": "a/0"}
    ],
    "gsm8k": [{"task_id": "0", "question": "2 + 2?", "answer": "4"}],
}


class Words:
    """A renderer whose tokens are words."""

    prefill = ""

    def render(self, messages: Sequence[Message], *, tools: Sequence[Any] = ()) -> tuple[int, ...]:
        return tuple(range(sum(len(message.content.split()) for message in messages)))


def task_of(tmp_path: Path, name: str, rows: list[dict[str, Any]], **scope: Any) -> Task:
    file = tmp_path / f"{name}.jsonl"
    file.write_text("\n".join(map(json.dumps, rows)))
    config = load_recipe(QUICKSTART)
    (task,) = tasks.load(config, Scope(on=(f"{name}={file}",), **scope), definitions(), Words())
    return task


@pytest.mark.parametrize("name", ROWS)
def test_a_local_file_of_the_published_schema(tmp_path: Path, name: str) -> None:
    task = task_of(tmp_path, name, ROWS[name])
    (problem,) = task.problems
    known = definitions()[name]
    assert (problem.domain, problem.verifier, task.samples) == (name, known.verifier, known.samples)
    assert task.budgets == (16384, 32768)
    assert known.suffix in problem.messages[-1].content
    golds = {"math": math, "choice": choice, "instruction": instruction}
    if known.verifier in golds:
        golds[known.verifier].self_check(problem.reference)
    if "gold" in problem.reference and known.verifier in ("math", "choice"):
        assert golds[known.verifier].verify(problem.reference, problem.reference["gold"]).success


def test_levels_come_along(tmp_path: Path) -> None:
    assert task_of(tmp_path, "math500", ROWS["math500"]).problems[0].level == "3"
    assert task_of(tmp_path, "livecodebench", ROWS["livecodebench"]).problems[0].level == "easy"


def test_rows_that_are_no_problem_are_counted(tmp_path: Path) -> None:
    rows = [*ROWS["gsm8k"], {"question": "?", "answer": ""}, {"question": "", "answer": "1"}]
    task = task_of(tmp_path, "gsm8k", rows)
    assert task.left_out == {"no_answer": 1, "no_question": 1}


def test_the_command_line_decides(tmp_path: Path) -> None:
    task = task_of(tmp_path, "gsm8k", ROWS["gsm8k"], budgets=(64, 16, 64), samples=7, limit=3)
    assert (task.budgets, task.samples, task.limit) == ((16, 64), 7, 3)


def test_a_limit_is_of_accepted_problems(tmp_path: Path) -> None:
    rows = [{"question": f"{i} + 1?", "answer": str(i + 1)} for i in range(5)]
    task = task_of(tmp_path, "gsm8k", rows, limit=2)
    refused = {task.problems[0].id: "no"}
    asked = tasks.without_refused(task, refused)
    assert asked.problems == task.problems[1:3]
    assert asked.left_out == {"gold_refused": 1}
    with pytest.raises(InputError, match="5 golds are refused; first: bad"):
        tasks.without_refused(task, {problem.id: "bad" for problem in task.problems})


def test_what_does_not_fit_is_told_with_the_number_that_would(tmp_path: Path) -> None:
    task = task_of(tmp_path, "gsm8k", ROWS["gsm8k"], budgets=(100,))
    words = len(task.problems[0].prompt_T)
    tasks.check_fits(task, words + 110, forced_tokens=10)
    with pytest.raises(InputError, match=f"max_model_len={words + 110}"):
        tasks.check_fits(task, words + 109, forced_tokens=10)


def test_a_file_of_the_user_is_laid_over_the_table(tmp_path: Path) -> None:
    mine = tmp_path / "mine.toml"
    mine.write_text(
        '[aime25]\nsamples = 64\n[own]\nabout = "mine"\nverifier = "math"\nsamples = 1\n'
        'source.kind = "files"\nsource.paths = ["a.jsonl"]\nsource.layout.kind = "math_columns"\n'
    )
    known = definitions([mine])
    assert known["aime25"].samples == 64
    assert known["aime25"].source == definitions()["aime25"].source
    assert known["own"].about == "mine"


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("[aime25]\nsamples = 0\n", "samples"),
        ("[aime25]\nsample = 1\n", "sample"),
        ("[aime25\n", "TOML"),
    ],
)
def test_a_wrong_file_is_named(tmp_path: Path, text: str, complaint: str) -> None:
    mine = tmp_path / "mine.toml"
    mine.write_text(text)
    with pytest.raises(ConfigError, match=rf"mine\.toml.*{complaint}"):
        definitions([mine])


@pytest.mark.parametrize(
    ("asked", "complaint"),
    [("gsm9k", "mean `gsm8k`"), ("mine", "known: domains, aime25"), ("bfcl=x.jsonl", "its wheel")],
)
def test_a_task_nobody_knows(asked: str, complaint: str) -> None:
    with pytest.raises(InputError, match=complaint):
        choose(asked, definitions())


def test_a_file_of_another_schema_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"layout mmlu_pro; first: .*other_columns"):
        task_of(tmp_path, "mmlu_pro", ROWS["gpqa"])

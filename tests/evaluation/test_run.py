"""The whole command against a chat server: real problems, real judges, result, resume, comparison."""

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from aiohttp import web

from apriel_mcore import cli
from apriel_mcore.data import wheels
from apriel_mcore.errors import InputError
from apriel_mcore.evaluation.result import read
from apriel_mcore.rollout.event_loop import EventLoopThread

RECIPE = str(Path(__file__).parents[2] / "recipes" / "quickstart.toml")


class Adder:
    """Solves sums of two numbers, thinking first; anything else it thinks about without end."""

    def __init__(self) -> None:
        self.asked = 0

    async def chat(self, request: web.Request) -> web.Response:
        body = await request.json()
        self.asked += 1
        *_, question = (message["content"] for message in body["messages"] if message["role"] == "user")
        sum_of = re.search(r"(\d+) \+ (\d+)", question)
        words = ["hm", " hm", " hm"] * 20
        if sum_of:
            words = ["<think>", "so", "</think>", f"\\boxed{{{int(sum_of[1]) + int(sum_of[2])}}}"]
        words, whole = words[: body["max_tokens"]], words
        tokens = [{"token": word, "bytes": list(word.encode()), "logprob": 0.0} for word in words]
        choice = {
            "message": {"content": "".join(words)},
            "finish_reason": "stop" if words == whole else "length",
            "logprobs": {"content": tokens},
        }
        return web.json_response({"choices": [choice], "usage": {"completion_tokens": len(words)}})

    async def models(self, request: web.Request) -> web.Response:
        return web.json_response({"data": [{"id": "org/adder"}]})

    async def serve(self) -> tuple[web.AppRunner, str]:
        app = web.Application()
        app.router.add_post("/v1/chat/completions", self.chat)
        app.router.add_get("/v1/models", self.models)
        runner = web.AppRunner(app)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        return runner, f"http://127.0.0.1:{runner.addresses[0][1]}"


@pytest.fixture
def served() -> Iterator[tuple[Adder, str]]:
    adder, thread = Adder(), EventLoopThread()
    runner, url = thread.run(adder.serve())
    yield adder, url
    thread.run(runner.cleanup())
    thread.close()


def test_a_benchmark_from_a_file(
    served: tuple[Adder, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    adder, url = served
    rows = [{"question": f"What is {i} + {i + 1}?", "answer": str(2 * i + 1)} for i in range(6)]
    rows += [{"question": "What is pi?", "answer": "3"}, {"question": "No answer?", "answer": ""}]
    file = tmp_path / "sums.jsonl"
    file.write_text("\n".join(map(json.dumps, rows)))
    command = ["eval", RECIPE, "--url", url, "--on", f"gsm8k={file}", "--samples", "2"]
    command += ["--out", str(tmp_path / "evals")]

    cli.main([*command, "--budgets", "2", "10"])
    result = read(tmp_path / "evals" / "org-adder.json")
    (task,) = result.tasks
    small, large = task.points
    assert (len(task.problem_ids), task.left_out) == (7, {"no_answer": 1})
    assert small.accuracy.value == 0.0 and small.cut_share == 1.0
    assert large.accuracy.value == pytest.approx(6 / 7)
    assert large.cut_share == pytest.approx(1 / 7)
    assert large.tokens.value == pytest.approx((6 * 4 + 10) / 7)
    assert (result.generated, adder.asked) == (14, 14)
    assert "0.857" in capsys.readouterr().out

    cli.main([*command, "--budgets", "3", "4", "--name", "again"])
    assert adder.asked == 14, "other budgets are cut from the answers on record"
    cli.main([*command, "--budgets", "2", "10", "--samples", "3", "--name", "more"])
    assert adder.asked == 21, "one more answer to each problem"

    cli.main([*command, "--budgets", "2", "3"])
    result = read(tmp_path / "evals" / "org-adder.json")
    assert [point.budget for point in result.tasks[0].points] == [2, 3, 10], "the points of both calls"
    assert result.tasks[0].points[-1] == large
    capsys.readouterr()
    cli.main([*command, "--budgets", "2", "10", "--samples", "1"])
    assert "org-adder.1.json" in capsys.readouterr().err
    assert read(tmp_path / "evals" / "org-adder.1.json") == result, "other questions do not overwrite it"

    cli.main(["eval-compare", *(str(tmp_path / "evals" / f"{name}.json") for name in ("org-adder", "more"))])
    assert "org-adder -> more" in capsys.readouterr().out


def test_a_bad_order_starts_nothing(
    served: tuple[Adder, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    adder, url = served
    for words, complaint in (
        (["--on", "gsm9k"], "no benchmark 'gsm9k'; did you mean `gsm8k`?"),
        (["--on", "domain"], "did you mean `domains`?"),
        (["--on", f"gsm8k={tmp_path / 'no.jsonl'}"], "no such file"),
        (["--served-model", "other"], "serves org/adder"),
    ):
        with pytest.raises(SystemExit) as ended:
            cli.main(["eval", RECIPE, "--url", url, "--out", str(tmp_path / "evals"), *words])
        assert ended.value.code == InputError.exit_code
        assert complaint in capsys.readouterr().err
    assert adder.asked == 0


def test_rows_of_pinned_wheels(served: tuple[Adder, str], tmp_path: Path) -> None:
    if not (wheels.cache_folder() / "wheels").is_dir():
        pytest.skip("the data wheels are not in the cache")
    _, url = served
    command = ["eval", RECIPE, "--url", url, "--on", "gsm8k", "ifeval", "--limit", "3", "--samples", "1"]
    cli.main([*command, "--budgets", "20", "--out", str(tmp_path)])
    result = read(tmp_path / "org-adder.json")
    assert [len(task.problem_ids) for task in result.tasks] == [3, 3]
    assert sum(point.judge_broke for task in result.tasks for point in task.points) == 0

"""Chat over HTTP: what is asked, how an answer is cut by its tokens' bytes, what a failing server makes."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from aiohttp import web

from apriel_mcore.errors import InputError, PoolError
from apriel_mcore.evaluation import endpoint
from apriel_mcore.evaluation.endpoint import EndpointAnswers, served_model
from apriel_mcore.evaluation.generations import Generation
from apriel_mcore.seams import Sampling
from apriel_mcore.types import Message, Problem

SAMPLING = Sampling(max_tokens=10, temperature=0.5, top_p=0.9, stop=("END",))
PROBLEM = Problem(
    id="p",
    domain="d",
    source="s",
    messages=(Message("system", "be brief"), Message("user", "2 + 2?")),
    verifier="math",
    reference={},
    split_key="",
)


class Server:
    """An OpenAI-compatible server with one scripted answer."""

    def __init__(
        self, message: dict[str, Any], tokens: list[str], *, failures: int = 0, status: int = 503
    ) -> None:
        self._message, self._tokens = message, tokens
        self._failures, self._status = failures, status
        self.asked: list[dict[str, Any]] = []
        self.headers: list[str] = []

    async def chat(self, request: web.Request) -> web.Response:
        self.asked.append(await request.json())
        self.headers.append(request.headers.get("Authorization", ""))
        if self._failures:
            self._failures -= 1
            return web.Response(status=self._status, text="busy")
        content = [{"token": t, "bytes": list(t.encode()), "logprob": -1.0} for t in self._tokens]
        choice = {
            "message": self._message,
            "finish_reason": "stop",
            "logprobs": {"content": content} if content else None,
        }
        return web.json_response(
            {"choices": [choice], "usage": {"completion_tokens": len(self._tokens) or 3}}
        )

    async def models(self, request: web.Request) -> web.Response:
        return web.json_response({"data": [{"id": "org/one", "root": "x"}, {"id": "two"}]})

    def run[T](self, story: Callable[[str], Awaitable[T]]) -> T:
        """Serve while the story is told."""

        async def told() -> T:
            app = web.Application()
            app.router.add_post("/v1/chat/completions", self.chat)
            app.router.add_get("/v1/models", self.models)
            runner = web.AppRunner(app)
            await runner.setup()
            site = web.TCPSite(runner, "127.0.0.1", 0)
            await site.start()
            try:
                return await story(f"http://127.0.0.1:{runner.addresses[0][1]}")
            finally:
                await runner.cleanup()

        return asyncio.run(told())


async def sampled(url: str) -> tuple[Generation, list[str]]:
    async with EndpointAnswers(f"{url}/v1", "two", model="m") as answers:
        found = await answers.sample(PROBLEM, SAMPLING, key="k")
        return found, [answers.beginning(found, number) for number in range(found.num_tokens + 1)]


def test_an_answer_is_cut_between_tokens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(endpoint.KEY_VARIABLE, "secret")
    server = Server({"content": "four \u00e9!"}, ["four", " \u00e9", "!", "<|end|>"])
    found, beginnings = server.run(sampled)
    assert beginnings == ["", "four", "four \u00e9", "four \u00e9!", "four \u00e9!"]
    assert (found.num_tokens, found.finish) == (4, "stop")
    (asked,) = server.asked
    assert asked["messages"] == [
        {"role": "system", "content": "be brief"},
        {"role": "user", "content": "2 + 2?"},
    ]
    assert (asked["model"], asked["max_tokens"], asked["temperature"]) == ("two", 10, 0.5)
    assert (asked["top_p"], asked["stop"]) == (0.9, ["END"])
    assert server.headers == ["Bearer secret"]


def test_thinking_that_a_server_takes_apart_is_put_together_again() -> None:
    message = {"content": "4", "reasoning_content": "two and two"}
    found, beginnings = Server(message, ["<think>", "two and two", "</think>", "4", "<|end|>"]).run(sampled)
    assert found.text == "<think>two and two</think>4"
    assert beginnings[2] == "<think>two and two"
    unmarked, beginnings = Server(message, ["two", " and two", "</think>", "4"]).run(sampled)
    assert (unmarked.text, beginnings[1]) == (found.text, "<think>two")
    found, _ = Server(message, []).run(lambda url: whole(url))
    assert found.text == "<think>two and two</think>4"


async def whole(url: str) -> tuple[Generation, None]:
    async with EndpointAnswers(url, "two", model="m") as answers:
        return await answers.sample(PROBLEM, SAMPLING, key="k"), None


def test_without_logprobs_nothing_is_cut() -> None:
    with pytest.raises(InputError, match="logprobs"):
        Server({"content": "four"}, []).run(sampled)


def test_a_forced_answer_goes_on_from_the_models_own_words() -> None:
    server = Server({"content": "four \u00e9!"}, ["four", " \u00e9", "!"])

    async def story(url: str) -> Generation:
        async with EndpointAnswers(url, "two", model="m") as answers:
            begun = await answers.sample(PROBLEM, SAMPLING, key="k")
            return await answers.go_on(PROBLEM, SAMPLING, begun=begun, cut=1, words="</think>So: ", key="l")

    server.run(story)
    asked = server.asked[1]
    assert asked["messages"][-1] == {"role": "assistant", "content": "four</think>So: "}
    assert (asked["continue_final_message"], asked["add_generation_prompt"]) == (True, False)


def test_a_busy_server_is_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(endpoint, "_BACKOFF_S", 0.001)
    server = Server({"content": "4"}, ["4"], failures=2)
    found, _ = server.run(sampled)
    assert (found.text, len(server.asked)) == ("4", 3)
    with pytest.raises(PoolError, match="HTTP 503: busy"):
        Server({"content": "4"}, ["4"], failures=99).run(sampled)
    refusing = Server({"content": "4"}, ["4"], failures=99, status=400)
    with pytest.raises(PoolError, match="refused"):
        refusing.run(sampled)
    assert len(refusing.asked) == 1


def test_which_model(monkeypatch: pytest.MonkeyPatch) -> None:
    server = Server({}, [])
    assert server.run(lambda url: served_model(url, "two"))[0] == "two"
    with pytest.raises(InputError, match="serves org/one, two; choose one"):
        server.run(lambda url: served_model(url, ""))
    with pytest.raises(InputError, match="serves org/one, two"):
        server.run(lambda url: served_model(url, "three"))
    with pytest.raises(InputError, match="does not answer"):
        asyncio.run(served_model("http://127.0.0.1:9", ""))

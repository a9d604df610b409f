"""Answers from an OpenAI-compatible server that somebody else runs: chat completions over HTTP.

    messages --/v1/chat/completions--> text, and a list of its tokens' bytes (`logprobs`) to cut it by

A forced final answer goes on from a message that the model has begun (`continue_final_message`, which vLLM
and SGLang understand).
"""

import asyncio
import os
import time
from typing import Any, Self

import aiohttp
import msgspec

from apriel_mcore.errors import InputError, PoolError
from apriel_mcore.evaluation.answers import finish_of, law
from apriel_mcore.evaluation.generations import Generation, key_of, packed
from apriel_mcore.http_limits import TooLarge, whole
from apriel_mcore.seams import Sampling
from apriel_mcore.types import Problem

_ATTEMPTS = 5
_BACKOFF_S = 1.0
_CONNECT_S = 10.0
_ANSWER_S = 3600.0
_MAX_ANSWER = 256 << 20
_THINK = "<think>"
KEY_VARIABLE = "OPENAI_API_KEY"


class _Token(msgspec.Struct, frozen=True):
    token: str
    bytes: list[int] | None = None


class _Logprobs(msgspec.Struct, frozen=True):
    content: list[_Token] | None = None


class _Message(msgspec.Struct, frozen=True):
    content: str | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None


class _Choice(msgspec.Struct, frozen=True):
    message: _Message
    finish_reason: str | None = None
    logprobs: _Logprobs | None = None


class _Usage(msgspec.Struct, frozen=True):
    completion_tokens: int


class _Chat(msgspec.Struct, frozen=True):
    choices: list[_Choice]
    usage: _Usage


class _Model(msgspec.Struct, frozen=True):
    id: str
    root: str | None = None
    max_model_len: int | None = None


class _Models(msgspec.Struct, frozen=True):
    data: list[_Model]


class EndpointAnswers:
    """evaluation/answers.py's Answers over chat. Use as `async with`."""

    def __init__(self, url: str, served: str, *, model: str) -> None:
        self._url = url.rstrip("/").removesuffix("/v1")
        self._served = served
        self._model = model

    async def __aenter__(self) -> Self:
        timeout = aiohttp.ClientTimeout(total=_ANSWER_S, sock_connect=_CONNECT_S)
        connector = aiohttp.TCPConnector(limit=0)
        self._http = aiohttp.ClientSession(headers=_headers(), timeout=timeout, connector=connector)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._http.close()

    def key(self, problem: Problem, sampling: Sampling, *, number: int, begun: str) -> str:
        """By the messages."""
        return key_of(self._model, problem.messages, *law(sampling), number, begun)

    async def sample(self, problem: Problem, sampling: Sampling, *, key: str) -> Generation:
        """A new answer."""
        return await self._ask(_chat(problem), sampling, key, {})

    async def go_on(
        self, problem: Problem, sampling: Sampling, *, begun: Generation, cut: int, words: str, key: str
    ) -> Generation:
        """The begun answer as the model's own message, to be continued."""
        said = {"role": "assistant", "content": self.beginning(begun, cut) + words}
        return await self._ask(
            [*_chat(problem), said],
            sampling,
            key,
            {"continue_final_message": True, "add_generation_prompt": False},
        )

    def beginning(self, generation: Generation, num_tokens: int) -> str:
        """Cut between tokens; half a character at the cut is dropped."""
        if num_tokens >= generation.num_tokens:
            return generation.text
        if not generation.pieces:
            raise InputError(
                f"{self._url}: tells no `logprobs`, so answers cannot be cut at {num_tokens} tokens; "
                "give one --budgets value, or a server that returns them"
            )
        width = sum(generation.pieces_T[:num_tokens])
        return generation.text.encode()[:width].decode(errors="ignore")

    async def _ask(
        self, messages: list[dict[str, str]], sampling: Sampling, key: str, more: dict[str, bool]
    ) -> Generation:
        body = {
            "model": self._served,
            "messages": messages,
            "max_tokens": sampling.max_tokens,
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "stop": list(sampling.stop),
            "logprobs": True,
            **more,
        }
        start = time.monotonic()
        chat = _decoded(await self._post(f"{self._url}/v1/chat/completions", body), _Chat)
        choice = chat.choices[0]
        text, widths_T = _text(choice)
        return Generation(
            key=key,
            max_tokens=sampling.max_tokens,
            num_tokens=chat.usage.completion_tokens,
            text=text,
            finish=finish_of(choice.finish_reason),
            seconds=time.monotonic() - start,
            pieces=packed(widths_T),
        )

    async def _post(self, url: str, body: dict[str, Any]) -> bytes:
        """The answer's bytes; asked again while the server is busy or away, then PoolError."""
        reason = ""
        for attempt in range(_ATTEMPTS):
            try:
                async with self._http.post(url, json=body) as response:
                    content = await whole(response.content, limit=_MAX_ANSWER)
            except (aiohttp.ClientError, TimeoutError, TooLarge) as error:
                reason = f"{type(error).__name__}: {error}"
            else:
                if response.status == 200:
                    return content
                reason = f"HTTP {response.status}: {content[:300].decode(errors='replace')}"
                if response.status < 500 and response.status != 429:
                    raise PoolError(f"{url} refused: {reason}")
            await asyncio.sleep(_BACKOFF_S * 2**attempt)
        raise PoolError(f"{url}: no answer in {_ATTEMPTS} attempts, last: {reason}; run me again to go on")


async def served_model(url: str, name: str) -> tuple[str, str]:
    """Name and description of the model an endpoint serves: the one called `name`, or its only one.

    InputError when the endpoint does not answer or has no such model.
    """
    address = f"{url.rstrip('/').removesuffix('/v1')}/v1/models"
    timeout = aiohttp.ClientTimeout(total=30.0, sock_connect=_CONNECT_S)
    try:
        async with (
            aiohttp.ClientSession(headers=_headers(), timeout=timeout) as http,
            http.get(address) as response,
        ):
            content = await whole(response.content, limit=_MAX_ANSWER)
    except (aiohttp.ClientError, TimeoutError, TooLarge, ValueError) as error:
        raise InputError(
            f"--url {url}: {address} does not answer ({type(error).__name__}: {error})"
        ) from None
    if response.status != 200:
        raise InputError(f"--url {url}: {address} answers HTTP {response.status}; is ${KEY_VARIABLE} needed?")
    models = _decoded(content, _Models).data
    names = [model.id for model in models]
    if name and name not in names:
        raise InputError(f"--served-model {name}: {url} serves {', '.join(names)}")
    if not name and len(models) != 1:
        raise InputError(f"--url {url}: serves {', '.join(names)}; choose one with --served-model")
    chosen = models[names.index(name)] if name else models[0]
    return chosen.id, f"{chosen.root} {chosen.max_model_len}"


def _headers() -> dict[str, str]:
    key = os.environ.get(KEY_VARIABLE, "")
    return {"Authorization": f"Bearer {key}"} if key else {}


def _chat(problem: Problem) -> list[dict[str, str]]:
    return [{"role": message.role, "content": message.content} for message in problem.messages]


def _text(choice: _Choice) -> tuple[str, list[int]]:
    """All that the model wrote, thinking included, and the bytes of each token where they are told.

    The token that ends an answer is listed with the others but is not part of the text. `<think>` stands
    first where the server tells thoughts apart, also if its prompt and not the model wrote it.
    """
    message = choice.message
    content, thought = message.content or "", message.reasoning_content or message.reasoning or ""
    tokens = choice.logprobs.content if choice.logprobs and choice.logprobs.content else []
    pieces = [bytes(one.bytes) if one.bytes is not None else one.token.encode() for one in tokens]
    widths_T = [len(piece) for piece in pieces]
    if not thought:
        return content, widths_T
    for written in (b"".join(pieces), b"".join(pieces[:-1])):
        text = written.decode(errors="replace")
        if pieces and text.endswith(content):
            if text.startswith(_THINK):
                return text, widths_T
            return _THINK + text, [len(_THINK) + widths_T[0], *widths_T[1:]]
    return f"{_THINK}{thought}</think>{content}", []


def _decoded[T](content: bytes, shape: type[T]) -> T:
    try:
        return msgspec.json.decode(content, type=shape)
    except msgspec.DecodeError as error:
        raise PoolError(f"an endpoint's answer is not understood: {error}: {content[:300]!r}") from None

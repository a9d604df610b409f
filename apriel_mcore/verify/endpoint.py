"""What do we say to a model judge's endpoint, how long, how often, and what counts as its answer?

    Dispute --seen before? being asked?--> decision
            '--place--> POST /chat/completions --200--> decision
                              ^          '-- busy (429), broken (5xx), late, garbled: again, after a pause
                              '--------------'  out of attempts: NoOpinion

Consumes: places, `requests` of them; callers wait for one, which is the back-pressure. Unblocked by: a reply,
or `timeout_s`, or the last attempt. Siblings with one answer share a request and its outcome.
"""

import asyncio
import os
import secrets
import time
from collections import OrderedDict
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import aiohttp
import msgspec

from apriel_mcore.config.schema import EndpointJudge
from apriel_mcore.errors import InputError, NoOpinion
from apriel_mcore.http_limits import TooLarge, whole
from apriel_mcore.verify.opinion import Decision, Dispute, decision, messages, reply_format

TOKEN_VARIABLE = "APRIEL_JUDGE_TOKEN"
MAX_PAUSE_S = 60.0
"""The longest pause between two attempts, whatever an endpoint asks for."""
MAX_REPLY = 1 << 20
"""Bytes; a longer reply is refused."""
_CONNECT_S = 10.0
_START_POLL_S = 2.0
_PROBES = (
    (Dispute("What is one half as a decimal number?", "0.5", "1/2"), "yes"),
    (Dispute("What is one half as a decimal number?", "0.5", "0.7"), "no"),
)


class _Said(msgspec.Struct, frozen=True):
    content: str | None = None


class _Choice(msgspec.Struct, frozen=True):
    message: _Said
    finish_reason: str


class _Completed(msgspec.Struct, frozen=True):
    choices: tuple[_Choice, ...]


class _Again(Exception):
    """This attempt said nothing, by no fault of the question; `pause_s` is what the endpoint asks for."""

    def __init__(self, reason: str, pause_s: float = 0.0) -> None:
        super().__init__(reason)
        self.pause_s = pause_s


class Endpoint:
    """One model behind one address. Use as `async with`; runs on that event loop."""

    def __init__(self, config: EndpointJudge, *, token: str) -> None:
        self._config = config
        self._headers = {"Authorization": f"Bearer {token}"} if token else {}
        self._url = f"{config.url.rstrip('/')}/chat/completions"
        self._nonce = secrets.token_hex(8)
        self._places = asyncio.Semaphore(config.requests)
        self._known: OrderedDict[Dispute, Decision] = OrderedDict()
        self._asking: dict[Dispute, asyncio.Task[Decision]] = {}
        self.num_requests = 0
        """HTTP requests so far, repeated ones included."""

    async def __aenter__(self) -> Self:
        timeout = aiohttp.ClientTimeout(total=self._config.timeout_s, sock_connect=_CONNECT_S)
        self._http = aiohttp.ClientSession(
            headers=self._headers, connector=aiohttp.TCPConnector(limit=0), timeout=timeout
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        tasks = list(self._asking.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._http.close()

    async def probe(self) -> None:
        """Wait for the endpoint, and see it decide two plain cases; InputError when it does not."""
        give_up = time.monotonic() + self._config.start_timeout_s
        for asked, right in _PROBES:
            said = await self._probe(asked, give_up)
            if said != right:
                raise InputError(
                    f"model_judge: {self._config.model} at {self._config.url} says {said!r} of "
                    f"{asked.answer} where the reference answer is {asked.gold}; choose another model, or "
                    'reply = "json" if it does not keep to the form of a decision'
                )

    async def _probe(self, asked: Dispute, give_up: float) -> Decision:
        while True:
            try:
                return await self._attempt(asked)
            except _Again as error:
                if time.monotonic() > give_up:
                    raise InputError(
                        f"model_judge.url: no answer from {self._url} in {self._config.start_timeout_s:g} s: "
                        f"{error}"
                    ) from error
            await asyncio.sleep(_START_POLL_S)

    def knows(self, asked: Dispute) -> bool:
        """Whether no request is needed."""
        return asked in self._known

    async def decide(self, asked: Dispute) -> Decision:
        """The decision on one question; NoOpinion when the endpoint gave none.

        InputError when it refuses the token or does not have the model.
        """
        if asked in self._known:
            self._known.move_to_end(asked)
            return self._known[asked]
        if asked not in self._asking:
            task = asyncio.create_task(self._ask(asked))
            self._asking[asked] = task
            task.add_done_callback(lambda _: self._asking.pop(asked, None))
        return await asyncio.shield(self._asking[asked])  # a caller that gives up takes nobody else with it

    async def _ask(self, asked: Dispute) -> Decision:
        reason = ""
        for attempt in range(self._config.attempts):
            try:
                async with self._places:
                    said = await self._attempt(asked)
            except _Again as error:
                reason = str(error)
                pause_s = max(error.pause_s, self._config.backoff_s * 2**attempt)
                if attempt + 1 < self._config.attempts:
                    await asyncio.sleep(min(MAX_PAUSE_S, pause_s))
            else:
                if said != "unclear":
                    self._remember(asked, said)
                return said
        raise NoOpinion(f"{self._url}: no decision in {self._config.attempts} attempts; last: {reason}")

    async def _attempt(self, asked: Dispute) -> Decision:
        """One request; _Again for whatever another one may mend."""
        body = msgspec.json.encode(self._request(asked))
        self.num_requests += 1
        try:
            async with self._http.post(
                self._url, data=body, headers={"Content-Type": "application/json"}
            ) as response:
                content = await whole(response.content, limit=MAX_REPLY)
                pause_s = _retry_after(response.headers)
        except TooLarge as error:
            raise _Again(f"a reply of {error}") from None
        except (aiohttp.ClientError, TimeoutError) as error:
            raise _Again(f"{type(error).__name__}: {error}") from error
        said = content[:300].decode(errors="replace")
        if response.status in (401, 403, 404):
            raise InputError(
                f"model_judge: {self._url}: HTTP {response.status}: {said}; check model_judge.url, "
                f"model_judge.model and the token (model_judge.token_file or ${TOKEN_VARIABLE})"
            )
        if response.status in (408, 429) or response.status >= 500:
            raise _Again(f"HTTP {response.status}: {said}", pause_s)
        if response.status != 200:
            raise NoOpinion(f"{self._url}: HTTP {response.status}: {said}")
        return self._read(content)

    def _request(self, asked: Dispute) -> dict[str, Any]:
        config = self._config
        return {
            "model": config.model,
            "messages": messages(asked, nonce=self._nonce, reply=config.reply),
            "max_tokens": config.max_tokens,
            "temperature": config.temperature,
        } | reply_format(config.reply)

    def _read(self, content: bytes) -> Decision:
        try:
            completed = msgspec.json.decode(content, type=_Completed)
        except msgspec.MsgspecError as error:
            raise _Again(f"not a chat completion: {error}") from error
        if not completed.choices:
            raise _Again("a chat completion without choices")
        first = completed.choices[0]
        if first.finish_reason != "stop" or first.message.content is None:
            return "unclear"
        return decision(first.message.content, reply=self._config.reply)

    def _remember(self, asked: Dispute, said: Decision) -> None:
        self._known[asked] = said
        if len(self._known) > self._config.cache:
            self._known.popitem(last=False)


def _retry_after(headers: Any) -> float:
    """Seconds that the endpoint asks to wait; dates and nonsense are 0."""
    value = headers.get("Retry-After", "")
    return float(value) if value.isdecimal() and len(value) < 6 else 0.0


def read_judge_token(token_file: str) -> str:
    """The endpoint's key, from a file or the environment; empty where none is. InputError for a bad one."""
    where = token_file or f"${TOKEN_VARIABLE}"
    try:
        token = (
            Path(token_file).expanduser().read_text(encoding="utf-8")
            if token_file
            else os.environ.get(TOKEN_VARIABLE, "")
        ).strip()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"model_judge.token_file: {where}: cannot read the token: {error}") from error
    if (token_file and not token) or not token.isascii() or (token and not token.isprintable()):
        raise InputError(
            f"model_judge: {where}: expected one line of printable ASCII with the endpoint's key"
        )
    return token

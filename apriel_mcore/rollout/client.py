"""What do we say to one vLLM server, and what does its answer mean?

Everything the server leaves to defaults is said explicitly: a default may come from the model's
generation_config.json and would change the distribution that is sampled from.
"""

import time
from collections.abc import Sequence
from typing import Any, Literal
from uuid import uuid4

import aiohttp
import msgspec

from apriel_mcore import secret
from apriel_mcore.errors import PoolError
from apriel_mcore.http_limits import TooLarge, whole
from apriel_mcore.seams import Ack, Offer, Sampling, Sent

_CONNECT_S = 10.0
_HEALTH_S = 10.0
_MAX_ANSWER = 256 << 20
"""Log-probs of a text of a million tokens are 50 MiB of JSON."""
_KEEPALIVE_S = 3.0
"""Below the 5 s after which uvicorn drops an idle connection: never send on one it is about to close."""
_REFUSALS = (400, 413, 422)
"""Of a request for an answer: it is wrong, wherever it is sent."""


class ServerFailed(Exception):
    """The server did not do what it was asked, by no fault of the request: another one may."""


class Answer(msgspec.Struct, gc=False, frozen=True, kw_only=True):
    """One sampled answer as the server reports it."""

    tokens_T: tuple[int, ...]
    logprobs_T: tuple[float, ...]
    text: str
    finish: Literal["stop", "length", "abort"]


class _Logprobs(msgspec.Struct, gc=False, frozen=True):
    token_logprobs: tuple[float, ...]


class _Choice(msgspec.Struct, gc=False, frozen=True):
    text: str
    finish_reason: Literal["stop", "length", "abort"]
    token_ids: tuple[int, ...]
    logprobs: _Logprobs


class _Completed(msgspec.Struct, gc=False, frozen=True):
    choices: tuple[_Choice]


class _PromptLogprob(msgspec.Struct, frozen=True):
    logprob: float


class _ScoredChoice(msgspec.Struct, frozen=True):
    prompt_logprobs: list[dict[str, _PromptLogprob] | None]


class _Scored(msgspec.Struct, frozen=True):
    choices: tuple[_ScoredChoice]


class _Receipt(msgspec.Struct, frozen=True):
    version: int
    read: Sent


class _Receipts(msgspec.Struct, frozen=True):
    results: list[_Receipt]
    """One per worker of the server, in the order of its tensor ranks."""


class _Arrival(msgspec.Struct, frozen=True):
    arrived: bool


class _Arrivals(msgspec.Struct, frozen=True):
    results: list[_Arrival]
    """One per worker of the server."""


class _Reset(msgspec.Struct, frozen=True):
    success: bool


class VllmClient:
    """The HTTP side of one life of a server. `close` makes every call in progress raise ServerFailed.

    So does, for good, an answer of another process than gave the first one: the server was started again
    while nobody looked, and has forgotten what it was told. What it says otherwise than agreed is its
    failure too. How long a call may take is the caller's business; only `is_healthy` has a limit of its own.
    """

    def __init__(self, url: str, *, token: str) -> None:
        self.url = url
        self._life = ""
        """What the first answer was signed with (rollout/inside_vllm/gate.py)."""
        self._http = aiohttp.ClientSession(
            base_url=url,
            headers={"Authorization": secret.header(token)},
            connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=_KEEPALIVE_S),
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=_CONNECT_S),
        )

    async def close(self) -> None:
        """Drop all connections."""
        await self._http.close()

    async def complete(self, prompt_T: Sequence[int], sampling: Sampling, *, salt: str) -> Answer:
        """Sample one answer; `salt` separates prefix-cache entries (the same salt shares them)."""
        body = completion_request(prompt_T, sampling, salt=salt)
        choice = _decode(await self._post("/v1/completions", body), _Completed).choices[0]
        if len(choice.token_ids) != len(choice.logprobs.token_logprobs):
            raise ServerFailed(
                f"{self.url} returned {len(choice.token_ids)} tokens with "
                f"{len(choice.logprobs.token_logprobs)} log-probs"
            )
        return Answer(
            tokens_T=choice.token_ids,
            logprobs_T=choice.logprobs.token_logprobs,
            text=choice.text,
            finish=choice.finish_reason,
        )

    async def score(self, tokens_T: Sequence[int]) -> list[float]:
        """Log-prob of each token after the first, at temperature 1, from a prefill of its own."""
        # vLLM reads no prefix cache when prompt log-probs are asked; the salt keeps others from reading ours.
        body = _request(tokens_T, max_tokens=1, temperature=1.0, top_p=1.0, salt=uuid4().hex)
        scored = _decode(await self._post("/v1/completions", body | {"prompt_logprobs": 0}), _Scored)
        found_T = scored.choices[0].prompt_logprobs
        if len(found_T) != len(tokens_T) or found_T[0] is not None or None in found_T[1:]:
            raise ServerFailed(f"{self.url} scored {len(found_T) - 1} of {len(tokens_T) - 1} tokens")
        try:
            return [
                entry[str(token)].logprob for token, entry in zip(tokens_T, found_T, strict=True) if entry
            ]
        except KeyError as error:
            raise ServerFailed(f"{self.url} scored other tokens than it was asked: not {error}") from None

    async def receive(self, offer: Offer, *, member: int) -> None:
        """Have every worker begin to receive a version as server number `member` of those that do."""
        call = {"method": offer.receive, "kwargs": _arguments(offer) | {"member": str(member)}}
        await self._post("/collective_rpc", call)

    async def has_arrived(self, offer: Offer) -> bool:
        """Whether no worker is still receiving; what went wrong is told by `take`."""
        call = {"method": offer.arrived, "kwargs": {}}
        answer = await self._post("/collective_rpc", call)
        return all(worker.arrived for worker in _decode(answer, _Arrivals).results)

    async def take(self, offer: Offer, *, name: str) -> Ack:
        """Take a version; returns when every worker of the server serves it."""
        start = time.monotonic()
        call = {"method": offer.take, "kwargs": _arguments(offer)}
        receipts = _decode(await self._post("/collective_rpc", call), _Receipts).results
        if any(receipt.version != offer.version for receipt in receipts):
            raise ServerFailed(f"workers of {self.url} have other versions than {offer.version}: {receipts}")
        await self._post("/update_weight_version", {"new_version": str(offer.version)})
        return Ack(
            server=name,
            version=offer.version,
            read_R=tuple(receipt.read for receipt in receipts),
            seconds=time.monotonic() - start,
        )

    async def recompute_kv(self) -> None:
        """Drop all KV, that of running requests included (they are prefilled again)."""
        answer = await self._post("/reset_prefix_cache?reset_running_requests=true", {})
        if not _decode(answer, _Reset).success:  # says so with HTTP 200
            raise ServerFailed(f"{self.url} could not reset its prefix cache")

    async def is_healthy(self) -> bool:
        """It answers, and its engine is not known dead."""
        if self._http.closed:
            return False
        timeout = aiohttp.ClientTimeout(total=_HEALTH_S)
        try:
            async with self._http.get("/health", timeout=timeout, allow_redirects=False) as response:
                return response.status == 200 and self._is_same(response)
        except (aiohttp.ClientError, TimeoutError):
            return False

    async def _post(self, path: str, body: dict[str, Any]) -> bytes:
        if self._http.closed:
            raise ServerFailed(f"{self.url} has left the pool")
        headers = {"Content-Type": "application/json"}
        try:
            async with self._http.post(
                path,
                data=msgspec.json.encode(body),
                headers=headers,
                allow_redirects=False,
            ) as response:
                content = await whole(response.content, limit=_MAX_ANSWER)
        except TooLarge as error:
            raise ServerFailed(f"{self.url}{path}: an answer of {error}") from None
        except (aiohttp.ClientError, TimeoutError) as error:
            raise ServerFailed(f"{self.url}{path}: {type(error).__name__}: {error}") from error
        if response.status == 401:
            raise ServerFailed(f"{self.url} refuses the token (rollout.servers.token_file)")
        if response.status in _REFUSALS and path == "/v1/completions":
            raise PoolError(f"{self.url}{path} refused: HTTP {response.status}: {_excerpt(content)}")
        if response.status != 200:
            raise ServerFailed(f"{self.url}{path}: HTTP {response.status}: {_excerpt(content)}")
        if not self._is_same(response):
            raise ServerFailed(f"{self.url} was started again while nobody looked")
        return content

    def _is_same(self, response: aiohttp.ClientResponse) -> bool:
        """Whether the process answers that gave the first answer."""
        life = response.headers.get(secret.LIFE_HEADER, "")
        self._life = self._life or life
        return life == self._life


def _arguments(offer: Offer) -> dict[str, str]:
    """vLLM passes strings only to worker methods."""
    return offer.arguments | {"version": str(offer.version)}


def completion_request(prompt_T: Sequence[int], sampling: Sampling, *, salt: str) -> dict[str, Any]:
    """Body of /v1/completions for one sampled answer with ids and log-probs."""
    body = _request(
        prompt_T,
        max_tokens=sampling.max_tokens,
        temperature=sampling.temperature,
        top_p=sampling.top_p,
        salt=salt,
    )
    return body | {"stop": list(sampling.stop), "logprobs": 0, "return_token_ids": True}


def _request(
    prompt_T: Sequence[int], *, max_tokens: int, temperature: float, top_p: float, salt: str
) -> dict[str, Any]:
    """No `seed`: a seeded request can kill vLLM's CPU engine."""
    return {
        "prompt": list(prompt_T),
        "max_tokens": max_tokens,
        "temperature": temperature,
        "top_p": top_p,
        "top_k": 0,
        "min_p": 0.0,
        "repetition_penalty": 1.0,
        "presence_penalty": 0.0,
        "frequency_penalty": 0.0,
        "cache_salt": salt,
    }


def _decode[T](content: bytes, shape: type[T]) -> T:
    try:
        return msgspec.json.decode(content, type=shape)
    except msgspec.DecodeError as error:
        raise ServerFailed(
            f"answer of a rollout server not understood: {error}: {_excerpt(content)}"
        ) from error


def _excerpt(content: bytes) -> str:
    return content[:500].decode(errors="replace")

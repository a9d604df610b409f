"""A rollout server that starts in seconds: the routes of vLLM over a small model, with real weights.

    python -m apriel_mcore.bench.breaking.server PORT MODEL_FOLDER LEDGER SEED

Tokens, log-probs and weights are real: it maps the trainer's arena, answers with its digest and samples from
what it holds, one token at a time, so that weights change in the middle of answers. The text is not: to give
judges and sandboxes work, it is a right or a wrong answer to every problem, by chance. The ledger gets a line
for each answer: the versions of the weights that its first and its last token came from.
"""

import asyncio
import mmap
import random
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import msgspec
import torch
from aiohttp import web
from torch import Tensor
from transformers import AutoModelForCausalLM, DynamicCache

from apriel_mcore import secret
from apriel_mcore.bench.breaking.ledger import Entry, key_of
from apriel_mcore.bench.breaking.model import RIGHT, WRONG
from apriel_mcore.bridge.arena import tensor_views
from apriel_mcore.bridge.receipt import summarize

END = 0


class Engine:
    """The model and its weights; every method runs on one thread."""

    def __init__(self, folder: Path, seed: int) -> None:
        torch.set_num_threads(1)
        self._model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
        self._random = torch.Generator().manual_seed(seed)
        self.version = -1

    @torch.inference_mode()
    def next(self, tokens: list[int], cache: DynamicCache) -> tuple[int, float, int]:
        """A sampled token, its log-prob and the version that it came from."""
        logprobs_V = self._logprobs(tokens, cache)[-1]
        token = int(torch.multinomial(logprobs_V.exp(), 1, generator=self._random))
        return token, float(logprobs_V[token]), self.version

    @torch.inference_mode()
    def score(self, tokens: list[int]) -> list[float]:
        """Log-prob of each token after the first."""
        logprobs_TV = self._logprobs(tokens, DynamicCache())
        return [float(logprobs_TV[at, token]) for at, token in enumerate(tokens[1:])]

    def take(self, path: str, version: int) -> dict[str, Any]:
        """Replace all weights; what was read."""
        with Path(path).open("rb") as file:
            arena = mmap.mmap(file.fileno(), 0, flags=mmap.MAP_PRIVATE)
        read = summarize(arena, where=path)
        state = {name: view.float() for name, view in tensor_views(arena, where=path).items()}
        lacking = set(self._model.load_state_dict(state, strict=False).missing_keys) - {"lm_head.weight"}
        if lacking:
            raise ValueError(f"{path}: lacks {sorted(lacking)}")
        self.version = version
        return {"version": version, "read": msgspec.structs.asdict(read)}

    def _logprobs(self, tokens: list[int], cache: DynamicCache) -> Tensor:
        logits = self._model(torch.tensor([tokens]), past_key_values=cache, use_cache=True).logits[0]
        return logits.log_softmax(-1)


class Routes:
    """What the pool calls."""

    def __init__(self, engine: Engine, ledger: Path, seed: int) -> None:
        self._engine = engine
        self._ledger = ledger.open("ab")
        self._random = random.Random(seed)
        self._thread = ThreadPoolExecutor(1)
        self._life = secret.new()

    def application(self) -> web.Application:
        """To be served by aiohttp."""
        application = web.Application()
        application.on_response_prepare.append(self._sign)
        application.router.add_get("/health", self._health)
        application.router.add_post("/v1/completions", self._complete)
        application.router.add_post("/collective_rpc", self._take)
        application.router.add_post("/update_weight_version", self._health)
        return application

    async def _sign(self, _: web.Request, response: web.StreamResponse) -> None:
        response.headers[secret.LIFE_HEADER] = self._life

    async def _health(self, _: web.Request) -> web.Response:
        return web.json_response({})

    async def _complete(self, request: web.Request) -> web.Response:
        asked = await request.json()
        if "prompt_logprobs" in asked:
            scores_T = await self._run(self._engine.score, asked["prompt"])
            pairs = zip(asked["prompt"][1:], scores_T, strict=True)
            entries = [None, *({str(token): {"logprob": score}} for token, score in pairs)]
            return web.json_response({"choices": [{"prompt_logprobs": entries}]})
        return web.json_response({"choices": [await self._answer(asked["prompt"], asked["max_tokens"])]})

    async def _answer(self, prompt: list[int], max_tokens: int) -> dict[str, Any]:
        cache, given = DynamicCache(), list(prompt)
        tokens_T, logprobs_T, versions_T = list[int](), list[float](), list[int]()
        while len(tokens_T) < max_tokens and tokens_T[-1:] != [END]:
            token, logprob, version = await self._run(self._engine.next, given, cache)
            given = [token]
            tokens_T.append(token)
            logprobs_T.append(logprob)
            versions_T.append(version)
        entry = Entry(key_of(tokens_T, logprobs_T), versions_T[0], versions_T[-1])
        self._ledger.write(msgspec.json.encode(entry) + b"\n")
        self._ledger.flush()
        return {
            "text": self._random.choice((RIGHT, WRONG)),
            "finish_reason": "stop",  # as the text has: an answer that was cut short has no reward
            "token_ids": tokens_T,
            "logprobs": {"token_logprobs": logprobs_T},
        }

    async def _take(self, request: web.Request) -> web.Response:
        arguments = (await request.json())["kwargs"]
        try:
            taken = await self._run(self._engine.take, arguments["path"], int(arguments["version"]))
        except (OSError, ValueError, KeyError) as error:
            return web.Response(status=500, text=repr(error))
        return web.json_response({"results": [taken]})

    async def _run[T](self, work: Callable[..., T], *args: Any) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, lambda: work(*args))


async def _serve(routes: Routes, port: int) -> None:
    runner = web.AppRunner(routes.application(), access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    await asyncio.Event().wait()


if __name__ == "__main__":
    port, folder, ledger, seed = sys.argv[1:]
    asyncio.run(
        _serve(Routes(Engine(Path(folder), int(seed)), Path(ledger), int(seed)), int(port)),
    )

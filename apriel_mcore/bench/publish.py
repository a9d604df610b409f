"""How long does a weight version take from the trainer's parameters into a live server, and at what cost?

    Megatron-named parameters --are numbers?--> --export--> arena --digest--> pool --> vLLM,
    with 16 answers in flight

Each round starts the answers, lets them run, and publishes: `seconds` is check, export, digest, update and
the comparison of both sides, `longest_token_gap_s` the longest silence of any answer in the round; both are
medians over the rounds. Afterwards the log-probs of a text are compared with those of a server freshly
started on a folder that holds the weights published last.
"""

import argparse
import asyncio
import json
import shutil
import statistics
import tempfile
import time
from itertools import pairwise
from pathlib import Path

import aiohttp
import msgspec
import torch
from torch import Tensor

from apriel_mcore import secret
from apriel_mcore.bench.door import Numbers
from apriel_mcore.bridge import shape
from apriel_mcore.bridge.arena import ArenaPair
from apriel_mcore.bridge.finite import not_finite
from apriel_mcore.bridge.plan import Coordinates, make_plan
from apriel_mcore.bridge.receipt import check_acks, summarize
from apriel_mcore.bridge.reshard import ShardExport, load_hf_weights
from apriel_mcore.config.load import load
from apriel_mcore.config.schema import LocalServers, Parallel, RunConfig
from apriel_mcore.data.model_files import model_folder
from apriel_mcore.errors import InputError
from apriel_mcore.rollout.client import completion_request
from apriel_mcore.rollout.configured import server_pool
from apriel_mcore.rollout.pool import ServerPool
from apriel_mcore.seams import Sampling, arena_offer

TEXT_T = tuple(range(100, 158))
"""Any tokens will do: servers with the same weights must agree on them to the last bit."""
NOISE = 0.02
"""Step from one version to the next, in standard deviations of each tensor."""
WARM_TOKENS = 40
"""Tokens of each answer before the update."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Model, load and rounds."""
    parser.add_argument(
        "--recipe", type=Path, default=Path("recipes/quickstart.toml"), help="model and server"
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--answers", type=int, default=16, help="requests in flight")
    parser.add_argument("--tokens", type=int, default=160, help="length of each answer")


def run(args: argparse.Namespace) -> Numbers:
    """Publish seconds, token gaps, lost requests, and the difference to a fresh server."""
    config = load(args.recipe, [])
    if not isinstance(config.rollout.servers, LocalServers):
        raise InputError(
            f'{args.recipe}: the bench starts its own server; rollout.servers.kind must be "local"'
        )
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory(prefix="bench-publish-") as folder:
        return asyncio.run(_measure(config, args, Path(folder)))


async def _measure(config: RunConfig, args: argparse.Namespace, folder: Path) -> Numbers:
    model = model_folder(config.model)
    trainer = Trainer(model, folder)
    rounds: list[Round] = []
    try:
        async with server_pool(config, model=model, logs=folder, run="bench") as pool:
            for version in range(1, args.rounds + 1):
                rounds.append(await _publish_under_load(pool, trainer, version, args))
            (live_T,) = await pool.score(TEXT_T)
        shutil.copytree(model, folder / "fresh", ignore=shutil.ignore_patterns("*.safetensors*"))
        shutil.copy(trainer.last_path, folder / "fresh" / "model.safetensors")
        async with server_pool(config, model=folder / "fresh", logs=folder, run="bench") as pool:
            (fresh_T,) = await pool.score(TEXT_T)
    finally:
        trainer.close()
    return _numbers(rounds) | {
        "logprob_max_diff_to_fresh_server": max(abs(a - b) for a, b in zip(live_T, fresh_T, strict=True)),
        "megabytes": trainer.num_bytes / 1e6,
    }


class Round(msgspec.Struct, frozen=True, kw_only=True):
    """One publish under load."""

    check_s: float
    export_s: float
    digest_s: float
    update_s: float
    longest_gap_s: float
    usual_gap_s: float
    """Median silence between two tokens of one answer."""
    lost: int
    tokens_per_s: float

    @property
    def seconds(self) -> float:
        """From the call to the last comparison."""
        return self.check_s + self.export_s + self.digest_s + self.update_s


class Trainer:
    """A rank's parameters under Megatron's names, moved a little for every version."""

    def __init__(self, model: Path, folder: Path) -> None:
        plan = make_plan(shape.read(model), Parallel(), "local")
        rank = Coordinates(pipeline_rank=0, tensor_rank=0, data_rank=0, context_rank=0, chunks=plan.chunks[0])
        self._chunk: dict[str, Tensor] = {
            shard.parameter: torch.empty(shard.sizes, dtype=torch.bfloat16) for shard in plan.shards_of(rank)
        }
        load_hf_weights([self._chunk], plan, rank, model)
        self._arenas = ArenaPair.create(Path("/dev/shm"), folder.name, plan.tensors, "bfloat16")
        self._copies = plan.exports_of(rank)
        self._exports = {arena.path: ShardExport(self._copies, arena) for arena in self._arenas.both}
        self.last_path = Path()
        """Arena published last."""
        self.num_bytes = 0

    def step(self) -> None:
        """Something like an optimizer step."""
        for tensor in self._chunk.values():
            spread = tensor.float().std().nan_to_num(1.0).item()
            tensor += (NOISE * spread * torch.randn(tensor.shape)).to(tensor.dtype)

    async def publish(self, pool: ServerPool, version: int) -> tuple[float, float, float, float]:
        """Seconds of looking for NaN, export, digest, and update with comparison."""
        arena = self._arenas.writable
        began = time.perf_counter()
        assert not_finite([self._chunk], self._copies) == []
        checked = time.perf_counter()
        self._exports[arena.path].run([self._chunk])
        exported = time.perf_counter()
        sent = summarize(arena.mapping, where=str(arena.path))
        summed = time.perf_counter()
        check_acks(await pool.update_weights(arena_offer(str(arena.path), version)), [sent], version)
        ended = time.perf_counter()
        self._arenas.swap()
        self.last_path, self.num_bytes = arena.path, sent.num_bytes
        return checked - began, exported - checked, summed - exported, ended - summed

    def close(self) -> None:
        """Give the shared memory back."""
        self._arenas.close()


async def _publish_under_load(
    pool: ServerPool, trainer: Trainer, version: int, args: argparse.Namespace
) -> Round:
    await asyncio.to_thread(trainer.step)
    began = time.perf_counter()
    token = pool.fleet.keepers[0].endpoint.token
    async with aiohttp.ClientSession(headers={"Authorization": secret.header(token)}) as http:
        answers = [Stream(http, pool.urls[0], salt=f"{version}.{i}") for i in range(args.answers)]
        tasks = [asyncio.create_task(answer.run(args.tokens)) for answer in answers]
        while min(len(answer.times) for answer in answers) < min(WARM_TOKENS, args.tokens // 2):
            await asyncio.sleep(0.01)
        check_s, export_s, digest_s, update_s = await trainer.publish(pool, version)
        await asyncio.gather(*tasks)
    gaps = [after - before for answer in answers for before, after in pairwise(answer.times)]
    return Round(
        check_s=check_s,
        export_s=export_s,
        digest_s=digest_s,
        update_s=update_s,
        longest_gap_s=max(gaps),
        usual_gap_s=statistics.median(gaps),
        lost=sum(not answer.complete for answer in answers),
        tokens_per_s=args.answers * args.tokens / (time.perf_counter() - began),
    )


class Stream:
    """One streamed answer and the times of its tokens."""

    def __init__(self, http: aiohttp.ClientSession, url: str, *, salt: str) -> None:
        self._http = http
        self._url = url
        self._salt = salt
        self.times: list[float] = []
        self.complete = False
        """It ended as it should, with all its tokens."""

    async def run(self, num_tokens: int) -> None:
        """Ask and read to the end."""
        body = completion_request(TEXT_T, Sampling(max_tokens=num_tokens, temperature=1.0), salt=self._salt)
        count = 0
        async with self._http.post(
            f"{self._url}/v1/completions", json=body | {"stream": True, "ignore_eos": True}
        ) as response:
            async for line in response.content:
                if not line.startswith(b"data: {"):
                    continue
                (choice,) = json.loads(line.removeprefix(b"data: "))["choices"]
                count += len(choice["token_ids"])
                self.times.append(time.perf_counter())
                self.complete = choice["finish_reason"] == "length" and count == num_tokens


def _numbers(rounds: list[Round]) -> Numbers:
    def median(field: str) -> float:
        return statistics.median(getattr(round_, field) for round_ in rounds)

    return {
        "seconds": statistics.median(round_.seconds for round_ in rounds),
        "check_s": median("check_s"),
        "export_s": median("export_s"),
        "digest_s": median("digest_s"),
        "update_s": median("update_s"),
        "longest_token_gap_s": median("longest_gap_s"),
        "usual_token_gap_s": median("usual_gap_s"),
        "tokens_per_s": median("tokens_per_s"),
        "requests_lost": float(sum(round_.lost for round_ in rounds)),
        "rounds": float(len(rounds)),
    }

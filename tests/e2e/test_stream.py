"""A real vLLM server of two tensor ranks takes versions that are sent to it, and has them after a crash."""

import asyncio
import os
import signal
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from apriel_mcore.bridge import shape
from apriel_mcore.bridge.plan import Coordinates, make_plan
from apriel_mcore.bridge.publish import Probe, VersionPublisher
from apriel_mcore.bridge.receipt import read
from apriel_mcore.bridge.reshard import load_hf_weights
from apriel_mcore.bridge.stream import Route
from apriel_mcore.bridge.stream_transport import Place, StreamTransport
from apriel_mcore.config.schema import LocalServers, Parallel
from apriel_mcore.rollout.event_loop import EventLoopThread
from apriel_mcore.rollout.keeper import Patience
from apriel_mcore.rollout.pool import ServerPool
from apriel_mcore.rollout.server import ServerProcess
from apriel_mcore.rollout.server_spec import ServerSpec
from apriel_mcore.seams import Ack, Offer, Sampling

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]

TEXT_T = tuple(3 + (7 * i) % 250 for i in range(60))
NUM_TARGETS = 2


class Alone:
    """The only trainer rank."""

    is_first = True

    def broadcast(self, payload: bytes) -> bytes:
        return payload

    def gather(self, payload: bytes) -> list[bytes]:
        return [payload]

    def barrier(self) -> None:
        pass


class Servers:
    """publish.ServerSide over a pool on another thread's loop."""

    def __init__(self, pool: ServerPool, thread: EventLoopThread) -> None:
        self._pool = pool
        self._thread = thread

    def muster(self) -> list[str]:
        return self._thread.run(self._pool.muster())

    def receive(self, offer: Offer) -> None:
        self._thread.run(self._pool.receive(offer))

    def update(self, offer: Offer) -> Future[list[Ack]]:
        return asyncio.run_coroutine_threadsafe(self._pool.update_weights(offer), self._thread.loop)

    def score(self, tokens_T: Sequence[int]) -> list[list[float]]:
        return self._thread.run(self._pool.score(tokens_T))


class Trainer:
    """One rank's parameters, and what transformers says of them."""

    def __init__(self, folder: Path) -> None:
        plan = make_plan(shape.read(folder), Parallel(), "local")
        self.coordinates = Coordinates(
            tensor_rank=0, pipeline_rank=0, data_rank=0, context_rank=0, chunks=plan.chunks[0]
        )
        self._chunk: dict[str, Tensor] = {
            part.parameter: torch.empty(part.sizes, dtype=torch.bfloat16) for part in plan.shards
        }
        load_hf_weights(self.chunks(), plan, self.coordinates, folder)
        self.expected_T: list[float] = []

    def chunks(self) -> list[dict[str, Tensor]]:
        return [self._chunk]

    def logprobs(self, tokens_T: Sequence[int]) -> list[float]:
        return self.expected_T

    def move(self) -> None:
        generator = torch.Generator().manual_seed(1)
        for weight in self._chunk.values():
            noise = torch.randn(weight.shape, generator=generator)
            weight.copy_(weight.float() + 0.02 * weight.float().std().nan_to_num(1.0) * noise)


def hf_logprobs(folder: Path, weights: dict[str, Tensor]) -> list[float]:
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    model.load_state_dict({name: weight.float() for name, weight in weights.items()}, strict=False)
    with torch.no_grad():
        logits = model(torch.tensor([TEXT_T])).logits[0, :-1]
    targets = torch.tensor(TEXT_T[1:])
    return logits.log_softmax(-1).gather(1, targets[:, None]).squeeze(1).tolist()


@pytest.fixture
def pool(tiny_llama: Path, tmp_path: Path) -> Iterator[tuple[ServerPool, ServerProcess, EventLoopThread]]:
    settings = LocalServers(
        max_model_len=1024, max_num_seqs=16, kv_cache_gib=0.25, tensor=NUM_TARGETS, dtype="float32"
    )
    spec = ServerSpec(
        settings=settings,
        model=tiny_llama,
        device="cpu",
        index=0,
        seed=0,
        transport="stream",
        weights="as_trained",
        copies=tmp_path / "copies",
    )
    process = ServerProcess(spec, tmp_path / "logs", token="t" * 16)
    patience = Patience(start_timeout_s=500.0, backoff_s=0.1)
    thread = EventLoopThread()
    servers = ServerPool([process], places=16, recompute_kv=False, patience=patience)
    thread.run(servers.__aenter__())
    yield servers, process, thread
    thread.run(servers.__aexit__())
    thread.close()
    assert not (tmp_path / "copies").exists()


def test_sent_weights_are_served_by_both_ranks_and_outlive_the_server(
    pool: tuple[ServerPool, ServerProcess, EventLoopThread], tiny_llama: Path, tmp_path: Path
) -> None:
    servers, process, thread = pool
    trainer = Trainer(tiny_llama)
    model = shape.read(tiny_llama)
    transport = StreamTransport(
        shape=model,
        route=Route(
            parallel=Parallel(),
            spec="local",
            num_targets=NUM_TARGETS,
            dtype="bfloat16",
            weights="as_trained",
            message_elements=100_000,
        ),
        place=Place(host="127.0.0.1", port=0, backend="gloo", timeout_s=60),
        rank=trainer.coordinates,
        servers=Servers(servers, thread),
        ranks=Alone(),
        device=torch.device("cpu"),
    )
    publisher = VersionPublisher(
        trainer=trainer,
        plan=make_plan(model, Parallel(), "local"),
        transport=transport,
        servers=Servers(servers, thread),
        ranks=Alone(),
        probe=Probe(tokens_T=TEXT_T, bound=1e-3),
        log=tmp_path / "receipts.jsonl",
    )
    trainer.expected_T = hf_logprobs(tiny_llama, load_file(tiny_llama / "model.safetensors"))
    publisher.publish(0)

    trainer.move()
    trainer.expected_T = thread.run(scored_by_hf(trainer, tiny_llama))
    publisher.publish(1)
    first, second = read(tmp_path / "receipts.jsonl")
    assert (first.num_tensors, second.version) == (20, 1)
    assert first.digest != second.digest
    # Both ranks together: what is split once, what is replicated (norms) twice.
    assert first.num_bytes == 2 * (model.num_parameters + (2 * model.num_layers + 1) * model.hidden_size)

    async def crash() -> list[list[float]]:
        before = await servers.score(TEXT_T)
        sampling = Sampling(max_tokens=200, temperature=1.0)
        running = asyncio.create_task(servers.generate(TEXT_T, sampling))
        await asyncio.sleep(0.2)
        (server,) = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        os.kill(int(server), signal.SIGKILL)
        await running
        assert await servers.score(TEXT_T) == before
        return before

    before = thread.run(crash())
    trainer.move()
    trainer.expected_T = thread.run(scored_by_hf(trainer, tiny_llama))
    publisher.publish(2)  # the new life is met anew
    assert thread.run(servers.score(TEXT_T)) != before


async def scored_by_hf(trainer: Trainer, folder: Path) -> list[float]:
    from apriel_mcore.bridge.arena import Arena
    from apriel_mcore.bridge.reshard import export_shard

    plan = make_plan(shape.read(folder), Parallel(), "local")
    arena = Arena.create(folder.parent / "scored.safetensors", plan.tensors, "bfloat16")
    export_shard(trainer.chunks(), plan.exports_of(trainer.coordinates), arena)
    return hf_logprobs(folder, {name: view.clone() for name, view in arena.views.items()})

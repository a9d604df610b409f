"""A real vLLM server takes versions out of a folder, checks them first, and has them after a crash."""

import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from safetensors.torch import load_file

from apriel_mcore.bridge import shape
from apriel_mcore.bridge.files_transport import FilesTransport
from apriel_mcore.bridge.plan import make_plan
from apriel_mcore.bridge.publish import Probe, VersionPublisher
from apriel_mcore.bridge.receipt import read
from apriel_mcore.bridge.version_folder import MANIFEST
from apriel_mcore.config.schema import LocalServers, Parallel
from apriel_mcore.rollout.client import ServerFailed, VllmClient
from apriel_mcore.rollout.event_loop import EventLoopThread
from apriel_mcore.rollout.keeper import Patience
from apriel_mcore.rollout.pool import ServerPool
from apriel_mcore.rollout.server import ServerProcess
from apriel_mcore.rollout.server_spec import ServerSpec
from apriel_mcore.seams import Offer, Sampling
from tests.e2e.test_stream import TEXT_T, Alone, Servers, Trainer, hf_logprobs, scored_by_hf

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900), pytest.mark.xdist_group("server")]

Live = tuple[ServerPool, ServerProcess, EventLoopThread]


@pytest.fixture
def pool(tiny_llama: Path, tmp_path: Path) -> Iterator[Live]:
    spec = ServerSpec(
        settings=LocalServers(max_model_len=1024, max_num_seqs=16, kv_cache_gib=0.25, dtype="float32"),
        model=tiny_llama,
        device="cpu",
        index=0,
        seed=0,
        transport="files",
        weights="as_trained",
        copies=tmp_path / "copies",
    )
    process = ServerProcess(spec, tmp_path / "logs", token="t" * 16)
    thread = EventLoopThread()
    patience = Patience(start_timeout_s=500.0, backoff_s=0.1)
    servers = ServerPool([process], places=16, recompute_kv=False, patience=patience)
    thread.run(servers.__aenter__())
    yield servers, process, thread
    thread.run(servers.__aexit__())
    thread.close()


def test_versions_in_a_folder_are_checked_served_and_outlive_the_server(
    pool: Live, tiny_llama: Path, tmp_path: Path
) -> None:
    servers, process, thread = pool
    trainer = Trainer(tiny_llama)
    plan = make_plan(shape.read(tiny_llama), Parallel(), "local")
    side = Servers(servers, thread)
    transport = FilesTransport(
        plan=plan,
        dtype="bfloat16",
        rank=trainer.coordinates,
        servers=side,
        ranks=Alone(),
        folder=tmp_path / "versions",
        arrival_timeout_s=5,
    )
    publisher = VersionPublisher(
        trainer=trainer,
        plan=plan,
        transport=transport,
        servers=side,
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
    (standing,) = (tmp_path / "versions").iterdir()
    assert standing.name == "version_000001"

    thread.run(_refuses(servers, process, standing, tmp_path / "copy", second.digest))
    thread.run(_survives(servers, process))
    publisher.close()
    assert not (tmp_path / "versions").exists()


async def _refuses(
    servers: ServerPool, process: ServerProcess, standing: Path, copy: Path, digest: str
) -> None:
    """An altered file, another version and one that never comes; the model stays as it was."""
    (before_T,) = await servers.score(TEXT_T)

    async def take(folder: Path, version: int) -> None:
        arguments = {"folder": str(folder), "digest": digest, "wait_s": "1"}
        offer = Offer(version=version, take="take_files", arguments=arguments)
        client = VllmClient(
            process.url, token=process.token
        )  # of its own: after an error the server hangs up
        try:
            await client.take(offer, name="server-0")
        finally:
            await client.close()

    with pytest.raises(ServerFailed, match=r"holds version 1 .* announced was version 2"):
        await take(standing, 2)
    shutil.copytree(standing, copy)
    (path,) = copy.glob("*.safetensors")
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(ServerFailed, match="this host reads"):
        await take(copy, 1)
    (copy / MANIFEST).unlink()
    with pytest.raises(ServerFailed, match="did not appear on this host"):
        await take(copy, 1)
    assert await servers.score(TEXT_T) == [before_T]


async def _survives(servers: ServerPool, process: ServerProcess) -> None:
    """A server that is started again reads the version that stands."""
    before = await servers.score(TEXT_T)
    (server,) = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    os.kill(int(server), signal.SIGKILL)
    answer = await servers.generate(TEXT_T, Sampling(max_tokens=4, temperature=1.0))
    assert answer.version_first == 1
    assert await servers.score(TEXT_T) == before

"""A real vLLM server whose own FP8 layers take versions that the trainer quantised."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor

from apriel_mcore.bridge import shape
from apriel_mcore.bridge.arena_transport import ArenaTransport, share_arenas
from apriel_mcore.bridge.plan import make_plan
from apriel_mcore.bridge.publish import Probe, VersionPublisher
from apriel_mcore.bridge.quantise import QuantisedTrainer
from apriel_mcore.bridge.receipt import read
from apriel_mcore.bridge.scales import Scheme, scales_for, with_scales
from apriel_mcore.config.schema import LocalServers, Parallel
from apriel_mcore.rollout.client import ServerFailed, VllmClient
from apriel_mcore.rollout.event_loop import EventLoopThread
from apriel_mcore.rollout.pool import Patience, ServerPool
from apriel_mcore.rollout.server import ServerProcess
from apriel_mcore.rollout.server_spec import Device, ServerSpec
from apriel_mcore.seams import arena_offer
from tests.e2e.test_stream import TEXT_T, Alone, Servers, Trainer, hf_logprobs

pytestmark = pytest.mark.timeout(900)

HAS_AMX = "amx_tile" in Path("/proc/cpuinfo").read_text()
ON_CPU = [
    pytest.mark.e2e,
    pytest.mark.skipif(not HAS_AMX, reason="vLLM's FP8 layers need a CPU with AMX"),
]
ON_GPU = [
    pytest.mark.gpu,
    pytest.mark.skipif(torch.cuda.device_count() == 0, reason="needs a CUDA device"),
]
BOUNDS: dict[Device, float] = {"cpu": 0.03, "cuda": 0.3}
"""Mean distance to the dequantised weights in float32: the CPU rounds to bfloat16, a GPU quantises
activations too."""


class AloneRank(Alone):
    """The only trainer rank."""

    def maximum(self, values: Tensor) -> None:
        pass


@pytest.fixture
def served(
    request: pytest.FixtureRequest, tiny_llama: Path, tmp_path: Path
) -> Iterator[tuple[ServerPool, ServerProcess, EventLoopThread]]:
    device, scheme = request.param
    settings = LocalServers(max_model_len=1024, max_num_seqs=16, kv_cache_gib=0.25)
    spec = ServerSpec(
        settings=settings,
        model=tiny_llama,
        device=device,
        index=0,
        seed=0,
        transport="arena",
        weights=scheme,
        copies=tmp_path / "copies",
    )
    process = ServerProcess(spec, tmp_path / "logs", token="t" * 16)
    thread = EventLoopThread()
    patience = Patience(start_timeout_s=500.0, backoff_s=0.1)
    pool = ServerPool([process], places=16, recompute_kv=False, patience=patience)
    thread.run(pool.__aenter__())
    yield pool, process, thread
    thread.run(pool.__aexit__())
    thread.close()


def dequantised(quantised: QuantisedTrainer, folder: Path, scheme: Scheme) -> dict[str, Tensor]:
    """What the servers are sent, in float32 under HF names."""
    from apriel_mcore.bridge.arena import Arena
    from apriel_mcore.bridge.reshard import export_shard

    model = shape.read(folder)
    scales = scales_for(model, scheme)
    plan = with_scales(make_plan(model, Parallel(), "local"), scales)
    arena = Arena.create(folder.parent / "sent.safetensors", plan.tensors, plan.dtypes("bfloat16"))
    export_shard(quantised.chunks(), plan.exports_of(quantised.coordinates), arena)
    weights = {name: view.float() for name, view in arena.views.items()}
    for scale in scales.values():
        factor = weights.pop(scale.name) if scheme == "fp8_block" else weights[scale.name].view(1, 1)
        for dim, size in enumerate(scale.cell):
            factor = factor.repeat_interleave(size, dim)
        weights[scale.weight] *= factor
    arena.close()
    return {name: weight for name, weight in weights.items() if not name.endswith("_scale")}


@pytest.mark.parametrize(
    ("served", "scheme"),
    [
        pytest.param(("cpu", "fp8_block"), "fp8_block", marks=ON_CPU, id="cpu-block"),
        pytest.param(("cuda", "fp8_block"), "fp8_block", marks=ON_GPU, id="cuda-block"),
        pytest.param(("cuda", "fp8_tensor"), "fp8_tensor", marks=ON_GPU, id="cuda-tensor"),
    ],
    indirect=["served"],
)
def test_a_server_computes_with_the_fp8_weights_of_every_version(
    served: tuple[ServerPool, ServerProcess, EventLoopThread],
    scheme: Scheme,
    request: pytest.FixtureRequest,
    tiny_llama: Path,
    tmp_path: Path,
) -> None:
    pool, process, thread = served
    device: Device = "cuda" if "cuda" in request.node.name else "cpu"
    model = shape.read(tiny_llama)
    scales = scales_for(model, scheme)
    plan = with_scales(make_plan(model, Parallel(), "local"), scales)
    trainer, rank, servers = Trainer(tiny_llama), AloneRank(), Servers(pool, thread)
    quantised = QuantisedTrainer(trainer, plan, scales, rank)
    arenas = share_arenas(rank, tmp_path, "arena", plan.tensors, plan.dtypes("bfloat16"))
    publisher = VersionPublisher(
        trainer=quantised,
        plan=plan,
        transport=ArenaTransport(
            plan=plan, rank=quantised.coordinates, servers=servers, ranks=rank, arenas=arenas
        ),
        servers=servers,
        ranks=rank,
        probe=Probe(tokens_T=TEXT_T, bound=BOUNDS[device]),
        log=tmp_path / "receipts.jsonl",
    )
    for version in (0, 1):
        trainer.expected_T = hf_logprobs(tiny_llama, dequantised(quantised, tiny_llama, scheme))
        publisher.publish(version)
        trainer.move()
    receipts = read(tmp_path / "receipts.jsonl")
    assert receipts[0].digest != receipts[1].digest
    assert len(receipts[0].quantised) == 7
    assert receipts[1].quantised[0] == "model.layers.0-1.mlp.down_proj.weight"
    assert receipts[0].num_bytes < 0.6 * 2 * model.num_parameters

    async def offer_unquantised() -> None:
        before = await pool.score(TEXT_T)
        client = VllmClient(process.url, token=process.token)
        with pytest.raises(ServerFailed, match=r"differ from the served checkpoint.*precision"):
            await client.take(arena_offer(str(tiny_llama / "model.safetensors"), 9), name="server-0")
        await client.close()
        assert await pool.score(TEXT_T) == before

    thread.run(offer_unquantised())
    publisher.close()

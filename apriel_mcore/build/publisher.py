"""How do new weights reach the servers? The publisher, over the transport that the recipe names."""

from pathlib import Path
from typing import Any

from apriel_mcore.bridge.arena import torch_dtype
from apriel_mcore.bridge.arena_transport import ArenaTransport, share_arenas
from apriel_mcore.bridge.files_transport import FilesTransport
from apriel_mcore.bridge.plan import Plan, make_plan
from apriel_mcore.bridge.publish import Probe, ServerSide, Transport, VersionPublisher
from apriel_mcore.bridge.quantise import QuantisedTrainer
from apriel_mcore.bridge.scales import scales_for, with_scales
from apriel_mcore.bridge.stream import Route
from apriel_mcore.bridge.stream_transport import Place, StreamTransport
from apriel_mcore.bridge.tensorfile import Dtype
from apriel_mcore.build.rank import Rank
from apriel_mcore.config.schema import ArenaPublish, FilesPublish, StreamPublish
from apriel_mcore.config.schema.publish import Publish, Weights
from apriel_mcore.mcore import parallel
from apriel_mcore.mcore.learner import MegatronLearner
from apriel_mcore.types import Message

PROBE_TEXT = (
    "Monday, Tuesday, Wednesday, Thursday, Friday, Saturday, Sunday. January, February, March, April, May, "
    "June, July, August, September, October, November, December. One, two, three, four, five, six, seven, "
    "eight, nine, ten, eleven, twelve. 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, "
    "20. def add(a, b): return a + b. def sub(a, b): return a - b. def mul(a, b): return a * b. Seven times "
    "eight is fifty-six, and three primes are 2, 3 and 5. What is 4 + 3?"
)
"""Long and predictable: rounding averages out over many tokens, while wrong weights lose the thread."""
PROBE_BOUNDS: dict[Weights, float] = {"as_trained": 0.06, "fp8_block": 0.2, "fp8_tensor": 0.2}
"""What publish.probe_bound = "auto" stands for, nats a token (docs/decisions/008-fp8-weights.md)."""


def publisher_of(rank: Rank, learner: MegatronLearner, servers: ServerSide) -> VersionPublisher:
    """Of this rank; `rank.resources` closes its transport."""
    config = rank.config
    scales = scales_for(learner.model.shape, config.publish.weights)
    plan = with_scales(make_plan(learner.model.shape, config.train.parallel, learner.spec), scales)
    transport = _transport(rank, learner, plan, servers)
    rank.resources.callback(transport.close)
    return VersionPublisher(
        trainer=QuantisedTrainer(learner, plan, scales, rank.ranks) if scales else learner,
        plan=plan,
        transport=transport,
        servers=servers,
        ranks=rank.ranks,
        probe=Probe(
            tokens_T=rank.renderer.render([Message(role="user", content=PROBE_TEXT)]),
            bound=_probe_bound(config.publish),
        ),
        log=rank.run_dir.receipts,
    )


def _transport(rank: Rank, learner: MegatronLearner, plan: Plan, servers: ServerSide) -> Transport:
    config, publish = rank.config, rank.config.publish
    dtype: Dtype = "bfloat16" if config.train.precision == "bf16" else "float32"
    match publish:
        case ArenaPublish():
            name = f"apriel-{rank.run_dir.digest}"
            arenas = share_arenas(rank.ranks, Path(publish.directory), name, plan.tensors, plan.dtypes(dtype))
            return ArenaTransport(
                plan=plan, rank=learner.coordinates, servers=servers, ranks=rank.ranks, arenas=arenas
            )
        case FilesPublish():
            return FilesTransport(
                plan=plan,
                dtype=dtype,
                rank=learner.coordinates,
                servers=servers,
                ranks=rank.ranks,
                folder=Path(publish.folder) / f"apriel-{rank.run_dir.digest}",
                arrival_timeout_s=publish.arrival_timeout_s,
            )
        case StreamPublish():
            route = Route(
                parallel=config.train.parallel,
                spec=learner.spec,
                num_targets=config.rollout.servers.tensor,
                dtype=dtype,
                weights=publish.weights,
                message_elements=publish.message_mib * 2**20 // torch_dtype(dtype).itemsize,
            )
            return StreamTransport(
                shape=learner.model.shape,
                route=route,
                place=Place(
                    host=publish.host,
                    port=publish.port,
                    backend="nccl" if config.train.device == "cuda" else "gloo",
                    timeout_s=publish.timeout_s,
                ),
                rank=learner.coordinates,
                servers=servers,
                ranks=rank.ranks,
                device=parallel.device(),
            )


def _probe_bound(publish: Publish) -> float:
    if publish.probe_bound == "auto":
        return PROBE_BOUNDS[publish.weights]
    return publish.probe_bound


class NoServers:
    """bridge/publish.py's ServerSide on the ranks that own no pool, which never call it."""

    def muster(self) -> list[str]:
        """Only the first rank knows servers."""
        raise AssertionError("only the first rank talks to servers")

    def receive(self, offer: Any) -> None:
        """Only the first rank talks to servers."""
        raise AssertionError("only the first rank talks to servers")

    def update(self, offer: Any) -> Any:
        """Only the first rank updates servers."""
        raise AssertionError("only the first rank talks to servers")

    def score(self, tokens_T: Any) -> list[list[float]]:
        """Only the first rank asks servers."""
        raise AssertionError("only the first rank talks to servers")

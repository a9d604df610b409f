"""Which pool does a recipe ask for, servers of its own or somebody else's, and who scores groups?"""

from pathlib import Path

from apriel_mcore.config.schema import LocalServers, NoReferenceReward, RunConfig
from apriel_mcore.rollout.keeper import Patience
from apriel_mcore.rollout.pool import ServerPool
from apriel_mcore.rollout.reference import NoScorer, ReferenceScorer, Scorer, Tokenizer
from apriel_mcore.rollout.server import (
    SPARE_SEQS,
    RemoteServer,
    ServerProcess,
    ServerSpec,
    copies_of,
    transport_of,
)

_REMOTE_TIMEOUT_S = 600.0
_SEEDS_PER_SERVER = 1000
"""Distance between the seeds of two servers; attempts of one server count up in between."""


def server_pool(config: RunConfig, *, model: Path, logs: Path, run: str) -> ServerPool:
    """The pool of a recipe; `model` is the Hugging Face folder, `logs` where local servers write theirs.

    `run` names what servers keep in their host's memory: unique on every host of the run.
    """
    servers = config.rollout.servers
    recompute_kv = config.publish.running_requests == "recompute_kv"
    if isinstance(servers, LocalServers):
        specs = [
            ServerSpec(
                settings=servers,
                model=model,
                device=config.train.device,
                index=index,
                seed=config.seed * _SEEDS_PER_SERVER * servers.count + index * _SEEDS_PER_SERVER,
                transport=transport_of(config),
                weights=config.publish.weights,
                copies=copies_of(config, run, index),
            )
            for index in range(servers.count)
        ]
        return ServerPool(
            [ServerProcess(spec, logs) for spec in specs],
            places=servers.max_num_seqs,
            recompute_kv=recompute_kv,
            patience=Patience(start_timeout_s=servers.start_timeout_s),
        )
    return ServerPool(
        [RemoteServer(url) for url in servers.urls],
        places=max(1, servers.max_num_seqs - SPARE_SEQS),
        recompute_kv=recompute_kv,
        patience=Patience(start_timeout_s=_REMOTE_TIMEOUT_S),
    )


def group_scorer(config: RunConfig, pool: ServerPool, tokenizer: Tokenizer) -> Scorer:
    """What asks the servers for more than answers, where a domain's reward needs it."""
    wanted = any(
        not isinstance(domain.reference_reward, NoReferenceReward) for domain in config.domains.values()
    )
    return ReferenceScorer(pool, tokenizer) if wanted else NoScorer()

"""Which pool does a recipe ask for, servers of its own or somebody else's, and who scores groups?"""

from collections.abc import Callable
from pathlib import Path

import msgspec

from apriel_mcore import secret
from apriel_mcore.config.schema import LocalServers, NoReferenceReward, RemoteServers, RunConfig
from apriel_mcore.errors import InputError
from apriel_mcore.rollout.keeper import Endpoint, Patience
from apriel_mcore.rollout.pool import ServerPool
from apriel_mcore.rollout.reference import NoScorer, ReferenceScorer, Scorer, Tokenizer
from apriel_mcore.rollout.server import RemoteServer, ServerProcess
from apriel_mcore.rollout.server_spec import (
    SPARE_SEQS,
    Seat,
    ServerSpec,
    copies_of,
    transport_of,
)

_SEEDS_PER_SERVER = 1000
"""Distance between the seeds of two servers; attempts of one server count up in between."""


class Share(msgspec.Struct, frozen=True, kw_only=True):
    """The servers of a run that are on one host."""

    numbers: range
    """Among all of the run's."""
    host: str
    """Address that they listen on."""
    first_port: int
    """Of the run's server 0, wherever it is; 0: free ones."""
    first_device: int
    """GPUs before this one belong to trainer ranks of the same host."""


def server_pool(config: RunConfig, *, model: Path, logs: Path, run: str) -> ServerPool:
    """The pool of a recipe; `model` is the Hugging Face folder, `logs` where local servers write theirs.

    `run` names what servers keep in their host's memory: unique on every host of the run.
    """
    servers = config.rollout.servers
    if isinstance(servers, LocalServers):
        make = local_server_maker(config, model=model, logs=logs, run=run)
        endpoints: list[Endpoint] = [make(number) for number in range(servers.count)]
        places = servers.max_num_seqs
    else:
        token = remote_token(config)
        endpoints = [RemoteServer(url, token=token) for url in servers.urls]
        places = max(1, servers.max_num_seqs - SPARE_SEQS)
    return ServerPool(
        endpoints,
        places=places,
        recompute_kv=config.publish.running_requests == "recompute_kv",
        patience=Patience(
            start_timeout_s=servers.start_timeout_s, publish_s=config.publish.server_deadline_s
        ),
    )


def server_spec(config: RunConfig, share: Share, number: int, *, model: Path, run: str) -> ServerSpec:
    """One server of a host, or one more than its share; `run` as in server_pool."""
    servers = config.rollout.servers
    assert isinstance(servers, LocalServers), "servers of somebody else have no specification"
    return ServerSpec(
        settings=msgspec.structs.replace(servers, host=share.host, port=share.first_port),
        model=model,
        device=config.train.device,
        index=number,
        seat=Seat(
            number=number - share.numbers.start, of=len(share.numbers), first_device=share.first_device
        ),
        seed=config.seed * _SEEDS_PER_SERVER * servers.count + number * _SEEDS_PER_SERVER,
        transport=transport_of(config),
        weights=config.publish.weights,
        copies=copies_of(config, run, number),
    )


def remote_token(config: RunConfig) -> str:
    """Of servers that somebody else started; InputError when there is none."""
    servers = config.rollout.servers
    named = servers.token_file if isinstance(servers, RemoteServers) else ""
    return secret.read(Path(named) if named else None, secret.SERVER_VARIABLE)


def local_server_maker(
    config: RunConfig, *, model: Path, logs: Path, run: str
) -> Callable[[int], ServerProcess]:
    """Makes local server number n, on the trainer's host: those of the recipe, and more while a run goes on.

    InputError from it where the recipe's servers are somebody else's.
    """
    servers, token = config.rollout.servers, secret.new()

    def make(number: int) -> ServerProcess:
        if not isinstance(servers, LocalServers):
            raise InputError('rollout.servers.kind = "urls": give the URL of a server that somebody started')
        share = Share(
            numbers=range(servers.count),
            host=servers.host,
            first_port=servers.port,
            first_device=config.train.parallel.world_size,
        )
        return ServerProcess(server_spec(config, share, number, model=model, run=run), logs, token=token)

    return make


def group_scorer(config: RunConfig, pool: ServerPool, tokenizer: Tokenizer) -> Scorer:
    """What asks the servers for more than answers, where a domain's reward needs it."""
    wanted = any(
        not isinstance(domain.reference_reward, NoReferenceReward) for domain in config.domains.values()
    )
    return ReferenceScorer(pool, tokenizer) if wanted else NoScorer()

"""Which pool does a recipe ask for: servers of its own on this host, or addresses of somebody else's?"""

from collections.abc import Callable
from pathlib import Path

from apriel_mcore import secret
from apriel_mcore.config.schema import LocalServers, RemoteServers, RunConfig
from apriel_mcore.errors import InputError
from apriel_mcore.rollout.keeper import Endpoint, Patience
from apriel_mcore.rollout.pool import ServerPool
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
    if isinstance(servers, LocalServers):
        local = LocalServerMaker(config, servers, model, logs, run)
        endpoints: list[Endpoint] = [local.make(index) for index in range(servers.count)]
        places, start_timeout_s = servers.max_num_seqs, servers.start_timeout_s
    else:
        token = remote_token(config)
        endpoints = [RemoteServer(url, token=token) for url in servers.urls]
        places, start_timeout_s = max(1, servers.max_num_seqs - SPARE_SEQS), _REMOTE_TIMEOUT_S
    return ServerPool(
        endpoints,
        places=places,
        recompute_kv=config.publish.running_requests == "recompute_kv",
        patience=Patience(start_timeout_s=start_timeout_s, publish_s=config.publish.server_deadline_s),
    )


def remote_token(config: RunConfig) -> str:
    """Of servers that somebody else started; InputError when there is none."""
    servers = config.rollout.servers
    named = servers.token_file if isinstance(servers, RemoteServers) else ""
    return secret.read(Path(named) if named else None, secret.SERVER_VARIABLE)


def local_server_maker(
    config: RunConfig, *, model: Path, logs: Path, run: str
) -> Callable[[int], ServerProcess]:
    """Makes local server number n of a recipe; InputError where its servers are somebody else's."""
    servers = config.rollout.servers
    if isinstance(servers, LocalServers):
        return LocalServerMaker(config, servers, model, logs, run).make

    def refuse(index: int) -> ServerProcess:
        raise InputError('rollout.servers.kind = "urls": give the URL of a server that somebody started')

    return refuse


class LocalServerMaker:
    """Makes local servers of a recipe: those that it asks for, and more while the run goes on."""

    def __init__(self, config: RunConfig, settings: LocalServers, model: Path, logs: Path, run: str) -> None:
        self._config = config
        self._settings = settings
        self._model = model
        self._logs = logs
        self._run = run
        self._token = secret.new()

    def make(self, index: int) -> ServerProcess:
        """Server number `index`, not started."""
        config = self._config
        seed = config.seed * _SEEDS_PER_SERVER * self._settings.count + index * _SEEDS_PER_SERVER
        spec = ServerSpec(
            settings=self._settings,
            model=self._model,
            device=config.train.device,
            index=index,
            seed=seed,
            transport=transport_of(config),
            weights=config.publish.weights,
            copies=copies_of(config, self._run, index),
        )
        return ServerProcess(spec, self._logs, token=self._token)

"""Where do the answers come from? Servers that this command starts when the first answer is needed, or an
endpoint that is running.
"""

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from functools import partial
from pathlib import Path

import msgspec

from apriel_mcore.config.schema import ArenaPublish, LocalServers, RunConfig
from apriel_mcore.data.item import Tool
from apriel_mcore.data.problems import RendersChat
from apriel_mcore.data.prompts import Renderer
from apriel_mcore.errors import InputError
from apriel_mcore.evaluation import subject as subjects
from apriel_mcore.evaluation.answers import Answers, PoolAnswers
from apriel_mcore.evaluation.endpoint import EndpointAnswers
from apriel_mcore.evaluation.subject import Subject
from apriel_mcore.rollout.configured import server_pool
from apriel_mcore.rollout.pool import ServerPool
from apriel_mcore.seams import Completion, Sampling
from apriel_mcore.types import Message

UNBOUNDED = 1 << 62


class Host(msgspec.Struct, frozen=True, kw_only=True):
    """A model ready to be asked."""

    config: RunConfig
    """The recipe as this host can follow it."""
    renderer: RendersChat
    room: int
    """Tokens of prompt and answer together."""
    places: int
    """Answers that are generated at once."""
    answers: Callable[[], AbstractAsyncContextManager[Answers]]


def host_of(config: RunConfig, subject: Subject, out: Path) -> Host:
    """Nothing is started yet, but a checkpoint is converted. InputError where the recipe has no servers."""
    if subject.kind == "endpoint":
        return Host(
            config=_functions_in_system(config),
            renderer=Unrendered(),
            room=UNBOUNDED,
            places=config.rollout.servers.max_num_seqs,
            answers=partial(EndpointAnswers, subject.where, subject.served, model=subject.digest),
        )
    servers = config.rollout.servers
    if not isinstance(servers, LocalServers):
        raise InputError(
            'rollout.servers.kind = "urls": those servers have a model already; evaluate it with --url, or '
            "give rollout.servers.kind=local to have this one served here"
        )
    config = msgspec.structs.replace(config, publish=ArenaPublish())  # weights as they lie in the folder
    model = subjects.model_of(subject, config.model, out)
    renderer = Renderer(model)
    logs = out / "logs" / subject.digest[:16]  # attempts are counted there: none repeats another's draws
    pool = server_pool(config, model=model, logs=logs, run=f"eval-{subject.digest[:8]}-{os.getpid()}")
    return Host(
        config=config,
        renderer=renderer,
        room=servers.max_model_len,
        places=servers.max_num_seqs * servers.count,
        answers=partial(_pool_answers, pool, renderer, subject.digest),
    )


class Unrendered:
    """An endpoint renders chats itself."""

    prefill = ""

    def render(self, messages: Sequence[Message], *, tools: Sequence[Tool] = ()) -> tuple[int, ...]:
        """No ids: they are the endpoint's."""
        return ()


class OnDemand:
    """A pool whose servers start with the first request: answers on record need none."""

    def __init__(self, pool: ServerPool, resources: AsyncExitStack) -> None:
        self._pool = pool
        self._resources = resources
        self._starting = asyncio.Lock()
        self._started = False

    async def generate(self, prompt_T: Sequence[int], sampling: Sampling) -> Completion:
        """As ServerPool.generate."""
        async with self._starting:
            if not self._started:
                await self._resources.enter_async_context(self._pool)
                self._started = True
        return await self._pool.generate(prompt_T, sampling)


@asynccontextmanager
async def _pool_answers(pool: ServerPool, renderer: Renderer, model: str) -> AsyncIterator[Answers]:
    async with AsyncExitStack() as resources:
        yield PoolAnswers(OnDemand(pool, resources), renderer, model=model)


def _functions_in_system(config: RunConfig) -> RunConfig:
    """Chat over HTTP has its own form for functions, which no judge here reads: they are shown as text."""
    domains = {
        name: msgspec.structs.replace(domain, tools="system") for name, domain in config.domains.items()
    }
    return msgspec.structs.replace(config, domains=domains)

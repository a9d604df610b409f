"""Servers start with the first answer that is not on record, and once."""

import asyncio
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, Self

import pytest

from apriel_mcore.config.load import load
from apriel_mcore.errors import InputError
from apriel_mcore.evaluation.host import OnDemand, host_of
from apriel_mcore.evaluation.subject import Subject
from apriel_mcore.fakes import FakePool
from apriel_mcore.seams import Sampling

QUICKSTART = Path(__file__).parents[2] / "recipes" / "quickstart.toml"
SAMPLING = Sampling(max_tokens=4, temperature=1.0)


class Servers(FakePool):
    """A pool that counts its starts and ends."""

    def __init__(self) -> None:
        super().__init__()
        self.starts = self.ends = 0

    async def __aenter__(self) -> Self:
        self.starts += 1
        await asyncio.sleep(0.01)
        return self

    async def __aexit__(self, *_: object) -> None:
        self.ends += 1


async def ask(servers: Any, times: int) -> None:
    async with AsyncExitStack() as resources:
        pool = OnDemand(servers, resources)
        await asyncio.gather(*(pool.generate([1], SAMPLING) for _ in range(times)))


@pytest.mark.parametrize(("times", "starts"), [(0, 0), (5, 1)])
def test_started_once_and_only_when_asked(times: int, starts: int) -> None:
    servers = Servers()
    asyncio.run(ask(servers, times))
    assert (servers.starts, servers.ends, servers.served) == (starts, starts, times)


def test_servers_of_somebody_else_have_a_model_already(tmp_path: Path) -> None:
    config = load(QUICKSTART, ["rollout.servers.kind=urls", 'rollout.servers.urls=["http://a:1"]'])
    found = Subject(name="m", kind="folder", where=str(tmp_path), digest="0" * 64)
    with pytest.raises(InputError, match="--url"):
        host_of(config, found, tmp_path)

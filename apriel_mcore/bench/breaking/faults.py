"""What can break? Each fault does its harm, and undoes what would not heal by itself."""

import asyncio
import signal
from collections.abc import Callable, Coroutine
from pathlib import Path
from random import Random
from typing import Any

import psutil

from apriel_mcore.bench.breaking.world import NUM_SERVERS, Job, World

type Fault = Callable[[World, Job, Random], Coroutine[Any, Any, bool]]
"""True when it did harm; False when what it needs was not there."""


def _signal(process: psutil.Process | None, number: int) -> bool:
    if process is None:
        return False
    try:
        process.send_signal(number)
    except psutil.Error:
        return False
    return True


async def server_killed(world: World, job: Job, random: Random) -> bool:
    """SIGKILL; the supervisor starts another one."""
    return _signal(world.server(random.randrange(NUM_SERVERS)), signal.SIGKILL)


async def server_stopped(world: World, job: Job, random: Random) -> bool:
    """SIGSTOP for good: it hangs until the supervisor replaces it."""
    return _signal(world.server(random.randrange(NUM_SERVERS)), signal.SIGSTOP)


async def all_servers_killed(world: World, job: Job, random: Random) -> bool:
    """Nobody is left to answer for a while."""
    harmed = [_signal(world.server(number), signal.SIGKILL) for number in range(NUM_SERVERS)]
    return all(harmed)


async def rank_killed(world: World, job: Job, random: Random) -> bool:
    """SIGKILL of the second trainer rank."""
    return _signal(job.rank(1), signal.SIGKILL)


async def feed_killed(world: World, job: Job, random: Random) -> bool:
    """SIGKILL of the first trainer rank, which holds feed, pool and journal."""
    return _signal(job.rank(0), signal.SIGKILL)


async def main_killed(world: World, job: Job, random: Random) -> bool:
    """SIGKILL of `apriel train` itself, which started all the others."""
    return _signal(job.main(), signal.SIGKILL)


async def rank_paused(world: World, job: Job, random: Random) -> bool:
    """SIGSTOP of the second trainer rank for some seconds."""
    return await _pause(job.rank(1), random.uniform(2.0, 6.0))


async def feed_paused(world: World, job: Job, random: Random) -> bool:
    """SIGSTOP of the first trainer rank for some seconds."""
    return await _pause(job.rank(0), random.uniform(2.0, 6.0))


async def judge_killed(world: World, job: Job, random: Random) -> bool:
    """SIGKILL of a judge."""
    return _signal(job.judge(), signal.SIGKILL)


async def judge_stopped(world: World, job: Job, random: Random) -> bool:
    """SIGSTOP of a judge for good: its deadline is the end of it."""
    return _signal(job.judge(), signal.SIGSTOP)


async def sandbox_killed(world: World, job: Job, random: Random) -> bool:
    """SIGKILL of a process below a judge."""
    return _signal(job.sandbox(random), signal.SIGKILL)


async def sandbox_stopped(world: World, job: Job, random: Random) -> bool:
    """SIGSTOP of a process below a judge, for good."""
    return _signal(job.sandbox(random), signal.SIGSTOP)


async def connection_reset(world: World, job: Job, random: Random) -> bool:
    """Every connection to a server breaks."""
    random.choice(world.links).reset()
    return True


async def slow_link(world: World, job: Job, random: Random) -> bool:
    """Every chunk to and from a server takes half a second more for a while."""
    link = random.choice(world.links)
    link.delay_s = 0.5
    await asyncio.sleep(random.uniform(3.0, 6.0))
    link.delay_s = 0.0
    return True


async def message_garbled(world: World, job: Job, random: Random) -> bool:
    """The message that tells a server of new weights has flipped bits."""
    random.choice(world.links).garble_next = "collective_rpc"
    return True


async def weights_corrupted(world: World, job: Job, random: Random) -> bool:
    """Bits of the weights flip in shared memory, some of them in a version on its way."""
    arenas = sorted(Path("/dev/shm").glob(f"apriel-{job.run_dir.digest}*"))
    if not arenas:
        return False
    for _ in range(8):
        for arena in arenas:
            _flip(arena, random)
        await asyncio.sleep(0.1)
    return True


async def disk_full(world: World, job: Job, random: Random) -> bool:
    """Not a byte left for some seconds."""
    if not world.has_own_disk:
        return False
    world.fill_disk()
    await asyncio.sleep(random.uniform(3.0, 8.0))
    world.free_disk()
    return True


async def checkpoint_truncated(world: World, job: Job, random: Random) -> bool:
    """The run dies, and its newest checkpoint lost half of a file."""
    if len(job.checkpoints()) < 2 or not _signal(job.rank(0), signal.SIGKILL):
        return False
    job.between_attempts.append("truncate")
    return True


async def clock_jumped(world: World, job: Job, random: Random) -> bool:
    """The wall clock goes a year ahead or back."""
    world.shift_clock(random.choice((-1, 1)) * 365 * 86400.0)
    return True


FAULTS: dict[str, Fault] = {
    fault.__name__: fault
    for fault in (
        server_killed,
        server_stopped,
        all_servers_killed,
        rank_killed,
        feed_killed,
        main_killed,
        rank_paused,
        feed_paused,
        judge_killed,
        judge_stopped,
        sandbox_killed,
        sandbox_stopped,
        connection_reset,
        slow_link,
        message_garbled,
        weights_corrupted,
        disk_full,
        checkpoint_truncated,
        clock_jumped,
    )
}


async def _pause(process: psutil.Process | None, seconds: float) -> bool:
    if not _signal(process, signal.SIGSTOP):
        return False
    await asyncio.sleep(seconds)
    return _signal(process, signal.SIGCONT)


def _flip(path: Path, random: Random) -> None:
    try:
        with path.open("r+b") as file:
            place = random.randrange(4096, path.stat().st_size)
            file.seek(place)
            byte = file.read(1)
            file.seek(place)
            file.write(bytes([byte[0] ^ 0x40]))
    except OSError:
        return

"""How is one judge's process started, asked with a deadline, and ended so that nothing is left?"""

import asyncio
import os
import signal
import socket
import subprocess
import sys
from typing import Self

import msgspec

from apriel_mcore.config.schema import Verify
from apriel_mcore.verify import wire

WORKER = (sys.executable, "-m", "apriel_mcore.verify.worker")
_ENVIRONMENT = ("PATH", "HOME", "LANG", "LC_ALL", "TMPDIR", "PYTHONPATH", "APRIEL_CACHE")
"""What a judge may know of our environment: it is the parent of model-written code, so no secrets."""


class WorkerDied(Exception):
    """The process ended in the middle of a request, said something that is no reply, or could not start."""


class WorkerProcess:
    """A running worker. Ask one thing at a time; kill() always leaves nothing behind."""

    def __init__(
        self, process: subprocess.Popen[bytes], reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self._process = process
        self._reader = reader
        self._writer = writer
        self.loaded: set[str] = set()
        self.num_jobs = 0

    @classmethod
    async def start(cls, config: Verify, program: tuple[str, ...], *, nice: int) -> Self:
        """Spawned, not forked: it shares nothing with us but a socket; `nice`: how far it yields.

        WorkerDied when the system has no process for it.
        """
        try:
            return await cls._start(config, program, nice=nice)
        except OSError as error:
            raise WorkerDied(f"a worker cannot be started: {error}") from error

    @classmethod
    async def _start(cls, config: Verify, program: tuple[str, ...], *, nice: int) -> Self:
        ours, theirs = socket.socketpair()
        with theirs:
            arguments = (str(theirs.fileno()), str(os.getpid()), msgspec.json.encode(config).decode())
            process = subprocess.Popen(
                (*program, *arguments),
                stdin=subprocess.DEVNULL,
                pass_fds=(theirs.fileno(),),
                start_new_session=True,
                env={name: os.environ[name] for name in _ENVIRONMENT if name in os.environ}
                | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
            )
        if nice:
            os.setpriority(os.PRIO_PROCESS, process.pid, os.getpriority(os.PRIO_PROCESS, 0) + nice)
        reader, writer = await asyncio.open_connection(sock=ours)
        return cls(process, reader, writer)

    async def ask(self, request: wire.Request, deadline_s: float) -> wire.Reply:
        """The reply; TimeoutError after the deadline, WorkerDied when the process ends instead.

        Whatever interrupts the wait, the process is killed: an old reply must not meet a new request.
        """
        answered = False
        try:
            async with asyncio.timeout(deadline_s):
                self._writer.write(wire.encode(request))
                await self._writer.drain()
                (size,) = wire.HEADER.unpack(await self._reader.readexactly(wire.HEADER.size))
                if size > wire.MAX_REPLY:
                    raise WorkerDied(f"worker said something larger than {wire.MAX_REPLY >> 20} MiB")
                reply = wire.decode_reply(await self._reader.readexactly(size))
            answered = True
            return reply
        except msgspec.MsgspecError as error:
            raise WorkerDied(f"worker said something that is no reply: {error}") from error
        except (asyncio.IncompleteReadError, ConnectionError) as error:
            raise WorkerDied(f"worker ended with status {self.kill()}") from error
        finally:
            if not answered:
                self.kill()

    @property
    def is_alive(self) -> bool:
        """Whether it can be asked."""
        return not self.is_reaped and not self._writer.is_closing()

    @property
    def is_reaped(self) -> bool:
        """Whether nothing of it is left; reaps it when it has ended."""
        return self._process.poll() is not None

    def kill(self) -> int:
        """Kills the worker with all its children and reaps it; its exit status. Safe to repeat."""
        self.dismiss()
        return self._process.wait()

    def dismiss(self) -> None:
        """As kill, without waiting until the kernel has its memory back; it must still be reaped."""
        self._writer.close()
        if self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGKILL)

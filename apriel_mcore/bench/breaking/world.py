"""A run and all that it stands on, in the hands of one who breaks it: servers, links, disk, clock.

`apriel train` --> links --> servers       started again by us, as a cluster's supervisor would
  in folder/disk (a small file system of its own, where we may mount one)
"""

import asyncio
import ctypes
import json
import mmap
import os
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from random import Random

import aiohttp
import psutil

from apriel_mcore import secret
from apriel_mcore.bench.breaking.link import Link
from apriel_mcore.bench.breaking.model import make_model, write_problems
from apriel_mcore.errors import AprielError
from apriel_mcore.obs.runlog import Event, read_events
from apriel_mcore.rundir import RunDir

NUM_SERVERS = 2
DISK_MIB = 768
CHECKPOINT_EVERY = 4
_NEW_MOUNTS = 0x20000
_PRIVATE = 0x44000
_HUNG_AFTER_S = 8.0
_START_S = 300.0
"""Seconds where cores are free; at a load of 30 on two cores more than a minute."""
_OURS = [sys.executable, "-m", "apriel_mcore.processes"]
"""What we start ends with us."""
MAX_ATTEMPTS = 60
"""Of one run: more restarts than that are a run that does not come to an end."""

RECIPE = """\
extends = "{base}"
name = "chaos"
seed = {seed}
model.kind = "folder"
model.path = "{model}"
domains.math.ratio = 0.6
domains.math.sources.file.kind = "jsonl"
domains.math.sources.file.path = "{data}/math.jsonl"
domains.code.ratio = 0.4
domains.code.sources.file.kind = "jsonl"
domains.code.sources.file.path = "{data}/code.jsonl"
domains.logic.ratio = 0.0
domains.logic.sources = {{}}
domains.instruction.ratio = 0.0
domains.instruction.sources = {{}}
domains.calls.ratio = 0.0
domains.calls.sources = {{}}
reward.length.kind = "none"
rollout.group_size = 4
rollout.max_output_tokens = 8
rollout.max_lag = 1.0
rollout.group_deadline_s = 30.0
rollout.max_groups_in_flight = 8
rollout.servers.kind = "urls"
rollout.servers.urls = {urls}
rollout.servers.max_num_seqs = 9
rollout.servers.max_model_len = 512
publish.server_deadline_s = 10.0
verify.workers = 2
verify.deadline_s = 10.0
train.num_steps = {steps}
train.groups_per_step = 5
train.seq_len = 512
train.precision = "fp32"
train.parallel.data = {ranks}
checkpoint.every = {every}
checkpoint.keep = {keep}
eval.every = 0
eval.problems_per_domain = 2
"""


class World:
    """Everything outside the run, and the run's process. All methods run on one event loop."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.disk = folder / "disk"
        self.ledger = folder / "ledger.jsonl"
        self.links: list[Link] = []
        self.has_own_disk = False
        self.paused: dict[int, float] = {}
        """Servers that were stopped, by number: our supervisor replaces them when they hang."""
        self._ports = [_free_port() for _ in range(NUM_SERVERS)]
        self._servers: list[subprocess.Popen[bytes]] = []
        self._num_starts = 0
        self._clock = folder / "clock"
        self._log = (folder / "output.log").open("ab")

    async def open(self) -> None:
        """Make the model and the disk, start servers and links."""
        for name in ("model", "data", "disk"):
            (self.folder / name).mkdir()
        self.has_own_disk = _mount(self.disk)
        make_model(self.folder / "model")
        write_problems(self.folder / "data")
        self.ledger.touch()
        self._clock.write_bytes(struct.pack("d", 0.0))
        subprocess.run(
            ["cc", "-shared", "-fPIC", "-O1", "-o", self._shim, Path(__file__).parent / "clock.c", "-ldl"],
            check=True,
        )
        for port in self._ports:
            self.links.append(Link(port))
            await self.links[-1].open()
            self._servers.append(self._start_server(port))
        self._watching = asyncio.create_task(self._supervise())

    async def close(self) -> None:
        """End what we started."""
        self._watching.cancel()
        for link in self.links:
            await link.close()
        for server in self._servers:
            server.kill()
            server.wait()
        if self.has_own_disk:
            ctypes.CDLL(None).umount2(str(self.disk).encode(), 2)

    @property
    def _shim(self) -> Path:
        return self.folder / "clock.so"

    # --- servers ---------------------------------------------------------------------------------

    def server(self, number: int) -> psutil.Process:
        """The process of a server."""
        return psutil.Process(self._servers[number].pid)

    def _start_server(self, port: int) -> subprocess.Popen[bytes]:
        self._num_starts += 1
        module = [*_OURS, "apriel_mcore.bench.breaking.server"]
        arguments = [str(port), str(self.folder / "model"), str(self.ledger), str(self._num_starts)]
        return subprocess.Popen(
            [*module, *arguments], stdin=subprocess.DEVNULL, stdout=self._log, stderr=self._log
        )

    def check(self) -> None:
        """Raises what ended our supervisor, without which nobody starts servers again."""
        if self._watching.done():
            self._watching.result()

    async def _supervise(self) -> None:
        """Start servers again that died or hang; one that has not answered yet is given the time to start."""
        since = [time.monotonic()] * NUM_SERVERS
        patience_s = [_START_S] * NUM_SERVERS
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=2.0)) as http:
            while True:
                await asyncio.sleep(0.5)
                for number, port in enumerate(self._ports):
                    server = self._servers[number]
                    if await _answers(http, port):
                        since[number], patience_s[number] = time.monotonic(), _HUNG_AFTER_S
                    if _is_stopped(server):  # as it may be while it starts
                        patience_s[number] = _HUNG_AFTER_S
                    if server.poll() is None and time.monotonic() - since[number] < patience_s[number]:
                        continue
                    server.kill()
                    server.wait()
                    self._servers[number] = self._start_server(port)
                    since[number], patience_s[number] = time.monotonic(), _START_S

    # --- disk and clock --------------------------------------------------------------------------

    def fill_disk(self) -> None:
        """Leave no byte."""
        with (self.disk / "filler").open("wb") as filler:
            try:
                while True:
                    filler.write(bytes(1 << 20))
                    filler.flush()
            except OSError:
                pass
        with (self.disk / "filler2").open("wb", buffering=0) as filler:
            try:
                while filler.write(bytes(4096)):
                    pass
            except OSError:
                pass

    def free_disk(self) -> None:
        """As before."""
        for name in ("filler", "filler2"):
            (self.disk / name).unlink(missing_ok=True)

    def shift_clock(self, seconds: float) -> None:
        """The run's wall clock, from now on."""
        with self._clock.open("r+b") as file, mmap.mmap(file.fileno(), 8) as shared:
            shared[:8] = struct.pack("d", seconds)

    # --- the run ---------------------------------------------------------------------------------

    def write_recipe(self, *, seed: int, steps: int, ranks: int) -> Path:
        """The recipe of a run."""
        path = self.folder / f"chaos-{seed}.toml"
        path.write_text(
            RECIPE.format(
                base=Path(__file__).parents[3] / "recipes" / "base.toml",
                seed=seed,
                model=self.folder / "model",
                data=self.folder / "data",
                urls=json.dumps([f"http://127.0.0.1:{link.port}" for link in self.links]),
                steps=steps,
                ranks=ranks,
                every=CHECKPOINT_EVERY,
                keep=steps // CHECKPOINT_EVERY + 2,  # all of them: the account needs the whole journal
            ),
            encoding="utf-8",
        )
        return path

    def start_run(self, recipe: Path, run_dir: RunDir) -> subprocess.Popen[bytes]:
        """`apriel train`, for the first time or again."""
        return subprocess.Popen(
            [*_OURS, "apriel_mcore.cli", "train", str(recipe), "--run-dir", str(run_dir.root)],
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=self._log,
            env=os.environ
            | {"LD_PRELOAD": str(self._shim), "APRIEL_CLOCK": str(self._clock)}
            | {secret.SERVER_VARIABLE: secret.new()},
        )


class Job:
    """A run that is started again until it is done."""

    def __init__(self, world: World, run_dir: RunDir, *, seed: int, steps: int, ranks: int) -> None:
        self.run_dir = run_dir
        self.steps = steps
        self.attempts = 0
        self.between_attempts: list[str] = []
        """What happens while the run is down: "truncate"."""
        self.family: dict[int, psutil.Process] = {}
        """Every process of the run that was ever seen."""
        self._world = world
        self._recipe = world.write_recipe(seed=seed, steps=steps, ranks=ranks)
        self._process: subprocess.Popen[bytes] | None = None

    def tend(self) -> bool:
        """Start it if it is down; True when it has come to its end. AprielError when it will not."""
        self._world.check()
        if self._process and self._process.poll() is None:
            for process in psutil.Process(self._process.pid).children(recursive=True):
                self.family.setdefault(process.pid, process)
            return False
        if self._process and self._process.returncode == 0:
            return True
        if self.attempts == MAX_ATTEMPTS or (self._process and self._process.returncode == 2):
            raise AprielError(f"{self.run_dir.root}: does not finish; see {self._world.folder}/output.log")
        while self.between_attempts:
            truncate_newest(self.run_dir, self.between_attempts.pop())
        self.attempts += 1
        self._process = self._world.start_run(self._recipe, self.run_dir)
        return False

    def end(self) -> None:
        """Whatever its state."""
        if self._process and self._process.poll() is None:
            self._process.kill()
            self._process.wait()

    def events(self) -> list[Event]:
        """So far."""
        return read_events(self.run_dir.events)

    def num_steps_seen(self) -> int:
        """Lines of steps, those that a resume took back included: it only rises."""
        try:
            return self.run_dir.events.read_bytes().count(b'"event": "step"')
        except FileNotFoundError:
            return 0

    def main(self) -> psutil.Process | None:
        """`apriel train`, if it runs."""
        if self._process is None or self._process.poll() is not None:
            return None
        return psutil.Process(self._process.pid)

    def checkpoints(self) -> list[Path]:
        """That are whole, the oldest first."""
        return whole_checkpoints(self.run_dir)

    def rank(self, number: int) -> psutil.Process | None:
        """A trainer rank's process, if it runs."""
        return self._find(lambda command, env: "apriel_mcore.train" in command and env == str(number))

    def judge(self) -> psutil.Process | None:
        """A judge's process."""
        return self._find(lambda command, env: "apriel_mcore.verify.worker" in command)

    def sandbox(self, random: Random) -> psutil.Process | None:
        """A sandbox's server, or one of its children."""
        judges = [p for p in self.family.values() if _matches(p, "apriel_mcore.verify.worker")]
        below = [child for judge in judges for child in _children(judge)]
        return random.choice(below) if below else None

    def _find(self, fits: Callable[[str, str], bool]) -> psutil.Process | None:
        for process in self.family.values():
            try:
                if process.is_running() and process.status() != psutil.STATUS_ZOMBIE:
                    command = " ".join(process.cmdline())
                    if fits(command, process.environ().get("RANK", "")):
                        return process
            except psutil.Error:
                continue
        return None


def whole_checkpoints(run_dir: RunDir) -> list[Path]:
    """Folders, the oldest first."""
    return sorted(path for path in run_dir.checkpoints.glob("step_??????") if path.is_dir())


def truncate_newest(run_dir: RunDir, how: str) -> None:
    """Damage the newest checkpoint; nothing when there is none, or only one."""
    folders = whole_checkpoints(run_dir)
    if len(folders) < 2:
        return
    largest = max(folders[-1].iterdir(), key=lambda path: path.stat().st_size)
    with largest.open("r+b") as file:
        file.truncate(largest.stat().st_size // 2)


def _mount(folder: Path) -> bool:
    """A small file system of our own in a mount namespace of our own; False where we may not."""
    try:
        os.unshare(_NEW_MOUNTS)
    except PermissionError:
        return False
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.mount(b"none", b"/", None, _PRIVATE, None):
        return False
    return not libc.mount(b"none", str(folder).encode(), b"tmpfs", 0, f"size={DISK_MIB}m".encode())


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


async def _answers(http: aiohttp.ClientSession, port: int) -> bool:
    try:
        async with http.get(f"http://127.0.0.1:{port}/health") as response:
            return response.status == 200
    except (aiohttp.ClientError, TimeoutError):
        return False


def _is_stopped(server: subprocess.Popen[bytes]) -> bool:
    try:
        return psutil.Process(server.pid).status() == psutil.STATUS_STOPPED
    except psutil.NoSuchProcess:
        return False


def _matches(process: psutil.Process, word: str) -> bool:
    try:
        return process.is_running() and word in " ".join(process.cmdline())
    except psutil.Error:
        return False


def _children(process: psutil.Process) -> list[psutil.Process]:
    try:
        return process.children(recursive=True)
    except psutil.Error:
        return []

"""The trainer ranks of this host: start them through torchrun, show what they do, and tell the end.

    apriel train (this process: no torch)
      `- torchrun            one agent, in a session of its own so that Ctrl-C reaches only us
           `- rank 0 .. N-1  python -m apriel_mcore.train RUN_DIR ATTEMPT RECIPE
                `- vLLM servers and judges (rank 0)

On a cluster (cluster/) the first trainer node runs this, and the others their agents alone.

SIGUSR1 becomes the file `stop-requested`, which the trainer polls: torchrun does not forward that signal.
SIGINT and SIGTERM end the ranks, which end their servers. Should this process die, all of them do.
"""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import FrameType

import msgspec

from apriel_mcore.config.schema import RunConfig
from apriel_mcore.errors import AprielError, Preempted
from apriel_mcore.processes import streaming_copies
from apriel_mcore.rundir import RunDir
from apriel_mcore.views.live import LiveView

_GRACE_S = 30.0


class Interrupted(AprielError):
    """Ended by SIGINT or SIGTERM; the run continues from its last checkpoint when started again."""


def heed_early_stop() -> None:
    """SIGUSR1 before anything runs ends the command as it would later: run it again."""

    def stop(signum: int, frame: FrameType | None) -> None:
        raise Preempted("stopped on request before anything was started; run the same command to begin")

    signal.signal(signal.SIGUSR1, stop)


class Crew(msgspec.Struct, frozen=True, kw_only=True):
    """The ranks of one host."""

    num_ranks: int
    rendezvous: tuple[str, ...]
    """torchrun's flags: how they find those of other hosts."""
    recipe: Path
    """What they read: the run's own, with addresses of this attempt where servers are on other hosts."""
    agent: str = "launcher"
    """Name of their agent's log."""
    environment: dict[str, str] = {}
    """Theirs, where this process's does not say otherwise."""


def train(config: RunConfig, run_dir: RunDir) -> None:
    """Run the trainer to its end, all of it on this host. Raises as `lead`."""
    crew = Crew(
        num_ranks=config.train.parallel.world_size,
        rendezvous=("--standalone", "--nnodes=1"),
        recipe=run_dir.recipe,
        environment={"GLOO_SOCKET_IFNAME": "lo"},  # by itself gloo listens where the host's name points to
    )
    lead(config, run_dir, crew=crew, look=_nothing)


def lead(config: RunConfig, run_dir: RunDir, *, crew: Crew, look: Callable[[], None]) -> None:
    """Run the trainer to its end with the first rank on this host; `look` around while it runs.

    Raises Preempted, Interrupted, AprielError with the rank's message, or what `look` raises.
    """
    attempt = run_dir.attempts() + 1
    agent = start_agent(config, run_dir, crew=crew, attempt=attempt)
    try:
        _watch(agent, config, run_dir, look)
    finally:
        end_agent(agent)
    _tell(agent.returncode, run_dir, attempt)


def start_agent(config: RunConfig, run_dir: RunDir, *, crew: Crew, attempt: int) -> subprocess.Popen[bytes]:
    """torchrun for a crew, in the background."""
    torchrun = [*crew.rendezvous, f"--nproc-per-node={crew.num_ranks}", "--max-restarts=0"]
    rank = ["-m", "apriel_mcore.train", str(run_dir.root), str(attempt), str(crew.recipe)]
    with run_dir.log(crew.agent, attempt).open("wb") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "apriel_mcore.processes", "torch.distributed.run", *torchrun, *rank],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            env=crew.environment
            | os.environ
            | thread_environment(config, crew.num_ranks)
            | streaming_copies(),
        )


def _nothing() -> None:
    """There is nobody else to look after."""


def thread_environment(config: RunConfig, num_ranks: int) -> dict[str, str]:
    """Threads of each trainer rank: the recipe's, or this machine's cores shared out to its ranks.

    Waiting threads sleep: where servers share the cores, spinning ones cost more than they gain.
    """
    cores = len(os.sched_getaffinity(0))
    threads = config.train.threads or max(1, cores // num_ranks)
    return {"OMP_NUM_THREADS": str(threads), "OMP_WAIT_POLICY": "PASSIVE"}


def _watch(
    agent: subprocess.Popen[bytes], config: RunConfig, run_dir: RunDir, look: Callable[[], None]
) -> None:
    """Show events until the agent ends; turn signals into what the trainer understands."""

    def request_stop(signum: int, frame: FrameType | None) -> None:
        run_dir.stop_request.touch()

    def interrupt(signum: int, frame: FrameType | None) -> None:
        name = signal.Signals(signum).name
        raise Interrupted(f"stopped by {name}; the same command continues from {_last_saved(run_dir)}")

    signal.signal(signal.SIGUSR1, request_stop)
    signal.signal(signal.SIGINT, interrupt)
    signal.signal(signal.SIGTERM, interrupt)
    with LiveView(config, run_dir.events) as view:
        while agent.poll() is None:
            view.refresh()
            look()
            time.sleep(0.2)
        view.refresh()


def _last_saved(run_dir: RunDir) -> str:
    saved = sorted(path.name for path in run_dir.checkpoints.glob("step_??????"))
    return saved[-1] if saved else "the beginning: nothing was saved yet (SIGUSR1 saves before it stops)"


def end_agent(agent: subprocess.Popen[bytes]) -> None:
    """TERM the agent, which ends its ranks; KILL its whole session if it does not come to an end."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if agent.poll() is None:
        agent.terminate()
        try:
            agent.wait(timeout=_GRACE_S)
        except subprocess.TimeoutExpired:
            os.killpg(agent.pid, signal.SIGKILL)
            agent.wait()
    signal.signal(signal.SIGINT, signal.default_int_handler)


def _tell(returncode: int, run_dir: RunDir, attempt: int) -> None:
    """Raise what the first rank said of its end; a rank that said nothing died."""
    if run_dir.outcome.exists():
        outcome = json.loads(run_dir.outcome.read_text(encoding="utf-8"))
        if outcome["code"] == Preempted.exit_code:
            raise Preempted(outcome["message"])
        if outcome["code"] != 0:
            error = AprielError(outcome["message"])
            error.exit_code = outcome["code"]
            raise error
        if returncode == 0:
            return
    log = run_dir.log("launcher", attempt)
    raise AprielError(
        f"the trainer ended with status {returncode} {_last_word(log)}; see {log} and {run_dir.logs}; "
        "the same command continues from the last checkpoint"
    )


def _last_word(log: Path) -> str:
    """What torchrun says of a rank that could say nothing."""
    killed = re.search(r"Signal (\d+) \((\w+)\) received", log.read_text(encoding="utf-8", errors="replace"))
    if not killed:
        return "without a word"
    hint = " (by the kernel, if memory ran out: `dmesg`)" if killed[2] == "SIGKILL" else ""
    return f"because a rank was ended by {killed[2]}{hint}"

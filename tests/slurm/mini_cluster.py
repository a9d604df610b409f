"""A whole SLURM on this machine: one controller, virtual nodes that differ by port, real jobs.

    python -m tests.slurm.mini_cluster FOLDER [NODES]     until it is interrupted; prints what to export

Needs root and Debian's slurmctld, slurmd, slurm-client and munge. No systemd, cgroups or accounting: jobs are
found in the queue, and for five minutes after they left it.
"""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

PROGRAMS = ("slurmctld", "slurmd", "munged", "sbatch", "scontrol")
CPUS_PER_NODE = 16
GRACE_S = 180
"""Between the signal of a preemption and its end."""

CONFIG = """\
ClusterName=mini
SlurmctldHost=localhost(127.0.0.1)
SlurmctldPort={controller_port}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
# Short lived credentials: a requeued job is held until those of its last attempt have expired.
AuthInfo=socket={folder}/munge/socket,cred_expire=5
CredType=cred/munge
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool/%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd-%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
MpiDefault=none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
# Seconds instead of a minute until a job starts.
SchedulerType=sched/backfill
SchedulerParameters=sched_interval=1,bf_interval=1,batch_sched_delay=0
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
SlurmctldParameters=preempt_send_user_signal
SlurmdParameters=config_overrides
KillWait=10
MailProg=/bin/true
ReturnToService=2
{node_lines}
PartitionName=DEFAULT Nodes=n[1-{nodes}] MaxTime=02:00:00
PartitionName=batch Default=YES PriorityTier=1 PreemptMode=REQUEUE GraceTime={grace}
PartitionName=urgent PriorityTier=10 PreemptMode=OFF
"""


def missing_programs() -> list[str]:
    """What of SLURM is not installed here."""
    return [program for program in PROGRAMS if shutil.which(program, path=_search_path()) is None]


@contextmanager
def mini_cluster(folder: Path, *, nodes: int) -> Iterator[dict[str, str]]:
    """A running cluster; yields what SLURM's commands need in their environment."""
    for part in ("munge", "state", *(f"spool/n{node}" for node in range(1, nodes + 1))):
        (folder / part).mkdir(parents=True, exist_ok=True)
    folder.chmod(0o755)
    controller_port, *node_ports = _free_ports(nodes + 1)
    config = folder / "slurm.conf"
    config.write_text(
        CONFIG.format(
            folder=folder,
            nodes=nodes,
            controller_port=controller_port,
            node_lines="\n".join(_node(number, port) for number, port in enumerate(node_ports, 1)),
            grace=GRACE_S,
        )
    )
    (folder / "cgroup.conf").write_text("CgroupAutomount=no\n")
    environment = {"SLURM_CONF": str(config), "PATH": _search_path()}
    with ExitStack() as running:
        _start(running, _munged(folder), folder, environment)
        _wait(lambda: (folder / "munge" / "socket").exists(), "munged")
        _start(running, ["slurmctld", "-D", "-c", "-f", str(config)], folder, environment)
        for node in range(1, nodes + 1):
            _start(running, ["slurmd", "-D", "-N", f"n{node}", "-f", str(config)], folder, environment)
        _wait(lambda: _num_idle(environment) == nodes, "the nodes")
        try:
            yield environment
        finally:
            _cancel_all(environment)


def _node(number: int, port: int) -> str:
    host = socket.gethostname().split(".")[0]
    address = f"NodeHostname={host} NodeAddr=127.0.0.1 Port={port}"
    return f"NodeName=n{number} {address} CPUs={CPUS_PER_NODE} State=UNKNOWN"


def _free_ports(count: int) -> list[int]:
    with ExitStack() as held:
        sockets = [held.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


def _munged(folder: Path) -> list[str]:
    key = folder / "munge" / "key"
    key.unlink(missing_ok=True)
    key.write_bytes(os.urandom(1024))
    key.chmod(0o400)
    files = {"key-file": "key", "socket": "socket", "pid-file": "pid", "log-file": "log", "seed-file": "seed"}
    paths = [f"--{flag}={folder / 'munge' / name}" for flag, name in files.items()]
    return ["munged", "--foreground", "--force", *paths]


def _start(running: ExitStack, command: list[str], folder: Path, environment: dict[str, str]) -> None:
    log = running.enter_context((folder / "daemons.log").open("ab"))
    daemon = subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=os.environ | environment
    )
    running.callback(_end, daemon)


def _end(daemon: subprocess.Popen[bytes]) -> None:
    daemon.terminate()
    try:
        daemon.wait(timeout=20)
    except subprocess.TimeoutExpired:
        daemon.kill()
        daemon.wait()


def _num_idle(environment: dict[str, str]) -> int:
    listing = slurm(environment, "sinfo", "--noheader", "--Node", "--partition=batch", "--states=idle")
    return len(listing.splitlines())


def _cancel_all(environment: dict[str, str]) -> None:
    """No job, and so no process of one, outlives its cluster."""
    slurm(environment, "scancel", "--user=root")
    deadline = time.monotonic() + 60
    while slurm(environment, "squeue", "--noheader") and time.monotonic() < deadline:
        time.sleep(0.2)


def slurm(environment: dict[str, str], *command: str) -> str:
    """What one of SLURM's commands prints; empty where it fails."""
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | environment, check=False)
    return done.stdout if done.returncode == 0 else ""


def _wait(is_there: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + 30
    while not is_there():
        if time.monotonic() > deadline:
            raise TimeoutError(f"{what} did not come up in 30 s")
        time.sleep(0.1)


def _search_path() -> str:
    return f"{os.environ['PATH']}:/usr/sbin:/sbin"


def main() -> None:
    folder, nodes = Path(sys.argv[1]).resolve(), int(sys.argv[2]) if len(sys.argv) > 2 else 4
    signal.signal(signal.SIGTERM, lambda _number, _frame: sys.exit(0))  # the daemons end with us
    signal.signal(signal.SIGINT, lambda _number, _frame: sys.exit(0))
    with mini_cluster(folder, nodes=nodes) as environment:
        print(f"export SLURM_CONF={environment['SLURM_CONF']}", flush=True)
        signal.pause()


if __name__ == "__main__":
    main()

"""One mini cluster for all tests that need SLURM, and the command of the launch environment."""

import json
import os
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from apriel_mcore.cluster.folders import LaunchFolder
from tests.slurm.mini_cluster import mini_cluster, missing_programs, slurm

ROOT = Path(__file__).parents[2]
APRIEL = ROOT / ".venv-launch" / "bin" / "apriel"
NUM_NODES = 4


class Cluster:
    """A running mini cluster and what was launched on it."""

    def __init__(self, environment: dict[str, str], folder: Path) -> None:
        self.environment = environment
        self.root = folder / "shared"
        self.home = folder / "home"
        self.root.mkdir()
        self.home.mkdir()

    def apriel(self, *words: str) -> subprocess.CompletedProcess[str]:
        """The command, as on a login node."""
        environment = {name: text for name, text in os.environ.items() if name != "PYTHONPATH"}
        return subprocess.run(
            [str(APRIEL), *words],
            cwd=self.home,
            env=environment | self.environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )

    def launch(self, name: str, *words: str, python: Path) -> "Launched":
        """Launch the cluster's quickstart under a name."""
        done = self.apriel(
            "launch",
            str(ROOT / "recipes" / "quickstart_cluster.toml"),
            f"name={name}",
            f"--cluster={ROOT / 'slurm' / 'mini.toml'}",
            f"--on=root={self.root}",
            f"--on=environment.python={python}",
            *words,
        )
        assert done.returncode == 0, done.stderr
        record = json.loads((self.home / "launched" / f"{name}.json").read_text())
        return Launched(self, name, record["job"], LaunchFolder(Path(record["folder"])))

    def slurm(self, *command: str) -> str:
        return slurm(self.environment, *command)


class Launched:
    """A launched run."""

    def __init__(self, cluster: Cluster, name: str, job: str, folder: LaunchFolder) -> None:
        self._cluster = cluster
        self.name = name
        self.job = job
        self.folder = folder

    def states(self) -> list[str]:
        """Of the job, or of its array's tasks, in the queue."""
        return self._cluster.slurm("squeue", "--noheader", f"--jobs={self.job}", "--format=%T").split()

    def wait(self, until: Callable[[], object], what: str, *, timeout_s: float = 60.0) -> None:
        deadline = time.monotonic() + timeout_s
        while not until():
            assert time.monotonic() < deadline, (
                f"{what}: not within {timeout_s:.0f} s\n{self.said()}{self.nodes_said()}"
            )
            time.sleep(0.1)

    def wait_for_end(self, *, timeout_s: float = 60.0) -> None:
        self.wait(lambda: not self.states(), "the end of the job", timeout_s=timeout_s)

    def final(self, key: str) -> str:
        """What SLURM remembers of the job, as `scontrol show job` names it."""
        words = self._cluster.slurm("scontrol", "--oneliner", "show", "job", self.job).split()
        return next(word.partition("=")[2] for word in words if word.startswith(f"{key}="))

    def said(self) -> str:
        """The job's log."""
        logs = sorted(self.folder.path.glob("job-*.log"))
        return "\n".join(log.read_text(errors="replace")[-3000:] for log in logs)

    def nodes_said(self) -> str:
        """The logs of its nodes, of all attempts."""
        logs = sorted(self.folder.attempts.glob("*/node-*.log"))
        return "\n".join(log.read_text(errors="replace")[-3000:] for log in logs)

    def num_attempts(self, task: int = 0) -> int:
        return len(list(self.folder.attempts.glob(f"{task}.*")))

    def history(self, task: int = 0) -> list[str]:
        """Of a stand-in."""
        path = self.folder.path / f"history-{task}"
        return path.read_text().splitlines() if path.exists() else []


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """Skips, and says why, where SLURM or the launch environment is not installed."""
    if absent := missing_programs():
        pytest.skip(f"SLURM is not installed here: no {', '.join(absent)} (Debian: slurm-wlm, munge)")
    if os.geteuid() != 0:
        pytest.skip("a SLURM of virtual nodes needs root")
    if not APRIEL.exists():
        pytest.skip("no launch environment: `make launcher`")
    with tempfile.TemporaryDirectory(prefix="apriel-slurm-") as name:
        folder = Path(name)
        folder.chmod(0o755)  # munge refuses a socket that others cannot reach
        with mini_cluster(folder / "daemons", nodes=NUM_NODES) as environment:
            yield Cluster(environment, folder)

"""What lies where on the file system that all nodes see?

    ROOT/launches/NAME-TIME/    what was launched: recipe, site, script, code
        attempts/TASK.COUNT/    what one attempt of one task says to its nodes
    ROOT/runs/NAME/             the run itself (rundir.py)

Nodes speak to each other through files that appear whole: written beside, then renamed.
"""

import os
from pathlib import Path

import msgspec

from apriel_mcore.rundir import RunDir


class Launch(msgspec.Struct, frozen=True, kw_only=True):
    """What was asked for."""

    name: str
    seeds: list[int]
    """One run each, a task of the array; empty: one run with the recipe's own seed."""
    continues_changed: bool
    """A run whose recipe changed goes on with the new one."""


class Orders(msgspec.Struct, frozen=True, kw_only=True):
    """What the leading node tells the others."""

    attempt: int
    """Of the run, as its logs count."""


class Failure(msgspec.Struct, frozen=True, kw_only=True):
    """Why a node cannot go on."""

    node: int
    code: int
    message: str


class LaunchFolder(msgspec.Struct, frozen=True):
    """ROOT/launches/NAME-TIME."""

    path: Path

    @property
    def launch(self) -> Path:
        """Launch, as JSON."""
        return self.path / "launch.json"

    @property
    def recipe(self) -> Path:
        """The resolved recipe."""
        return self.path / "recipe.toml"

    @property
    def site(self) -> Path:
        """The resolved cluster file."""
        return self.path / "site.toml"

    @property
    def script(self) -> Path:
        """The batch script."""
        return self.path / "job.sh"

    @property
    def code(self) -> Path:
        """The working copy that was sent."""
        return self.path / "code"

    @property
    def attempts(self) -> Path:
        """A folder each attempt of each task."""
        return self.path / "attempts"

    def held_back(self, task: int) -> Path:
        """Its existence keeps a task from being requeued."""
        return self.path / f"no-requeue-{task}"

    def run_dir(self, launch: Launch, task: int) -> RunDir:
        """Of a task."""
        name = f"{launch.name}-seed{launch.seeds[task]}" if launch.seeds else launch.name
        return RunDir(self.path.parents[1] / "runs" / name)

    def read_launch(self) -> Launch:
        """What was launched."""
        return msgspec.json.decode(self.launch.read_bytes(), type=Launch)


class AttemptFolder(msgspec.Struct, frozen=True):
    """ROOT/launches/NAME-TIME/attempts/TASK.COUNT."""

    path: Path

    @property
    def hostnames(self) -> Path:
        """The job's nodes in their order, a line each."""
        return self.path / "hostnames"

    @property
    def nodes(self) -> Path:
        """What `scontrol --oneliner show node` says of them."""
        return self.path / "nodes"

    @property
    def stop(self) -> Path:
        """Its existence asks the run to save and stop."""
        return self.path / "stop"

    @property
    def orders(self) -> Path:
        """Orders of the leading node; whoever reads them may start."""
        return self.path / "orders.json"

    @property
    def recipe(self) -> Path:
        """The recipe with this attempt's addresses in it: what the ranks read."""
        return self.path / "recipe.toml"

    @property
    def token(self) -> Path:
        """The secret of this attempt's services, for the owner alone."""
        return self.path / "token"

    @property
    def exit_code(self) -> Path:
        """How the run ended; all nodes end when it is there."""
        return self.path / "exit-code"

    def address(self, node: int) -> Path:
        """Where a node can be reached; there once it is up."""
        return self.path / f"node-{node}.address"

    def failure(self, node: int) -> Path:
        """Failure of a node."""
        return self.path / f"node-{node}.failure.json"


def put(path: Path, content: bytes) -> None:
    """Write a file that appears whole."""
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    partial.write_bytes(content)
    partial.replace(path)

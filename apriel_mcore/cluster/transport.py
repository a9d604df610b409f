"""The login node at arm's length, through nemo-run: its tunnels run commands there, its packager sends code.

What nemo-run is not used for, and why, is docs/decisions/011-nemo-run.md.
"""

import shlex
import tempfile
from pathlib import Path
from typing import Protocol

from apriel_mcore.config.schema.site import GitCode, LocalTunnel, Site, SshTunnel
from apriel_mcore.errors import AprielError, InputError


class Result(Protocol):
    """What a command said (invoke's)."""

    stdout: str
    stderr: str
    exited: int


class Tunnel(Protocol):
    """nemo_run.core.tunnel.client.Tunnel, as far as it is used."""

    def run(self, command: str, hide: bool = ..., warn: bool = ...) -> Result: ...
    def put(self, local_path: str, remote_path: str) -> None: ...
    def get(self, remote_path: str, local_path: str) -> None: ...
    def cleanup(self) -> None: ...


class LoginNode:
    """Commands and files on the machine that talks to SLURM. Words are quoted here, and nowhere else."""

    def __init__(self, site: Site) -> None:
        self._tunnel = _tunnel(site)

    def run(self, *words: str) -> str:
        """What a command prints; AprielError with what it complains of."""
        result = self._tunnel.run(shlex.join(words), hide=True, warn=True)
        if result.exited != 0:
            raise AprielError(f"`{shlex.join(words[:3])} ...` failed: {result.stderr.strip()[-500:]}")
        return result.stdout

    def succeeds(self, *words: str) -> bool:
        """Whether a command ends with 0."""
        return self._tunnel.run(shlex.join(words), hide=True, warn=True).exited == 0

    def read(self, path: Path) -> str:
        """A file of the cluster's; empty where there is none."""
        result = self._tunnel.run(shlex.join(["cat", "--", str(path)]), hide=True, warn=True)
        return result.stdout if result.exited == 0 else ""

    def write(self, path: Path, text: str) -> None:
        """A file on the cluster, for its owner alone."""
        with tempfile.NamedTemporaryFile("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            self._tunnel.put(file.name, str(path))
        self.run("chmod", "600", str(path))

    def send_code(self, code: GitCode, target: Path) -> None:
        """A commit of the working copy that this program runs from, unpacked on the cluster."""
        from nemo_run.core.packaging.git import GitArchivePackager  # pyright: ignore

        source = Path(__file__).parents[2]
        if not (source / ".git").exists():
            raise InputError(
                f'code.kind = "git": {source} is no git working copy; use "installed" and install '
                "apriel_mcore into the cluster's environment"
            )
        with tempfile.TemporaryDirectory() as folder:
            packager = GitArchivePackager(ref=code.ref, include_submodules=False)
            archive = packager.package(source, folder, "code")
            self._tunnel.put(archive, f"{target}.tar.gz")
        self.run("mkdir", "-p", str(target))
        self.run("tar", "-xzf", f"{target}.tar.gz", "-C", str(target))
        self.run("rm", f"{target}.tar.gz")

    def close(self) -> None:
        """Hang up."""
        self._tunnel.cleanup()


def _tunnel(site: Site) -> Tunnel:
    try:
        from nemo_run.core.tunnel import client  # pyright: ignore[reportMissingImports]
    except ModuleNotFoundError:
        raise InputError(
            "nemo-run is not in this environment, and cannot be beside vLLM: `make launcher` makes one for "
            "it, whose command is .venv-launch/bin/apriel"
        ) from None
    match site.tunnel:
        case LocalTunnel():
            return client.LocalTunnel(job_dir=site.root)
        case SshTunnel(host=host, user=user, port=port, identity=identity):
            return client.SSHTunnel(
                job_dir=site.root, host=host, user=user, port=port, identity=identity or None
            )

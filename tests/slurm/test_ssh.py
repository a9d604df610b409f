"""The same launch from outside the cluster: nemo-run's tunnel over a real ssh server."""

import json
import shutil
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.slurm.conftest import Cluster
from tests.slurm.test_batch_script import STAND_IN, assert_counted_once

pytestmark = [pytest.mark.slurm, pytest.mark.timeout(300), pytest.mark.xdist_group("slurm-script")]

SETTINGS = """\
Port {port}
ListenAddress 127.0.0.1
HostKey {folder}/host_key
AuthorizedKeysFile {folder}/user_key.pub
StrictModes no
UsePAM no
PasswordAuthentication no
PidFile none
Subsystem sftp internal-sftp
SetEnv SLURM_CONF={slurm_conf}
"""


@pytest.fixture
def ssh(cluster: Cluster, tmp_path: Path) -> Iterator[list[str]]:
    """What reaches a login node by ssh, as changes of a cluster's file."""
    server = shutil.which("sshd", path="/usr/sbin:/usr/local/sbin")
    if server is None:
        pytest.skip("no ssh server is installed here (Debian: openssh-server)")
    for key in ("host_key", "user_key"):
        make = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(tmp_path / key)]
        subprocess.run(make, check=True)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    settings = tmp_path / "sshd_config"
    slurm_conf = cluster.environment["SLURM_CONF"]
    settings.write_text(SETTINGS.format(port=port, folder=tmp_path, slurm_conf=slurm_conf))
    Path("/run/sshd").mkdir(exist_ok=True)
    process = subprocess.Popen(
        [str(Path(server).resolve()), "-D", "-e", "-f", str(settings)], stderr=subprocess.PIPE
    )
    assert process.stderr
    assert b"Server listening" in process.stderr.readline()
    try:
        yield [
            "--on=tunnel.kind=ssh",
            "--on=tunnel.host=127.0.0.1",
            "--on=tunnel.user=root",
            f"--on=tunnel.port={port}",
            f"--on=tunnel.identity={tmp_path / 'user_key'}",
        ]
    finally:
        process.terminate()
        process.wait()


def test_launch_status_and_stop_over_ssh(cluster: Cluster, ssh: list[str]) -> None:
    run = cluster.launch("far", *ssh, python=STAND_IN)
    (run.folder.path / "plan.json").write_text(json.dumps({"steps": 10, "seconds": 0.1, "exit": 0}))
    assert (run.folder.code / "apriel_mcore" / "cluster" / "node.py").exists(), "the commit was sent"
    assert (run.folder.recipe.stat().st_mode & 0o777, run.folder.path.stat().st_mode & 0o777) == (
        0o600,
        0o700,
    )
    run.wait_for_end()
    assert_counted_once(run, 10)
    status = cluster.apriel("status", "far")
    assert "ended with 0" in status.stdout, status.stderr
    assert "not in the queue" in cluster.apriel("stop", "far").stdout

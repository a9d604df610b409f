"""The nodes that do not lead: ranks of the trainer, or judges, as a child of this process."""

import subprocess
import sys
import time

import msgspec

from apriel_mcore import launcher
from apriel_mcore.cluster.folders import Orders
from apriel_mcore.cluster.lead import crew
from apriel_mcore.cluster.place import POLL_S, Place
from apriel_mcore.errors import AprielError

_LAST_WORD_S = 60.0
"""What ended the ranks here ended all; the leading node says what it was."""
_GRACE_S = 20.0


def train(place: Place) -> None:
    """Ranks of the trainer. Ended when the run has, AprielError when they died and nobody says why."""
    place.wait_until(place.attempt.orders)
    orders = msgspec.json.decode(place.attempt.orders.read_bytes(), type=Orders)
    first = place.attempt.address(0).read_text(encoding="utf-8")
    agent = launcher.start_agent(place.config, place.run_dir, crew=crew(place, first), attempt=orders.attempt)
    try:
        _watch(place, agent)
        deadline = time.monotonic() + _LAST_WORD_S
        while agent.returncode == 0 or time.monotonic() < deadline:
            place.require_going_on()
            time.sleep(POLL_S)
    finally:
        launcher.end_agent(agent)
    raise AprielError(f"its ranks ended with status {agent.returncode}; see {place.run_dir.logs}")


def judge(place: Place) -> None:
    """Judges behind a port. Ended when the run has, AprielError when they died."""
    place.wait_until(place.attempt.orders)
    host = place.attempt.address(place.node).read_text(encoding="utf-8")
    command = ["apriel_mcore.processes", "apriel_mcore.cli", "serve-verifiers", str(place.folder.recipe)]
    flags = ["--host", host, "--port", str(place.nodes.verifier_port(place.node))]
    flags += ["--token-file", str(place.attempt.token)]
    number = place.node - place.nodes.verifier_nodes.start
    orders = msgspec.json.decode(place.attempt.orders.read_bytes(), type=Orders)
    with place.run_dir.log(f"judges-{number}", orders.attempt).open("wb") as log:
        service = subprocess.Popen([sys.executable, "-m", *command, *flags], stdout=log, stderr=log)
    try:
        _watch(place, service)
    finally:
        _end(service)
    raise AprielError(f"the judges ended with status {service.returncode}; see {place.run_dir.logs}")


def _watch(place: Place, child: subprocess.Popen[bytes]) -> None:
    """Until the child ends."""
    while child.poll() is None:
        place.require_going_on()
        time.sleep(POLL_S)


def _end(child: subprocess.Popen[bytes]) -> None:
    child.terminate()
    try:
        child.wait(timeout=_GRACE_S)
    except subprocess.TimeoutExpired:
        child.kill()
        child.wait()

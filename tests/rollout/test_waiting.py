"""Processes of a server sleep while they wait, in the servers that share their cores, and in no others."""

from importlib.metadata import entry_points

import pytest
import zmq

from apriel_mcore.rollout.inside_vllm.waiting import sleep_between_messages
from apriel_mcore.rollout.server_spec import SLEEPING_VARIABLE

shm_broadcast = pytest.importorskip("vllm.distributed.device_communicators.shm_broadcast")


def test_vllm_finds_it() -> None:
    found = [entry.load() for entry in entry_points(group="vllm.general_plugins")]
    assert sleep_between_messages in found


@pytest.mark.parametrize(("variable", "seconds"), [("1", 0.0), ("", 1.0)])
def test_a_reader_spins_only_where_it_may(
    variable: str, seconds: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    reader = shm_broadcast.SpinCondition
    monkeypatch.setattr(reader, "__init__", reader.__init__)  # put back at the end
    monkeypatch.setenv(SLEEPING_VARIABLE, variable)
    sleep_between_messages()
    with zmq.Context() as context:
        spins = reader(is_reader=True, context=context, notify_address="inproc://notes")
        assert spins.busy_loop_s == seconds
        for socket in (spins.local_notify_socket, spins.write_cancel_socket, spins.read_cancel_socket):
            socket.close(linger=0)

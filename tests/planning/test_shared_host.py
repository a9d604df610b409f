"""Trainer and servers on the same cores slow each other, and only while both work."""

import math

import msgspec
import pytest

from apriel_mcore.planning.pool import Decode
from apriel_mcore.planning.shared_host import Host, HostPublish, SharedFleet

HOST = Host(
    num_cores=2,
    decode=Decode(step_s=0.1, per_request_s=0.0, per_token_s=0.0, prefill_s=0.0),
    train_fixed_s=1.0,
    train_token_s=0.01,
    parallel_share=0.5,
    publish={count: HostPublish(seconds=0.0, beside=1.0, swap_s=0.0) for count in (1, 2)},
    trainer_beside=1.0,
    server_beside=1.0,
)

PAUSE = HostPublish(seconds=0.0, beside=1.0, swap_s=0.5)


def fleet(host: Host = HOST, *, threads: int = 2, count: int = 1) -> SharedFleet:
    return SharedFleet(host, threads=threads, count=count, places=8)


@pytest.mark.parametrize(
    ("threads", "num_servers", "num_busy", "trainer", "server"),
    [
        (1, 1, 1, 1.0, 1.0),  # a core for each
        (2, 1, 1, 6 / 7, 6 / 7),  # 4/3 threads of a half serial step and one more on two cores
        (1, 2, 2, 1.0, 0.5),  # both servers are bound to the first core
        (1, 2, 1, 1.0, 1.0),
        (2, 1, 0, 1.0, 1.0),
    ],
)
def test_threads_share_the_cores_evenly(
    threads: int, num_servers: int, num_busy: int, trainer: float, server: float
):
    found = HOST.speeds(threads=threads, num_servers=num_servers, num_busy=num_busy, training=True)
    assert found == (pytest.approx(trainer), pytest.approx(server if num_busy else 1.0))


def test_every_busy_server_takes_more_than_its_cores():
    host = msgspec.structs.replace(HOST, trainer_beside=0.8)
    speeds = [host.speeds(threads=1, num_servers=2, num_busy=busy, training=True)[0] for busy in range(3)]
    assert speeds == pytest.approx([1.0, 0.8, 0.64])


def test_cores_that_are_free_in_the_serial_part_do_not_help_in_the_other():
    """0.1 s alone; 0.05625 s with 16 threads beside 8 of a server, on 16 cores."""
    host = msgspec.structs.replace(HOST, num_cores=16, parallel_share=0.9)
    found = host.speeds(threads=16, num_servers=1, num_busy=1, training=True)
    slowed = (0.1 + 0.05625) / (0.1 + 0.05625 * 1.5)
    assert found == (pytest.approx(slowed), pytest.approx(slowed))


def test_a_server_that_waits_leaves_its_core_to_the_other():
    host = msgspec.structs.replace(HOST, server_beside=0.6)
    speeds = [host.speeds(threads=1, num_servers=count, num_busy=count, training=True)[1] for count in (1, 2)]
    assert speeds == pytest.approx([0.6, 0.5])


def test_no_more_is_shared_out_than_there_is():
    for cores in (1, 2, 4, 16):
        host = msgspec.structs.replace(HOST, num_cores=cores)
        for threads in (1, 2, cores):
            for servers in (1, 2, 5):
                trainer, server = host.speeds(
                    threads=threads, num_servers=servers, num_busy=servers, training=True
                )
                used = trainer / (1 - 0.5 + 0.5 / threads) + server * servers * max(
                    1, max(1, cores // 2) // servers
                )
                assert used <= cores + 1e-9
                assert 0 < server <= 1
                assert 0 < trainer <= 1


def test_a_step_is_slow_while_a_server_works_and_fast_afterwards():
    one = fleet()
    one.begin_training(4.0, now=0.0)
    assert one.train_end == pytest.approx(4.0)
    one.start(1, 18, now=1.0)
    assert one.next_end() == pytest.approx(1.0 + 18 * 0.1 * 7 / 6)
    one.end()
    # 1 s alone, 2.1 s at 6/7, the rest alone
    assert one.train_end == pytest.approx(4.0 + 2.1 / 7)
    one.end_training(one.train_end)
    assert one.train_end == math.inf


def test_an_answer_is_slow_while_a_step_goes_on_and_fast_afterwards():
    one = fleet()
    one.start(1, 40, now=0.0)
    assert one.next_end() == pytest.approx(4.0)
    one.begin_training(1.0, now=1.0)
    one.end_training(one.train_end)
    assert one.next_end() == pytest.approx(4.0 + 1.0 / 6)


def test_servers_stand_still_while_they_take_weights():
    one = fleet(msgspec.structs.replace(HOST, publish={1: PAUSE}), threads=1)
    one.begin_training(1.0, now=0.0)
    one.start(1, 40, now=0.0)
    one.end_training(1.0)
    assert one.next_end() == pytest.approx(4.0 + 0.5)


def test_a_publish_is_slow_while_answers_run_and_fast_afterwards():
    publish = {count: HostPublish(seconds=2.0, beside=0.5, swap_s=0.0) for count in (1, 2)}
    host = msgspec.structs.replace(HOST, publish=publish)
    idle, busy, both = fleet(host, threads=1), fleet(host, threads=1), fleet(host, threads=1, count=2)
    busy.start(1, 50, now=0.0)
    both.start(1, 1000, now=0.0)
    both.start(2, 1000, now=0.0)
    for one in (idle, busy, both):
        one.begin_training(4.0, now=0.0)
    assert [one.train_end for one in (idle, busy, both)] == pytest.approx([6.0, 8.0, 12.0])
    assert busy.next_end() == pytest.approx(5.0)
    busy.end()
    # Half a second's work of it was done in the first second.
    assert busy.train_end == pytest.approx(5.0 + 1.5)
    busy.end_training(busy.train_end)
    assert busy.train_end == math.inf


def test_more_threads_shorten_what_is_parallel():
    assert HOST.step_seconds(100, threads=1) == pytest.approx(2.0)
    assert HOST.step_seconds(100, threads=2) == pytest.approx(1.5)

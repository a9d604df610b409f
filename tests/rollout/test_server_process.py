"""Command line, environment, ports and the end of a server process (without vLLM)."""

import asyncio
import json
import os
import socket
import sys
from pathlib import Path

import pytest
from aiohttp import web
from hypothesis import given
from hypothesis import strategies as st

from apriel_mcore.config.load import load
from apriel_mcore.config.schema import LocalServers
from apriel_mcore.errors import InputError, PoolError
from apriel_mcore.rollout import server
from apriel_mcore.rollout.configured import Share, server_spec
from apriel_mcore.rollout.server import RemoteServer, ServerProcess, choose_port
from apriel_mcore.rollout.server_spec import (
    Seat,
    ServerSpec,
    server_command,
    server_environment,
    thread_binding,
)

RECIPES = Path(__file__).parents[2] / "recipes"


def _spec(**changes: object) -> ServerSpec:
    settings = LocalServers(max_model_len=512, max_num_seqs=8, kv_cache_gib=0.5)
    fields: dict[str, object] = {
        "settings": settings,
        "model": Path("model"),
        "device": "cpu",
        "index": 0,
        "seed": 3,
        "transport": "arena",
        "weights": "as_trained",
        "copies": Path("copies"),
    }
    return ServerSpec(**(fields | changes))  # pyright: ignore[reportArgumentType]


def _value(command: list[str], flag: str) -> str:
    return command[command.index(flag) + 1]


def test_the_command_says_what_the_pool_relies_on() -> None:
    command = server_command(_spec(), port=8000, seed=3)
    assert _value(command, "--logprobs-mode") == "processed_logprobs"
    assert _value(command, "--max-num-seqs") == "9"  # a place for the probe
    assert _value(command, "--kv-cache-memory-bytes") == str(2**29)
    assert _value(command, "--worker-extension-cls").endswith("inside_vllm.arena.ArenaReceiver")
    assert _value(command, "--weight-transfer-config") == '{"backend": "apriel_arena"}'
    assert _value(command, "--host") == "127.0.0.1"
    assert _value(command, "--hf-overrides") == '{"head_dtype": "float32"}'


def test_a_server_is_told_of_fp8_weights_and_reads_none_from_the_folder() -> None:
    plain, block, tensor = (
        server_command(_spec(weights=weights), port=1, seed=0)
        for weights in ("as_trained", "fp8_block", "fp8_tensor")
    )
    told = json.loads(_value(block, "--hf-overrides"))["quantization_config"]
    assert told == {"quant_method": "fp8", "activation_scheme": "dynamic", "weight_block_size": [128, 128]}
    assert "weight_block_size" not in json.loads(_value(tensor, "--hf-overrides"))["quantization_config"]
    assert _value(block, "--load-format") == _value(tensor, "--load-format") == "dummy"
    assert "--load-format" not in plain


def test_weights_that_are_sent_have_another_receiver() -> None:
    spec = _spec(transport="stream", copies=Path("in-memory"))
    command = server_command(spec, port=1, seed=0)
    assert _value(command, "--worker-extension-cls").endswith("inside_vllm.stream.StreamReceiver")
    assert _value(command, "--weight-transfer-config") == '{"backend": "apriel_stream"}'
    assert server_environment(spec, cores=[0])["APRIEL_LOCAL_COPY"] == "in-memory"


def test_a_gpu_server_may_take_the_memory_that_is_left() -> None:
    settings = LocalServers(kv_cache_gib="auto", gpu_memory_utilization=0.85)
    command = server_command(_spec(device="cuda", settings=settings), port=1, seed=0)
    assert _value(command, "--gpu-memory-utilization") == "0.85"
    assert "--kv-cache-memory-bytes" not in command


def test_the_device_decides_on_eager_mode_and_thread_binding() -> None:
    gpu = _spec(device="cuda")
    assert "--enforce-eager" in server_command(_spec(), port=1, seed=0)
    assert "--enforce-eager" not in server_command(gpu, port=1, seed=0)
    assert server_environment(_spec(), cores=[0, 1])["VLLM_CPU_OMP_THREADS_BIND"] == "0"
    assert server_environment(_spec(), cores=[0, 1])["TORCHDYNAMO_DISABLE"] == "1"  # needs no compiler
    gpu_environment = server_environment(gpu, cores=[0, 1])
    assert not {"VLLM_CPU_OMP_THREADS_BIND", "TORCHDYNAMO_DISABLE"} & gpu_environment.keys()


@pytest.mark.parametrize(
    ("visible", "seat", "tensor", "devices"),
    [
        ("", Seat(), 1, "0"),
        ("", Seat(number=1, of=2, first_device=4), 2, "6,7"),
        ("3,5,6,7", Seat(number=1, of=2), 2, "6,7"),
        ("GPU-a,GPU-b", Seat(number=1, of=2), 1, "GPU-b"),
    ],
)
def test_each_server_of_a_host_has_gpus_of_its_own(
    monkeypatch: pytest.MonkeyPatch, visible: str, seat: Seat, tensor: int, devices: str
) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    spec = _spec(device="cuda", seat=seat, settings=LocalServers(tensor=tensor))
    assert server_environment(spec, cores=[0])["CUDA_VISIBLE_DEVICES"] == devices


def test_a_server_without_a_gpu_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    spec = _spec(device="cuda", seat=Seat(number=2, of=3))
    with pytest.raises(InputError, match=r"rollout\.servers.*2 are visible"):
        server_environment(spec, cores=[0])


def test_servers_of_two_hosts_share_nothing() -> None:
    """Numbers, ports, seeds and in-memory folders are the run's; seats are the host's."""
    config = load(RECIPES / "quickstart.toml", ["rollout.servers.count=4", "publish.kind=stream"])
    shares = [
        Share(numbers=numbers, host=host, first_port=9000, first_device=0)
        for numbers, host in ((range(2), "a"), (range(2, 4), "b"))
    ]
    specs = [
        server_spec(config, share, number, model=Path("model"), run="r")
        for share in shares
        for number in share.numbers
    ]
    assert [spec.index for spec in specs] == [0, 1, 2, 3]
    assert [spec.seat.number for spec in specs] == [0, 1, 0, 1]
    assert [spec.settings.host for spec in specs] == ["a", "a", "b", "b"]
    assert len({spec.seed for spec in specs}) == len({spec.copies for spec in specs}) == 4


def test_two_servers_share_half_of_the_cores() -> None:
    cores = list(range(8))
    assert thread_binding(cores, index=0, count=2, tensor=1) == "0,1"
    assert thread_binding(cores, index=1, count=2, tensor=1) == "2,3"
    assert thread_binding(cores, index=0, count=1, tensor=2) == "0,1|2,3"


@given(
    cores=st.lists(st.integers(0, 200), min_size=1, max_size=64, unique=True),
    count=st.integers(1, 8),
    tensor=st.integers(1, 4),
)
def test_binding_leaves_the_trainer_half_and_never_overlaps_needlessly(
    cores: list[int], count: int, tensor: int
) -> None:
    ranks = [
        [int(core) for core in rank.split(",")]
        for index in range(count)
        for rank in thread_binding(cores, index=index, count=count, tensor=tensor).split("|")
    ]
    assert len(ranks) == count * tensor
    assert all(ranks)
    used = [core for rank in ranks for core in rank]
    half = max(1, len(cores) // 2)
    assert set(used) <= set(cores[:half])
    if half >= count * tensor:
        assert len(set(used)) == len(used)


def test_a_taken_port_is_refused_with_a_remedy() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(InputError, match=r"rollout\.servers\.port.*or 0 for a free one"):
            choose_port("127.0.0.1", taken.getsockname()[1])
    low = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    chosen = {choose_port("127.0.0.1", 0) for _ in range(20)}
    assert all(1024 < port < low for port in chosen), "an outgoing connection could take it before vLLM does"
    assert len(chosen) > 1


def test_a_server_that_dies_at_its_start_is_reported_with_its_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    command = [sys.executable, "-c", "raise SystemExit('no such model')"]
    monkeypatch.setattr(server, "server_command", lambda spec, port, seed: command)

    async def scenario() -> None:
        process = ServerProcess(_spec(), tmp_path, token="t")
        for attempt in range(2):
            process.start()
            with pytest.raises(PoolError, match=r"ended before it was ready(.|\n)*no such model"):
                await process.wait_ready(30.0)
            await process.stop()
            assert process.log == tmp_path / f"server-0.attempt-{attempt}.log"

    asyncio.run(scenario())


def test_a_server_that_never_answers_is_reported_and_can_be_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    command = [sys.executable, "-c", "import time; time.sleep(600)"]
    monkeypatch.setattr(server, "server_command", lambda spec, port, seed: command)

    async def scenario() -> None:
        process = ServerProcess(_spec(), tmp_path, token="t")
        await process.stop()  # nothing to stop yet
        process.start()
        with pytest.raises(PoolError, match="start_timeout_s"):
            await process.wait_ready(0.3)
        pid = process.pid
        await process.stop()
        await process.stop()
        assert not process.alive
        assert not os.path.exists(f"/proc/{pid}")

    asyncio.run(scenario())


def test_a_remote_server_that_is_not_there() -> None:
    remote = RemoteServer("http://127.0.0.1:9/", token="t")
    assert remote.name == "127.0.0.1:9"
    with pytest.raises(PoolError, match="is it running"):
        asyncio.run(remote.wait_ready(0.3))


def test_an_address_that_sends_us_elsewhere_is_refused_at_once() -> None:
    async def elsewhere(_: web.Request) -> web.Response:
        raise web.HTTPMovedPermanently("http://127.0.0.1:9/health")

    async def scenario() -> None:
        app = web.Application()
        app.router.add_get("/health", elsewhere)
        runner = web.AppRunner(app, shutdown_timeout=0.01)
        await runner.setup()
        try:
            await web.TCPSite(runner, "127.0.0.1", 0).start()
            remote = RemoteServer(f"http://127.0.0.1:{runner.addresses[0][1]}", token="t")
            with pytest.raises(InputError, match="sends us to http://127"):
                await remote.wait_ready(5.0)
        finally:
            await runner.cleanup()

    asyncio.run(scenario())

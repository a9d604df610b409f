"""A measured machine becomes a profile that the planner reads."""

import msgspec
import pytest
import torch

from apriel_mcore.cli import main
from apriel_mcore.errors import InputError
from apriel_mcore.planning import hardware, machine, rates
from apriel_mcore.planning.splits import splits
from tests.conftest import NO_CUDA
from tests.planning.asked import QUESTION

MEASURED = rates.Rates(
    kind="cuda",
    name="somewhat like an H100",
    num_devices=4,
    memory_gb=80.0,
    bf16_tflops=700.0,
    fp8_tflops=None,
    fp32_tflops=50.0,
    memory_gb_s=3000.0,
    host_gb_s=30.0,
    all_reduce_gb_s=350.0,
    latency_us=15.0,
)
H100 = hardware.load("h100")


def test_measured_rates_stand_in_the_profile_and_say_so(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text(machine.toml(machine.profile_of(MEASURED, H100)))
    found = hardware.load(str(path))
    assert found.device.provenance == "measured"
    assert (found.device.bf16_tflops, found.device.fp8_tflops) == (700.0, 700.0)
    assert (found.wires.node_gb_s, found.wires.devices_per_node) == (350.0, 4)
    assert found.publish.host_gb_s == 30.0
    assert [line.split(":")[0] for line in found.uncalibrated] == ["wires", "efficiency", "decode", "publish"]


def test_shares_are_of_the_measured_rates_and_never_above_one():
    found = machine.profile_of(MEASURED, H100).efficiency
    assert found.gemm_bf16 == pytest.approx(H100.efficiency.gemm_bf16 / 0.75)
    assert found.gemm_fp32 == 1.0
    assert found.tensor_exposed == H100.efficiency.tensor_exposed


def test_one_device_leaves_the_wires_assumed():
    alone = msgspec.structs.replace(MEASURED, num_devices=1, all_reduce_gb_s=None, latency_us=None)
    wires = machine.profile_of(alone, H100).wires
    assert wires.node_gb_s == H100.wires.node_gb_s
    assert wires.provenance == "assumed"


def test_a_plan_answers_to_the_profile():
    slow = msgspec.structs.replace(MEASURED, bf16_tflops=350.0, memory_gb_s=1500.0)
    steps = [
        splits(msgspec.structs.replace(QUESTION, profile=machine.profile_of(one, H100)), 64, max_lag=2.0)[0]
        for one in (MEASURED, slow)
    ]
    assert steps[1].step_s > 1.3 * steps[0].step_s


def test_this_cpu_is_measured_and_its_profile_can_be_read(tmp_path, capsys):
    path = tmp_path / "cpu.toml"
    main(["calibrate", "machine", "--device", "cpu", "--out", str(path)])
    found = hardware.load(str(path)).device
    assert 0.001 < found.fp32_tflops < 100
    assert 0.5 < found.memory_gb_s < 2000
    assert f"--profile {path}" in capsys.readouterr().out


@pytest.mark.skipif(not NO_CUDA, reason="there is a CUDA device")
def test_without_a_gpu_the_error_says_what_to_do():
    with pytest.raises(InputError, match="--device cuda: torch sees no CUDA device here"):
        rates.measure("cuda")


def test_a_profile_without_a_place_is_refused_before_anything_is_measured(monkeypatch, capsys):
    monkeypatch.setattr(rates, "measure", None)
    with pytest.raises(SystemExit, match="2"):
        main(["calibrate", "machine", "--device", "cpu", "--out", "/nonexistent/x.toml"])
    assert "--out /nonexistent/x.toml" in capsys.readouterr().err


@pytest.mark.gpu
@pytest.mark.skipif(NO_CUDA, reason="needs a CUDA device")
def test_a_gpu_is_measured(tmp_path):
    path = tmp_path / "gpu.toml"
    main(["calibrate", "machine", "--device", "cuda", "--out", str(path)])
    device = hardware.load(str(path)).device
    assert device.bf16_tflops > device.fp32_tflops
    assert device.memory_gb == pytest.approx(torch.cuda.mem_get_info(0)[1] / 1e9)
    if torch.cuda.get_device_capability(0) >= (8, 9):
        assert device.fp8_tflops > device.bf16_tflops

"""What is staged stands apart from what training changes; FP8 parameters become what they stand for."""

from typing import Any

import pytest
import torch
from torch import nn

pytestmark = pytest.mark.engine


class Eighths(torch.Tensor):
    """Like Transformer Engine's FP8 parameters: a nominal dtype, and a method that tells the numbers."""

    def dequantize(self) -> torch.Tensor:
        return self.as_subclass(torch.Tensor) / 8


def eighths() -> Any:
    return torch.arange(6.0).view(2, 3).bfloat16().as_subclass(Eighths)


def test_a_copy_is_plain_apart_and_on_the_host() -> None:
    from apriel_mcore.mcore.staged import _copied

    plain = torch.arange(6.0)
    copy = _copied(plain)
    plain.zero_()
    assert copy.tolist() == [0, 1, 2, 3, 4, 5]
    copy = _copied(eighths())
    assert (type(copy), copy.dtype, copy.device.type) == (torch.Tensor, torch.bfloat16, "cpu")
    assert copy.tolist() == [[0, 0.125, 0.25], [0.375, 0.5, 0.625]]


def test_the_bridge_reads_and_fills_such_parameters(monkeypatch: pytest.MonkeyPatch) -> None:
    from apriel_mcore.mcore import fp8

    monkeypatch.setattr(fp8, "is_float8tensor", lambda tensor: "eighths" in vars(tensor))
    monkeypatch.setattr(fp8, "dequantize_fp8_tensor", lambda tensor: tensor / 8)
    monkeypatch.setattr(
        fp8, "copy_tensor_to_quantized_param", lambda parameter, value: parameter.copy_(value * 8)
    )
    module = nn.Linear(3, 2, dtype=torch.bfloat16)
    vars(module.weight)["eighths"] = True
    values = {"weight": torch.full((2, 3), 0.5).bfloat16(), "bias": torch.ones(2).bfloat16()}
    bias = module.bias.clone()
    fp8.write_back(module, values)
    found = fp8.PlainParameters(module)
    assert torch.equal(found["weight"], values["weight"])
    assert found["weight"] is not module.weight and module.weight.tolist() == [[4.0] * 3] * 2
    assert torch.equal(module.bias, bias), "others hold their values already"

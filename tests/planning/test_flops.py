"""Arithmetic of a token against published rates."""

import pytest

from apriel_mcore.planning.flops import Decoder
from tests.shapes import SHAPES


@pytest.mark.parametrize("name", ["apriel_15b", "llama3_8b", "llama3_70b"])
def test_published_flops_of_a_token(name):
    """82.5 GFLOP + 1.18 MFLOP a token of context for the 15B model; the published 744 TFLOP/s for 8B."""
    decoder = Decoder.of(SHAPES[name])
    if name == "apriel_15b":
        assert decoder.training_flops(8192) == pytest.approx(92.2e9, rel=0.005)
        assert decoder.kv_bytes(width=2) == 196_608
    elif name == "llama3_8b":
        assert decoder.training_flops(8192) * 14451 == pytest.approx(744e12, rel=0.01)
    else:
        assert decoder.training_flops(8192) * 1602 == pytest.approx(719e12, rel=0.01)

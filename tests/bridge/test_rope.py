"""Both spellings of rotary settings mean the same; scaling is read whole or refused by name."""

from typing import Any

import msgspec
import pytest

from apriel_mcore.bridge.rope import Linear, Llama3, RopeKeys, RopeScaling, Unscaled
from apriel_mcore.errors import InputError

LLAMA3 = {"factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
LLAMA3 |= {"original_max_position_embeddings": 8192}


def rope(**keys: Any) -> tuple[float, RopeScaling]:
    return msgspec.convert(keys, RopeKeys).rope(where="config.json")


@pytest.mark.parametrize(
    "keys",
    [
        {"rope_theta": 1e6},
        {"rope_theta": 1e6, "rope_scaling": None},
        {"rope_theta": 1e6, "rope_scaling": {}},
        {"rope_parameters": {"rope_type": "default", "rope_theta": 1e6}},
        {"rope_parameters": {"rope_theta": 1e6, "partial_rotary_factor": 1.0}, "rope_theta": 1e4},
    ],
)
def test_theta_stands_alone_or_among_the_parameters(keys: dict[str, Any]) -> None:
    assert rope(**keys) == (1e6, Unscaled())


def test_theta_has_a_default() -> None:
    assert rope() == (10_000.0, Unscaled())


@pytest.mark.parametrize("key", ["rope_scaling", "rope_parameters"])
@pytest.mark.parametrize("kind", [{"rope_type": "llama3"}, {"type": "llama3"}])
def test_llama3_scaling_is_read_whole(key: str, kind: dict[str, str]) -> None:
    wanted = Llama3(
        factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0, original_max_position_embeddings=8192
    )
    assert rope(**{key: LLAMA3 | kind}, rope_theta=5e5) == (5e5, wanted)


def test_linear_scaling_has_a_factor() -> None:
    assert rope(rope_scaling={"type": "linear", "factor": 4}) == (1e4, Linear(factor=4.0))


@pytest.mark.parametrize(
    ("keys", "named"),
    [
        (
            {"rope_scaling": {"type": "dynamic", "factor": 2.0}},
            "rope_scaling: not supported: rope_type = 'dynam",
        ),
        ({"rope_parameters": {"rope_type": "yarn"}}, "rope_parameters: not supported: rope_type = 'yarn'"),
        ({"rope_scaling": {"rope_type": "llama3", "factor": 8.0}}, "'llama3': .*low_freq_factor"),
        ({"rope_scaling": LLAMA3 | {"rope_type": "llama3", "high_freq_factor": 1.0}}, "must exceed"),
        ({"rope_scaling": {"rope_type": "linear", "factor": 0.0}}, "factor"),
        ({"rope_scaling": {"mrope_section": [1, 2]}}, "mrope_section"),
        ({"rope_parameters": {"rope_theta": -1.0}}, "rope_parameters.rope_theta"),
        ({"partial_rotary_factor": 0.5}, "partial_rotary_factor = 0.5"),
        ({"rope_parameters": {"partial_rotary_factor": 0.5}}, "partial_rotary_factor = 0.5"),
        ({"rope_scaling": {"rope_type": "default"}, "rope_parameters": {"rope_theta": 1.0}}, "both given"),
        ({"rope_parameters": {"full_attention": {"rope_type": "default"}}}, "full_attention"),
    ],
)
def test_other_settings_are_refused_by_name(keys: dict[str, Any], named: str) -> None:
    with pytest.raises(InputError, match=rf"^config\.json.*{named}"):
        rope(**keys)

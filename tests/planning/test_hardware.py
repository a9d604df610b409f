"""Profiles: what ships loads and says what stands behind it; what does not fit is named."""

import pytest

from apriel_mcore.errors import InputError
from apriel_mcore.planning import hardware


def test_no_section_of_the_h100_claims_a_measurement():
    assert len(hardware.load("h100").uncalibrated) == 5


def test_an_unknown_profile_is_refused():
    with pytest.raises(InputError, match="--profile h999"):
        hardware.load("h999")


def test_a_wrong_key_names_the_file(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text('name = "mine"\nspeed = 3\n')
    with pytest.raises(InputError, match=r"mine\.toml"):
        hardware.load(str(path))

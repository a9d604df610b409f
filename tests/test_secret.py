"""A token opens the door, nothing else does, and nobody else can read it."""

import stat
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apriel_mcore import secret
from apriel_mcore.errors import InputError

TOKEN = secret.new()


@given(st.binary(max_size=100))
def test_nothing_but_the_token_opens(given: bytes) -> None:
    assert not secret.opens(given, TOKEN)
    assert not secret.opens(secret.header(TOKEN).encode() + given + b"x", TOKEN)
    assert secret.opens(secret.header(TOKEN).encode(), TOKEN)


def test_a_written_token_is_for_its_user_alone(tmp_path: Path) -> None:
    path = tmp_path / "token"
    path.write_text("older")
    path.chmod(0o644)
    secret.write(path, TOKEN)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert secret.read(path, "UNUSED") == TOKEN
    assert len({secret.new() for _ in range(100)}) == 100


def test_bad_tokens_are_refused_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "token"
    path.write_bytes(b"\xff" * 40)
    with pytest.raises(InputError, match="cannot read the token"):
        secret.read(path, "UNUSED")
    monkeypatch.setenv(secret.SERVER_VARIABLE, "short")
    with pytest.raises(InputError, match="APRIEL_SERVER_TOKEN: a token needs"):
        secret.read(None, secret.SERVER_VARIABLE)

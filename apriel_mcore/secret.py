"""Who may talk to a port of ours? Whoever holds its token: made for a run, or given in a file or a variable.

A token travels in the header `Authorization: Bearer TOKEN` and in environments, never on a command line,
where every user of the host could read it, nor in a recipe, an event or a log.
"""

import hmac
import os
import secrets
from pathlib import Path

from apriel_mcore.errors import InputError

SERVER_VARIABLE = "APRIEL_SERVER_TOKEN"
"""Of rollout servers; in the environment of those that we start."""
LIFE_HEADER = "x-apriel-life"
"""In every answer of a rollout server: another value, another start of it."""
_SHORTEST = 16


def new() -> str:
    """A token that nobody guesses."""
    return secrets.token_hex(32)


def header(token: str) -> str:
    """What `Authorization` must be."""
    return f"Bearer {token}"


def opens(given: bytes, token: str) -> bool:
    """Whether an `Authorization` header is the right one; takes as long when it is nearly right."""
    return hmac.compare_digest(given, header(token).encode())


def read(path: Path | None, variable: str) -> str:
    """The token in a file, or in the environment where no file is named; InputError when it is too short."""
    where = str(path) if path else f"${variable}"
    try:
        token = path.read_text(encoding="utf-8").strip() if path else os.environ.get(variable, "")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{where}: cannot read the token: {error}") from error
    if len(token) < _SHORTEST or not token.isascii() or not token.isprintable():
        raise InputError(
            f"{where}: a token needs at least {_SHORTEST} printable ASCII characters; "
            "make one with `openssl rand -hex 32`"
        )
    return token


def write(path: Path, token: str) -> None:
    """For other processes of the same user: whole or not there, and at no moment for others to read."""
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    with open(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
        file.write(token + "\n")
    partial.replace(path)

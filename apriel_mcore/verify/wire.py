"""What do the pool and its worker processes say to each other?

    pool --Load | Grade | Check--> worker --Done | Graded | Refused | Broken--> pool

Each message is its length (4 bytes, big-endian) and one JSON object, over a private socket: libraries
may print to stdout as they like.
"""

import struct
from typing import Any

import msgspec

from apriel_mcore.types import Verdict

HEADER = struct.Struct(">I")
MAX_REPLY = 8 << 20
"""Bytes; a verdict with its details is a few hundred."""


class Load(msgspec.Struct, frozen=True, tag=True):
    """Import what a verifier needs, before its first job is timed."""

    verifier: str
    aside: bool = False
    """At a low priority: nobody waits for this worker yet."""


class Grade(msgspec.Struct, frozen=True, tag=True):
    """Judge one answer."""

    verifier: str
    reference: dict[str, Any]
    text: str


class Check(msgspec.Struct, frozen=True, tag=True):
    """See that a problem's own gold verifies."""

    verifier: str
    reference: dict[str, Any]


class Done(msgspec.Struct, frozen=True, tag=True):
    """Loaded, or checked and found good."""


class Graded(msgspec.Struct, frozen=True, tag=True):
    """The verdict."""

    verdict: Verdict


class Refused(msgspec.Struct, frozen=True, tag=True):
    """The input cannot be judged: the problem is at fault (InputError)."""

    message: str


class Broken(msgspec.Struct, frozen=True, tag=True):
    """The judge raised: there is no verdict (VerifierError, or Starved)."""

    message: str
    starved: bool = False


class Late(msgspec.Struct, frozen=True, tag=True):
    """Only between hosts: the service's own deadline passed."""

    message: str


class Asked(msgspec.Struct, frozen=True, kw_only=True):
    """Only between hosts: a request, and the problem it is about."""

    problem_id: str
    domain: str
    source: str
    request: Grade | Check


Request = Load | Grade | Check
Reply = Done | Graded | Refused | Broken

_decode_request = msgspec.json.Decoder(Request).decode
_decode_reply = msgspec.json.Decoder(Reply).decode
decode_asked = msgspec.json.Decoder(Asked).decode
decode_answer = msgspec.json.Decoder(Reply | Late).decode
json_of = msgspec.json.encode


def encode(message: Request | Reply) -> bytes:
    """One message with its header."""
    body = msgspec.json.encode(message)
    return HEADER.pack(len(body)) + body


def decode_request(body: bytes) -> Request:
    """A request without its header."""
    return _decode_request(body)


def decode_reply(body: bytes) -> Reply:
    """A reply without its header."""
    return _decode_reply(body)

"""The SandboxFusion client against a real HTTP server of the same schema that really runs the code."""

import base64
import json
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from apriel_mcore.errors import InputError, VerifierError
from apriel_mcore.types import Verdict
from apriel_mcore.verify import code
from apriel_mcore.verify.sandbox import SandboxLimits
from apriel_mcore.verify.sandbox_fusion import FusionClient

sys.path.insert(0, str(Path(__file__).parent))
from fusion_server import FusionServer, running

LIMITS = SandboxLimits(cpu_s=1.0, wall_s=5.0)
DOUBLE = {"entry_point": "f", "tests": [{"args": [n], "expected": 2 * n} for n in (1, 2)]}
ECHO = {"tests": [{"stdin": text, "expected": text} for text in ("a\n", "b\n")]}


@pytest.fixture(scope="module")
def server() -> Iterator[FusionServer]:
    with running() as server:
        yield server


def answer(
    server: FusionServer, source: str, reference: dict[str, Any], limits: SandboxLimits = LIMITS
) -> Verdict:
    return code.verify({**reference, "bare": True}, source, limits, FusionClient(server.url))


@pytest.mark.parametrize(
    ("source", "reference", "status"),
    [
        ("def f(x): return 2 * x", DOUBLE, "correct"),
        ("def f(x):\n    print('noise')\n    return 2 * x", DOUBLE, "correct"),
        ("def f(x): return x", DOUBLE, "wrong"),
        ("def f(x) return x", DOUBLE, "unparsable"),
        ("import os\ndef f(x): os._exit(0)", DOUBLE, "wrong"),
        ("import os\nprint('All tests passed')\nos._exit(0)", DOUBLE, "wrong"),
        ("class A:\n    def __eq__(self, other): return True\ndef f(x): return A()", DOUBLE, "wrong"),
        ("def f(x):\n    while True: pass", DOUBLE, "timeout"),
        ("print(input())", ECHO, "correct"),
        ("print(input().upper())", ECHO, "wrong"),
        ("while True: pass", ECHO, "timeout"),
        ("print(", ECHO, "unparsable"),
    ],
)
def test_verdicts(server: FusionServer, source: str, reference: dict[str, Any], status: str) -> None:
    assert answer(server, source, reference).status == status


def test_a_sleeping_program_ends_by_the_services_limit(server: FusionServer) -> None:
    limits = SandboxLimits(cpu_s=1.0, wall_s=1.0)
    assert answer(server, "import time\ndef f(x): time.sleep(60)", DOUBLE, limits).status == "timeout"


def test_expected_values_are_not_sent(server: FusionServer) -> None:
    reference = {"entry_point": "f", "tests": [{"args": [1], "expected": "wanted-123"}]}
    assert answer(server, "def f(x): return 2", reference).status == "wrong"
    sent = server.requests[-1]
    files = [base64.b64decode(content) for content in sent["files"].values()]
    assert not any(b"wanted-123" in text for text in [json.dumps(sent).encode(), *files])


def test_what_is_nobodys_fault_is_tried_again(server: FusionServer) -> None:
    server.refusals = [503, 429]
    assert answer(server, "def f(x): return 2 * x", DOUBLE).success
    server.refusals = [400]
    with pytest.raises(VerifierError, match="status 400"):
        answer(server, "def f(x): return 2 * x", DOUBLE)
    server.refusals = [500] * 3
    with pytest.raises(VerifierError, match="status 500"):
        answer(server, "def f(x): return 2 * x", DOUBLE)


def test_a_sandbox_error_is_no_verdict(server: FusionServer) -> None:
    server.broken = True
    try:
        with pytest.raises(VerifierError, match="no pod"):
            answer(server, "def f(x): return 2 * x", DOUBLE)
        with pytest.raises(InputError, match=r"verify\.sandbox\.url"):
            FusionClient(server.url).check()
    finally:
        server.broken = False
    FusionClient(server.url).check()


def test_a_service_that_is_not_there_is_refused_at_start() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    with pytest.raises(InputError, match="does it run"):
        FusionClient(f"http://127.0.0.1:{port}").check()

"""Runs solutions on a SandboxFusion service (bytedance/SandboxFusion, its POST /run_code).

The same runner (sandbox_child.py) and the same reply lines as in our own sandboxes, sent as files and printed
on stdout: the service gets code and inputs, and the verdict is formed here. It isolates by its own means.
"""

import base64
import json
import secrets
import time
import urllib.error
import urllib.request
from typing import Literal

import msgspec

from apriel_mcore.errors import InputError, VerifierError
from apriel_mcore.verify.sandbox import Job, Ran, SandboxLimits, read_replies, terms_of
from apriel_mcore.verify.sandbox_process import End, source_of, sources

ATTEMPTS = 3
PAUSE_S = 0.5
"""Before the second attempt; twice that before the third."""
_GRACE_S = 10.0
"""Of the service, beyond the run itself: its queue and the start of an interpreter."""


class RunCode(msgspec.Struct, frozen=True, kw_only=True):
    """The request, with the fields that we set."""

    code: str
    language: str = "python"
    run_timeout: float
    compile_timeout: float = 10.0
    memory_limit_MB: int
    files: dict[str, str]
    """Path to content in base64."""


class CommandResult(msgspec.Struct, frozen=True, kw_only=True):
    """How the program ended on the service."""

    status: Literal["Finished", "Error", "TimeLimitExceeded"]
    execution_time: float | None = None
    return_code: int | None = None
    stdout: str | None = None
    stderr: str | None = None


class RunCodeReply(msgspec.Struct, frozen=True, kw_only=True):
    """The response, with the fields that we read."""

    status: Literal["Success", "Failed", "SandboxError"]
    message: str
    run_result: CommandResult | None = None


class FusionClient:
    """A Runner on somebody's service; no more than one run at a time for each judge."""

    def __init__(self, url: str) -> None:
        self._url = url.rstrip("/") + "/run_code"

    def run(self, job: Job, limits: SandboxLimits) -> Ran:
        """As Sandbox.run; VerifierError also when the service cannot be reached or says SandboxError."""
        nonce = secrets.token_hex(8)
        asked = terms_of(job, limits, nonce, tasks=0) | msgspec.structs.asdict(job)
        files = sources() | {"request.json": json.dumps(asked)}
        request = RunCode(
            code=source_of("sandbox_remote.py"),
            run_timeout=limits.wall_s,
            memory_limit_MB=limits.memory_mib,
            files={name: base64.b64encode(text.encode()).decode() for name, text in files.items()},
        )
        reply = self._post(msgspec.json.encode(request), limits)
        result = reply.run_result
        if reply.status == "SandboxError" or result is None or result.status == "Error":
            raise VerifierError(f"SandboxFusion at {self._url}: {reply.message[:500] or 'no result'}")
        lines = (result.stdout or "").encode()
        ran = read_replies(lines, nonce, _end(result, lines, limits), function=bool(job.entry_point))
        out_of_time = any(reply.get("ending") == "cpu" for reply in ran.replies)
        return msgspec.structs.replace(ran, ending="cpu") if out_of_time else ran

    def _post(self, body: bytes, limits: SandboxLimits) -> RunCodeReply:
        """The decoded answer; what is nobody's fault is tried again."""
        request = urllib.request.Request(self._url, body, {"Content-Type": "application/json"})
        why = ""
        for attempt in range(ATTEMPTS):
            time.sleep(PAUSE_S * attempt)
            try:
                with urllib.request.urlopen(request, timeout=limits.wall_s + _GRACE_S) as response:
                    content = response.read(4 * limits.reply_bytes)
                return msgspec.json.decode(content, type=RunCodeReply)
            except urllib.error.HTTPError as error:
                why = f"status {error.code}"
                if error.code < 500 and error.code != 429:
                    break
            except (OSError, msgspec.MsgspecError) as error:
                why = str(error)
        raise VerifierError(f"SandboxFusion at {self._url}: {why}")

    def check(self) -> None:
        """InputError unless the service runs a program and reports its value."""
        job = Job(source="def f(x): return 2 * x", entry_point="f", inputs_N=[[21]])
        try:
            ran = self.run(job, SandboxLimits())
        except VerifierError as error:
            raise InputError(f"verify.sandbox.url: {error}; is it SandboxFusion, and does it run?") from error
        if not any(reply.get("value") == 42 for reply in ran.replies):
            raise InputError(f"verify.sandbox.url: {self._url} ran 2 * 21 and reported {ran.replies}")


def _end(result: CommandResult, lines: bytes, limits: SandboxLimits) -> End:
    felt_s = result.execution_time or 0.0
    if len(lines) > limits.reply_bytes:
        return End(ending="flood", felt_s=felt_s, clean=True)
    if result.status == "TimeLimitExceeded":
        return End(ending="wall", felt_s=felt_s, clean=True)
    return End(ending="exit", felt_s=felt_s, clean=True)

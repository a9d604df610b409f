"""A small service with SandboxFusion's POST /run_code, which runs what it is sent, unconfined."""

import base64
import json
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any


class FusionServer(ThreadingHTTPServer):
    """`refusals`: status codes to answer with first; `requests`: what was asked."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.refusals: list[int] = []
        self.broken = False
        self.requests: list[dict[str, Any]] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class _Handler(BaseHTTPRequestHandler):
    server: FusionServer

    def do_POST(self) -> None:
        request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        assert self.path == "/run_code" and request["language"] == "python"
        self.server.requests.append(request)
        if self.server.refusals:
            self.send_error(self.server.refusals.pop(0))
            return
        body = json.dumps(_sandbox_error() if self.server.broken else _run(request)).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


def _sandbox_error() -> dict[str, Any]:
    return {
        "status": "SandboxError",
        "message": "no pod",
        "compile_result": None,
        "run_result": None,
        "files": {},
    }


def _run(request: dict[str, Any]) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        for name, content in request["files"].items():
            (Path(folder) / name).write_bytes(base64.b64decode(content))
        (Path(folder) / "main.py").write_text(request["code"])
        result: dict[str, Any] = {"status": "Finished", "execution_time": 0.1, "return_code": None}
        command = [sys.executable, "main.py"]
        try:
            ran = subprocess.run(command, cwd=folder, capture_output=True, timeout=request["run_timeout"])
            result |= {
                "return_code": ran.returncode,
                "stdout": ran.stdout.decode(),
                "stderr": ran.stderr.decode(),
            }
        except subprocess.TimeoutExpired as late:
            out = (late.stdout or b"").decode()
            result |= {"status": "TimeLimitExceeded", "stdout": out, "stderr": ""}
    status = "Success" if result["return_code"] == 0 else "Failed"
    return {"status": status, "message": "", "compile_result": None, "run_result": result,
            "executor_pod_name": None, "files": {}}  # fmt: skip


@contextmanager
def running() -> Iterator[FusionServer]:
    with FusionServer() as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()

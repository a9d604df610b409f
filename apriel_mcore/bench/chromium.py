"""A headless Chromium, driven over its DevTools protocol with what is installed anyway.

Protocol: https://chromedevtools.github.io/devtools-protocol/
"""

import asyncio
import base64
import shutil
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any, Self

import aiohttp

BINARY = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome") or ""
_START_S = 60.0
_WAIT_S = 30.0
_KEYS = {
    "Enter": 13,
    "Escape": 27,
    "ArrowLeft": 37,
    "ArrowUp": 38,
    "ArrowRight": 39,
    "ArrowDown": 40,
    "Tab": 9,
}


class Chromium:
    """One browser with one tab; every call blocks."""

    def __enter__(self) -> Self:
        self._folder = tempfile.TemporaryDirectory(prefix="apriel-chromium-", ignore_cleanup_errors=True)
        self._process = subprocess.Popen(
            [
                BINARY,
                "--headless=new",
                "--no-sandbox",
                "--disable-gpu",
                "--disable-dev-shm-usage",
                "--no-first-run",
                "--disable-background-networking",
                "--remote-debugging-port=0",
                f"--user-data-dir={self._folder.name}",
                "about:blank",
            ],
            stderr=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
        )
        self._loop = asyncio.new_event_loop()
        self._count = 0
        self.console: list[str] = []
        """Errors of the page and messages of its console, refused loads included."""
        self._loop.run_until_complete(self._connect())
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.run_until_complete(self._disconnect())
        self._loop.close()
        self._process.terminate()
        self._process.wait(timeout=20)
        self._folder.cleanup()

    async def _connect(self) -> None:
        port_file = Path(self._folder.name) / "DevToolsActivePort"
        give_up = time.monotonic() + _START_S
        while not port_file.exists() or "\n" not in port_file.read_text():
            assert time.monotonic() < give_up, "Chromium did not start"
            await asyncio.sleep(0.05)
        port = port_file.read_text().splitlines()[0]
        self._session = aiohttp.ClientSession()
        async with self._session.get(f"http://127.0.0.1:{port}/json") as response:
            pages = [page for page in await response.json() if page["type"] == "page"]
        self._socket = await self._session.ws_connect(pages[0]["webSocketDebuggerUrl"], max_msg_size=1 << 28)

    async def _disconnect(self) -> None:
        await self._socket.close()
        await self._session.close()

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """The result of a protocol method."""
        return self._loop.run_until_complete(self._call(method, parameters))

    async def _call(self, method: str, parameters: dict[str, Any]) -> dict[str, Any]:
        self._count += 1
        await self._socket.send_json({"id": self._count, "method": method, "params": parameters})
        while True:
            answer = await asyncio.wait_for(self._socket.receive_json(), _WAIT_S)
            if answer.get("id") == self._count:
                assert "error" not in answer, f"{method}: {answer['error']}"
                return answer["result"]
            self._note(answer)

    def _note(self, event: dict[str, Any]) -> None:
        match event.get("method"):
            case "Runtime.exceptionThrown":
                details = event["params"]["exceptionDetails"]
                self.console.append(details.get("exception", {}).get("description", details["text"]))
            case "Log.entryAdded" if event["params"]["entry"]["level"] == "error":
                self.console.append(event["params"]["entry"]["text"])
            case _:
                pass

    def open(self, url: str, *, wait: str = "!!document.querySelector('main > *')") -> None:
        """Load a page, until its first view is there."""
        self.call("Page.navigate", url=url)
        self.until(f"document.readyState === 'complete' && {wait}")

    def value(self, expression: str) -> Any:
        """What an expression is in the page, awaited."""
        result = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in result, result["exceptionDetails"]
        return result["result"].get("value")

    def until(self, expression: str, timeout_s: float = _WAIT_S) -> None:
        """Wait until an expression is true."""
        give_up = time.monotonic() + timeout_s
        while not self.value(f"!!({expression})"):
            assert time.monotonic() < give_up, f"never true: {expression}\n{self.console[-5:]}"
            time.sleep(0.05)

    def key(self, key: str) -> None:
        """Press a key."""
        text = {"text": key} if len(key) == 1 else {"text": "\r"} if key == "Enter" else {}
        code = {"windowsVirtualKeyCode": _KEYS[key]} if key in _KEYS else {}
        self.call("Input.dispatchKeyEvent", type="keyDown", key=key, **text, **code)
        self.call("Input.dispatchKeyEvent", type="keyUp", key=key, **code)

    def size(self, width: int, height: int) -> None:
        """Size of the screen."""
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=width < 600,
        )

    def scheme(self, name: str) -> None:
        """Prefer `dark` or `light`."""
        self.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": name}])

    def picture(self, path: Path) -> None:
        """Screenshot as PNG."""
        path.write_bytes(base64.b64decode(self.call("Page.captureScreenshot", format="png")["data"]))

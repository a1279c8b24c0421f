"""A headless browser to be asked what a page does, over the DevTools protocol on two pipes; needs no package."""

import base64
import fcntl
import json
import os
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any

BROWSERS = ("chromium-headless-shell", "chromium", "chromium-browser", "google-chrome")
PATIENCE = 120  # seconds that a busy machine may take for one answer


def program() -> str | None:
    """The first browser that is installed."""
    return next(filter(None, map(shutil.which, BROWSERS)), None)


class Browser:
    """One browser with one tab. ``console`` collects what pages complain of, ``requests`` what they ask for, data: left out."""

    def __init__(self, folder: Path) -> None:
        name = program()
        assert name
        to_it, ours = os.pipe()
        theirs, from_it = os.pipe()
        to_it, from_it = (fcntl.fcntl(end, fcntl.F_DUPFD, 30) for end in (to_it, from_it))
        flags = ["--headless", "--no-sandbox", "--disable-gpu", "--remote-debugging-pipe", f"--user-data-dir={folder}"]
        command = ["bash", "-c", f'exec "$@" 3<&{to_it} 4>&{from_it}', "bash", name, *flags, "about:blank"]
        self._process = subprocess.Popen(command, pass_fds=(to_it, from_it), stderr=subprocess.DEVNULL)
        for end in (to_it, from_it):
            os.close(end)
        self._out, self._in, self._rest, self._number = ours, theirs, b"", 0
        self.console: list[str] = []
        self.requests: list[str] = []
        self._loaded = False
        (target,) = (t for t in self._ask("Target.getTargets")["targetInfos"] if t["type"] == "page")
        self._session = self._ask("Target.attachToTarget", targetId=target["targetId"], flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.ask(f"{domain}.enable")

    def open(self, url: str) -> None:
        """Go to a page and wait until it is loaded."""
        self._loaded = False
        self.ask("Page.navigate", url=url)
        while not self._loaded:
            self._hear(self._message())

    def run(self, expression: str) -> Any:
        """The value of a JavaScript expression, or of the promise that it gives."""
        answer = self.ask("Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True)
        if "exceptionDetails" in answer:
            details = answer["exceptionDetails"]
            raise AssertionError(details.get("exception", {}).get("description") or details["text"])
        return answer["result"].get("value")

    def size(self, width: int, height: int, dark: bool = False) -> None:
        """The window, and whether its reader prefers dark pages."""
        self.ask("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 600)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.ask("Emulation.setEmulatedMedia", features=[scheme])

    def key(self, name: str, text: str = "", modifiers: int = 0) -> None:
        """Press a key; modifiers: 2 is Ctrl."""
        codes = {"Enter": 13, "Escape": 27, "ArrowDown": 40, "ArrowUp": 38, "Tab": 9}
        event = {"key": name, "windowsVirtualKeyCode": codes.get(name, 0), "modifiers": modifiers}
        self.ask("Input.dispatchKeyEvent", type="keyDown", text=text, **event)
        self.ask("Input.dispatchKeyEvent", type="keyUp", **event)

    def picture(self, path: Path, whole: bool = False) -> None:
        """A screenshot of the window, or of the ``whole`` page."""
        path.write_bytes(base64.b64decode(self.ask("Page.captureScreenshot", captureBeyondViewport=whole)["data"]))

    def ask(self, method: str, **arguments: Any) -> Any:
        return self._ask(method, self._session, **arguments)

    def close(self) -> None:
        os.close(self._out)
        os.close(self._in)
        self._process.kill()
        self._process.wait()

    def _ask(self, method: str, session: str = "", **arguments: Any) -> Any:
        self._number += 1
        order = {"id": self._number, "method": method, "params": arguments} | ({"sessionId": session} if session else {})
        data = json.dumps(order).encode() + b"\0"
        while data:
            data = data[os.write(self._out, data) :]
        while (message := self._message()).get("id") != self._number:
            self._hear(message)
        assert "error" not in message, f"{method}: {message['error']}"
        return message["result"]

    def _message(self) -> dict[str, Any]:
        until = time.monotonic() + PATIENCE
        while b"\0" not in self._rest:
            assert time.monotonic() < until, "the browser does not answer"
            data = os.read(self._in, 2**20)
            assert data, "the browser ended"
            self._rest += data
        message, _, self._rest = self._rest.partition(b"\0")
        content: dict[str, Any] = json.loads(message)
        return content

    def _hear(self, message: dict[str, Any]) -> None:
        method, told = message.get("method"), message.get("params", {})
        if method == "Page.loadEventFired":
            self._loaded = True
        elif method == "Runtime.exceptionThrown":
            self.console.append(json.dumps(told["exceptionDetails"]))
        elif method == "Log.entryAdded":
            self.console.append(told["entry"]["text"])
        elif method == "Runtime.consoleAPICalled":
            self.console.append(json.dumps(told["args"]))
        elif method == "Network.requestWillBeSent" and not told["request"]["url"].startswith("data:"):
            self.requests.append(told["request"]["url"])

"""A real headless Chromium for pages that people read, driven over DevTools' own protocol on a pipe."""

import fcntl
import json
import os
import shutil
import subprocess
import tempfile
from base64 import b64decode
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.commands import LAST_RESORT_S

NAMES = ("chromium", "chromium-browser", "google-chrome")
FIRST_FREE = 10
"""Chromium reads commands from descriptor 3 and answers on 4, so ours must be others."""


def find_browser() -> str | None:
    """The command of an installed Chromium; None without."""
    return next((name for name in NAMES if shutil.which(name)), None)


class Page:
    """An open page, and what went wrong in it."""

    def __init__(self, commands: int, answers: int) -> None:
        self._commands = commands
        self._answers = answers
        self._number = 0
        self._received = b""
        self._session: dict[str, str] = {}
        self._loaded = False
        self.errors: list[str] = []
        """Exceptions, and errors and warnings on the console."""
        self.requests: list[str] = []
        """Addresses outside the page that it asked for."""

    def open(self, place: Path | str, *, width: int) -> None:
        """Load a file or an address in a window of this width, and wait until it is loaded."""
        target = self._call("Target.createTarget", url="about:blank")["targetId"]
        self._session = {"sessionId": self._call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]}
        for domain in ("Page", "Runtime", "Log", "Network"):
            self._call(f"{domain}.enable")
        size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
        self._call("Emulation.setDeviceMetricsOverride", **size)
        self._loaded = False
        self._call("Page.navigate", url=place if isinstance(place, str) else place.absolute().as_uri())
        while not self._loaded:
            self._read()

    def evaluate(self, script: str) -> Any:
        """The value of an expression in the page."""
        answer = self._call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def choose_file(self, selector: str, path: Path) -> None:
        """Choose a file in an input of a form."""
        found = self._call("Runtime.evaluate", expression=f"document.querySelector({json.dumps(selector)})")
        self._call("DOM.setFileInputFiles", files=[str(path)], objectId=found["result"]["objectId"])

    def press(self, key: str, *, code: int, text: str = "") -> None:
        """Press a key on the focused element."""
        pressed = {"key": key, "windowsVirtualKeyCode": code}
        self._call("Input.dispatchKeyEvent", type="keyDown", text=text, **pressed)
        self._call("Input.dispatchKeyEvent", type="keyUp", **pressed)

    def write(self, text: str) -> None:
        """Type into the focused element."""
        self._call("Input.insertText", text=text)

    def screenshot(self, path: Path, *, top: int, height: int) -> None:
        """Write a part of the page as PNG, in its full width."""
        clip = {"x": 0, "y": top, "width": self.evaluate("innerWidth"), "height": height, "scale": 1}
        answer = self._call("Page.captureScreenshot", format="png", clip=clip, captureBeyondViewport=True)
        path.write_bytes(b64decode(answer["data"]))

    def _call(self, method: str, **parameters: Any) -> dict[str, Any]:
        self._number += 1
        message = {"id": self._number, "method": method, "params": parameters, **self._session}
        os.write(self._commands, json.dumps(message).encode() + b"\0")
        while (answer := self._read()).get("id") != self._number:
            pass
        assert "error" not in answer, answer
        return answer["result"]  # type: ignore[no-any-return]

    def _read(self) -> dict[str, Any]:
        """The next message; events are noted."""
        while b"\0" not in self._received:
            received = os.read(self._answers, 1 << 20)
            assert received, "the browser has ended"
            self._received += received
        line, _, self._received = self._received.partition(b"\0")
        message: dict[str, Any] = json.loads(line)
        self._note(message.get("method", ""), message.get("params", {}))
        return message

    def _note(self, event: str, told: dict[str, Any]) -> None:
        match event:
            case "Page.loadEventFired":
                self._loaded = True
            case "Runtime.exceptionThrown":
                self.errors.append(str(told["exceptionDetails"]))
            case "Runtime.consoleAPICalled" if told["type"] in ("error", "warning", "assert"):
                self.errors.append(str(told["args"]))
            case "Log.entryAdded" if told["entry"]["level"] == "error":
                self.errors.append(str(told["entry"]))
            case "Network.requestWillBeSent" if not told["request"]["url"].startswith(("file:", "data:", "blob:")):
                self.requests.append(told["request"]["url"])


def _pipe() -> tuple[int, int]:
    """Ends to read from and to write to."""
    ends = os.pipe()
    reading, writing = (fcntl.fcntl(end, fcntl.F_DUPFD_CLOEXEC, FIRST_FREE) for end in ends)
    for end in ends:
        os.close(end)
    return reading, writing


@contextmanager
def browser(command: str) -> Iterator[Page]:
    """A page of a fresh browser, which ends with the block."""
    (heard, commands), (answers, told) = _pipe(), _pipe()
    options = [
        "--headless=new", "--remote-debugging-pipe", "--no-sandbox", "--no-first-run", "--disable-dev-shm-usage",
        "--use-angle=swiftshader", "--enable-unsafe-swiftshader", "--hide-scrollbars",
        "--disable-background-networking",
    ]  # fmt: skip
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        shell = f'exec "$@" 3<&{heard} 4>&{told}'
        process = subprocess.Popen(
            ["bash", "-c", shell, "bash", command, *options, f"--user-data-dir={profile}", "about:blank"],
            pass_fds=(heard, told),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(heard)
        os.close(told)
        try:
            yield Page(commands, answers)
        finally:
            os.close(commands)  # the browser ends with its pipe
            try:
                process.wait(timeout=30)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait(timeout=LAST_RESORT_S)
            os.close(answers)

"""Running the command line as a user does, inside this process if possible, otherwise as a separate process.

No test may depend on the speed of the machine: it waits for a condition (`wait_until`), never for a fixed time. What
must still be running when a test inspects it is kept running: an endless campaign (the fixture `endless_campaign`), or
a process that stops itself at a known point (`hold`).
"""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

from search.cli import main

COMMAND = [sys.executable, "-m", "search.cli"]
LAST_RESORT_S = 1200
"""Timeout of a test that hangs; waits have no other."""
HELD = """
import os, signal, sys
name, left = sys.argv.pop(1), int(sys.argv.pop(1))
def stand_still(event, arguments):
    global left
    if event == "open" and name in str(arguments[0]):
        left -= 1
        if left == 0:
            os.kill(os.getpid(), signal.SIGSTOP)
sys.addaudithook(stand_still)
from search.cli import main
main()
"""


def hold(name: str, times: int) -> list[str]:
    """A command line that stops itself just before it opens a file of this name for the given time.

    SIGCONT resumes it; see `wait_until_held`.
    """
    return [sys.executable, "-c", HELD, name, str(times)]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a command left behind."""

    code: int
    out: str
    err: str


class CommandLine:
    """Calls `crossmodal` inside this process."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        self._monkeypatch = monkeypatch
        self._capsys = capsys

    def __call__(self, *arguments: object) -> Outcome:
        self._monkeypatch.setattr(sys, "argv", ["crossmodal", *map(str, arguments)])
        self._capsys.readouterr()
        code = 0
        try:
            main()
        except SystemExit as stop:
            code = stop.code if isinstance(stop.code, int) else 0 if stop.code is None else 1
        captured = self._capsys.readouterr()
        return Outcome(code, captured.out, captured.err)


def environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """Environment of a process started by a test: no key, no network, no telemetry."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("WANDB", "RAY_ADDRESS"))}
    return kept | {"RAY_USAGE_STATS_ENABLED": "0", "COLUMNS": "120"} | dict(extra or {})


def start(
    *arguments: object, cwd: Path, extra: Mapping[str, str] | None = None, command: Sequence[str] = COMMAND
) -> subprocess.Popen[str]:
    """Start `crossmodal` as the leader of its own process group.

    Args:
        command: another command line, as returned by `hold`.
    """
    return subprocess.Popen(
        [*command, *map(str, arguments)],
        cwd=cwd,
        env=environment(extra),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def finish(process: subprocess.Popen[str]) -> Outcome:
    """Wait for the end of a process."""
    out, err = process.communicate(timeout=LAST_RESORT_S)
    return Outcome(process.returncode, out, err)


def run(*arguments: object, cwd: Path, extra: Mapping[str, str] | None = None) -> Outcome:
    """Run `crossmodal` as a separate process to its end."""
    with start(*arguments, cwd=cwd, extra=extra) as process:
        return finish(process)


def wait_until(condition: Callable[[], object], *, during: subprocess.Popen[str] | None = None) -> None:
    """Poll until a condition holds.

    Args:
        during: the process that makes it hold; if it ends before, the test fails with its output.
    """
    deadline = time.monotonic() + LAST_RESORT_S
    while True:
        began = time.monotonic()
        if condition():
            return
        assert began < deadline, "what the test waits for does not come"
        if during is not None and during.poll() is not None:
            assert condition(), (during.returncode, finish(during) if during.stdout else None)
            return
        spent = time.monotonic() - began
        time.sleep(min(1, max(0.05, 4 * spent)))  # the processors are for what is waited for


def wait_until_held(process: subprocess.Popen[str]) -> None:
    """Wait until a process started with `hold` has stopped itself."""
    wait_until(lambda: "\nState:\tT" in Path(f"/proc/{process.pid}/status").read_text(), during=process)


def descendants(pid: int) -> list[int]:
    """All descendants of a process, including Ray's daemons and workers, which lead their own process groups."""
    listing = subprocess.run(["ps", "-eo", "pid=,ppid="], capture_output=True, text=True, check=True).stdout
    children: dict[int, list[int]] = {}
    for line in listing.splitlines():
        child, parent = map(int, line.split())
        children.setdefault(parent, []).append(child)
    found, waiting = [], [pid]
    while waiting:
        below = children.get(waiting.pop(), [])
        found += below
        waiting += below
    return found


def command_of(pid: int) -> str:
    """The command line of a process; empty if it is gone."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
    except OSError:
        return ""


def kill_everything(process: subprocess.Popen[str]) -> None:
    """Kill a process and all its descendants at once, as when a machine goes down."""
    process.send_signal(signal.SIGSTOP)  # it must start no more of them meanwhile
    for pid in [process.pid, *descendants(process.pid)]:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    process.communicate(timeout=LAST_RESORT_S)


def free_port() -> int:
    """A port of loopback that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])

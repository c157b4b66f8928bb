"""Running the command line as a user does: inside this process where that is enough, else as a process of its own.

No test may depend on how fast the machine is: it waits for what it needs (`wait_until`), never for a time. What must
still be at work when a test looks is held there: a campaign without an end (the fixture `endless_campaign`), or a
process that stops at a known point and stands still (`hold`).
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
"""Ends a test that hangs; nothing else may end a wait."""
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
    """A command line that stops itself just before it opens a file of this name for so manyth a time.

    SIGCONT lets it go on; see `wait_until_held`.
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
    """Of a process started by a test: no key, no network, no telemetry."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("WANDB", "RAY_ADDRESS"))}
    return kept | {"RAY_USAGE_STATS_ENABLED": "0", "COLUMNS": "120"} | dict(extra or {})


def start(
    *arguments: object, cwd: Path, extra: Mapping[str, str] | None = None, command: Sequence[str] = COMMAND
) -> subprocess.Popen[str]:
    """Start `crossmodal` as the leader of its own process group.

    Args:
        command: another way to begin it, as `hold` gives it.
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
    """Run `crossmodal` as a process of its own, to its end."""
    with start(*arguments, cwd=cwd, extra=extra) as process:
        return finish(process)


def wait_until(condition: Callable[[], object], *, during: subprocess.Popen[str] | None = None) -> None:
    """Look again and again until a condition holds.

    Args:
        during: the process that will bring it about; the test fails with what it printed if it ends before.
    """
    deadline = time.monotonic() + LAST_RESORT_S
    while not condition():
        assert time.monotonic() < deadline, "what the test waits for does not come"
        if during is not None and during.poll() is not None:
            assert condition(), (during.returncode, finish(during) if during.stdout else None)
            return
        time.sleep(0.05)


def wait_until_held(process: subprocess.Popen[str]) -> None:
    """Until a process that `hold` began stands still."""
    wait_until(lambda: "\nState:\tT" in Path(f"/proc/{process.pid}/status").read_text(), during=process)


def descendants(pid: int) -> list[int]:
    """All processes below one, Ray's daemons and workers among them, though they lead groups of their own."""
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
    """Kill a process and all below it at once, as a machine that goes down does."""
    process.send_signal(signal.SIGSTOP)  # it must start no more of them on the way
    for pid in [process.pid, *descendants(process.pid)]:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    process.communicate(timeout=LAST_RESORT_S)


def free_port() -> int:
    """Of loopback; free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])

"""Running the command line as a user does: inside this process where that is enough, else as a process of its own."""

import os
import socket
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from search.cli import main

COMMAND = [sys.executable, "-m", "search.cli"]


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


def start(*arguments: object, cwd: Path, extra: Mapping[str, str] | None = None) -> subprocess.Popen[str]:
    """Start `crossmodal` as the leader of its own process group."""
    return subprocess.Popen(
        [*COMMAND, *map(str, arguments)],
        cwd=cwd,
        env=environment(extra),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def run(*arguments: object, cwd: Path, extra: Mapping[str, str] | None = None, timeout: float = 300) -> Outcome:
    """Run `crossmodal` as a process of its own, to its end."""
    with start(*arguments, cwd=cwd, extra=extra) as process:
        out, err = process.communicate(timeout=timeout)
        return Outcome(process.returncode, out, err)


def free_port() -> int:
    """Of loopback; free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])

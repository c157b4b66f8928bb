"""The files on disk: where they lie in a run's or a campaign's folder, and how they are written and read.

Nothing here knows what the files mean. Every whole file is written to a temporary name and renamed; lines
are appended one at a time, and a torn last line (a writer killed half-way) is not read.
"""

import json
import os
import secrets
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from core.errors import UserError

TAIL_BYTES = 65536


def write_atomically(path: Path, content: str | bytes) -> None:
    """Write a whole file so that a reader sees either the old one or the new one; parents are created.

    Its mode follows the umask.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    data = content.encode() if isinstance(content, str) else content
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)  # less what the umask takes
    try:
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def write_json(path: Path, value: Any) -> None:
    """Write one JSON value atomically; NaN and infinity are refused with ValueError."""
    write_atomically(path, json.dumps(value, indent=2, allow_nan=False, ensure_ascii=False) + "\n")


def read_json(path: Path) -> Any:
    """Read one JSON value; UserError names the file, the line and the column of a mistake."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError("there is no such file", where=path) from None
    except IsADirectoryError:
        raise UserError("is a folder, not a JSON file", where=path) from None
    except json.JSONDecodeError as error:
        place = f"line {error.lineno} column {error.colno}"
        raise UserError(f"is not valid JSON ({error.msg} at {place})", where=path) from None
    except UnicodeDecodeError as error:
        raise UserError(f"is not UTF-8 text (byte {error.start})", where=path) from None
    except (ValueError, RecursionError):  # thousands of digits, or of brackets
        raise UserError("is not JSON of ours", where=path) from None


def append_json_line(path: Path, value: Mapping[str, Any]) -> None:
    """Append one JSON object as a line, after mending a torn last line."""
    path.parent.mkdir(parents=True, exist_ok=True)
    line = json.dumps(value, allow_nan=False, ensure_ascii=False) + "\n"
    drop_torn_line(path)
    with path.open("ab") as stream:
        stream.write(line.encode())


def read_json_lines(path: Path) -> list[dict[str, Any]]:
    """All whole lines of a JSON-lines file; a torn last line is left out, a missing file is an empty list."""
    if not path.exists():
        return []
    return list(_whole_lines(path))


def _whole_lines(path: Path) -> Iterator[dict[str, Any]]:
    for number, line in enumerate(path.read_bytes().splitlines(keepends=True), start=1):
        if not line.endswith(b"\n"):
            return
        try:
            yield json.loads(line)
        except (ValueError, RecursionError):
            raise UserError(f"line {number} is not valid JSON", where=path) from None


def drop_torn_line(path: Path) -> None:
    """Cut off a last line without its end: its writer was killed half-way. Reads from the end only."""
    if not path.exists():
        return
    with path.open("rb+") as stream:
        end = stream.seek(0, os.SEEK_END)
        keep = end
        while keep > 0:
            start = max(0, keep - TAIL_BYTES)
            stream.seek(start)
            newline = stream.read(keep - start).rfind(b"\n")
            if newline >= 0:
                keep = start + newline + 1
                break
            keep = start
        if keep < end:
            stream.truncate(keep)


@dataclass(frozen=True, slots=True)
class RunFolder:
    """What one training run writes."""

    root: Path

    @property
    def config(self) -> Path:
        return self.root / "config.yaml"

    @property
    def log(self) -> Path:
        """One JSON object per epoch."""
        return self.root / "log.txt"

    @property
    def receipt(self) -> Path:
        return self.root / "receipt.json"

    @property
    def best_checkpoint(self) -> Path:
        return self.root / "checkpoint_best.pth"

    def checkpoint(self, epoch: int) -> Path:
        return self.root / f"checkpoint_{epoch}.pth"


@dataclass(frozen=True, slots=True)
class TrialFolder:
    """What the driver keeps of one trial."""

    root: Path

    @property
    def config(self) -> Path:
        return self.root / "config.yaml"

    @property
    def metrics(self) -> Path:
        """One JSON object per epoch: the canonical log."""
        return self.root / "metrics.jsonl"

    @property
    def receipt(self) -> Path:
        return self.root / "receipt.json"

    @property
    def best_checkpoint(self) -> Path:
        return self.root / "checkpoint_best.pth"


@dataclass(frozen=True, slots=True)
class CampaignFolder:
    """What one search campaign writes."""

    root: Path

    @property
    def campaign(self) -> Path:
        """The campaign as resolved when it started; only its limits may change later."""
        return self.root / "campaign.yaml"

    @property
    def journal(self) -> Path:
        """The Optuna study: the ledger of all trials."""
        return self.root / "study.journal"

    @property
    def lock(self) -> Path:
        return self.root / "driver.lock"

    @property
    def final_metrics(self) -> Path:
        """Scorecard of the final model, where it is retrained into the campaign's folder."""
        return self.root / "final" / "metrics.json"

    @property
    def driver(self) -> Path:
        """Process and host of the driver at work; left behind by one that was killed."""
        return self.root / "driver.json"

    @property
    def sessions(self) -> Path:
        """Ray's own files, one folder a session; disposable."""
        return self.root / "sessions"

    @property
    def leaderboard(self) -> Path:
        """Without suffix: .csv, .md and the other formats lie side by side."""
        return self.root / "leaderboard"

    def trial(self, number: int) -> TrialFolder:
        return TrialFolder(self.root / "trials" / f"{number:04d}")

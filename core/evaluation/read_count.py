"""How often the test split was read for a final model; each time is recorded before it begins.

Choosing by figures of the test split makes them worthless, so the first time is the one that counts, and every
further one has to be asked for and is counted.
"""

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from core.errors import UserError
from core.files.json_files import read_json, write_json
from core.records import Record

TEST_READS, METRICS = "test_reads.json", "metrics.json"
"""In the folder of a final model: when the test split was read, and the scorecard with the number of times."""


@dataclass(frozen=True, slots=True)
class CountedRead(Record):
    """One time that the test split was read."""

    began: str
    """Time in UTC, ISO 8601."""
    finished: bool
    """Whether its figures were written; an interrupted read is made up for by the next one."""


def final_folder(checkpoint: Path) -> Path | None:
    """The folder of the final model that a checkpoint belongs to; None for any other checkpoint."""
    around = (checkpoint.parent, checkpoint.parent.parent)
    return next((folder for folder in around if (folder / TEST_READS).exists()), None)


def finished_reads(folder: Path) -> Sequence[CountedRead]:
    """All reads whose figures were written, in order.

    Raises:
        UserError: the record is damaged.
    """
    return [read for read in _read(folder / TEST_READS) if read.finished]


@contextmanager
def counted_read(folder: Path, *, again: bool) -> Iterator[int]:
    """Record a read before it begins, and as finished at the end; yields the number of reads, this one included.

    Args:
        folder: of a final model.
        again: whether the split may be read once more.
    Raises:
        UserError: it was read before and may not be read again, or the record is damaged.
    """
    finished = finished_reads(folder)
    if finished and not again:
        times = "once" if len(finished) == 1 else f"{len(finished)} times"
        raise UserError(
            f"the test split was read for this model {times}, the last time on {finished[-1].began}",
            where=folder,
            how="--again reads it once more, which is counted",
        )
    read = CountedRead(datetime.now(UTC).isoformat(timespec="seconds"), finished=False)
    _write(folder / TEST_READS, [*finished, read])
    yield len(finished) + 1
    if (folder / METRICS).exists():
        write_json(folder / METRICS, {**read_json(folder / METRICS), "test_reads": len(finished) + 1})
    _write(folder / TEST_READS, [*finished, replace(read, finished=True)])


def read_by(checkpoint: Path, *, on_test: bool, again: bool) -> AbstractContextManager[int]:
    """Around a measurement of a checkpoint: `counted_read` if it is of a final model on the test split, else 0."""
    folder = final_folder(checkpoint) if on_test else None
    return nullcontext(0) if folder is None else counted_read(folder, again=again)


def _read(path: Path) -> list[CountedRead]:
    if not path.exists():
        return []
    content = read_json(path)
    try:
        if not isinstance(content, list):
            raise TypeError("not a list")
        return [CountedRead.from_json(each) for each in content]
    except (TypeError, ValueError):
        raise UserError("does not list when the test split was read", where=path, how="restore it") from None


def _write(path: Path, reads: Sequence[CountedRead]) -> None:
    write_json(path, [read.to_json() for read in reads])

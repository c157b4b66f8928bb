"""CSV and TSV files whose first line names the columns: an image and a caption, and boxes if there are any."""

import csv
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

from core.data.images import file_problem
from core.errors import UserError
from core.files.json_files import GIT_LFS_POINTER
from core.formats.records import Findings, Record
from core.formats.rows import record_of_row, require_columns

DELIMITERS = ",\t;|"


def read(path: Path, split: str, findings: Findings) -> Iterator[Record]:
    """Lines of the table; one with another number of cells than the first is dropped and counted.

    Raises:
        UserError: the file is not UTF-8 text, or its first line names no column of images or captions.
    """
    if problem := file_problem(path):
        raise UserError(problem, where=path)
    try:
        with path.open(encoding="utf-8-sig", newline="") as stream:
            yield from _records(path, stream, split, findings)
    except UnicodeDecodeError as error:
        raise UserError(f"is not UTF-8 text (byte {error.start})", where=path, how="save it as UTF-8") from None
    except csv.Error as error:
        raise UserError(f"is not a table ({error})", where=path) from None


def _records(path: Path, stream: TextIO, split: str, findings: Findings) -> Iterator[Record]:
    first = stream.readline()
    if first.encode().startswith(GIT_LFS_POINTER):
        raise UserError("is a Git LFS pointer, not the file itself", where=path, how="run git lfs pull")
    if not first.strip():
        raise UserError("has an empty first line", where=path, how="name the columns in it")
    stream.seek(0)
    rows = csv.reader(stream, delimiter=max(DELIMITERS, key=first.count))
    names = [name.strip() for name in next(rows, [])]
    if repeated := next((name for name in names if names.count(name) > 1), None):
        raise UserError(f"names the column '{repeated}' twice", where=path)
    require_columns(names, path)
    for row in rows:
        where = f"{path}: line {rows.line_num}"
        if not row:
            continue
        if len(row) != len(names):
            findings.drop("line with another number of cells than the first", where, f"{len(row)}, not {len(names)}")
        elif record := record_of_row(dict(zip(names, row, strict=True)), where, split, findings):
            yield record

"""JSON Lines: one object a line, with an image, its captions, and boxes if there are any."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from core.data.images import file_problem
from core.errors import UserError
from core.files.json_files import GIT_LFS_POINTER, decode_json
from core.formats.records import Findings, Record
from core.formats.rows import rows_of


def read(path: Path, split: str, findings: Findings) -> Iterator[Record]:
    """Lines of the file; blank ones are skipped, broken ones dropped and counted."""
    if problem := file_problem(path):
        raise UserError(problem, where=path)
    yield from rows_of(_values(path, findings), split, findings)


def _values(path: Path, findings: Findings) -> Iterator[tuple[str, Any]]:
    with path.open("rb") as stream:
        for number, line in enumerate(stream, start=1):
            if number == 1 and line.startswith(GIT_LFS_POINTER):
                raise UserError("is a Git LFS pointer, not the file itself", where=path, how="run git lfs pull")
            if not line.strip():
                continue
            where = f"{path}: line {number}"
            try:
                value = decode_json(line, where=where)
            except UserError as error:
                findings.drop("line that is not JSON", where, error.what)
            else:
                yield where, value

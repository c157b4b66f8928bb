"""Importing vectors: files of any encoders are checked against the annotations and become one set of vectors.

Every image and text that the annotations name must have a vector of each encoder, finite and of one width. What several
files say of the same encoder is put together. The set appears at once, by the write of its manifest; files of an
earlier set in the folder are removed only then.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from core.data.annotations import AnnotatedImage
from core.errors import UserError, shown
from core.features.extraction import distinct_inputs, index_splits
from core.features.tables import HEALTH_SAMPLE, health_of, mean_and_deviation
from core.features.vector_files import VectorFile
from core.features.vectors import EXAMPLES, KINDS, MANIFEST, lacking
from core.files.atomic import write_atomically
from core.files.ownership import claim_folder, require_ours, scratch_folder
from core.files.sealed import read_sealed, write_sealed
from core.readings import Kind

OWN_FILES = (MANIFEST, "images.*", "texts.*")
ROWS_AT_ONCE = 8192
SAME = 0.01
"""Vectors of one name are the same if they differ by at most this share of their length: encoders round."""


@dataclass(slots=True)
class ImportedReading:
    """What was found of the vectors of one encoder."""

    kind: Kind
    name: str
    width: int
    count: int
    distinct: float
    """Share of rows with a vector of their own, of a sample."""
    files: list[str]


@dataclass(slots=True)
class ImportReport:
    """What `import_vectors` did."""

    readings: list[ImportedReading] = field(default_factory=list)
    notes: dict[str, int] = field(default_factory=dict)
    """What was dropped or ignored → how often."""

    def note(self, what: str, count: int) -> None:
        """Count something that was dropped."""
        if count:
            self.notes[what] = self.notes.get(what, 0) + count


@dataclass(frozen=True, slots=True)
class _Encoder:
    """The vectors of one encoder in all files, and the row of each name in them."""

    kind: Kind
    name: str
    files: list[VectorFile]
    rows: dict[str, int]
    """Among the rows of all files, one after the other; the first row of a name."""

    def table(self) -> NDArray[Any]:
        """[N, width]: all rows of all files."""
        tables = [file.load[self.name]() for file in self.files]
        for file, table in zip(self.files, tables, strict=True):
            if table.shape[1] != tables[0].shape[1]:
                raise UserError(
                    f"{self.name} is {table.shape[1]} wide, but {tables[0].shape[1]} in {self.files[0].path}",
                    where=file.path,
                )
        return tables[0] if len(tables) == 1 else np.concatenate(tables)


def import_vectors(out: Path, files: Sequence[VectorFile], images: Sequence[AnnotatedImage]) -> ImportReport:
    """Write the set of vectors of these files into a folder.

    Args:
        images: that need vectors, with their captions and sentences.
    Raises:
        UserError: an image or text lacks a vector, a vector is not finite, contradicts another one of the same name or
            has another width than the rest, all are the same, or the folder holds files of another program.
    """
    report = ImportReport()
    paths, texts = distinct_inputs(index_splits({"train": images}))
    needed: Mapping[Kind, list[str]] = {"images": [path.as_posix() for path in paths], "texts": texts}
    for file in files:
        report.note(f"columns without vectors in {file.path.name}: {', '.join(file.ignored)}", len(file.ignored))
    require_ours(out, OWN_FILES)
    is_new = not out.exists()
    try:
        with scratch_folder(out) as scratch:
            manifest: dict[str, Any] = {kind: _write_kind(scratch, kind, files, needed[kind], report) for kind in KINDS}
            _publish(scratch, out, manifest)
    except BaseException:
        if is_new and not any(out.iterdir()):
            out.rmdir()
        raise
    return report


def _write_kind(
    scratch: Path, kind: Kind, files: Sequence[VectorFile], needed: Sequence[str], report: ImportReport
) -> dict[str, Any]:
    """Write names and vectors of images, or of texts; returns their part of the manifest."""
    encoders = _encoders(kind, files)
    names = _common_names(encoders, needed, report)
    readings = {}
    for encoder in encoders:
        table = encoder.table()
        report.note(f"{kind} whose vector of {encoder.name} is given again", _repeated(encoder, table))
        path = _write_table(scratch, encoder, table, names)
        report.readings.append(_described(encoder, path))
        readings[encoder.name] = {"file": path.name, "width": int(table.shape[1])}
    content = json.dumps(names, ensure_ascii=False).encode()
    file = f"{kind}.{hashlib.sha256(content).hexdigest()[:8]}.json"
    write_atomically(scratch / file, content)
    return {"names": file, "count": len(names), "readings": readings}


def _encoders(kind: Kind, files: Sequence[VectorFile]) -> list[_Encoder]:
    own = [file for file in files if file.kind == kind]
    encoders = []
    for name in dict.fromkeys(name for file in own for name in file.load):
        holding = [file for file in own if name in file.load]
        rows: dict[str, int] = {}
        for row, item in enumerate(item for file in holding for item in file.names):
            rows.setdefault(item, row)
        encoders.append(_Encoder(kind, name, holding, rows))
    return encoders


def _common_names(encoders: Sequence[_Encoder], needed: Sequence[str], report: ImportReport) -> list[str]:
    """Names that every encoder has a vector of, among them all that are needed."""
    if not encoders:
        return []
    for encoder in encoders:
        if missing := [name for name in needed if name not in encoder.rows]:
            raise lacking(encoder.kind, missing, len(needed), next(iter(encoder.rows)), where=_place(encoder))
    kind, wanted = encoders[0].kind, set(needed)
    names = [name for name in encoders[0].rows if all(name in encoder.rows for encoder in encoders)]
    known = {name for encoder in encoders for name in encoder.rows}
    report.note(f"{kind} dropped, since only some encoders have a vector of them", len(known) - len(names))
    report.note(f"{kind} that the annotations do not name", sum(name not in wanted for name in names))
    return names


def _repeated(encoder: _Encoder, table: NDArray[Any]) -> int:
    """Number of rows whose name an earlier row has; both must have the same vector."""
    items = [item for file in encoder.files for item in file.names]
    again = np.array([row for row, item in enumerate(items) if encoder.rows[item] != row], dtype=np.int64)
    first = np.array([encoder.rows[items[row]] for row in again], dtype=np.int64)
    contradicting: list[str] = []
    for start in range(0, len(again), ROWS_AT_ONCE):
        part = slice(start, start + ROWS_AT_ONCE)
        before, after = _floats(table[first[part]]), _floats(table[again[part]])
        with np.errstate(over="ignore", invalid="ignore"):  # what is not finite is found later
            differ = np.linalg.norm(after - before, axis=1) > SAME * np.linalg.norm(before, axis=1)
        contradicting += [items[row] for row in again[part][differ]]
    if contradicting:
        raise UserError(
            f"{len(contradicting):,} {encoder.kind} have several different vectors: {_first(contradicting)}",
            where=_place(encoder),
            how="keep one of each",
        )
    return len(again)


def _write_table(scratch: Path, encoder: _Encoder, table: NDArray[Any], names: Sequence[str]) -> Path:
    """Write the rows of these names as float32, and name the file by its content."""
    rows = np.array([encoder.rows[name] for name in names], dtype=np.int64)
    unnamed = scratch / "table.npy"
    written = np.lib.format.open_memmap(unnamed, mode="w+", dtype=np.float32, shape=(len(rows), table.shape[1]))
    digest, bad = hashlib.sha256(), []
    for start in range(0, len(rows), ROWS_AT_ONCE):
        part = _floats(table[rows[start : start + ROWS_AT_ONCE]])
        bad += [names[start + row] for row in np.flatnonzero(~np.isfinite(part).all(axis=1)).tolist()]
        written[start : start + len(part)] = part
        digest.update(part.tobytes())
    if bad:
        raise UserError(
            f"{len(bad):,} {encoder.kind} have NaN or infinity (as float32) in their vectors: {_first(bad)}",
            where=_place(encoder),
        )
    written.flush()
    return unnamed.rename(scratch / f"{encoder.kind}.{encoder.name}.{digest.hexdigest()[:8]}.npy")


def _described(encoder: _Encoder, path: Path) -> ImportedReading:
    table = np.load(path, mmap_mode="r", allow_pickle=False)
    mean, std = mean_and_deviation(table)
    if len(table) > 1 and not bool(std.any()):
        raise UserError(f"gives all {len(table):,} {encoder.kind} the same vector", where=_place(encoder))
    distinct = health_of(table[:HEALTH_SAMPLE], mean, std)["distinct"]
    files = [file.path.name for file in encoder.files]
    return ImportedReading(encoder.kind, encoder.name, table.shape[1], len(table), distinct, files)


def _publish(scratch: Path, out: Path, manifest: Mapping[str, Any]) -> None:
    """Move the files of a set to their place, and remove those of the set before."""
    claim_folder(out, OWN_FILES)
    before = _files_of(out / MANIFEST)
    for file in scratch.iterdir():
        file.rename(out / file.name)
    write_sealed(out / MANIFEST, manifest)
    for name in before - _files_of(out / MANIFEST):
        (out / name).unlink(missing_ok=True)


def _files_of(path: Path) -> set[str]:
    """Names of the files of a set; none if there is no set or a damaged one."""
    try:
        manifest = read_sealed(path)
        return {
            name
            for kind in KINDS
            for name in (manifest[kind]["names"], *(each["file"] for each in manifest[kind]["readings"].values()))
        }
    except (OSError, ValueError):
        return set()


def _floats(rows: NDArray[Any]) -> NDArray[np.float32]:
    with np.errstate(over="ignore", invalid="ignore"):
        return np.asarray(rows, dtype=np.float32)


def _place(encoder: _Encoder) -> str:
    return f"{' and '.join(str(file.path) for file in encoder.files[:EXAMPLES])}: {encoder.name}"


def _first(names: Sequence[str]) -> str:
    return ", ".join(map(shown, names[:EXAMPLES])) + (", …" if len(names) > EXAMPLES else "")

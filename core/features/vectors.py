"""A set of vectors that other encoders computed, as `crossmodal features import` writes it: a folder of ours.

`vectors.json` names the other files: for images and for texts the names of the rows (JSON), and one memory-mapped array
[N, width] float32 for each encoder. A set is read when features are extracted, row by row into the ordinary store, so
that trials need neither the set nor its encoders.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, get_args

import numpy as np
from numpy.typing import NDArray

from core.config import TrainConfig
from core.errors import UserError, shown
from core.files.digests import file_digests
from core.files.sealed import read_sealed
from core.readings import VECTORS, Kind, Reading

MANIFEST = "vectors.json"
KINDS: tuple[Kind, ...] = get_args(Kind)
EXAMPLES = 3
"""Names in a message."""


@dataclass(frozen=True)
class VectorSet:
    """Vectors of images and of texts, found by the name of an image or by the text."""

    folder: Path
    manifest: Mapping[str, Any]
    """Kind → names (a file), count, and readings: name → file and width."""
    image_root: Path | None = None
    """Folder that the names of images start from; None where images are their names."""

    def readings(self, kind: Kind) -> dict[str, int]:
        """Name of an encoder's vectors → their width."""
        return {name: facts["width"] for name, facts in self._of(kind)["readings"].items()}

    def width(self, reading: Reading) -> int:
        """Of one vector of a reading that the set holds."""
        return self.readings(reading.kind)[reading.pooling]

    def digest(self, names: str, memory: Path, *, verify: bool = False) -> str:
        """Digest of the content of the set and of the names of the images, under which vectors are found.

        Args:
            names: digest of the names of the images of all splits.
            memory: folder that remembers digests of files.
            verify: read every file, ignoring cached digests.
        Raises:
            UserError: a file of the set is missing.
        """
        files = {
            f"{kind} {name}": self.folder / file
            for kind in KINDS
            for name, file in [("", self._of(kind)["names"]), *self._files(kind).items()]
        }
        for path in files.values():
            if not path.is_file():
                raise _damaged(path, "it is missing")
        digests = file_digests(list(files.values()), memory, verify=verify)
        return hashlib.sha256(json.dumps([list(zip(files, digests, strict=True)), names]).encode()).hexdigest()

    def require(self, readings: Iterable[Reading]) -> None:
        """Check that the set holds these readings; those of the backbone are ignored.

        Raises:
            UserError: names the first that it does not hold, and those that it does.
        """
        for reading in readings:
            known = self.readings(reading.kind)
            if reading.is_vector and reading.pooling not in known:
                there = ", ".join(f"{VECTORS}.{name}" for name in known) or "none"
                raise UserError(
                    f"holds no {reading.name} of {reading.kind}; there are {there}",
                    where=self.folder,
                    how=f"correct features.{reading.kind.removesuffix('s')}, or import them",
                )

    def require_rows(self, kind: Kind, items: Sequence[Path | str]) -> None:
        """Check that each of the images or texts has vectors.

        Raises:
            UserError: says how many have none, and names the first.
        """
        missing = [name for name in map(self.name_of, items) if name not in self._rows[kind]]
        if missing:
            raise lacking(kind, missing, len(items), next(iter(self._rows[kind]), None), where=self.folder)

    def rows(self, reading: Reading, items: Sequence[Path | str]) -> NDArray[np.float32]:
        """Vectors [N, width] of image files or texts.

        Raises:
            UserError: one has no vector, or a file of the set is damaged.
        """
        self.require_rows(reading.kind, items)
        rows = self._rows[reading.kind]
        found = np.asarray(self._table(reading)[[rows[self.name_of(item)] for item in items]])
        if not np.isfinite(found).all():
            raise _damaged(self._path(reading), "it is not what was written")
        return found

    def name_of(self, item: Path | str) -> str:
        """Name of an image in the set; a text is its own name."""
        return item if isinstance(item, str) else name_of(item, self.image_root)

    def _of(self, kind: Kind) -> Mapping[str, Any]:
        found: Mapping[str, Any] = self.manifest[kind]
        return found

    def _files(self, kind: Kind) -> dict[str, str]:
        return {name: facts["file"] for name, facts in self._of(kind)["readings"].items()}

    def _path(self, reading: Reading) -> Path:
        return self.folder / self._files(reading.kind)[reading.pooling]

    def _table(self, reading: Reading) -> NDArray[np.float32]:
        path = self._path(reading)
        try:
            table = np.lib.format.open_memmap(path, mode="r")
        except Exception:  # a damaged header makes NumPy raise anything
            raise _damaged(path, "it is not what was written") from None
        if table.dtype != np.float32 or table.shape != (len(self._rows[reading.kind]), self.width(reading)):
            raise _damaged(path, "it is not what was written")
        return table

    @cached_property
    def _rows(self) -> dict[Kind, dict[str, int]]:
        return {kind: {name: row for row, name in enumerate(self._names(kind))} for kind in KINDS}

    def _names(self, kind: Kind) -> list[str]:
        path = self.folder / self._of(kind)["names"]
        try:
            names: Any = json.loads(path.read_bytes())
        except (OSError, ValueError, RecursionError):
            raise _damaged(path, "it is not what was written") from None
        if not isinstance(names, list) or len(names) != self._of(kind)["count"] or not _are_texts(names):
            raise _damaged(path, "it is not what was written")
        return names


def _are_texts(names: list[Any]) -> bool:
    return all(isinstance(name, str) for name in names)


def name_of(path: Path, image_root: Path | None) -> str:
    """Name of an image in a set: its path below the folder of images, or all of it without one."""
    return (path if image_root is None else path.relative_to(image_root)).as_posix()


def open_vectors(config: TrainConfig) -> VectorSet | None:
    """The set that a configuration names, which holds its readings; None if it names none.

    Raises:
        UserError: the folder holds no set, or the set lacks a reading.
    """
    if config.features.vectors is None:
        return None
    vectors = read_vector_set(config.features.vectors, config.data.image_root)
    vectors.require(config.readings.all)
    return vectors


def read_vector_set(folder: Path, image_root: Path | None = None) -> VectorSet:
    """The set of vectors in a folder.

    Raises:
        UserError: it holds none, or a damaged one.
    """
    path = folder / MANIFEST
    try:
        manifest = read_sealed(path)
    except (FileNotFoundError, NotADirectoryError):
        how = "set features.vectors to a folder that crossmodal features import wrote"
        raise UserError("holds no vectors", where=folder, how=how) from None
    except (OSError, ValueError):
        raise _damaged(path, "it is not what was written") from None
    if not manifest.keys() >= set(KINDS):  # sealed, but of another kind
        raise _damaged(path, "it lists no vectors")
    return VectorSet(folder, manifest, image_root)


def lacking(kind: Kind, missing: Sequence[str], count: int, present: str | None, *, where: object) -> UserError:
    """The error of images or texts without a vector.

    Args:
        count: of the images or texts that need one.
        present: a name that has one, to compare with.
    """
    first = ", ".join(map(shown, missing[:EXAMPLES]))
    more = ", …" if len(missing) > EXAMPLES else ""
    there = "" if present is None else f"; it names, for example, {shown(present)}"
    return UserError(
        f"lacks vectors of {len(missing):,} of {count:,} {kind}: {first}{more}{there}",
        where=where,
        how="encode them, too, under the names in the annotations",
    )


def _damaged(path: Path, reason: str) -> UserError:
    return UserError(f"cannot be read as vectors ({reason})", where=path, how="run crossmodal features import again")

"""The manifest of a feature store: what is in it, sealed, with a digest of every file.

A file that does not match the manifest (torn, from another store, of another shape) is refused by name, never read.
Small files are digested completely, tables by their header and blocks spread over them, so that opening a store of any
size takes milliseconds. Free of torch, so that a driver soon knows whether a store lacks anything.
"""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from core.errors import UserError
from core.files.sealed import read_sealed, write_sealed
from core.readings import Reading

MANIFEST = "manifest.json"
READINGS = "readings"
"""Sub-folder of a store with one folder per reading."""
BLOCKS, BLOCK_BYTES = 32, 4096
"""Number and size of the blocks of a table that are digested."""


def write_manifest(folder: Path, facts: Mapping[str, Any]) -> None:
    """Write the manifest of a store whose other files are complete."""
    files = sorted(path for path in folder.rglob("*") if path.suffix in (".npy", ".safetensors"))
    digests = {str(path.relative_to(folder)): _digest(path) for path in files}
    write_sealed(folder / MANIFEST, {**facts, "files": digests})


def read_manifest(folder: Path, fingerprint: str) -> dict[str, Any]:
    """Read the manifest of a store.

    Raises:
        UserError: the manifest is missing, not exactly what was written, or that of another fingerprint.
    """
    path = folder / MANIFEST
    try:
        manifest = read_sealed(path)
    except FileNotFoundError:
        raise _damaged(folder, MANIFEST, "it is missing") from None
    except (OSError, ValueError):
        raise _damaged(folder, MANIFEST, "it is not what was written") from None
    if manifest.get("fingerprint") != fingerprint:
        raise UserError(
            f"says fingerprint {manifest.get('fingerprint')} instead of {fingerprint}",
            where=path,
            how=_remedy(folder),
        )
    return manifest


def missing_readings(root: Path, fingerprint: str, readings: Sequence[Reading]) -> list[Reading]:
    """Those of the readings that the store with this fingerprint lacks; all of them if there is no store.

    Raises:
        UserError: its manifest is damaged.
    """
    folder = root / fingerprint
    if not folder.exists():
        return list(readings)
    read_manifest(folder, fingerprint)
    return [reading for reading in readings if not (reading_folder(folder, reading) / MANIFEST).exists()]


def reading_folder(store: Path, reading: Reading) -> Path:
    """The folder of a reading in the folder of a store, whether or not it exists."""
    return store / READINGS / reading.key


def checked_file(folder: Path, manifest: Mapping[str, Any], name: str) -> Path:
    """Path of a file of a store, once its digest has been verified.

    Args:
        name: path below `folder`.
    Raises:
        UserError: it is missing, or not the file that was written.
    """
    try:
        digest = _digest(folder / name)
    except FileNotFoundError:
        raise _damaged(folder, name, "it is missing") from None
    except OSError as error:
        raise _damaged(folder, name, error.strerror or "it cannot be read") from None
    if manifest["files"].get(name) != digest:
        raise _damaged(folder, name, "it is not the file that was extracted")
    return folder / name


def _digest(path: Path) -> str:
    size = path.stat().st_size
    total = hashlib.sha256(f"{size}\n".encode())
    with path.open("rb") as stream:
        if path.suffix == ".npy":
            for start in _spread(size):
                stream.seek(start)
                total.update(stream.read(BLOCK_BYTES))
        else:
            while block := stream.read(2**20):
                total.update(block)
    return total.hexdigest()


def _spread(size: int) -> Iterator[int]:
    """Offsets of the blocks: the first bytes (a table's header), the last ones, and evenly between."""
    last = max(0, size - BLOCK_BYTES)
    yield from sorted({last * number // (BLOCKS - 1) for number in range(BLOCKS)})


def _damaged(folder: Path, name: str, reason: str) -> UserError:
    return UserError(f"cannot be read as features ({reason})", where=folder / name, how=_remedy(folder))


def _remedy(folder: Path) -> str:
    return f"remove {folder} and extract again"

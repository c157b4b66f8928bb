"""Cached digests of files, so that gigabytes of weights and images are not read at every start.

A file counts as unchanged while its path, size, modification time and inode change time are; the last one cannot be set
by a program. Even so, each use verifies a random sample: a few pieces of the cached files are read again, and if one
differs, all files are.
"""

import hashlib
import random
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock

from core.files.ownership import claim_folder
from core.files.sealed import read_sealed, write_sealed

PIECE_BYTES = 2 * 2**20
SAMPLED_PIECES = 16
"""Pieces verified at every use: at most 32 MB."""


@dataclass(frozen=True, slots=True)
class _Known:
    """Cached digests of a file, and its size and times."""

    stamp: tuple[int, int, int]
    """Size in bytes, modification time and inode change time in nanoseconds."""
    pieces: tuple[str, ...]
    """Digest of every PIECE_BYTES."""


def file_digests(
    paths: Sequence[Path], memory: Path | None, *, verify: bool = False, name: str | None = None
) -> list[str]:
    """Digest of each file: SHA-256 of the SHA-256 of its pieces.

    Args:
        memory: folder of cached digests; created if it is missing. None: all files are read, and none is remembered.
        verify: read every file, ignoring the cache.
        name: of the list, by which it is remembered when files join or leave it; by default its paths.
    Raises:
        UserError: `memory` holds files of another program.
        OSError: a file cannot be read.
    """
    stamps = {path: _stamp(path) for path in paths}
    listed = _lines(map(str, stamps)) if name is None else name.encode(errors="surrogateescape")
    remembered = None if memory is None else memory / f"{hashlib.sha256(listed).hexdigest()[:32]}.json"
    known = {} if verify or remembered is None else _recall(remembered)
    known = {path: known[path] for path, stamp in stamps.items() if path in known and known[path].stamp == stamp}
    if not _sample_agrees(known):
        known = {}
    if fresh := _read([path for path in stamps if path not in known], stamps):
        known |= fresh
        if remembered is not None:
            _remember(remembered, known)
    return [hashlib.sha256(_lines(known[path].pieces)).hexdigest() for path in paths]


def _stamp(path: Path) -> tuple[int, int, int]:
    stat = path.stat()
    return stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns


def _read(paths: Sequence[Path], stamps: Mapping[Path, tuple[int, int, int]]) -> dict[Path, _Known]:
    pieces_to_read = [(path, start) for path in paths for start in range(0, max(stamps[path][0], 1), PIECE_BYTES)]
    with ThreadPoolExecutor() as pool:  # hashing releases the interpreter lock
        digests = list(pool.map(_piece_digest, pieces_to_read))
    pieces: dict[Path, list[str]] = {path: [] for path in paths}
    for (path, _), digest in zip(pieces_to_read, digests, strict=True):
        pieces[path].append(digest)
    return {path: _Known(stamps[path], tuple(pieces[path])) for path in paths}


def _piece_digest(piece: tuple[Path, int]) -> str:
    path, start = piece
    with path.open("rb") as stream:
        stream.seek(start)
        return hashlib.sha256(stream.read(PIECE_BYTES)).hexdigest()


def _sample_agrees(known: Mapping[Path, _Known]) -> bool:
    """Whether a random sample of pieces still has the cached digests."""
    pieces = [
        (path, number * PIECE_BYTES, digest) for path in known for number, digest in enumerate(known[path].pieces)
    ]
    sample = random.Random().sample(
        pieces, min(SAMPLED_PIECES, len(pieces))
    )  # unseeded on purpose: other pieces each time
    return all(_piece_digest((path, start)) == digest for path, start, digest in sample)


def _recall(remembered: Path) -> dict[Path, _Known]:
    """Cached digests; empty if the cache is missing or damaged, so that all files are read."""
    try:
        files: dict[str, Any] = read_sealed(remembered)["files"]
    except (OSError, ValueError, KeyError):
        return {}
    return {
        Path(name): _Known((size, changed, inode), tuple(rest)) for name, (size, changed, inode, *rest) in files.items()
    }


def _remember(remembered: Path, known: Mapping[Path, _Known]) -> None:
    write_to_memory(remembered, {"files": {str(path): [*entry.stamp, *entry.pieces] for path, entry in known.items()}})


def write_to_memory(path: Path, content: Mapping[str, Any]) -> None:
    """Write a sealed file into a folder of cached digests, which is created if it is missing.

    Raises:
        UserError: the folder holds files of another program.
    """
    folder = path.parent
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(folder.with_name(f"{folder.name}.lock")):  # two processes must not claim at the same time
        claim_folder(folder, ["*"])
    write_sealed(path, content)


def _lines(words: Any) -> bytes:
    return "\n".join(words).encode(errors="surrogateescape")

"""Copies of feature stores on nodes that cannot see the folder where they were extracted."""

from collections.abc import Iterable
from pathlib import Path

from filelock import FileLock

from core.features.manifest import MANIFEST
from core.features.store import FeatureStore
from core.files.atomic import write_atomically
from core.readings import Reading

NODE_CACHE = Path("~/.cache/crossmodal-search/features")
"""Where a node keeps copies of feature stores that it cannot see."""


def find_store(root: Path, fingerprint: str, readings: Iterable[Reading]) -> Path | None:
    """The folder of stores that holds these readings: the configured one, else this node's cache."""
    for place in (root, NODE_CACHE.expanduser()):
        if FeatureStore.exists(place, fingerprint, readings):
            return place
    return None


def write_piece(name: str, position: int, piece: bytes) -> None:
    """Runs on a node: write a piece of a file to the cache, one writer at a time.

    Manifests, which come last and make the copy a store, are one piece each and appear whole.
    """
    path = NODE_CACHE.expanduser() / name
    if path.name == MANIFEST:
        write_atomically(path, piece)
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(path.with_name(f".{path.name}.lock")), path.open("r+b" if path.exists() else "wb") as stream:
        stream.seek(position)
        stream.write(piece)

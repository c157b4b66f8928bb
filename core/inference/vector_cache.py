"""What a model computed of pictures, by the digest of their content: files of a few hundred pictures, written once.

A picture that is moved, renamed or copied is not encoded again. A damaged file counts as missing: when the folder is
opened, embeddings are compared with their digest, and grids with the number of pictures.
"""

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from core.files.atomic import write_atomically
from core.files.ownership import claim_folder

DIGESTS = "digests"
PATTERN = "shard_*.safetensors"


class VectorCache:
    """A folder of such files."""

    def __init__(self, folder: Path) -> None:
        """Read which pictures are known; the folder is created.

        Raises:
            UserError: it holds files of another program.
        """
        claim_folder(folder, [PATTERN])
        self._folder = folder
        self._places: dict[str, tuple[Path, int]] = {}
        for path in sorted(folder.glob(PATTERN)):
            self._note(path, _digests_in(path))

    def __contains__(self, digest: str) -> bool:
        return digest in self._places

    def add(self, digests: Sequence[str], tensors: Mapping[str, Tensor]) -> None:
        """Keep what was computed of pictures.

        Args:
            digests: SHA-256 of each, hexadecimal.
            tensors: name → [N, …], in the same order.
        """
        name = hashlib.sha256("".join(digests).encode()).hexdigest()[:16]
        path = self._folder / f"shard_{name}.safetensors"
        content = {each: value.cpu().contiguous() for each, value in tensors.items()}
        content[DIGESTS] = _as_tensor(digests)
        write_atomically(path, save(content, {each: _seal(value) for each, value in content.items()}))
        self._note(path, digests)

    def gather(self, name: str, digests: Sequence[str]) -> Tensor:
        """What is kept under a name of these pictures, all of them known: [N, …]."""
        by_file: dict[Path, list[int]] = {}
        for position, digest in enumerate(digests):
            by_file.setdefault(self._places[digest][0], []).append(position)
        found: dict[int, Tensor] = {}
        for path, positions in by_file.items():
            with safe_open(path, framework="pt") as content:
                rows = content.get_slice(name)
                few = len(positions) < rows.get_shape()[0] // 4
                table = rows if few else rows[:]
                for position in positions:
                    row = self._places[digests[position]][1]
                    found[position] = table[row : row + 1]
        return torch.cat([found[position] for position in range(len(digests))])

    def holds(self, name: str, digests: Sequence[str]) -> bool:
        """Whether something is kept under a name of known pictures."""
        with safe_open(self._places[digests[0]][0], framework="pt") as content:
            return name in content.keys()  # noqa: SIM118

    def _note(self, path: Path, digests: Sequence[str]) -> None:
        for row, digest in enumerate(digests):
            self._places[digest] = (path, row)


def _digests_in(path: Path) -> list[str]:
    """Digests of the pictures in a file; none if it is damaged."""
    try:
        with safe_open(path, framework="pt") as content:
            seals = content.metadata() or {}
            shapes = [content.get_slice(name).get_shape() for name in seals]
            tables = {name: content.get_tensor(name) for name, seal in seals.items() if seal}
    except (OSError, SafetensorError):
        return []
    table: Any = tables.get(DIGESTS)
    if table is None or any(_seal(value) != seals[name] for name, value in tables.items()):
        return []
    if any(shape[:1] != [len(table)] for shape in shapes):
        return []
    return [row.numpy().tobytes().hex() for row in table]


def _seal(table: Tensor) -> str:
    """SHA-256 of a table of rows; nothing for grids, which would take too long to read at each start."""
    if table.dim() != 2:
        return ""
    return hashlib.sha256(table.contiguous().view(torch.uint8).numpy().tobytes()).hexdigest()


def _as_tensor(digests: Sequence[str]) -> Tensor:
    joined = bytearray(b"".join(bytes.fromhex(digest) for digest in digests))
    return torch.frombuffer(joined, dtype=torch.uint8).view(len(digests), -1)

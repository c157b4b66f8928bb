"""The tables of one reading: a file per split, its statistics and health, and a manifest of its own."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor

from core.data.splits import Split
from core.features.fingerprint import reading_fingerprint
from core.features.manifest import write_manifest
from core.features.store import STATISTICS
from core.files.atomic import write_atomically
from core.readings import Reading

if TYPE_CHECKING:
    from core.features.extraction import Shard

HEALTH_SAMPLE = 20_000
ROWS_AT_ONCE = 4096
"""Of a table, when its statistics are computed: a grid does not fit the memory."""


def write_reading(
    folder: Path,
    reading: Reading,
    shards: Sequence["Shard"],
    work: Path,
    rows: Mapping[Split, NDArray[np.int64]],
) -> None:
    """Write the folder of one reading.

    Args:
        shards: that hold it, whose files lie in `work`.
        rows: of each split, among all inputs of the reading's kind. Statistics and health are of the training split,
            or of the first one where there is none.
    """
    folder.mkdir(parents=True, exist_ok=True)  # an interrupted run may have begun it
    for split, wanted in rows.items():
        _write_table(folder / f"{split}.npy", reading, shards, work, wanted)
    measured = "train" if "train" in rows else next(iter(rows))
    train = np.load(folder / f"{measured}.npy", mmap_mode="r")
    mean, std = mean_and_deviation(train)
    write_atomically(folder / STATISTICS, save({"mean": mean.float(), "std": std.float()}))
    facts = [_facts(work / shard.file_name) for shard in shards]
    manifest = {
        "fingerprint": reading_fingerprint(shards[0].fingerprint, reading),
        "reading": reading.name,
        "prompt": reading.prompt,
        "shape": list(train.shape[1:]),
        "bytes": sum(path.stat().st_size for path in folder.glob("*.npy")),
        "flops": facts[0]["flops"].get(reading.key, 0),
        "health": health_of(train[:HEALTH_SAMPLE], mean, std),
        "backbone_parameters": max(fact["backbone_parameters"] for fact in facts),
        "repaired": sum(fact["repaired"] for fact in facts),
    }
    write_manifest(folder, manifest)


def mean_and_deviation(table: Any) -> tuple[Tensor, Tensor]:
    """[width] float64 each, over all rows, and all cells of a grid; reads a part of the table at a time."""
    width, count = table.shape[-1], 0
    total, squares = torch.zeros(width, dtype=torch.float64), torch.zeros(width, dtype=torch.float64)
    for start in range(0, len(table), ROWS_AT_ONCE):
        part = table[start : start + ROWS_AT_ONCE]
        exact = part.double().cpu() if isinstance(part, Tensor) else torch.from_numpy(part.astype(np.float64))
        rows = exact.reshape(-1, width)
        total += rows.sum(dim=0)
        squares += rows.square().sum(dim=0)
        count += len(rows)
    mean = total / count
    return mean, (squares / count - mean.square()).clamp(min=0).sqrt()


def _write_table(path: Path, reading: Reading, shards: Sequence["Shard"], work: Path, rows: NDArray[np.int64]) -> None:
    table: Any = None
    for shard in shards:
        here = np.flatnonzero((rows >= shard.start) & (rows < shard.start + len(shard.items)))
        if not len(here) and table is not None:
            continue
        with safe_open(work / shard.file_name, framework="np") as content:
            features = content.get_tensor(reading.key)
        if table is None:
            shape = (len(rows), *features.shape[1:])
            table = np.lib.format.open_memmap(path, mode="w+", dtype=features.dtype, shape=shape)
        table[here] = features[rows[here] - shard.start]
    table.flush()


def _facts(path: Path) -> dict[str, Any]:
    """Metadata of a shard."""
    with safe_open(path, framework="np") as content:
        return {name: json.loads(content.metadata()[name]) for name in ("backbone_parameters", "repaired", "flops")}


def health_of(sample: NDArray[Any], mean: Tensor, std: Tensor) -> dict[str, float]:
    """How different the vectors of different inputs are.

    Args:
        mean, std: as `mean_and_deviation` of the whole table.
    """
    size = float((mean.square() + std.square()).mean().sqrt())
    return {"spread": float(std.mean()) / max(size, 1e-12), "distinct": _distinct_share(sample, mean, std)}


def _distinct_share(table: NDArray[Any], mean: Tensor, std: Tensor) -> float:
    """Share of rows with a vector of their own; vectors that differ by rounding alone count as the same."""
    scale = max(float(std.max()), 1e-6 * max(1.0, float(mean.abs().max())))
    quantised = np.round((table - mean.numpy()) / scale, 3) + 0.0  # no negative zero
    return len({row.tobytes() for row in quantised}) / len(table)

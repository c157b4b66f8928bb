"""The feature store of a configuration with vectors of other encoders beside, or instead of, the backbone.

It is an ordinary store under a fingerprint of its own. The rows of vectors are copied into it; readings of the backbone
are extracted into the store that the same data have without vectors, and linked from there. So other vectors never cost
another pass of the backbone.
"""

import os
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from filelock import FileLock

from core.features.extraction import (
    EncodeShards,
    Extraction,
    OnProgress,
    Shard,
    distinct_inputs,
    extract_features,
    index_splits,
    pack_shard,
)
from core.features.fingerprint import reading_fingerprint
from core.features.inputs import FeatureInputs
from core.features.manifest import missing_readings, reading_folder, write_manifest
from core.features.store import FeatureStore
from core.features.vectors import VectorSet
from core.files.ownership import scratch_folder
from core.readings import Kind, Reading


def extract_with_vectors(
    wanted: Extraction, encode: EncodeShards, copy: EncodeShards, root: Path, on_progress: OnProgress
) -> FeatureStore:
    """Complete the store of inputs with vectors, and open it.

    Args:
        encode: shards of the backbone's readings.
        copy: shards of vectors, as `copy_rows` does.
        root: folder of all stores.
    Raises:
        UserError: as `extract_features`.
    """
    parts = wanted.inputs.parts
    missing = missing_readings(root, parts.fingerprint, wanted.readings)
    of_backbone = [reading for reading in missing if not reading.is_vector]
    vectors = [reading for reading in wanted.readings if reading.is_vector]
    source = None
    if of_backbone:
        alone = replace(wanted, inputs=without_vectors(wanted.inputs), readings=of_backbone)
        source = extract_features(alone, encode, root, on_progress)
    store = extract_features(replace(wanted, readings=vectors), copy, root, on_progress)
    if source is not None:
        with FileLock(root / f".{parts.fingerprint}.lock"):
            for reading in store.missing(of_backbone):
                _link(reading, source, store)
    return store


def without_vectors(inputs: FeatureInputs) -> FeatureInputs:
    """The same inputs of the backbone alone."""
    return replace(inputs, parts=replace(inputs.parts, vectors=None), vectors=None)


def require_vectors(inputs: FeatureInputs, readings: Sequence[Reading]) -> None:
    """Check before any work that the set holds these readings of all images and texts.

    Raises:
        UserError: it lacks a reading, or vectors of some images or texts.
    """
    if inputs.vectors is None:
        return
    inputs.vectors.require(readings)
    paths, texts = distinct_inputs(index_splits(inputs.images))
    items: dict[Kind, Sequence[Path | str]] = {"images": paths, "texts": texts}
    for kind in dict.fromkeys(reading.kind for reading in readings if reading.is_vector):
        inputs.vectors.require_rows(kind, items[kind])


def copy_rows(vectors: VectorSet) -> EncodeShards:
    """One shard after the other out of a set of vectors."""

    def copy(shards: Sequence[Shard]) -> Iterator[tuple[Shard, bytes]]:
        for shard in shards:
            rows = {reading.key: torch.from_numpy(vectors.rows(reading, shard.items)) for reading in shard.readings}
            yield shard, pack_shard(shard, rows)

    return copy


def _link(reading: Reading, source: FeatureStore, store: FeatureStore) -> None:
    """Add a reading of another store of the same data, whose files are shared where the file system can."""
    facts = source.describe(reading)
    with scratch_folder(store.folder) as scratch:
        folder = scratch / reading.key
        folder.mkdir()
        for name in facts.pop("files"):
            _link_or_copy(reading_folder(source.folder, reading) / name, folder / name)
        write_manifest(folder, {**facts, "fingerprint": reading_fingerprint(store.fingerprint, reading)})
        target = reading_folder(store.folder, reading)
        target.parent.mkdir(exist_ok=True)
        folder.rename(target)


def _link_or_copy(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)

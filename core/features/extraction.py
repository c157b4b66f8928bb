"""Extraction: one resumable pass of the frozen backbone over every image and every distinct text.

Only readings that the store lacks are computed, all of them in that one pass. Work goes shard by shard into a hidden
folder beside the store; each shard is written atomically, so an interrupted extraction continues after its last
complete shard. A finished store, and each reading that joins it later, appears by one rename. Nothing else in `root`,
which may hold other files, is touched.
"""

import hashlib
import json
import shutil
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, get_args

import numpy as np
import torch
from filelock import FileLock
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from core.backbone.cost import flop_counter
from core.data.annotations import AnnotatedImage
from core.data.images import open_image
from core.data.splits import Split
from core.errors import UserError
from core.features.fingerprint import FingerprintParts
from core.features.inputs import FeatureInputs
from core.features.manifest import READINGS, missing_readings, reading_folder, write_manifest
from core.features.store import FeatureStore
from core.features.tables import write_reading
from core.files.atomic import write_atomically
from core.files.ownership import claim_folder
from core.readings import Kind, Reading

if TYPE_CHECKING:
    from core.backbone.internvl import FrozenBackbone

OnProgress = Callable[[str, int, int], None]
"""Called with the kind of input ('images' or 'texts'), the number encoded so far, and the total."""

STORE = "store"
"""Name of the finished store until it is renamed."""
SHARD = 1024
PREFETCHED_BATCHES = 3
COUNTED_TEXTS = 16


@dataclass(frozen=True, slots=True)
class Shard:
    """Images or texts that are encoded together: the unit of work and of what an interruption can lose."""

    kind: Kind
    start: int
    items: tuple[Any, ...]
    """Paths of images, or texts, from row `start` of all of them."""
    readings: tuple[Reading, ...]
    """What is read of each."""
    fingerprint: str = ""
    """Fingerprint of the features that it is part of; stored in its file."""

    @property
    def file_name(self) -> str:
        """File name with the range of rows, so that shards of another size are not mistaken for these."""
        return f"shard_{self.kind}_{self.start:08d}_{self.start + len(self.items):08d}.safetensors"


EncodeShards = Callable[[Sequence[Shard]], Iterable[tuple[Shard, bytes]]]
"""Yields each shard with the content of its file, in any order."""


@dataclass(frozen=True, slots=True)
class SplitIndex:
    """Position of the images and distinct texts of one split in the tables of all splits."""

    images: Sequence[AnnotatedImage]
    first_image: int
    texts: list[str]


@dataclass(frozen=True, slots=True)
class Extraction:
    """What to extract, and in what pieces."""

    inputs: FeatureInputs
    readings: Sequence[Reading]
    shard: int = SHARD
    """Images or texts per shard."""


def extract_features(
    wanted: Extraction,
    encode: EncodeShards,
    root: Path,
    on_progress: OnProgress = lambda kind, done, total: None,
) -> FeatureStore:
    """Encode everything missing from the store of these inputs, and open it.

    Only one process extracts a fingerprint at a time; a second one waits and then opens the result.

    Args:
        encode: `encode_here` with a backbone, or its counterpart on a cluster.
        root: folder of all stores.
    Raises:
        UserError: an image cannot be read, the backbone returns NaN or infinity, or a foreign file or folder has the
            store's name.
    """
    parts = wanted.inputs.parts
    root.mkdir(parents=True, exist_ok=True)
    with FileLock(root / f".{parts.fingerprint}.lock"):
        folder = root / parts.fingerprint
        missing = missing_readings(root, parts.fingerprint, wanted.readings)
        if folder.exists() and not missing:
            return FeatureStore.open(root, parts.fingerprint)
        work = root / f".{parts.fingerprint}-{_digest_of(missing)}.partial"
        claim_folder(work, ["*"])
        splits = index_splits(wanted.inputs.images)
        shards = _cut(splits, missing, wanted.shard, parts)
        _write_missing(shards, encode, work, on_progress)
        _assemble(splits, shards, work, parts)
        _publish(work / STORE, folder)
        shutil.rmtree(work)  # claimed: all in it is ours
    return FeatureStore.open(root, parts.fingerprint)


def _digest_of(readings: Sequence[Reading]) -> str:
    """Tells apart the unfinished work of extractions that want different readings."""
    return hashlib.sha256(" ".join(sorted(reading.key for reading in readings)).encode()).hexdigest()[:8]


def _publish(made: Path, folder: Path) -> None:
    """Move a finished store to its place, or its readings into the store that is there."""
    if not folder.exists():
        made.rename(folder)
        return
    for reading in (made / READINGS).iterdir():
        reading.rename(folder / READINGS / reading.name)


def index_splits(images: Mapping[Split, Sequence[AnnotatedImage]]) -> dict[Split, SplitIndex]:
    """Number the images over all splits, and list the distinct texts of each."""
    splits, first_image = {}, 0
    for split, members in images.items():
        texts = dict.fromkeys(
            text for image in members for text in (*image.captions, *(region.sentence for region in image.regions))
        )
        splits[split] = SplitIndex(members, first_image, list(texts))
        first_image += len(members)
    return splits


def distinct_inputs(splits: Mapping[Split, SplitIndex]) -> tuple[list[Path], list[str]]:
    """Image files and distinct texts of all splits: the inputs of the backbone."""
    paths = [image.path for split in splits.values() for image in split.images]
    return paths, list(dict.fromkeys(text for split in splits.values() for text in split.texts))


def _cut(
    splits: Mapping[Split, SplitIndex], readings: Sequence[Reading], size: int, parts: FingerprintParts
) -> list[Shard]:
    """Shards of the images and of the texts; none of a kind that no reading is missing of."""
    shards = []
    inputs: Iterable[tuple[Kind, Sequence[Any]]] = zip(get_args(Kind), distinct_inputs(splits), strict=True)
    for kind, items in inputs:
        asked = tuple(reading for reading in readings if reading.kind == kind)
        for start in range(0, len(items) if asked else 0, size):
            shards.append(Shard(kind, start, tuple(items[start : start + size]), asked, parts.fingerprint))
    return shards


def _write_missing(shards: Sequence[Shard], encode: EncodeShards, work: Path, on_progress: OnProgress) -> None:
    """Write every shard that is missing or torn."""
    missing = [shard for shard in shards if not _is_whole(work / shard.file_name, shard)]
    total, done = Counter[Kind](), Counter[Kind]()
    for shard in shards:
        total[shard.kind] += len(shard.items)
        done[shard.kind] += 0 if shard in missing else len(shard.items)
    for kind in total:
        on_progress(kind, done[kind], total[kind])
    for shard, content in encode(missing) if missing else ():
        write_atomically(work / shard.file_name, content)
        done[shard.kind] += len(shard.items)
        on_progress(shard.kind, done[shard.kind], total[shard.kind])


def encode_here(backbone: "FrozenBackbone") -> EncodeShards:
    """One shard after the other in this process."""
    return lambda shards: ((shard, encode_shard(backbone, shard)) for shard in shards)


def encode_shard(backbone: "FrozenBackbone", shard: Shard) -> bytes:
    """Safetensors of [N, width] float32 per reading, [N, P, width] float16 for a grid; facts are in the metadata.

    Raises:
        UserError: an image cannot be read, or the backbone gives NaN or infinity for one of the inputs.
    """
    backbone.require(shard.readings)
    encoded, repaired = encode_items(backbone, shard.kind, shard.items, shard.readings)
    tensors: dict[str, Tensor] = {reading.key: features.cpu().contiguous() for reading, features in encoded.items()}
    _require_finite(tensors, shard)
    flops = {} if shard.start else _flops_by_key(backbone, shard)
    return pack_shard(shard, tensors, repaired=repaired, backbone_parameters=backbone.parameter_count, flops=flops)


def pack_shard(
    shard: Shard,
    tensors: Mapping[str, Tensor],
    *,
    repaired: int = 0,
    backbone_parameters: int = 0,
    flops: Mapping[str, int] = MappingProxyType({}),
) -> bytes:
    """The content of a shard's file: a tensor by the key of its reading, and facts in the metadata."""
    facts = {
        "repaired": str(repaired),
        "backbone_parameters": str(backbone_parameters),
        "flops": json.dumps(dict(flops)),
        "identity": _shard_identity(shard, tensors),
    }
    content: bytes = save(dict(tensors), metadata=facts)
    return content


def encode_items(
    backbone: "FrozenBackbone", kind: Kind, items: Sequence[Any], readings: Sequence[Reading]
) -> tuple[dict[Reading, Tensor], int]:
    """Readings of image files or texts, and how many images had to be repaired."""
    if kind == "images":
        return encode_image_files(backbone, items, readings)
    return backbone.encode_texts(items, readings), 0


def count_flops(
    backbone: "FrozenBackbone", kind: Kind, items: Sequence[Any], readings: Sequence[Reading]
) -> dict[Reading, int]:
    """Floating-point operations of each reading alone: of one image, or the mean of a few texts."""
    sample = items[:1] if kind == "images" else items[:COUNTED_TEXTS]
    flops = {}
    for reading in readings:
        with flop_counter() as counter:
            encode_items(backbone, kind, sample, [reading])
        flops[reading] = counter.get_total_flops() // len(sample)
    return flops


def _flops_by_key(backbone: "FrozenBackbone", shard: Shard) -> dict[str, int]:
    counted = count_flops(backbone, shard.kind, shard.items, shard.readings)
    return {reading.key: flops for reading, flops in counted.items()}


def _require_finite(tensors: Mapping[Any, Tensor], shard: Shard) -> None:
    for features in tensors.values():
        bad = (~features.flatten(1).isfinite().all(dim=1)).nonzero()
        if len(bad):
            item = shard.items[int(bad[0])]
            raise UserError(
                f"the backbone gives NaN or infinity for the {'image' if shard.kind == 'images' else 'text'} "
                f"{item if shard.kind == 'images' else repr(item[:80])}",
                how="check its weights, or set features.dtype: float32",
            )


def _shard_identity(shard: Shard, tensors: Mapping[str, Tensor]) -> str:
    """Identifies the rows and the content of a shard: a file with other rows or content does not match."""
    identity = hashlib.sha256(f"{shard.fingerprint} {shard.file_name}".encode())
    for name in sorted(tensors):
        identity.update(f"{name} {tensors[name].dtype} {list(tensors[name].shape)}".encode())
        identity.update(tensors[name].numpy().tobytes())
    return identity.hexdigest()


def _is_whole(path: Path, shard: Shard) -> bool:
    """Whether this extraction wrote the file; reads all of it, which is cheap compared with encoding it again."""
    try:
        with safe_open(path, framework="pt") as content:
            tensors = {name: content.get_tensor(name) for name in content.keys()}  # noqa: SIM118
            return bool((content.metadata() or {}).get("identity") == _shard_identity(shard, tensors))
    except (OSError, SafetensorError, TypeError):  # numpy has no bfloat16
        return False


def encode_image_files(
    backbone: "FrozenBackbone", paths: Sequence[Path], readings: Sequence[Reading]
) -> tuple[dict[Reading, Tensor], int]:
    """Decode and encode image files, decoding ahead of the backbone.

    Returns:
        [N, width] per reading, and how many images had to be repaired.
    """
    parts, repaired = [], 0
    for pixels, repairs in _prepared(backbone, paths):
        parts.append(backbone.encode_pixels(pixels, readings))
        repaired += repairs
    return {reading: torch.cat([part[reading] for part in parts]) for reading in parts[0]}, repaired


def _prepared(backbone: "FrozenBackbone", paths: Sequence[Path]) -> Iterator[tuple[Tensor, int]]:
    """Decoded, normalised micro batches in order, a few of them ahead of the backbone."""

    def prepare(batch: Sequence[Path]) -> tuple[Tensor, int]:
        opened = [open_image(path) for path in batch]
        return backbone.preprocess([image for image, _ in opened]), sum(bool(repairs) for _, repairs in opened)

    waiting: deque[Future[tuple[Tensor, int]]] = deque()
    size = backbone.micro_batch
    with ThreadPoolExecutor() as pool:
        for start in range(0, len(paths), size):
            waiting.append(pool.submit(prepare, paths[start : start + size]))
            if len(waiting) > PREFETCHED_BATCHES:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def _assemble(splits: Mapping[Split, SplitIndex], shards: Sequence[Shard], work: Path, parts: FingerprintParts) -> None:
    """Turn shards into a store: the index of each split, and a folder per reading."""
    store = work / STORE
    for split, index in splits.items():
        (store / split).mkdir(parents=True, exist_ok=True)
        write_atomically(store / split / "index.safetensors", save(index_tensors(index, group_numbers(splits))))
    counts = {split: split_counts(index) for split, index in splits.items()}
    write_manifest(store, {"fingerprint": parts.fingerprint, "parts": parts.to_json(), "counts": counts})
    rows = {kind: _rows(splits, kind) for kind in get_args(Kind)}
    for reading in dict.fromkeys(reading for shard in shards for reading in shard.readings):
        own = [shard for shard in shards if reading in shard.readings]
        write_reading(reading_folder(store, reading), reading, own, work, rows[reading.kind])


def _rows(splits: Mapping[Split, SplitIndex], kind: Kind) -> dict[Split, NDArray[np.int64]]:
    """Rows of each split among all distinct images, or texts."""
    if kind == "images":
        ends = {split: index.first_image + len(index.images) for split, index in splits.items()}
        return {split: np.arange(index.first_image, ends[split]) for split, index in splits.items()}
    row_of_text = {text: row for row, text in enumerate(distinct_inputs(splits)[1])}
    return {
        split: np.array([row_of_text[text] for text in index.texts], dtype=np.int64) for split, index in splits.items()
    }


def group_numbers(splits: Mapping[Split, SplitIndex]) -> dict[str, int]:
    """Name of a building → its number, unique over all splits."""
    groups = dict.fromkeys(image.group for index in splits.values() for image in index.images)
    return {group: number for number, group in enumerate(groups)}


def index_tensors(index: SplitIndex, groups: Mapping[str, int]) -> dict[str, Tensor]:
    """Index of one split: every field of a FeatureSplit except the tables."""
    row_of_text = {text: row for row, text in enumerate(index.texts)}
    captions = [(row_of_text[text], row) for row, image in enumerate(index.images) for text in image.captions]
    regions = [(region, row) for row, image in enumerate(index.images) for region in image.regions]
    region_images = torch.tensor([image for _, image in regions], dtype=torch.int64)
    caption_rows = torch.tensor(captions, dtype=torch.int64).view(-1, 2)
    return {
        "groups": torch.tensor([groups[image.group] for image in index.images]),
        "caption_text": caption_rows[:, 0].contiguous(),
        "caption_image": caption_rows[:, 1].contiguous(),
        "sentence_text": torch.tensor([row_of_text[region.sentence] for region, _ in regions], dtype=torch.int64),
        "sentence_image": region_images,
        "first_region": torch.searchsorted(region_images, region_images),  # regions of one image follow each other
        "boxes": torch.tensor([region.box for region, _ in regions], dtype=torch.float32).view(-1, 4),
        "relations": torch.tensor([region.relation for region, _ in regions], dtype=torch.int64),
    }


def split_counts(index: SplitIndex) -> dict[str, int]:
    """Number of images, groups, captions, distinct texts and regions of a split."""
    return {
        "images": len(index.images),
        "groups": len({image.group for image in index.images}),
        "captions": sum(len(image.captions) for image in index.images),
        "texts": len(index.texts),
        "regions": sum(len(image.regions) for image in index.images),
    }

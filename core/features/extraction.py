"""Extraction: one resumable pass of the frozen backbone over every image and every distinct text.

Work goes shard by shard into `<root>/.<fingerprint>.partial`; each shard is written atomically, so an interrupted
extraction continues after its last complete shard. The finished store appears under its fingerprint by one rename.
Nothing else in `root`, which may hold other files, is touched.
"""

import hashlib
import shutil
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from filelock import FileLock
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save
from torch import Tensor

from core.config import ImagePooling
from core.data.annotations import AnnotatedImage
from core.data.images import open_image
from core.data.splits import Split
from core.errors import UserError
from core.features.fingerprint import FingerprintParts
from core.features.inputs import FeatureInputs
from core.features.manifest import write_manifest
from core.features.store import FeatureStore
from core.files.atomic import write_atomically
from core.files.ownership import claim_folder

if TYPE_CHECKING:
    from core.backbone.internvl import FrozenBackbone

OnProgress = Callable[[str, int, int], None]
"""Called with the kind of input ('images' or 'texts'), the number encoded so far, and the total."""

STORE = "store"
"""Name of the finished store until it is renamed."""
SHARD = 1024
HEALTH_SAMPLE = 20_000
PREFETCHED_BATCHES = 3


Kind = Literal["images", "texts"]


@dataclass(frozen=True, slots=True)
class Shard:
    """Images or texts that are encoded together: the unit of work and of what an interruption can lose."""

    kind: Kind
    start: int
    items: tuple[Any, ...]
    """Paths of images, or texts, from row `start` of all of them."""
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


def extract_features(
    inputs: FeatureInputs,
    encode: EncodeShards,
    root: Path,
    *,
    shard: int = SHARD,
    on_progress: OnProgress = lambda kind, done, total: None,
) -> FeatureStore:
    """Encode everything missing from the store with this fingerprint, and open it.

    Only one process extracts a fingerprint at a time; a second one waits and then opens the result.

    Args:
        encode: `encode_here` with a backbone, or its counterpart on a cluster.
        root: folder of all stores.
        shard: images or texts per shard.
    Raises:
        UserError: an image cannot be read, the backbone returns NaN or infinity, or a foreign file or folder has the
            store's name.
    """
    parts = inputs.parts
    root.mkdir(parents=True, exist_ok=True)
    with FileLock(root / f".{parts.fingerprint}.lock"):
        folder = root / parts.fingerprint
        if folder.exists():
            return FeatureStore.open(root, parts.fingerprint)
        work = root / f".{parts.fingerprint}.partial"
        claim_folder(work, ["*"])
        splits = index_splits(inputs.images)
        paths, texts = distinct_inputs(splits)
        shards = [*_cut("images", paths, shard, parts), *_cut("texts", texts, shard, parts)]
        _write_missing(shards, encode, work, on_progress)
        _assemble(splits, texts, work, parts, shards)
        (work / STORE).rename(folder)
        shutil.rmtree(work)  # claimed: all in it is ours
    return FeatureStore.open(root, parts.fingerprint)


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


def _cut(kind: Kind, items: Sequence[Any], size: int, parts: FingerprintParts) -> list[Shard]:
    starts = range(0, len(items), size)
    return [Shard(kind, start, tuple(items[start : start + size]), parts.fingerprint) for start in starts]


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
    """Safetensors of [N, width] float32 per pooling; how many images had to be repaired is in the metadata.

    Raises:
        UserError: an image cannot be read, or the backbone gives NaN or infinity for one of the inputs.
    """
    repaired = 0
    pooled: Mapping[Any, Tensor]
    if shard.kind == "images":
        pooled, repaired = encode_image_files(backbone, shard.items)
    else:
        pooled = backbone.encode_texts(shard.items)
    tensors: dict[str, Tensor] = {name: features.cpu().contiguous() for name, features in pooled.items()}
    _require_finite(tensors, shard)
    facts = {
        "repaired": str(repaired),
        "backbone_parameters": str(backbone.parameter_count),
        "identity": _shard_identity(shard, tensors),
    }
    content: bytes = save(tensors, metadata=facts)
    return content


def _require_finite(tensors: Mapping[Any, Tensor], shard: Shard) -> None:
    for features in tensors.values():
        bad = (~features.isfinite().all(dim=1)).nonzero()
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


def encode_image_files(backbone: "FrozenBackbone", paths: Sequence[Path]) -> tuple[dict[ImagePooling, Tensor], int]:
    """Decode and encode image files, decoding ahead of the backbone.

    Returns:
        [N, vision_dim] float32 per pooling, and how many images had to be repaired.
    Raises:
        UserError: an image cannot be read.
    """
    parts, repaired = [], 0
    for pixels, repairs in _prepared(backbone, paths):
        parts.append(backbone.encode_pixels(pixels))
        repaired += repairs
    return {pooling: torch.cat([part[pooling] for part in parts]) for pooling in parts[0]}, repaired


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


def _assemble(
    splits: Mapping[Split, SplitIndex],
    texts: Sequence[str],
    work: Path,
    parts: FingerprintParts,
    shards: Sequence[Shard],
) -> None:
    """Turn the shards into one table per split and pooling, with indices, statistics, health and the manifest."""
    row_of_text = {text: row for row, text in enumerate(texts)}
    store = work / STORE
    for split, index in splits.items():
        folder = store / split
        folder.mkdir(parents=True, exist_ok=True)
        image_rows = np.arange(index.first_image, index.first_image + len(index.images))
        text_rows = np.array([row_of_text[text] for text in index.texts], dtype=np.int64)
        _write_tables(work, [shard for shard in shards if shard.kind == "images"], image_rows, folder)
        _write_tables(work, [shard for shard in shards if shard.kind == "texts"], text_rows, folder)
        write_atomically(folder / "index.safetensors", save(index_tensors(index, group_numbers(splits))))
    facts = _facts(work, shards)
    statistics, health, dimensions = _describe(store / "train")
    write_atomically(store / "statistics.safetensors", save(statistics))
    manifest = {
        "fingerprint": parts.fingerprint,
        "parts": asdict(parts),
        "backbone_parameters": max(fact["backbone_parameters"] for fact in facts),
        "dimensions": dimensions,
        "counts": {split: split_counts(index) for split, index in splits.items()},
        "health": health,
        "repaired": {"images repaired": sum(fact["repaired"] for fact in facts)},
    }
    write_manifest(store, manifest)


def _facts(work: Path, shards: Sequence[Shard]) -> list[dict[str, int]]:
    """Metadata of each shard."""
    facts = []
    for shard in shards:
        with safe_open(work / shard.file_name, framework="pt") as content:
            metadata = content.metadata()
            facts.append({name: int(metadata[name]) for name in ("backbone_parameters", "repaired")})
    return facts


def _write_tables(work: Path, shards: Sequence[Shard], rows: NDArray[np.int64], folder: Path) -> None:
    """The given rows of everything that the shards of one kind hold, a file per pooling."""
    tables: dict[str, Any] = {}
    for shard in shards:
        here = np.flatnonzero((rows >= shard.start) & (rows < shard.start + len(shard.items)))
        if not len(here):
            continue
        for pooling, features in load_file(work / shard.file_name).items():
            if pooling not in tables:
                path, shape = folder / f"{shard.kind}_{pooling}.npy", (len(rows), features.shape[1])
                tables[pooling] = np.lib.format.open_memmap(path, mode="w+", dtype=np.float32, shape=shape)
            tables[pooling][here] = features.numpy()[rows[here] - shard.start]
    for table in tables.values():
        table.flush()


def group_numbers(splits: Mapping[Split, SplitIndex]) -> dict[str, int]:
    """Name of a building → its number, unique over all splits."""
    groups = dict.fromkeys(image.group for index in splits.values() for image in index.images)
    return {group: number for number, group in enumerate(groups)}


def index_tensors(index: SplitIndex, groups: Mapping[str, int]) -> dict[str, Tensor]:
    """Index of one split: every field of a FeatureSplit except the two tables."""
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


def _describe(folder: Path) -> tuple[dict[str, Tensor], dict[str, Any], dict[str, int]]:
    """Statistics, health and dimensions of the tables of the training split."""
    statistics: dict[str, Tensor] = {}
    health: dict[str, Any] = {"images": {}, "texts": {}}
    dimensions: dict[str, int] = {}
    for path in sorted(folder.glob("*.npy")):
        kind, pooling = path.stem.split("_")
        table = np.load(path, mmap_mode="r")
        mean, std = table.mean(axis=0, dtype=np.float64), table.std(axis=0, dtype=np.float64)
        statistics[f"{kind}.{pooling}.mean"] = torch.from_numpy(mean).float()
        statistics[f"{kind}.{pooling}.std"] = torch.from_numpy(std).float()
        health[kind][pooling] = {
            "spread": float(std.mean() / max(float(np.sqrt((mean**2 + std**2).mean())), 1e-12)),
            "distinct": _distinct_share(table[:HEALTH_SAMPLE], mean, std),
        }
        dimensions[kind] = int(table.shape[1])
    return statistics, health, dimensions


def _distinct_share(table: NDArray[np.float32], mean: NDArray[np.float64], std: NDArray[np.float64]) -> float:
    """Share of rows with a vector of their own; vectors that differ by rounding alone count as the same."""
    scale = max(float(std.max()), 1e-6 * max(1.0, float(np.abs(mean).max())))
    quantised = np.round((table - mean) / scale, 3) + 0.0  # no negative zero
    return len({row.tobytes() for row in quantised}) / len(table)

"""What cached features depend on, boiled down to one name: backbone, preprocessing, tokenizer, data.

Two runs may share features exactly when their fingerprints are equal. Computing one reads files but loads no
model, so the driver of a campaign can do it; trials are handed the result.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

from core.config import FeaturesConfig, TrainConfig
from core.data import ImageRecord, Split, read_annotations, split_by_group
from core.errors import UserError
from core.files import write_atomically

EXTRACTION_VERSION = 4
"""Raise when extraction itself changes, so that old stores are not mistaken for new ones."""
CHECKPOINT_FILES = ("*.json", "*.safetensors", "*.txt", "*.jinja")


@dataclass(frozen=True, slots=True)
class FingerprintParts:
    """What went into a fingerprint; kept in the store, so that a mismatch can be explained."""

    backbone: str
    """Digest of weights, configuration, tokenizer and image preprocessing."""
    image_size: int
    max_tokens: int
    dtype: str
    data: str
    """Digest of records, splits and pictures."""
    version: int = EXTRACTION_VERSION

    @property
    def fingerprint(self) -> str:
        """Sixteen hexadecimal digits."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()[:16]


@dataclass(frozen=True, slots=True)
class FeaturePlan:
    """What to extract: the records of each split, and the fingerprint that the features will carry."""

    records: dict[Split, list[ImageRecord]]
    parts: FingerprintParts
    repaired: dict[str, int]
    """Kind of repair of the annotations → how often."""
    notes: dict[str, int]
    """What is no mistake in the annotations, but may not be what was meant → how often."""


def plan_features(config: TrainConfig) -> FeaturePlan:
    """Read the annotations, hold out the validation buildings, and compute the fingerprint.

    Raises:
        UserError: a mistake in the annotations, or a file that is not there.
    """
    data = config.data
    train = read_annotations(data.train_annotations, data.image_root)
    fractions: dict[Split, float] = {"train": 1 - data.validation_fraction, "validation": data.validation_fraction}
    records = split_by_group(train.records, fractions, data.split_seed)
    repaired, notes = Counter(train.repaired), Counter(train.notes)
    if data.test_annotations is not None:
        test = read_annotations(data.test_annotations, data.image_root)
        records["test"] = test.records
        repaired.update(test.repaired)
        notes.update(test.notes)
    parts = fingerprint_parts(config.features, records, config.features.store / "digests")
    return FeaturePlan(records, parts, dict(repaired), dict(notes))


def fingerprint_parts(
    config: FeaturesConfig, records: Mapping[Split, Sequence[ImageRecord]], digests: Path
) -> FingerprintParts:
    """Digest everything that features depend on.

    Args:
        digests: folder that remembers digests of big files, keyed by path, size and time of change.
    """
    folder = checkpoint_folder(config.backbone)
    checkpoint = sorted({path for pattern in CHECKPOINT_FILES for path in folder.glob(pattern)})
    pictures = [record.image for split in sorted(records) for record in records[split]]
    content = hashlib.sha256(files_digest(pictures, digests).encode())
    for split in sorted(records):
        for record in records[split]:
            fields = [split, record.image_id, record.group, record.captions, [asdict(r) for r in record.regions]]
            content.update(json.dumps(fields).encode())
    return FingerprintParts(
        backbone=files_digest(checkpoint, digests),
        image_size=config.image_size,
        max_tokens=config.max_tokens,
        dtype=config.dtype,
        data=content.hexdigest(),
    )


def files_digest(paths: Sequence[Path], digests: Path) -> str:
    """Digest of the contents of files, in order; not read again while paths, sizes and times stay the same."""
    stats = [(str(path), stat.st_size, stat.st_mtime_ns) for path in paths for stat in [path.stat()]]
    remembered = digests / hashlib.sha256(json.dumps(stats).encode()).hexdigest()[:32]
    if remembered.exists() and len(digest := remembered.read_text()) == 64:
        return digest
    total = hashlib.sha256()
    with ThreadPoolExecutor() as pool:  # hashing releases the interpreter lock
        for path, digest in zip(paths, pool.map(_file_digest, paths), strict=True):
            total.update(f"{path.name} {digest}\n".encode())
    digests.mkdir(parents=True, exist_ok=True)
    write_atomically(remembered, total.hexdigest())
    return total.hexdigest()


def _file_digest(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def checkpoint_folder(backbone: str) -> Path:
    """Folder of a checkpoint: itself, or the local copy of a hub repository (downloaded when it is missing).

    Raises:
        UserError: there is no such folder, or the hub cannot provide it.
    """
    if backbone.startswith("/"):
        if not Path(backbone).is_dir():
            raise UserError(
                "there is no such backbone folder", where=backbone, how="check features.backbone or the demo data"
            )
        return Path(backbone)
    try:
        return Path(snapshot_download(backbone, allow_patterns=list(CHECKPOINT_FILES)))
    except (LocalEntryNotFoundError, HfHubHTTPError, HFValidationError, OSError) as error:
        reason = str(error).strip().splitlines()[0]
        raise UserError(
            f"the hub did not provide {backbone} ({reason})", how="give a local folder as features.backbone"
        ) from None

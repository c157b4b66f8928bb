"""What cached features depend on, as one name: backbone, preprocessing, tokenizer, data.

Two runs may share features exactly when their fingerprints are equal. Computing one reads files but loads no
model, so the driver of a campaign can do it; trials receive the result.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from core.config import FeaturesConfig
from core.data.annotations import AnnotatedImage
from core.data.splits import Split
from core.files.digests import file_digests
from core.readings import Reading

EXTRACTION_VERSION = 5
"""Increment when extraction itself changes, so that old stores are not reused."""


@dataclass(frozen=True, slots=True)
class FingerprintParts:
    """Inputs of a fingerprint; kept in the store, so that a mismatch can be explained."""

    backbone: str
    """Digest of weights, configuration, tokenizer and image preprocessing; that of no file without a backbone."""
    image_size: int
    max_tokens: int
    dtype: str
    data: str
    """Digest of annotations, splits and image files."""
    version: int = EXTRACTION_VERSION
    vectors: str | None = None
    """Digest of the vectors of other encoders, and of the names by which they are found; None without vectors."""

    @property
    def fingerprint(self) -> str:
        """Sixteen hexadecimal digits."""
        return hashlib.sha256(json.dumps(self.to_json(), sort_keys=True).encode()).hexdigest()[:16]

    def to_json(self) -> dict[str, object]:
        """All parts; without the vectors where there are none, so that older fingerprints stay as they are."""
        return {name: part for name, part in asdict(self).items() if (name, part) != ("vectors", None)}


def reading_fingerprint(features: str, reading: Reading) -> str:
    """Sixteen hexadecimal digits of one reading of the features with this fingerprint."""
    return hashlib.sha256(json.dumps([features, asdict(reading)]).encode()).hexdigest()[:16]


def data_digest(images: Mapping[Split, Sequence[AnnotatedImage]], memory: Path, *, verify: bool = False) -> str:
    """Digest of annotations, splits and image files; see `fingerprint_parts`."""
    paths = [image.path for split in sorted(images) for image in images[split] if image.has_picture]
    content = hashlib.sha256(json.dumps(file_digests(paths, memory, verify=verify)).encode())
    for split in sorted(images):
        for image in images[split]:
            fields = [split, image.image_id, image.group, image.captions, [asdict(r) for r in image.regions]]
            content.update(json.dumps(fields).encode())
    return content.hexdigest()


def backbone_digest(files: Mapping[str, Path], memory: Path | None, *, verify: bool = False) -> str:
    """Digest of the files of a backbone and of their names; see `fingerprint_parts`."""
    named = zip(files, file_digests(list(files.values()), memory, verify=verify), strict=True)
    return hashlib.sha256(json.dumps(list(named)).encode()).hexdigest()


def fingerprint_parts(
    config: FeaturesConfig, files: Mapping[str, Path], data: str, memory: Path, *, verify: bool = False
) -> FingerprintParts:
    """Digest everything that features depend on.

    Args:
        files: name in the backbone's checkpoint → file; empty without a backbone.
        data: digest of the annotated images.
        memory: folder that remembers digests of files.
        verify: read every file, ignoring cached digests.
    Raises:
        UserError: `memory` has files of another program.
        OSError: a file cannot be read.
    """
    return FingerprintParts(
        backbone=backbone_digest(files, memory, verify=verify),
        image_size=config.image_size,
        max_tokens=config.max_tokens,
        dtype=config.dtype,
        data=data,
    )

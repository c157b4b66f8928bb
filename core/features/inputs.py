"""The inputs of extraction: the images and texts of each split, and the checkpoint of the backbone.

Reading them loads no model, so the driver of a campaign can do it; trials receive the resulting fingerprint.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path

from core.backbone.checkpoint_files import backbone_files
from core.backbone.hub import checkpoint_folder
from core.config import DataConfig, TrainConfig
from core.data.annotations import NO_RELATION, AnnotatedImage, read_annotations
from core.data.splits import Split, split_by_group
from core.errors import UserError
from core.features.fingerprint import FingerprintParts, data_digest, fingerprint_parts
from core.features.recall import ReadData, annotation_digests, recall, remember
from core.features.vectors import VectorSet, name_of, open_vectors

DIGESTS = ".digests"
"""Sub-folder of the feature stores' folder that caches digests of files, and what reading the annotations gave."""
Images = Mapping[Split, Sequence[AnnotatedImage]]


@dataclass(frozen=True, slots=True)
class FeatureInputs:
    """The annotated images of each split, and the fingerprint of the features extracted from them."""

    images: Images
    """Read only when it is used, where nothing changed since the last time."""
    parts: FingerprintParts
    repaired: dict[str, int]
    """Kind of repair of the annotations → number of repairs."""
    notes: dict[str, int]
    """Suspicious but valid content of the annotations → number of occurrences."""
    boxes: bool = False
    """Whether the training data have any."""
    relations: bool = False
    groups: bool = False
    """Whether any two training images are of one building."""
    vectors: VectorSet | None = None
    """Of other encoders than the backbone."""


class ImagesOnDemand(Images):
    """The images of each split, read from the annotations when they are first asked for."""

    def __init__(self, read: Callable[[], Images]) -> None:
        self._read = cache(read)

    def __getitem__(self, split: Split) -> Sequence[AnnotatedImage]:
        return self._read()[split]

    def __iter__(self) -> Iterator[Split]:
        return iter(self._read())

    def __len__(self) -> int:
        return len(self._read())


def read_inputs(config: TrainConfig, *, verify: bool = False) -> FeatureInputs:
    """Read the annotations, hold out the validation buildings, and compute the fingerprint.

    Args:
        verify: read every image and every file of the backbone, instead of trusting cached digests of files whose
            size and times are unchanged.
    Raises:
        UserError: a mistake in the annotations, test data that is also training data, a missing file, a backbone that
            could not be loaded, or vectors that lack a reading of the configuration.
    """
    data, store = config.data, config.features.store
    if store.exists() and not store.is_dir():
        raise UserError(f"{store} is a file, not a folder", where="features.store", how="name another folder")
    memory, vectors, backbone = store / DIGESTS, open_vectors(config), config.features.backbone
    if backbone is not None and backbone.startswith("/"):
        checkpoint_folder(backbone)  # refused before minutes of reading
    known = None if verify else recall(data, memory)
    if known is None:
        images, known = _read(data, memory, verify=verify)
    else:
        images = ImagesOnDemand(partial(_read_again, data, memory, known))
    files = {} if backbone is None else backbone_files(checkpoint_folder(backbone))
    parts = fingerprint_parts(config.features, files, known.digest, memory, verify=verify)
    if vectors is not None:
        parts = replace(parts, vectors=vectors.digest(known.names, memory, verify=verify))
    return FeatureInputs(
        images, parts, known.repaired, known.notes, known.boxes, known.relations, known.groups, vectors
    )


def _read(data: DataConfig, memory: Path, *, verify: bool) -> tuple[Images, ReadData]:
    """Read all annotations, and remember what was found."""
    before = annotation_digests(data)
    train = read_annotations(data.train_annotations, data.image_root)
    fractions: dict[Split, float] = {"train": 1 - data.validation_fraction, "validation": data.validation_fraction}
    images = split_by_group(train.images, fractions, data.split_seed)
    repaired, notes = Counter(train.repaired), Counter(train.notes)
    if data.test_annotations is not None:
        _refuse_training_file(data)
        test = read_annotations(data.test_annotations, data.image_root)
        _refuse_shared_image(train.images, test.images, data)
        images["test"] = test.images
        repaired.update(test.repaired)
        notes.update(test.notes)
    notes.update(_shared_between_splits(images))
    regions = [region for image in train.images for region in image.regions]
    named = [name_of(image.path, data.image_root) for split in sorted(images) for image in images[split]]
    found = ReadData(
        digest=data_digest(images, memory, verify=verify),
        names=hashlib.sha256(json.dumps(named).encode()).hexdigest(),
        repaired=dict(repaired),
        notes=dict(notes),
        boxes=bool(regions),
        relations=any(region.relation != NO_RELATION for region in regions),
        groups=len({image.group for image in train.images}) < len(train.images),
    )
    paths = [image.path for split in sorted(images) for image in images[split] if image.has_picture]
    remember(data, memory, paths, before, found)
    return images, found


def _read_again(data: DataConfig, memory: Path, known: ReadData) -> Images:
    images, found = _read(data, memory, verify=False)
    if found != known:
        raise UserError("annotations or images changed while they were read", how="run the same command again")
    return images


def absences(inputs: FeatureInputs, config: TrainConfig) -> list[str]:
    """What the training data lack that the configuration would use, a line each: boxes, relations, buildings."""
    found = []
    if not inputs.boxes and (config.loss.box or config.loss.spatial):
        found.append("the training data contain no boxes: box and relation losses are off")
    elif not inputs.relations and config.loss.spatial:
        found.append("the training data contain no relations between regions: the relation loss is off")
    if not inputs.groups:
        found.append("every training image is a building of its own: relevance by building is relevance by image")
    return found


def _refuse_training_file(data: DataConfig) -> None:
    """Refuse the training file, or a copy of it, as test data."""
    train, test = data.train_annotations, data.test_annotations
    if test is not None and test.is_file() and test.read_bytes() == train.read_bytes():
        raise UserError(
            f"{test} holds the training annotations",
            where="data.test_annotations",
            how="name the annotations of other images, or leave it out",
        )


def _refuse_shared_image(train: Sequence[AnnotatedImage], test: Sequence[AnnotatedImage], data: DataConfig) -> None:
    learned = set(map(_file_identity, train))
    shared = [image for image in test if _file_identity(image) in learned]
    if shared:
        raise UserError(
            f"names {shared[0].path}, which {data.train_annotations} names, too ({len(shared)} of {len(test)} images)",
            where=data.test_annotations,
            how="keep images for the test that nothing is trained on",
        )


def _file_identity(image: AnnotatedImage) -> tuple[int, int] | Path:
    """Device and inode, equal for two names of one file; the name of an image without a picture."""
    if not image.has_picture:
        return image.path
    stat = image.path.stat()
    return stat.st_dev, stat.st_ino


def _shared_between_splits(images: Mapping[Split, Sequence[AnnotatedImage]]) -> dict[str, int]:
    """Overlaps of splits that inflate metrics, though they may be intended → number of occurrences."""
    notes = {}
    if both := set(map(_file_identity, images["train"])) & set(map(_file_identity, images["validation"])):
        notes["image file in the training and in the validation split, under two image ids"] = len(both)
    learned = {image.group for split in ("train", "validation") for image in images[split]}
    if shared := sorted(learned & {image.group for image in images.get("test", ())}):
        notes[f"test building that is a training building, too (the first: {shared[0][:80]})"] = len(shared)
    return notes

"""What is told of a data set before anything is trained on it: per file, and of several files beside one another.

Pure functions of checked images, apart from `shared_images`, which compares files by their content.
"""

import hashlib
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from core.data.annotations import AnnotatedImage, DatasetCounts, check_images
from core.data.split_names import KNOWN
from core.data.splits import Split

FEW_GROUPS = 10
"""Smaller galleries measure nothing: any order has a right answer among the best ten."""
HELD_OUT = 10
"""One in so many training buildings is held out by default."""
EDGE = 0.002
"""Distance from the edge, as a fraction of the image, within which a box touches it."""
WHOLE = 0.9
"""Fraction of the image from which a box is nearly the whole of it."""


@dataclass(frozen=True, slots=True)
class CheckedFile:
    """An annotation file, with what was found in it."""

    path: Path
    split: Split | None
    """By its name; None if that does not tell."""
    counts: DatasetCounts
    images: Sequence[AnnotatedImage]
    """Those that can be used."""

    @property
    def groups(self) -> set[str]:
        return {image.group for image in self.images}


@dataclass(frozen=True, slots=True)
class Overlap:
    """What two splits have in common."""

    splits: tuple[Split, Split]
    groups: Sequence[str]
    """In order."""
    images: Sequence[tuple[Path, Path]]
    """Images of equal content, of the first and of the second split."""


def check_file(path: Path, image_root: Path, *, on_progress: Callable[[int, int], None]) -> CheckedFile:
    """Read an annotation file and open its images.

    Raises:
        UserError: the file as a whole cannot be read.
    """
    counts, images = check_images(path, image_root, on_progress=on_progress)
    return CheckedFile(path, split_of(path), counts, images)


def split_of(path: Path) -> Split | None:
    """The split that the name of a file says, such as test for `geo_test_24.json`; None for none or several."""
    words = re.findall(r"[a-z]+", path.stem.lower())
    named = {KNOWN[word] for word in words if word in KNOWN}
    return named.pop() if len(named) == 1 else None


def statistics(images: Sequence[AnnotatedImage]) -> Iterator[tuple[str, str]]:
    """Name and figure of captions and boxes, in the order to print."""
    captions = [caption for image in images for caption in image.captions]
    if captions:
        yield "distinct captions", f"{len(set(captions)):,}"
        if shared := shared_captions(images):
            yield "of these, under several buildings", f"{len(shared):,}"
        yield "captions per image", _spread([len(image.captions) for image in images])
    areas, touching = [], 0
    for image in images:
        for region in image.regions:
            x1, y1, x2, y2 = region.box
            areas.append((x2 - x1) * (y2 - y1))
            touching += min(x1, y1, 1 - x2, 1 - y2) <= EDGE
    if areas:
        quartiles = np.quantile(areas, [0.25, 0.5, 0.75])
        yield "boxes per image", _spread([len(image.regions) for image in images])
        yield "images without a box", f"{sum(not image.regions for image in images):,}"
        yield "box area, quartiles", ", ".join(f"{each:.0%}" if each >= 0.1 else f"{each:.1%}" for each in quartiles)
        yield "boxes that touch the edge", f"{touching / len(areas):.0%}"
        yield "boxes of nearly the whole image", f"{sum(area >= WHOLE for area in areas) / len(areas):.0%}"


def _spread(numbers: Sequence[int]) -> str:
    low, high, mean = min(numbers), max(numbers), sum(numbers) / len(numbers)
    return f"{low}" if low == high else f"{mean:.1f} ({low} to {high})"


def shared_captions(images: Iterable[AnnotatedImage]) -> dict[str, int]:
    """Caption → number of buildings that it stands under, of those that stand under several."""
    pairs = {(caption, image.group) for image in images for caption in image.captions}
    return {caption: count for caption, count in Counter(caption for caption, _ in pairs).items() if count > 1}


def doubts(file: CheckedFile) -> Iterator[str]:
    """What is valid, but costs training or measuring something; a line each."""
    groups = len(file.groups)
    if file.split == "test" and groups < FEW_GROUPS:
        yield f"only {groups} buildings: with fewer than {FEW_GROUPS}, recall at 10 tells nothing"
    if file.split == "train" and groups < FEW_GROUPS * HELD_OUT:
        yield (
            f"only {groups} buildings: one in {HELD_OUT} is held out for validation, and fewer than {FEW_GROUPS} there "
            "choose nothing (data.validation_fraction)"
        )
    if shared := shared_captions(file.images):
        if file.split == "test":
            yield (
                f"distinct captions under several buildings: {len(shared):,}, which tie (evaluation.unique_texts "
                "counts equal captions as one text)"
            )
        else:
            yield (
                f"distinct captions under several buildings: {len(shared):,}, false negatives of the contrastive loss "
                "(loss.positives: text treats equal captions as positives)"
            )


def overlaps(files: Sequence[CheckedFile]) -> Iterator[Overlap]:
    """What splits have in common; files of unknown split are left out, and files of one split may overlap."""
    pairs: tuple[tuple[Split, Split], ...] = (("train", "test"), ("train", "validation"), ("validation", "test"))
    for pair in pairs:
        first, second = ([file for file in files if file.split == split] for split in pair)
        groups = {group for file in first for group in file.groups} & {
            group for file in second for group in file.groups
        }
        images = shared_images(*([image.path for file in side for image in file.images] for side in (first, second)))
        if groups or images:
            yield Overlap(pair, sorted(groups), images)


def shared_images(first: Sequence[Path], second: Sequence[Path]) -> list[tuple[Path, Path]]:
    """Pairs of equal content, of one list and of the other; only files of equal size are read."""
    by_size: dict[int, set[Path]] = {}
    for path in first:
        by_size.setdefault(path.stat().st_size, set()).add(path)
    digests: dict[str, Path] = {}
    candidates = [path for path in dict.fromkeys(second) if path.stat().st_size in by_size]
    for size in {path.stat().st_size for path in candidates}:
        digests |= {_digest(path): path for path in sorted(by_size[size])}
    return [(digests[digest], path) for path in candidates if (digest := _digest(path)) in digests]


def _digest(path: Path) -> str:
    return hashlib.blake2b(path.read_bytes()).hexdigest()

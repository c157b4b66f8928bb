"""Annotations in GeoText-1652 format: reading, checking and splitting them, and opening the pictures they name.

Real files are dirty. What has one obvious reading is repaired and counted; anything else is an error that names the
record. `train.json` has one record a caption, test files one record an image; both become one `ImageRecord` an image.
"""

import math
import random
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from PIL import Image, ImageFile, ImageOps, UnidentifiedImageError

from core.errors import UserError
from core.files import read_json
from core.geometry import RELATIONS, area, cxcywh_to_xyxy, relation_of

Split = Literal["train", "validation", "test"]
Box = tuple[float, float, float, float]
NO_RELATION = -1
_TRUNCATION_LOCK = threading.Lock()


@dataclass(frozen=True, slots=True)
class Region:
    """A part of a picture and the sentence about it."""

    sentence: str
    box: Box
    """x1 y1 x2 y2 in 0..1"""
    relation: int
    """To the first region of the record, as an index of geometry.RELATIONS; -1 where there is none."""


@dataclass(frozen=True, slots=True)
class ImageRecord:
    """One picture with all that is written about it."""

    image: Path
    image_id: str
    group: str
    """Building: the first part of the image id."""
    captions: tuple[str, ...]
    regions: tuple[Region, ...]


@dataclass(frozen=True, slots=True)
class Annotations:
    """A whole annotation file."""

    records: list[ImageRecord]
    repaired: dict[str, int]
    """Kind of repair → how often."""


@dataclass(slots=True)
class DatasetCounts:
    """What `check_dataset` found."""

    images: int = 0
    captions: int = 0
    regions: int = 0
    groups: int = 0
    relations: Counter[str] = field(default_factory=Counter)
    repaired: Counter[str] = field(default_factory=Counter)
    rejected: Counter[str] = field(default_factory=Counter)
    messages: list[str] = field(default_factory=list)
    """The first ten rejections, in full."""

    def reject(self, error: UserError) -> None:
        self.rejected[error.what] += 1
        if len(self.messages) < 10:
            self.messages.append(str(error))

    def rows(self) -> Iterator[tuple[str, int]]:
        """Name and count, in the order to print."""
        yield from (("images", self.images), ("captions", self.captions), ("regions", self.regions))
        yield from ((f"relation {name}", self.relations[name]) for name in RELATIONS)
        yield ("buildings", self.groups)
        yield from ((f"repaired: {kind}", count) for kind, count in self.repaired.items())
        yield ("rejected", self.rejected.total())


def read_annotations(path: Path, image_root: Path) -> Annotations:
    """Read an annotation file; records of one image are merged.

    Args:
        image_root: folder that the `image` paths start from, and that they cannot leave.
    Raises:
        UserError: names the file, the record and what is wrong with it.
    """
    repaired: Counter[str] = Counter()
    parsed = [_parse_record(raw, where, image_root, repaired) for where, raw in _raw_records(path)]
    return Annotations(_merge(parsed, repaired), dict(repaired))


def check_dataset(
    path: Path, image_root: Path, *, on_progress: Callable[[int, int], None] = lambda done, total: None
) -> DatasetCounts:
    """Read every record and open every picture; go on after a bad one and count it.

    Raises:
        UserError: the file as a whole cannot be read.
    """
    counts = DatasetCounts()
    parsed = []
    for where, raw in _raw_records(path):
        try:
            parsed.append(_parse_record(raw, where, image_root, counts.repaired))
        except UserError as error:
            counts.reject(error)
    records = _merge(parsed, counts.repaired)
    for done, record in enumerate(records, start=1):
        try:
            counts.repaired.update(open_image(record.image)[1])
        except UserError as error:
            counts.reject(error)
        else:
            counts.images += 1
            counts.captions += len(record.captions)
            counts.regions += len(record.regions)
            counts.relations.update(RELATIONS[r.relation] for r in record.regions if r.relation != NO_RELATION)
        on_progress(done, len(records))
    counts.groups = len({record.group for record in records})
    return counts


def split_by_group(
    records: Sequence[ImageRecord], fractions: Mapping[Split, float], seed: int
) -> dict[Split, list[ImageRecord]]:
    """Deal whole groups out to splits, so that no building straddles two of them; record order is kept.

    Args:
        fractions: share of the groups for each split; they add up to 1, and each split gets at least one group.
    Raises:
        UserError: there are fewer groups than splits.
    """
    if not math.isclose(sum(fractions.values()), 1.0):
        raise ValueError("fractions must add up to 1")
    groups = sorted({record.group for record in records})
    if len(groups) < len(fractions):
        raise UserError(f"{len(groups)} buildings cannot be split into {' and '.join(fractions)}", where="data")
    random.Random(seed).shuffle(groups)
    split_of: dict[str, Split] = {}
    start, share = 0, 0.0
    for left, (split, fraction) in zip(reversed(range(len(fractions))), fractions.items(), strict=True):
        share += fraction
        stop = min(max(round(share * len(groups)), start + 1), len(groups) - left)
        split_of |= dict.fromkeys(groups[start:stop], split)
        start = stop
    return {split: [record for record in records if split_of[record.group] == split] for split in fractions}


def open_image(path: Path) -> tuple[Image.Image, list[str]]:
    """A picture as upright RGB, and the repairs that it took; transparent parts become white.

    Raises:
        UserError: it is not there, or is no picture.
    """
    repairs = []
    try:
        image, truncated = _decode(path)
    except FileNotFoundError:
        raise UserError("the picture is missing", where=path) from None
    except (UnidentifiedImageError, OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        raise UserError("cannot be read as a picture", where=path) from None
    if truncated:
        repairs.append("picture is truncated")
    upright = ImageOps.exif_transpose(image)
    if upright.size != image.size or image.getexif().get(0x0112, 1) != 1:
        repairs.append("picture is rotated by EXIF")
    if upright.mode != "RGB":
        repairs.append(f"picture is {upright.mode}")
    return _to_rgb(upright), repairs


def _decode(path: Path) -> tuple[Image.Image, bool]:
    """The decoded picture, and whether its file ends too early."""
    try:
        with Image.open(path) as image:
            image.load()
            return image, False
    except UnidentifiedImageError:
        raise
    except OSError as error:
        if isinstance(error, FileNotFoundError):
            raise
    with _TRUNCATION_LOCK:  # Pillow's switch is global; only this rare path turns it on
        ImageFile.LOAD_TRUNCATED_IMAGES = True
        try:
            with Image.open(path) as image:
                image.load()
                return image, True
        finally:
            ImageFile.LOAD_TRUNCATED_IMAGES = False


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        layers = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, "white"), layers).convert("RGB")
    return image.convert("RGB")


def _raw_records(path: Path) -> list[tuple[str, Any]]:
    content = read_json(path)
    if not isinstance(content, list):
        raise UserError("is not a list of records", where=path)
    if not content:
        raise UserError("holds no record", where=path, how="an empty data set cannot be used")
    return [(f"{path}: record {number}", raw) for number, raw in enumerate(content)]


def _parse_record(raw: Any, where: str, image_root: Path, repaired: Counter[str]) -> ImageRecord:
    if not isinstance(raw, dict):
        raise UserError("is not an object", where=where)
    image_id = _text(raw.get("image_id"), "image_id", where)
    where = f"{where} ({image_id})"
    return ImageRecord(
        image=_picture(_text(raw.get("image"), "image", where), image_root, where),
        image_id=image_id,
        group=image_id.split("/")[0],
        captions=_captions(raw.get("caption"), where),
        regions=_regions(raw, where, repaired),
    )


def _text(value: Any, name: str, where: str) -> str:
    if not isinstance(value, str) or not value.strip():
        raise UserError(f"has no {name}", where=where)
    return value.strip()


def _captions(value: Any, where: str) -> tuple[str, ...]:
    values = value if isinstance(value, list) else [value]
    if not values:
        raise UserError("has no caption", where=where)
    return tuple(_text(caption, "caption", where) for caption in values)


def _picture(name: str, image_root: Path, where: str) -> Path:
    path = (image_root / name).resolve()
    if not path.is_relative_to(image_root.resolve()):
        raise UserError(f"the picture {name} lies outside of {image_root}", where=where)
    if not path.is_file():
        raise UserError(f"the picture {path} is missing", where=where)
    return path


def _regions(raw: dict[str, Any], where: str, repaired: Counter[str]) -> tuple[Region, ...]:
    sentences, boxes = raw.get("sentences") or [], raw.get("bboxes") or []
    names = raw.get("relations") or [None] * len(boxes)
    if not isinstance(sentences, list) or not isinstance(boxes, list) or not isinstance(names, list):
        raise UserError("sentences, bboxes and relations must be lists", where=where)
    if not len(sentences) == len(boxes) == len(names):
        raise UserError(f"has {len(sentences)} sentences, {len(boxes)} bboxes, {len(names)} relations", where=where)
    regions: list[Region] = []
    for number, (sentence, raw_box, name) in enumerate(zip(sentences, boxes, names, strict=True)):
        box = _box(raw_box, f"{where}: bboxes[{number}]", repaired)
        if box is None or not isinstance(sentence, str) or not sentence.strip():
            continue
        reference = regions[0].box if regions else None
        relation = _relation(name, box, reference, f"{where}: relations[{number}]")
        regions.append(Region(sentence.strip(), box, relation))
    return tuple(regions)


def _box(raw: Any, where: str, repaired: Counter[str]) -> Box | None:
    """Corners of a box; None for one that is absent or has no area within the picture."""
    if raw is None:
        return None
    if not isinstance(raw, list) or len(raw) != 4:
        length = len(raw) if isinstance(raw, list) else 1
        raise UserError(f"has {length} numbers instead of 4", where=where, how="write [cx, cy, w, h]")
    if not all(isinstance(number, int | float) and math.isfinite(number) for number in raw):
        raise UserError("holds something else than finite numbers", where=where)
    if raw[0] <= 0:  # how upstream marks an absent box
        return None
    corners = cxcywh_to_xyxy(torch.tensor(raw, dtype=torch.float64))
    if float(area(corners)) <= 0:
        repaired["box without area dropped"] += 1
        return None
    cx, cy, width, height = raw
    if min(cx - width / 2, cy - height / 2) < 0 or max(cx + width / 2, cy + height / 2) > 1:
        repaired["box clamped to the picture"] += 1
    x1, y1, x2, y2 = corners.tolist()
    return (x1, y1, x2, y2)


def _relation(name: Any, box: Box, reference: Box | None, where: str) -> int:
    if name is not None:
        if name not in RELATIONS:
            raise UserError(f"{name!r} is not one of {', '.join(RELATIONS)}", where=where)
        return RELATIONS.index(name)
    return NO_RELATION if reference is None else RELATIONS.index(relation_of(box, reference))


def _merge(parsed: Sequence[ImageRecord], repaired: Counter[str]) -> list[ImageRecord]:
    """One record an image: captions joined, what is repeated kept once."""
    by_image: dict[str, list[ImageRecord]] = {}
    for record in parsed:
        by_image.setdefault(record.image_id, []).append(record)
    merged = []
    for same in by_image.values():
        captions = [caption for record in same for caption in record.captions]
        distinct = tuple(dict.fromkeys(captions))
        if len(distinct) < len(captions):
            repaired["repeated caption dropped"] += len(captions) - len(distinct)
        regions = tuple(dict.fromkeys(region for record in same for region in record.regions))
        first = same[0]
        merged.append(ImageRecord(first.image, first.image_id, first.group, distinct, regions))
    return merged

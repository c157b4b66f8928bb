"""Reading and checking annotations in GeoText-1652 format.

Real files contain mistakes. Those with one obvious correction are repaired and counted; any other is an error that
names the entry. `train.json` has one entry per caption, test files have one per image; both become one `AnnotatedImage`
per image.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from core.data.entries import Entry, EntryRegion, parse_entry
from core.data.geometry import RELATIONS, Box, relation_of
from core.data.images import open_image
from core.data.other_formats import format_of_file, format_of_json, import_hint
from core.errors import UserError, shown
from core.files.json_files import read_json

NO_RELATION = -1


@dataclass(frozen=True, slots=True)
class Region:
    """A region of an image and the sentence that describes it."""

    sentence: str
    box: Box
    """x1 y1 x2 y2, as fractions of the image."""
    relation: int
    """Relation to the image's first region, as an index into geometry.RELATIONS; -1 for the first region."""


@dataclass(frozen=True, slots=True)
class AnnotatedImage:
    """One image with its captions and regions."""

    path: Path
    image_id: str
    group: str
    """Building of the image: the first part of its id."""
    captions: tuple[str, ...]
    regions: tuple[Region, ...]
    has_picture: bool = True
    """Whether there is such a file; without one, `path` is the name that vectors of the image have."""


@dataclass(frozen=True, slots=True)
class Annotations:
    """Content of an annotation file."""

    images: list[AnnotatedImage]
    repaired: dict[str, int]
    """Kind of repair → number of repairs."""
    notes: dict[str, int]
    """Suspicious but valid content → number of occurrences."""


@dataclass(slots=True)
class DatasetCounts:
    """Result of `check_dataset`."""

    images: int = 0
    captions: int = 0
    regions: int = 0
    groups: int = 0
    relations: Counter[str] = field(default_factory=Counter)
    repaired: Counter[str] = field(default_factory=Counter)
    notes: dict[str, int] = field(default_factory=dict)
    rejected: Counter[str] = field(default_factory=Counter)
    messages: list[str] = field(default_factory=list)
    """Messages of the first ten rejections."""

    def add(self, image: AnnotatedImage) -> None:
        """Count an image with its captions and regions."""
        self.images += 1
        self.captions += len(image.captions)
        self.regions += len(image.regions)
        self.relations.update(RELATIONS[r.relation] for r in image.regions if r.relation != NO_RELATION)

    def reject(self, error: UserError) -> None:
        """Count an entry or image that cannot be used."""
        self.rejected[error.what] += 1
        if len(self.messages) < 10:
            self.messages.append(str(error))

    def rows(self) -> Iterator[tuple[str, int]]:
        """Name and count, in the order to print."""
        yield from (("images", self.images), ("captions", self.captions), ("regions", self.regions))
        if self.regions:
            yield from ((f"relation {name}", self.relations[name]) for name in RELATIONS)
        yield ("buildings", self.groups)
        yield from ((f"repaired: {kind}", count) for kind, count in self.repaired.items())
        yield from ((f"note: {kind}", count) for kind, count in self.notes.items())
        yield ("rejected", self.rejected.total())


def read_annotations(path: Path, image_root: Path | None) -> Annotations:
    """Read an annotation file; entries of one image are merged.

    Args:
        image_root: folder that the `image` paths start from and stay below as written; links may lead elsewhere. None:
            there are no pictures, and `image` is the name of an image.
    Raises:
        UserError: names the file, the entry and what is wrong with it.
    """
    repaired: Counter[str] = Counter()
    by_image: dict[str, list[Entry]] = {}
    for where, raw in _raw_entries(path, image_root):
        _add(parse_entry(raw, where, image_root, repaired), by_image, with_pictures=image_root is not None)
    images = [_merge(same, repaired, with_pictures=image_root is not None) for same in by_image.values()]
    return Annotations(images, dict(repaired), _notes(images))


def check_dataset(
    path: Path, image_root: Path, *, on_progress: Callable[[int, int], None] = lambda done, total: None
) -> DatasetCounts:
    """Read every entry and open every image; bad ones are counted and skipped.

    Raises:
        UserError: the file as a whole cannot be read.
    """
    return check_images(path, image_root, on_progress=on_progress)[0]


def check_images(
    path: Path, image_root: Path, *, on_progress: Callable[[int, int], None] = lambda done, total: None
) -> tuple[DatasetCounts, list[AnnotatedImage]]:
    """`check_dataset` with the images that were counted.

    Raises:
        UserError: the file as a whole cannot be read.
    """
    counts, sound = DatasetCounts(), []
    by_image: dict[str, list[Entry]] = {}
    for where, raw in _raw_entries(path, image_root):
        try:
            _add(parse_entry(raw, where, image_root, counts.repaired), by_image)
        except UserError as error:
            counts.reject(error)
    images = [_merge(same, counts.repaired) for same in by_image.values()]
    counts.notes = _notes(images)
    counts.groups = len({image.group for image in images})
    for done, image in enumerate(images, start=1):
        try:
            counts.repaired.update(open_image(image.path)[1])
        except UserError as error:
            counts.reject(error)
        else:
            counts.add(image)
            sound.append(image)
        on_progress(done, len(images))
    return counts, sound


def _raw_entries(path: Path, image_root: Path | None) -> Iterator[tuple[str, Any]]:
    """Each entry, with its name in messages."""
    content = _read(path)
    found = format_of_json(content)
    if not isinstance(content, list):
        raise UserError("is not a list of entries", where=path, how=import_hint(path, found))
    if found == "xvlm" and "image" not in content[0]:
        raise UserError("its first entry has no image", where=path, how=import_hint(path, found))
    if not content:
        raise UserError("holds no entry", where=path, how="an empty data set cannot be used")
    if image_root is not None and not image_root.is_dir():
        raise UserError(
            "there is no such folder of images", where=image_root, how="set data.image_root or --image-root"
        )
    return ((f"{path}: entry {number}", raw) for number, raw in enumerate(content))


def _read(path: Path) -> Any:
    """Content of an annotation file; one that is no JSON, but of another known format, is called that."""
    try:
        return read_json(path)
    except UserError as error:
        if hint := import_hint(path, format_of_file(path)):
            raise UserError(error.what, where=path, how=hint) from None
        raise


def _add(entry: Entry, by_image: dict[str, list[Entry]], *, with_pictures: bool = True) -> None:
    """Add an entry to those of the same image."""
    same = by_image.setdefault(entry.image_id, [])
    if same and same[0].image != entry.image and not (with_pictures and same[0].image.samefile(entry.image)):
        raise UserError(
            f"names the image {shown(str(entry.image))}, but {same[0].where} names {shown(str(same[0].image))}",
            where=entry.where,
            how="give each image an image_id of its own",
        )
    same.append(entry)


def _merge(same: Sequence[Entry], repaired: Counter[str], *, with_pictures: bool = True) -> AnnotatedImage:
    """Merge the entries of one image: all captions and regions, without repetitions."""
    first = same[0]
    captions = [caption for entry in same for caption in entry.captions]
    distinct = tuple(dict.fromkeys(captions))
    if len(distinct) < len(captions):
        repaired["repeated caption dropped"] += len(captions) - len(distinct)
    regions = _regions(list(_regions_of_one_reference(same, repaired)), repaired)
    return AnnotatedImage(first.image, first.image_id, _group(first.image_id), distinct, regions, with_pictures)


def _regions_of_one_reference(same: Sequence[Entry], repaired: Counter[str]) -> Iterator[EntryRegion]:
    """The regions of all entries; relations given in an entry that begins with another region are dropped."""
    reference = next((entry.regions[0] for entry in same if entry.regions), None)
    for entry in same:
        for number, region in enumerate(entry.regions):
            assert reference is not None, "there is a region"
            if region.relation is not None and number and entry.regions[0][:2] != reference[:2]:
                repaired["relation to another first region replaced"] += 1
                region = region._replace(relation=None)
            yield region


def _regions(parsed: Sequence[EntryRegion], repaired: Counter[str]) -> tuple[Region, ...]:
    """The distinct regions with their relation to the first one: as given, else derived from the boxes."""
    given: dict[tuple[str, Box], int | None] = {}
    for sentence, box, relation in parsed:
        before = given.setdefault((sentence, box), relation)
        if before is None:
            given[sentence, box] = relation
        elif relation not in (None, before):
            repaired["contradictory relation dropped"] += 1
    if not given:
        return ()
    first, relation = next(iter(given.items()))
    if relation is not None:
        repaired["relation of a first region dropped"] += 1
    given[first] = NO_RELATION
    return tuple(
        Region(sentence, box, RELATIONS.index(relation_of(box, first[1])) if relation is None else relation)
        for (sentence, box), relation in given.items()
    )


def _group(image_id: str) -> str:
    parts = (part.strip() for part in image_id.split("/"))
    return next((part for part in parts if part not in ("", ".", "..")), image_id)


def _notes(images: Sequence[AnnotatedImage]) -> dict[str, int]:
    paths = Counter(image.path for image in images)
    counts = {
        "image_id without a folder, so that its image is a building of its own": sum(
            "/" not in image.image_id for image in images
        ),
        "image under several image_ids": sum(count > 1 for count in paths.values()),
        "image in a file of a single building": len(images)
        if len({image.group for image in images}) == 1 < len(images)
        else 0,
    }
    return {note: count for note, count in counts.items() if count}

"""Records of any format as entries of GeoText's: groups, splits and boxes settled, one list of entries a split.

Training entries have one caption each, test entries all captions of an image, as GeoText-1652's own files.
"""

import hashlib
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import PurePosixPath
from typing import Any

from core.data.geometry import Box
from core.data.images import upright_size
from core.data.split_names import TEST, TRAIN, split_called
from core.errors import UserError
from core.formats.boxes import Layout, Size, Unit, four_numbers, settle_layout, settle_unit, to_geotext
from core.formats.grouping import Grouping, group_name
from core.formats.placing import Images
from core.formats.records import Findings, Record
from core.formats.rows import is_text

FURTHER_TEST = re.compile(r"test[A-Za-z0-9_-]{1,60}")
"""Names of test sets beside the usual one; each keeps its name."""
Entry = dict[str, Any]
Entries = dict[str, list[Entry]]
"""Split → entries of its file."""


@dataclass(frozen=True, slots=True)
class Choices:
    """What the user decides about a source; None leaves it to the format."""

    grouping: Grouping | None = None
    split_column: str | None = None
    test_fraction: float | None = None
    layout: Layout | None = None
    unit: Unit | None = None


@dataclass(slots=True)
class _Draft:
    """A record with its place below images/, its split and its id; its boxes are still the source's."""

    record: Record
    place: str
    split: str
    image_id: str
    boxes: dict[int, list[float]] = field(default_factory=dict)
    """Number of a region → its box as GeoText's."""


@dataclass(slots=True)
class Conversion:
    """Takes records one by one; `entries` then settles what depends on all of them."""

    images: Images
    choices: Choices
    findings: Findings
    _drafts: list[_Draft] = field(default_factory=list)
    _layouts: set[Layout] = field(default_factory=set)
    """By the names of the columns that boxes came from."""
    _own: dict[str, str] = field(default_factory=dict)
    """Group of an image that is its own → the image."""
    _sizes: dict[str, Size] = field(default_factory=dict)

    def add(self, record: Record) -> None:
        """Place the image of a record, and keep the rest of it; what cannot be used is counted."""
        split = self._split(record)
        place = self.images.place(record, self.findings) if split else None
        if split is None or place is None or not record.captions:
            return
        image_id = self._image_id(record, place)
        if image_id is None:
            self.findings.drop("record without a group", record.where, self._grouped_by(record))
        elif not is_text(image_id + place):
            self.findings.drop("image whose path is not text", record.where, record.names[0])
        else:
            if record.layout is not None:
                self._layouts.add(record.layout)
            self._drafts.append(_Draft(replace(record, content=None, fields={}), place, split, image_id))

    def entries(self, where: str) -> Entries:
        """Entries of each split.

        Args:
            where: the source, for messages.
        Raises:
            UserError: nothing is left, there is no test split, or the boxes are not what was declared.
        """
        if not self._drafts:
            if not self.findings.messages:
                raise UserError("holds no record", where=where)
            first = self.findings.messages[0]
            how = "check --images and --format"
            raise UserError(f"has no record that can be used; the first: {first}", where=where, how=how)
        self._require_test_split(where)
        self._convert_boxes(where)
        found: Entries = {}
        for draft in self._drafts:
            found.setdefault(draft.split, []).extend(_entries_of(draft))
        return {split: merged(rows) if split.startswith(TEST) else rows for split, rows in found.items()}

    def _split(self, record: Record) -> str | None:
        column = self.choices.split_column
        name = str(record.fields.get(column, "")) if column else record.split
        split = split_called(name) or (name if FURTHER_TEST.fullmatch(name) else None)
        if split is None:
            is_named = column is None or column in record.fields
            self.findings.drop("record of no known split", record.where, name if is_named else _fields(record))
        return split

    def _grouped_by(self, record: Record) -> str:
        """What the group of a record was looked for in."""
        grouping = self.choices.grouping
        return record.names[0] if grouping is not None and grouping.level is not None else _fields(record)

    def _image_id(self, record: Record, place: str) -> str | None:
        grouping = self.choices.grouping
        if grouping is None and record.image_id is not None:
            return record.image_id or None
        if grouping is None or grouping == Grouping():
            return f"{self._own_group(place)}/{PurePosixPath(place).name}"
        group = grouping.group_of(record.names[0], record.fields)
        return None if group is None else f"{group}/{place}"

    def _own_group(self, place: str) -> str:
        """A name that no other image has."""
        name = group_name(PurePosixPath(place).with_suffix("")) or place
        while self._own.setdefault(name, place) != place:
            name += "_"
        return name

    def _require_test_split(self, where: str) -> None:
        counts = Counter(draft.split for draft in self._drafts)
        fraction, has_test = self.choices.test_fraction, any(split.startswith(TEST) for split in counts)
        if has_test and fraction:
            raise UserError("has a test split of its own", where=where, how="leave out --test-fraction")
        if has_test or fraction == 0:
            return
        if fraction is None:
            raise UserError(
                f"has no test split ({', '.join(f'{count} records of {split}' for split, count in counts.items())})",
                where=where,
                how="take one from training with --test-fraction 0.1, name a column with --split-column, "
                "or do without with --test-fraction 0",
            )
        chosen = drawn({group_of(draft.image_id) for draft in self._drafts if draft.split == TRAIN}, fraction, where)
        for draft in self._drafts:
            if draft.split == TRAIN and group_of(draft.image_id) in chosen:
                draft.split = TEST

    def _convert_boxes(self, where: str) -> None:
        numbers = list(self._numbers())
        if not numbers:
            return
        unit = settle_unit([box for _, _, box in numbers], self.choices.unit, where=where)
        sized = [(draft, index, box, self._size(draft) if unit == "pixels" else None) for draft, index, box in numbers]
        usable = [item for item in sized if item[3] is not None or unit == "fractions"]
        layout = self.choices.layout or (next(iter(self._layouts)) if len(self._layouts) == 1 else None)
        layout = layout or settle_layout([(box, size) for _, _, box, size in usable], where=where)
        for draft, index, box, size in usable:
            converted, repair = to_geotext(box, layout, size)
            if converted is None:
                self.findings.drop(str(repair), draft.record.where, list(box))
                continue
            draft.boxes[index] = converted
            if repair:
                self.findings.repaired[repair] += 1

    def _numbers(self) -> Iterator[tuple[_Draft, int, Box]]:
        """Each box of plain numbers, with its record and its place in it."""
        for draft in self._drafts:
            for index, region in enumerate(draft.record.regions):
                box = four_numbers(region.box)
                if box is None:
                    self.findings.drop("box that is not four numbers", draft.record.where, region.box)
                else:
                    yield draft, index, box

    def _size(self, draft: _Draft) -> Size | None:
        """Width and height that the boxes of an image refer to; None if its file cannot be read."""
        if draft.record.size is not None:
            return draft.record.size
        if draft.place not in self._sizes:
            try:
                self._sizes[draft.place] = upright_size(self.images.folder / draft.place)
            except UserError as error:
                self.findings.drop("box of an image that cannot be read", draft.record.where, error.what)
                return None
        return self._sizes[draft.place]


def _fields(record: Record) -> str:
    return f"fields: {', '.join(map(str, record.fields))}"


def group_of(image_id: str) -> str:
    """The group that an id names: its first part."""
    return image_id.partition("/")[0].strip()


def drawn(groups: Iterable[str], fraction: float, where: str) -> set[str]:
    """A share of the groups, the same for the same groups in any order; at least one, and at least one is left.

    Raises:
        UserError: there are fewer than two groups.
    """
    shuffled = sorted(groups, key=lambda group: hashlib.sha256(group.encode()).digest())
    if len(shuffled) < 2:
        raise UserError(
            f"has {len(shuffled)} groups to train on, of which none can be spared for testing",
            where=where,
            how="group images otherwise with --group, or do without a test split with --test-fraction 0",
        )
    return set(shuffled[: min(max(round(fraction * len(shuffled)), 1), len(shuffled) - 1)])


def merged(entries: list[Entry]) -> list[Entry]:
    """One entry an image: the captions as a list, the regions one after the other without repetitions."""
    captions: dict[tuple[str, str], list[str]] = {}
    regions: dict[tuple[str, str], list[tuple[Any, ...]]] = {}
    for entry in entries:
        image = entry["image_id"], entry["image"]
        captions.setdefault(image, []).append(entry["caption"])
        known = regions.setdefault(image, [])
        sentences, bboxes = entry.get("sentences", []), entry.get("bboxes", [])
        relations = entry.get("relations", [None] * len(bboxes))
        known += [region for region in zip(sentences, bboxes, relations, strict=True) if region not in known]
    return [
        {"image_id": image_id, "image": place, "caption": texts} | _region_fields(regions[image_id, place])
        for (image_id, place), texts in captions.items()
    ]


def _entries_of(draft: _Draft) -> list[Entry]:
    """One entry a caption; the regions of the record stand in the first."""
    record = draft.record
    entries: list[Entry] = [
        {"image_id": draft.image_id, "image": draft.place, "caption": caption} for caption in record.captions
    ]
    found = [(record.regions[index], box) for index, box in sorted(draft.boxes.items())]
    entries[0] |= _region_fields([(region.sentence, box, region.relation) for region, box in found])
    return entries


def _region_fields(regions: list[tuple[Any, ...]]) -> Entry:
    """Fields of an entry for its regions: sentence, box and relation of each."""
    if not regions:
        return {}
    sentences, bboxes, relations = (list(values) for values in zip(*regions, strict=True))
    fields: Entry = {"sentences": sentences, "bboxes": bboxes}
    return fields | ({"relations": relations} if any(relation is not None for relation in relations) else {})

"""Import of a published data set: read, convert, and write a folder in GeoText-1652's format.

The folder appears at once, when everything in it is complete; an interrupted import leaves nothing behind, and the same
command starts it again.
"""

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

from core.data.other_formats import NAMES, Format
from core.data.split_names import SPLITS, TEST, TRAIN
from core.errors import UserError
from core.files.json_files import write_json
from core.files.ownership import scratch_folder
from core.formats import (
    arrow,
    coco,
    entities,
    geotext,
    json_lines,
    json_lists,
    karpathy,
    tables,
    webdataset,
)
from core.formats.conversion import Choices, Conversion, Entries, group_of
from core.formats.detection import Detected, detect
from core.formats.placing import Images, copy, image_roots, link
from core.formats.records import Findings, Record

Reader = Callable[[Path, str, Findings], Iterator[Record]]
READERS: dict[Format, Reader] = {
    "geotext": geotext.read, "karpathy": karpathy.read, "coco": coco.read, "xvlm": json_lists.read,
    "jsonl": json_lines.read, "csv": tables.read, "entities": entities.read, "webdataset": webdataset.read,
    "arrow": arrow.read,
}  # fmt: skip
IMAGES = "images"


@dataclass(frozen=True, slots=True)
class Options:
    """How a source is imported."""

    format: Format | None = None
    images: Path | None = None
    """Folder of its images; None to look for them around the source."""
    copy: bool = False
    """Copy image files instead of linking them."""
    choices: Choices = field(default_factory=Choices)


@dataclass(frozen=True, slots=True)
class SplitCounts:
    """What was written of a split."""

    images: int
    captions: int
    regions: int
    groups: int


@dataclass(frozen=True, slots=True)
class Imported:
    """What an import wrote and left out."""

    splits: dict[str, SplitCounts]
    findings: Findings
    shared_groups: int
    """Groups both of training and of a test split."""


@dataclass(frozen=True, slots=True)
class Import:
    """An import that can start: the source is of a known format, and the folder to write is free."""

    source: Path
    out: Path
    options: Options
    detected: Detected
    roots: tuple[Path, ...]

    def plan(self) -> Iterator[str]:
        """What will be done, in lines."""
        choices, parts = self.options.choices, self.detected.parts
        yield f"{self.source}: {NAMES[self.detected.format]}"
        if len(parts) > 1:
            yield "reads " + ", ".join(f"{path.name} ({split})" for path, split in parts[:20])
        found = f"{'copied' if self.options.copy else 'linked'} from {' or '.join(map(str, self.roots))}"
        match self.detected.format:
            case "webdataset":
                found = "written as the archives have them"
            case "arrow" | "geotext":
                found = f"written as archives and tables have them, else {found}"
        yield f"images: {found}"
        own = "the first part of image_id" if self.detected.format == "geotext" else "every image is a group of its own"
        yield f"groups: {own if choices.grouping is None else choices.grouping}"
        yield f"writes {self.out}"

    def run(self, on_progress: Callable[[int], None] = lambda done: None) -> Imported:
        """Read all, and write the folder.

        Raises:
            UserError: as the reader, or nothing usable is left.
        """
        target = self.out.resolve()
        parent_was_there = target.parent.exists()
        try:
            with scratch_folder(target.parent) as partial:
                whole = partial / target.name
                imported = self._write(whole, on_progress)
                whole.rename(target)
        except BaseException:
            if not parent_was_there:
                with suppress(OSError):  # it is no longer empty
                    target.parent.rmdir()
            raise
        return imported

    def _write(self, folder: Path, on_progress: Callable[[int], None]) -> Imported:
        findings = Findings()
        (folder / IMAGES).mkdir(parents=True)
        transfer = copy if self.options.copy else link
        images = Images(folder / IMAGES, self.roots, transfer, named=self.options.images is not None)
        conversion = Conversion(images, self._choices(), findings)
        read = READERS[self.detected.format]
        done = 0
        for path, split in self.detected.parts:
            for record in read(path, split, findings):
                conversion.add(record)
                done += 1
                on_progress(done)
        entries = conversion.entries(str(self.source))
        for split, rows in entries.items():
            write_json(folder / f"{split}.json", rows)
        return _counted(entries, findings)

    def _choices(self) -> Choices:
        """The user's, completed by what the format leaves no choice about."""
        choices = self.options.choices
        match self.detected.format:
            case "geotext":
                return replace(choices, layout=choices.layout or "cxcywh", unit=choices.unit or "fractions")
            case "entities":
                return replace(choices, layout=choices.layout or "xyxy", unit=choices.unit or "pixels")
        return choices


def prepare(source: Path, out: Path, options: Options) -> Import:
    """Check what can be checked before anything is read or written.

    Raises:
        UserError: the source has no known format, a folder of images is missing, or `out` is not free.
    """
    if out.exists() and not out.is_dir():
        raise UserError("is a file, not a folder", where=out, how="name another folder")
    if out.exists() and any(out.iterdir()):
        raise UserError("is not empty", where=out, how="name another folder")
    detected = detect(source, options.format)
    return Import(source, out, options, detected, tuple(image_roots(source, options.images)))


def _counted(entries: Entries, findings: Findings) -> Imported:
    order = [*(split for split in SPLITS if split in entries), *(split for split in entries if split not in SPLITS)]
    groups = {split: {group_of(entry["image_id"]) for entry in entries[split]} for split in order}
    counts = {}
    for split in order:
        rows, sums = entries[split], Counter[str]()
        for row in rows:
            sums["captions"] += len(row["caption"]) if isinstance(row["caption"], list) else 1
            sums["regions"] += len(row.get("bboxes", []))
        images = len({row["image"] for row in rows})
        counts[split] = SplitCounts(images, sums["captions"], sums["regions"], len(groups[split]))
    tested = set().union(*(found for split, found in groups.items() if split.startswith(TEST)))
    return Imported(counts, findings, len(groups.get(TRAIN, set()) & tested))

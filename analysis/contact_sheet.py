"""The contact sheet of a data set: one HTML page of some of its images, with their boxes, captions and sentences."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from analysis.own_pages import write_page
from analysis.report_pictures import box_colour, numbered_picture
from core.records import Corners

IMAGES = 48
"""On a page, shared evenly between its files."""


@dataclass(frozen=True, slots=True)
class SheetRegion:
    """A region of an image."""

    sentence: str
    box: Corners
    relation: str | None
    """To the first region of the image; None for that one."""


@dataclass(frozen=True, slots=True)
class SheetImage:
    """An annotated image, as plain data."""

    path: Path
    name: str
    group: str
    captions: Sequence[str]
    regions: Sequence[SheetRegion]


def write_sheet(path: Path, files: Mapping[str, Sequence[SheetImage]]) -> None:
    """Write the sheet: a page that needs nothing else, with images at equal distances in each file.

    Args:
        files: name of an annotation file → its images.
    Raises:
        UserError: as `require_free_page`, or an image cannot be read.
    """
    most = max(1, IMAGES // max(1, len(files)))
    parts = [
        {"title": name, "count": len(images), "cards": [_card(images[row]) for row in chosen_rows(len(images), most)]}
        for name, images in files.items()
    ]
    write_page(path, "contact_sheet.html", {"title": "Contact sheet", "parts": parts})


def chosen_rows(count: int, most: int) -> list[int]:
    """Up to `most` of `count` rows, at equal distances."""
    return [row * count // min(count, most) for row in range(min(count, most))]


def _card(image: SheetImage) -> dict[str, object]:
    """An image as the template shows it."""
    boxes = [region.box for region in image.regions]
    regions = [(region, box_colour(number)) for number, region in enumerate(image.regions)]
    return {"image": image, "source": numbered_picture(image.path, boxes), "regions": regions}

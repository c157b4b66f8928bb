"""The contact sheet of a data set: one HTML page of some of its images, with their boxes, captions and sentences."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from markupsafe import Markup

from analysis.report import render
from analysis.report_pictures import box_colour, numbered_picture
from core.errors import UserError
from core.files.atomic import write_atomically
from core.records import Corners

IMAGES = 48
"""On a page, shared evenly between its files."""
MARK = '<meta name="generator" content="crossmodal data check">'
"""By which a page is known to be ours."""
HEAD_BYTES = 1000


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


def require_free_sheet(path: Path) -> None:
    """Check that a sheet can be written there; call it before long work.

    Raises:
        UserError: there is a file that is no contact sheet, or a folder, or no folder to write it to.
    """
    if not path.parent.is_dir():
        raise UserError("there is no such folder", where=path.parent, how="create it, or name another file")
    if path.is_dir():
        raise UserError("is a folder", where=path, how="name a file")
    if path.exists() and not (path.is_file() and _is_sheet(path)):
        raise UserError("is no contact sheet, and is not overwritten", where=path, how="name another file")


def _is_sheet(path: Path) -> bool:
    with path.open("rb") as stream:
        return MARK.encode() in stream.read(HEAD_BYTES)


def write_sheet(path: Path, files: Mapping[str, Sequence[SheetImage]]) -> None:
    """Write the sheet: a page that needs nothing else, with images at equal distances in each file.

    Args:
        files: name of an annotation file → its images.
    Raises:
        UserError: as `require_free_sheet`, or an image cannot be read.
    """
    require_free_sheet(path)
    most = max(1, IMAGES // max(1, len(files)))
    parts = [
        {"title": name, "count": len(images), "cards": [_card(images[row]) for row in chosen_rows(len(images), most)]}
        for name, images in files.items()
    ]
    content = {"title": "Contact sheet", "mark": Markup(f"{MARK}\n"), "parts": parts}
    write_atomically(path, render("contact_sheet.html", content))


def chosen_rows(count: int, most: int) -> list[int]:
    """Up to `most` of `count` rows, at equal distances."""
    return [row * count // min(count, most) for row in range(min(count, most))]


def _card(image: SheetImage) -> dict[str, object]:
    """An image as the template shows it."""
    boxes = [region.box for region in image.regions]
    regions = [(region, box_colour(number)) for number, region in enumerate(image.regions)]
    return {"image": image, "source": numbered_picture(image.path, boxes), "regions": regions}

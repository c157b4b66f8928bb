"""Flickr30k Entities: `Annotations/*.xml` with boxes in pixels, `Sentences/*.txt` with captions in brackets.

A line is `[/EN#1/people Two young guys] with [/EN#2/bodyparts shaggy hair] .`; the number names the boxes of the XML
file that have it, and 0 is nothing visible. Splits are `train.txt`, `val.txt` and `test.txt` beside the two folders.
Source: Plummer et al. 2015 (1505.04870), github.com/BryanPlummer/flickr30k_entities.
"""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NoReturn
from xml.etree import ElementTree

from core.data.geometry import Box
from core.data.images import file_problem
from core.data.split_names import split_called
from core.errors import UserError
from core.files.text_files import read_text
from core.formats.records import Findings, Record, Region

ANNOTATIONS, SENTENCES, UNRELATED = "Annotations", "Sentences", "UNRELATED_CAPTIONS"
PHRASE = re.compile(r"\[/EN#(\w+)(?:/[^\s\]]*)?\s+(.*?)\](?=\s|$)")
MARK = "[/EN#"
SUFFIX = ".jpg"
"""Of images whose XML file does not name them."""


def read(folder: Path, split: str, findings: Findings) -> Iterator[Record]:
    """Each caption of each image with its phrases, in order of the images' names.

    Args:
        split: of images that no list of a split names.
    """
    splits, unrelated = _splits(folder), _unrelated(folder)
    for path in sorted((folder / SENTENCES).glob("*.txt")):
        try:
            name, size, boxes = _annotation(folder / ANNOTATIONS / f"{path.stem}.xml", path.stem, findings)
            lines = _text(path).split("\n")
        except UserError as error:
            findings.drop("image whose files cannot be read", str(path), str(error))
            continue
        for number, line in enumerate(lines, start=1):
            where = f"{path}: line {number}"
            if not line.strip():
                continue
            if (path.stem, str(number)) in unrelated:
                findings.drop("caption listed in UNRELATED_CAPTIONS", where)
                continue
            caption, phrases = parse_line(line)
            if MARK in caption or not caption:
                findings.drop("line whose brackets do not close", where)
                continue
            regions = tuple(Region(text, boxes[key]) for key, text in phrases if key in boxes)
            yield Record(where, (name,), (caption,), splits.get(path.stem, split), regions, size=size)


def parse_line(line: str) -> tuple[str, list[tuple[str, str]]]:
    """A caption without its brackets, and its phrases: number and text."""
    phrases = [(key, " ".join(text.split())) for key, text in PHRASE.findall(line)]
    return " ".join(PHRASE.sub(lambda match: match[2], line).split()), [(key, text) for key, text in phrases if text]


def _annotation(path: Path, stem: str, findings: Findings) -> tuple[str, tuple[int, int] | None, Mapping[str, Box]]:
    """Name of the image, its size, and number of a phrase → the smallest box around all of its boxes.

    Boxes count from pixel 1; as the authors' own code, this moves them by one pixel.
    """
    if not path.exists():
        findings.repaired["image without boxes, since it has no XML file"] += 1
        return stem + SUFFIX, None, {}
    root = _parsed(path)
    found: dict[str, list[Box]] = {}
    for item in root.iter("object"):
        corners = item.find("bndbox")
        if corners is None:
            continue  # a scene, or nothing visible
        try:
            x1, y1, x2, y2 = (float(corners.findtext(edge, "")) - 1 for edge in ("xmin", "ymin", "xmax", "ymax"))
        except ValueError:
            findings.drop("box that is not four numbers", str(path))
            continue
        for key in item.iter("name"):
            found.setdefault((key.text or "").strip(), []).append((x1, y1, x2, y2))
    findings.repaired["several boxes of a phrase replaced by one around them"] += sum(
        len(b) > 1 for b in found.values()
    )
    name = (root.findtext("filename") or "").strip() or stem + SUFFIX
    return name, _size(root), {key: _around(boxes) for key, boxes in found.items()}


def _size(root: ElementTree.Element) -> tuple[int, int] | None:
    """Width and height; None if they are not given, so that the image file is asked."""
    try:
        width, height = int(root.findtext("size/width", "")), int(root.findtext("size/height", ""))
    except ValueError:
        return None
    return (width, height) if width > 0 and height > 0 else None


def _around(boxes: list[Box]) -> Box:
    lefts, tops, rights, bottoms = zip(*boxes, strict=True)
    return min(lefts), min(tops), max(rights), max(bottoms)


class _WithoutDoctype(ElementTree.TreeBuilder):
    """Builds a tree; refuses the declarations with which entities are made to expand endlessly."""

    def doctype(self, name: str, pubid: str | None, system: str | None) -> NoReturn:
        raise UserError("declares a document type, which no file of Flickr30k Entities does")


def _parsed(path: Path) -> ElementTree.Element:
    if problem := file_problem(path):
        raise UserError(problem, where=path)
    try:
        return ElementTree.parse(path, ElementTree.XMLParser(target=_WithoutDoctype())).getroot()
    except (ElementTree.ParseError, ValueError, LookupError) as error:  # LookupError: an unknown encoding
        raise UserError(f"is not valid XML ({error})", where=path) from None


def _text(path: Path) -> str:
    if problem := file_problem(path):
        raise UserError(problem, where=path)
    return read_text(path)


def _splits(folder: Path) -> dict[str, str]:
    """Name of an image → its split."""
    lists = [path for path in sorted(folder.glob("*.txt")) if split_called(path.stem)]
    return {name: path.stem for path in lists for name in _text(path).split()}


def _unrelated(folder: Path) -> set[tuple[str, str]]:
    """Image and line of the captions that its authors found to be of other images."""
    path = folder / UNRELATED
    lines = [line.split() for line in _text(path).splitlines()] if path.exists() else []
    return {(line[0], line[1]) for line in lines if len(line) == 2}

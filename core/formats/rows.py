"""Rows with named columns as records: what JSON lists, JSON Lines, CSV, Arrow and webdataset have in common.

Columns are known by the names that published data sets use, in any case.
"""

import ast
import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from core.data.geometry import RELATIONS
from core.data.other_formats import IMAGE
from core.errors import UserError
from core.formats.boxes import Layout
from core.formats.records import Findings, Record, Region

CAPTION = ("caption", "captions", "text", "texts", "raw", "sentences_raw", "comment", "description", "sentences")
NUMBERED_CAPTION = re.compile(r"(caption|text|sentence|comment)[ _]?\d+")
SENTENCE = ("sentences", "sentence", "phrases", "phrase", "expression", "ref")
BOX = ("bboxes", "boxes", "bbox", "box")
RELATION = ("relations",)
CORNERS: dict[Layout, tuple[tuple[str, ...], ...]] = {
    "xyxy": (("x1", "y1", "x2", "y2"), ("xmin", "ymin", "xmax", "ymax"), ("x_min", "y_min", "x_max", "y_max")),
    "xywh": (("x", "y", "w", "h"), ("x", "y", "width", "height")),
    "cxcywh": (("cx", "cy", "w", "h"), ("cx", "cy", "width", "height")),
}
"""Layout → names of four columns that hold one box each row."""
SPLIT = "split"


def record_of_row(row: Mapping[str, Any], where: str, split: str, findings: Findings) -> Record | None:
    """A row as a record; None if it was dropped.

    Args:
        row: column name → any JSON value; in CSV, lists are written as JSON or as Python prints them.
        split: of the row's file, if the row has none of its own.
    """
    cells = {str(name).strip().lower(): value for name, value in row.items()}
    name = first_of(cells, IMAGE)
    if not isinstance(name, str) or not name.strip():
        findings.drop("record without an image", where)
        return None
    regions, used = _regions(cells, where, findings)
    captions = captions_of(_captions(cells, used), where, findings)
    if not captions:
        return None
    if used == ("",):  # a row of image, caption and box
        regions = tuple(Region(captions[0], region.box, region.relation) for region in regions)
    own = cells.get(SPLIT)
    return Record(
        where=where,
        names=(name.strip(),),
        captions=captions,
        split=own.strip() if isinstance(own, str) and own.strip() else split,
        regions=regions,
        layout=layout_by_columns(cells),
        fields=row,
    )


def first_of(cells: Mapping[str, Any], names: tuple[str, ...]) -> Any:
    """The first of these columns that is there and not empty."""
    return next((cells[name] for name in names if not is_empty(cells.get(name))), None)


def is_empty(value: Any) -> bool:
    """Whether a cell holds nothing: null, blank, an empty list, or the NaN of an empty cell."""
    return value is None or value == [] or (isinstance(value, str) and not value.strip()) or value != value


def captions_of(values: Any, where: str, findings: Findings) -> tuple[str, ...]:
    """Text or a list of texts as captions, blank ones dropped; empty if none is left, which is then a counted drop."""
    listed = values if isinstance(values, list) else [values]
    kept = []
    for value in listed:
        if is_empty(value):
            findings.repaired["empty caption dropped"] += len(listed) > 1
        elif not is_text(value):
            findings.drop("caption that is not text", where, value)
            return ()
        else:
            kept.append(value.strip())
    if not kept:
        findings.drop("record without a caption", where)
    return tuple(kept)


def is_text(value: Any) -> bool:
    """Whether a value is text that can be written as UTF-8."""
    if not isinstance(value, str):
        return False
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def layout_by_columns(cells: Mapping[str, Any]) -> Layout | None:
    """The layout of boxes in four columns of their own, by the names of these columns."""
    return next((layout for layout, kinds in CORNERS.items() for names in kinds if set(names) <= set(cells)), None)


def require_columns(names: list[str], where: object) -> None:
    """Refuse a table without a column of images or of captions.

    Raises:
        UserError: names the columns that there are.
    """
    known = {name.strip().lower() for name in names}
    captioned = known & set(CAPTION) or any(NUMBERED_CAPTION.fullmatch(name) for name in known)
    for kind, found, example in (("images", known & set(IMAGE), IMAGE[0]), ("captions", captioned, CAPTION[0])):
        if not found:
            raise UserError(
                f"has no column of {kind}; its columns are {', '.join(names)[:200]}",
                where=where,
                how=f"name the column {example} in its first line, or rename it in a Hugging Face data set",
            )


def _captions(cells: Mapping[str, Any], used: tuple[str, ...]) -> Any:
    value = first_of(cells, tuple(name for name in CAPTION if name not in used))
    if value is not None:
        return _listed(value)
    numbered = [value for name, value in cells.items() if NUMBERED_CAPTION.fullmatch(name) and name not in used]
    return numbered or first_of(cells, tuple(name for name in used if name in SENTENCE[1:]))


def _regions(cells: Mapping[str, Any], where: str, findings: Findings) -> tuple[tuple[Region, ...], tuple[str, ...]]:
    """Sentences with boxes, and the names of the columns that they came from."""
    boxes = _boxes(cells)
    if boxes is None:
        return (), ()
    key = next((name for name in SENTENCE if not is_empty(cells.get(name))), "")
    sentences = _listed(cells.get(key))
    relations = _listed(first_of(cells, RELATION))
    sentences = sentences if isinstance(sentences, list) else [sentences] * len(boxes)
    relations = relations if isinstance(relations, list) else [None] * len(boxes)
    if not len(sentences) == len(boxes) == len(relations):
        findings.drop("boxes that are not one for each sentence", where, f"{len(sentences)} and {len(boxes)}")
        return (), (key,)
    found = []
    for sentence, box, relation in zip(sentences, boxes, relations, strict=True):
        if is_empty(box) or (key and is_empty(sentence)):
            continue  # either may be absent
        if key and not is_text(sentence):
            findings.drop("sentence that is not text", where, sentence)
            continue
        known = relation if relation in RELATIONS else None
        findings.repaired["unknown relation dropped"] += known is None and not is_empty(relation)
        found.append(Region(sentence.strip() if key else "", box, known))
    return tuple(found), (key,)


def _boxes(cells: Mapping[str, Any]) -> list[Any] | None:
    value = _listed(first_of(cells, BOX))
    if isinstance(value, list):
        return value if any(isinstance(part, list) for part in value) or is_all_empty(value) else [value]
    for names in (names for kinds in CORNERS.values() for names in kinds):
        if set(names) <= set(cells):
            numbers = [_number(cells[name]) for name in names]
            return [None if is_all_empty(numbers) else numbers]
    return None if value is None else [value]


def is_all_empty(values: list[Any]) -> bool:
    """Whether a list holds nothing but empty cells."""
    return all(is_empty(value) for value in values)


def _number(cell: Any) -> Any:
    try:
        return float(cell) if isinstance(cell, str) else cell
    except ValueError:
        return None if not cell.strip() else cell


def _listed(cell: Any) -> Any:
    """The list that a text stands for, as JSON or as Python prints it; any other value is left as it is."""
    if not isinstance(cell, str) or not (cell.strip().startswith("[") and cell.strip().endswith("]")):
        return cell
    for parse in (json.loads, ast.literal_eval):
        try:
            value = parse(cell.strip())
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            continue
        if isinstance(value, list):
            return value
    return cell


def rows_of(values: Iterator[tuple[str, Any]], split: str, findings: Findings) -> Iterator[Record]:
    """Records of rows that may be anything; one that is not an object is dropped.

    Args:
        values: place and row.
    """
    for where, row in values:
        if not isinstance(row, dict):
            findings.drop("record that is not an object", where)
        elif record := record_of_row(row, where, split, findings):
            yield record

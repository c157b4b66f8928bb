"""COCO's captions (`captions_train2017.json`): `images` with `id` and `file_name`, `annotations` with `image_id`.

Several annotations name one image; an image without any is left out and counted.
Source: Chen et al. 2015 (1504.00325), cocodataset.org.
"""

from collections.abc import Iterator
from pathlib import Path, PurePath
from typing import Any

from core.errors import UserError
from core.files.json_files import read_json
from core.formats.records import Findings, Record
from core.formats.rows import captions_of


def read(path: Path, split: str, findings: Findings) -> Iterator[Record]:
    """Images of the file in its order, each with all its captions.

    Args:
        split: of the whole file.
    """
    content = read_json(path)
    images, annotations = _lists(content, path)
    captions: dict[str, list[Any]] = {}
    for number, annotation in enumerate(annotations):
        if isinstance(annotation, dict) and "caption" in annotation:
            captions.setdefault(str(annotation.get("image_id")), []).append(annotation["caption"])
        else:
            findings.drop("annotation without a caption", f"{path}: annotation {number}")
    for number, image in enumerate(images):
        where = f"{path}: image {number}"
        if not isinstance(image, dict) or not isinstance(image.get("file_name"), str) or not image["file_name"].strip():
            findings.drop("record without an image", where)
            continue
        texts = captions_of(captions.pop(str(image.get("id")), []), where, findings)
        if texts:
            yield Record(where, _names(image, path), texts, split, fields=image)
    for unknown, unused in captions.items():
        findings.drop("captions of an image that is not listed", str(path), f"{len(unused)} of image_id {unknown}")


def _lists(content: Any, path: Path) -> tuple[list[Any], list[Any]]:
    match content:
        case {"images": [*images], "annotations": [*annotations]}:
            return images, annotations
    raise UserError("has no lists of images and annotations, as a COCO file has", where=path)


def _names(image: dict[str, Any], path: Path) -> tuple[str, ...]:
    """The images of a split lie in a folder named like the end of the file's name: `train2017/`."""
    name = image["file_name"].strip()
    folder = path.stem.rpartition("_")[2]
    return name, str(PurePath(folder) / name)

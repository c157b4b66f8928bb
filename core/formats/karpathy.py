"""Karpathy's `dataset_*.json` (COCO, Flickr8k, Flickr30k) and files made after it (RSICD, UCM, Sydney, VizWiz).

One object: `images`, each with `filename`, in COCO's `filepath`, `split`, and `sentences`, each with `raw` and
`tokens`.
Source: Karpathy and Fei-Fei 2015 (1412.2306), caption_datasets.zip.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from core.errors import UserError
from core.files.json_files import read_json
from core.formats.records import Findings, Record
from core.formats.rows import captions_of


def read(path: Path, split: str, findings: Findings) -> Iterator[Record]:
    """Images of the file, each with all its captions.

    Args:
        split: of images that do not say theirs.
    """
    content = read_json(path)
    images = content.get("images") if isinstance(content, dict) else None
    if not isinstance(images, list):
        raise UserError("has no list of images, as a Karpathy file has", where=path)
    for number, image in enumerate(images):
        where = f"{path}: image {number}"
        if not isinstance(image, dict) or not isinstance(image.get("filename"), str) or not image["filename"].strip():
            findings.drop("record without an image", where)
            continue
        captions = captions_of(_sentences(image.get("sentences")), where, findings)
        if captions:
            own = image.get("split")
            yield Record(where, _names(image), captions, own if isinstance(own, str) else split, fields=image)


def _names(image: dict[str, Any]) -> tuple[str, ...]:
    """COCO's images lie in a folder for each of its own splits, named by `filepath`."""
    name, folder = image["filename"].strip(), image.get("filepath")
    return (f"{folder.strip('/')}/{name}", name) if isinstance(folder, str) and folder.strip("/ ") else (name,)


def _sentences(value: Any) -> Any:
    return [_text(sentence) for sentence in value] if isinstance(value, list) else value


def _text(sentence: Any) -> Any:
    """The raw text; its words if that is absent."""
    if not isinstance(sentence, dict):
        return sentence
    raw, tokens = sentence.get("raw"), sentence.get("tokens")
    if raw is None and isinstance(tokens, list) and all(isinstance(token, str) for token in tokens):
        return " ".join(tokens)
    return raw

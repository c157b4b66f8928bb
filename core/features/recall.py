"""What reading the annotations gave, remembered for as long as nothing changes that it depends on.

That is every byte of the annotation files, the digest and the identity of every image, the settings, and our code that
reads them. Parsing and checking again would give the same, so a start that has no use for the texts can leave it out.
"""

import hashlib
import inspect
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path

from core.config import DataConfig
from core.data import annotations, entries, geometry, images, splits
from core.features import fingerprint
from core.files.digests import file_digests, write_to_memory
from core.files.sealed import read_sealed


@dataclass(frozen=True, slots=True)
class ReadData:
    """What a start needs to know of the annotated images of all splits."""

    digest: str
    """Of annotations, splits and image files."""
    names: str
    """Digest of the names of all images, under which vectors of other encoders are found."""
    repaired: dict[str, int]
    """Kind of repair of the annotations → number of repairs."""
    notes: dict[str, int]
    """Suspicious but valid content of the annotations → number of occurrences."""
    boxes: bool
    """Whether the training data have any."""
    relations: bool
    groups: bool
    """Whether any two training images are of one building."""


def recall(data: DataConfig, memory: Path) -> ReadData | None:
    """What was found when the same annotations and images were read before; None if anything may have changed.

    Args:
        memory: folder that remembers digests of files; a sample of the images is read again, as `file_digests` does.
    Raises:
        UserError: `memory` has files of another program.
    """
    try:
        content = read_sealed(_place(data, memory))
        unchanged = content["annotations"] == annotation_digests(data)
        if unchanged and content["images"] == _images_digest([Path(path) for path in content["paths"]], memory):
            return ReadData(**content["found"])
    except (OSError, ValueError, KeyError):  # no such file, or a missing image, which reading will name
        pass
    return None


def remember(
    data: DataConfig, memory: Path, paths: Sequence[Path], annotations: list[str | None], found: ReadData
) -> None:
    """Remember what was found, unless the annotations changed meanwhile.

    Args:
        paths: of all pictures.
        annotations: their digests before they were read.
    """
    if annotations != annotation_digests(data):
        return
    content = {"annotations": annotations, "images": _images_digest(paths, memory), "paths": list(map(str, paths))}
    write_to_memory(_place(data, memory), {**content, "found": asdict(found)})


def annotation_digests(data: DataConfig) -> list[str | None]:
    """Digest of the bytes of each annotation file; None for one that cannot be read."""
    return [_file_digest(path) for path in (data.train_annotations, data.test_annotations) if path is not None]


def _file_digest(path: Path) -> str | None:
    if not path.is_file():  # a pipe would block
        return None
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _images_digest(paths: Sequence[Path], memory: Path) -> str:
    """Of content and identity: a copy that becomes a link to another image is that image from then on."""
    stats = [path.stat() for path in paths]
    return _digest(json.dumps([[(stat.st_dev, stat.st_ino) for stat in stats], file_digests(paths, memory)]).encode())


def _place(data: DataConfig, memory: Path) -> Path:
    """A file for these settings and this code."""
    used = data.model_dump(mode="json", exclude={"train_on"})
    key = json.dumps([used, str(data.image_root and data.image_root.resolve()), _code()], sort_keys=True)
    return memory / f"{_digest(key.encode())[:32]}.json"


@cache
def _code() -> str:
    """Digest of the modules that decide what is read, and how it is digested and remembered."""
    modules = (annotations, entries, geometry, images, splits, fingerprint, sys.modules[__name__])
    return _digest("".join(map(inspect.getsource, modules)).encode())


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()

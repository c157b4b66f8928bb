"""Paths and backbone names in a configuration: validated, and made absolute relative to the file they are in."""

import os
import re
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, BeforeValidator, ValidationInfo

from core.files.yaml_files import unfit_character

PLACES = {"data": {"train_annotations", "test_annotations", "image_root"}, "features": {"backbone", "vectors", "store"}}
"""Settings that are locations. Their content is covered by the fingerprint of the features."""


def require_place(value: object) -> object:
    """Check that a string can name a file or folder; values of other types are returned unchecked.

    Raises:
        ValueError: the name is empty, cannot be a path, or starts with an environment variable or an unknown ~user.
    """
    if not isinstance(value, str | Path):
        return value
    name = str(value)
    if not name.strip():
        raise ValueError("must be the name of a file or folder (./ is the folder of this file)")
    if unfit_character(name):
        raise ValueError("must be a path in UTF-8, on one line")
    if any(len(part.encode()) > 255 for part in name.split("/")):
        raise ValueError("must be a path whose parts have at most 255 bytes each")
    if re.match(r"\$[{(\w]", name):
        raise ValueError("must be a path without environment variables")
    try:
        Path(name).expanduser()
    except RuntimeError:
        raise ValueError("must be a path whose ~ refers to a user of this machine") from None
    return value


def absolute_path(path: Path, info: ValidationInfo) -> Path:
    """Resolve a path relative to the folder `base` in the validation context, since workers run in other folders.

    Without a `base` the path is returned unchanged.

    Raises:
        ValueError: as `require_place`, for the resolved path.
    """
    base = (info.context or {}).get("base")
    if base is None:
        return path
    absolute = os.path.realpath(base / path.expanduser())  # Path.resolve fails on circular links
    require_place(absolute)
    return Path(absolute)


def _absolute_backbone(name: str, info: ValidationInfo) -> str:
    base = (info.context or {}).get("base")
    if name.startswith((".", "/", "~")) or (base is not None and os.path.isdir(base / name)):  # noqa: PTH112
        return str(absolute_path(Path(name), info))
    if len(name) > 96 or not re.fullmatch(r"(?:[A-Za-z0-9][A-Za-z0-9_.-]*/)?[A-Za-z0-9][A-Za-z0-9_.-]*", name):
        raise ValueError("must be a folder relative to this file, or a hub id like owner/name")
    return name


FilePath = Annotated[Path, BeforeValidator(require_place), AfterValidator(absolute_path)]
BackboneName = Annotated[str, BeforeValidator(require_place), AfterValidator(_absolute_backbone)]

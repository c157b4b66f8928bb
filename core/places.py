"""Files, folders and backbones as a configuration names them: relative to the file in which they stand."""

import os
import re
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, BeforeValidator, ValidationInfo

from core.files.yaml_files import unfit_character

PLACES = {"data": {"train_annotations", "test_annotations", "image_root"}, "features": {"backbone", "store"}}
"""Settings that say where something lies. What lies there, the fingerprint of the features tells by its content."""


def require_place(value: object) -> object:
    """Refuse what names no file or folder, wherever it is read from; anything but a name passes."""
    if not isinstance(value, str | Path):
        return value
    name = str(value)
    if not name.strip():
        raise ValueError("the name of a file or folder is needed, ./ for the one of this file")
    if unfit_character(name):
        raise ValueError("a path in UTF-8 and on one line is needed")
    if any(len(part.encode()) > 255 for part in name.split("/")):
        raise ValueError("a path whose names have at most 255 bytes is needed")
    if re.match(r"\$[{(\w]", name):
        raise ValueError("a path without variables of the environment is needed")
    try:
        Path(name).expanduser()
    except RuntimeError:
        raise ValueError("a path whose ~ belongs to a user of this machine is needed") from None
    return value


def absolute_path(path: Path, info: ValidationInfo) -> Path:
    """Relative paths in a file are relative to that file: workers run in other folders."""
    base = (info.context or {}).get("base")
    if base is None:
        return path
    absolute = os.path.realpath(base / path.expanduser())  # Path.resolve fails where links go in a circle
    require_place(absolute)
    return Path(absolute)


def _absolute_backbone(name: str, info: ValidationInfo) -> str:
    base = (info.context or {}).get("base")
    if name.startswith((".", "/", "~")) or (base is not None and os.path.isdir(base / name)):  # noqa: PTH112
        return str(absolute_path(Path(name), info))
    if len(name) > 96 or not re.fullmatch(r"(?:[A-Za-z0-9][A-Za-z0-9_.-]*/)?[A-Za-z0-9][A-Za-z0-9_.-]*", name):
        raise ValueError("a folder, seen from this file, or a hub id like owner/name is needed")
    return name


FilePath = Annotated[Path, BeforeValidator(require_place), AfterValidator(absolute_path)]
BackboneName = Annotated[str, BeforeValidator(require_place), AfterValidator(_absolute_backbone)]

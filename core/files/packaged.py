"""Configurations that are installed with this package, such as `configs/demo/two_stage.yaml`.

They are next to our packages, both in a checkout and in an installation. If the working folder has no file of such a
name, the installed one is read as if it were there: its paths are relative to the working folder.
"""

import os
from pathlib import Path

CONFIGS = Path(__file__).resolve().parent.parent.parent / "configs"


def find_file(path: Path) -> Path:
    """The file to read for a path: itself if it exists, else an installed configuration of that name, if any."""
    if path.exists():
        return path
    absolute = Path(os.path.abspath(path))  # noqa: PTH100 (unlike resolve, it drops `missing/..`)
    if absolute.exists():
        return absolute
    folder = Path.cwd() / CONFIGS.name
    installed = CONFIGS / absolute.relative_to(folder) if absolute.is_relative_to(folder) else path
    return installed if installed.is_file() else path


def is_installed(path: Path) -> bool:
    """Whether `find_file` returns an installed file for a path."""
    return not path.exists() and find_file(path).is_relative_to(CONFIGS)

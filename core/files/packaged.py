"""The configurations that are installed with this package, and their names: `configs/demo/two_stage.yaml`.

They stand beside our packages, in a checkout as in an installation. In a folder that has no file of such a name the
installed one is read, as if it stood there: its relative paths lead to that folder's `data/` and `output/`.
"""

import os
from pathlib import Path

CONFIGS = Path(__file__).resolve().parent.parent.parent / "configs"


def find_file(path: Path) -> Path:
    """The file to read for a path: itself where it exists, else an installed configuration of that name, if any."""
    if path.exists():
        return path
    whole = Path(os.path.abspath(path))  # noqa: PTH100 (a folder that is missing and left again by .. is no obstacle)
    if whole.exists():
        return whole
    folder = Path.cwd() / CONFIGS.name
    installed = CONFIGS / whole.relative_to(folder) if whole.is_relative_to(folder) else path
    return installed if installed.is_file() else path


def is_installed(path: Path) -> bool:
    """Whether `find_file` leads to the installed file instead of one in the working folder."""
    return not path.exists() and find_file(path).is_relative_to(CONFIGS)

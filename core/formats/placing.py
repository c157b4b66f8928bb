"""Where the images of a source are, and how they come below images/: linked, copied, or written as they are."""

import errno
import re
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from core.data.images import file_problem
from core.errors import UserError
from core.formats.records import Findings, Record

FOLDER_OF_ANNOTATIONS = "annotations"
NOT_A_NAME = (errno.ENAMETOOLONG, errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.EINVAL, errno.ELOOP)


def link(source: Path, target: Path) -> None:
    """Make `target` a symbolic link to a file."""
    target.symlink_to(source.absolute())


def copy(source: Path, target: Path) -> None:
    """Copy a file's content."""
    shutil.copyfile(source, target)


@dataclass(slots=True)
class Images:
    """Puts images below a folder, each once."""

    folder: Path
    roots: Sequence[Path]
    """Folders that paths of the source may start from, the likeliest first."""
    transfer: Callable[[Path, Path], None]
    """`link` or `copy`."""
    named: bool
    """Whether the user named the folder; then a file below it is found without its folders, too."""
    _placed: set[str] = field(default_factory=set)

    def place(self, record: Record, findings: Findings) -> str | None:
        """Path of a record's image below the folder; None if there is none, which is then a counted drop."""
        place = _below(record.place or record.names[0], self.roots)
        if place is None:
            findings.drop("image outside the folders of images", record.where, record.names[0])
            return None
        if place in self._placed:
            return place
        target = self.folder / place
        try:
            if record.content is not None:
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(record.content)
            else:
                source = self._find(record)
                if isinstance(source, str):
                    findings.drop(f"image that {source}", record.where, record.names[0])
                    return None
                target.parent.mkdir(parents=True, exist_ok=True)
                self.transfer(source, target)
        except (OSError, ValueError) as error:
            if isinstance(error, OSError) and error.errno not in NOT_A_NAME:
                raise
            findings.drop("image whose path no file can have", record.where, record.names[0])
            return None
        self._placed.add(place)
        return place

    def _find(self, record: Record) -> Path | str:
        """The image's file, or the reason why there is none."""
        names = [*record.names, *(name.replace("\\", "/") for name in record.names if "\\" in name)]
        names = [below for name in names if (below := _below(name, self.roots))]
        if self.named:
            names += [PurePosixPath(name).name for name in names]
        problem = "is missing"
        for path in (root / name for name in dict.fromkeys(names) for root in self.roots):
            if (found := file_problem(path)) is None:
                return path
            problem = problem if found == "is missing" else found
        return problem


def image_roots(source: Path, images: Path | None) -> list[Path]:
    """Folders in which images are looked for.

    Args:
        images: the folder that the user named; then only this one counts.
    Raises:
        UserError: the user's folder does not exist.
    """
    if images is not None:
        if not images.is_dir():
            raise UserError("there is no such folder of images", where=images, how="name it with --images")
        return [images]
    folder = source if source.is_dir() else source.parent
    return list(dict.fromkeys(_around(folder)))


def _around(folder: Path) -> Iterator[Path]:
    """A folder, those in it that are named after images, and the same above it if it is one of annotations."""
    yield folder
    below = sorted(path for path in folder.iterdir() if path.is_dir())
    yield from (path for path in below if re.search("image|img", path.name.lower()))
    if folder.absolute().name.lower() == FOLDER_OF_ANNOTATIONS:
        yield from _around(folder.absolute().parent)


def _below(name: str, roots: Sequence[Path]) -> str | None:
    """A path as one below a folder of images, if it stays there."""
    path = PurePosixPath(name)
    if path.is_absolute():
        ways = [way.as_posix() for root in roots for way in (root.absolute(), root.resolve())]
        path = next((path.relative_to(way) for way in ways if path.is_relative_to(way)), path)
    parts = [part for part in path.parts if part != "."]
    if path.is_absolute() or ".." in parts or not parts or "\0" in name:
        return None
    return "/".join(parts)

"""Reading tar and zip archives: the files in them one by one, as bytes. Nothing is extracted by the names in them."""

import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from functools import partial
from lzma import LZMAError
from pathlib import Path, PurePosixPath

from core.data.images import file_problem
from core.errors import UserError
from core.files.json_files import GIT_LFS_POINTER
from core.formats.records import Findings

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".tif", ".tiff", ".bmp", ".gif", ".ppm", ".pgm", ".pnm")
LARGEST = 2**30
"""Bytes; a larger file in an archive is left out, so that none fills the memory."""
AGAIN = "download or pack it again"
BROKEN = (tarfile.TarError, zipfile.BadZipFile, zlib.error, LZMAError, EOFError, RuntimeError, NotImplementedError)
"""What the standard library raises on damaged or encrypted archives, beside OSError and ValueError."""


def tar_members(path: Path, findings: Findings) -> Iterator[tuple[str, bytes]]:
    """Name and content of each regular file of a tar, compressed or not, in its order."""
    require_archive(path)
    try:
        with tarfile.open(path, "r|*") as archive:
            for member in archive:
                if member.isfile() and _is_usable(member.name, member.size, path, findings):
                    stream = archive.extractfile(member)
                    assert stream is not None, "a regular file"
                    yield member.name, stream.read()
    except (*BROKEN, OSError, ValueError) as error:
        raise UserError(f"is not an intact tar file ({error})", where=path, how=AGAIN) from None


def zip_members(path: Path, findings: Findings) -> Iterator[tuple[str, Callable[[], bytes]]]:
    """Name of each file of a zip, and a function that reads it."""
    require_archive(path)
    try:
        with zipfile.ZipFile(path) as archive:
            for member in archive.infolist():
                if not member.is_dir() and _is_usable(member.filename, member.file_size, path, findings):
                    yield member.filename, partial(_read, archive, member, path)
    except (*BROKEN, OSError, ValueError) as error:
        raise UserError(f"is not an intact zip file ({error})", where=path, how=AGAIN) from None


def _read(archive: zipfile.ZipFile, member: zipfile.ZipInfo, path: Path) -> bytes:
    try:
        return archive.read(member)
    except (*BROKEN, OSError, ValueError) as error:
        raise UserError(f"is not an intact zip file ({error})", where=path, how=AGAIN) from None


def members(path: Path, findings: Findings) -> Iterator[tuple[str, Callable[[], bytes]]]:
    """Name of each file of a tar or zip, and a function that reads it, which must be called before the next one."""
    if is_zip(path):
        yield from zip_members(path, findings)
    else:
        for name, content in tar_members(path, findings):
            yield name, partial(bytes, content)


def is_zip(path: Path) -> bool:
    """Whether a file's first bytes are those of a zip."""
    with path.open("rb") as stream:
        return stream.read(4) in (b"PK\3\4", b"PK\5\6")


def require_archive(path: Path) -> None:
    """Refuse what is no regular file, or a Git LFS pointer.

    Raises:
        UserError: it is one.
    """
    if problem := file_problem(path):
        raise UserError(problem, where=path)
    with path.open("rb") as stream:
        if stream.read(len(GIT_LFS_POINTER)) == GIT_LFS_POINTER:
            raise UserError("is a Git LFS pointer, not the archive itself", where=path, how="run git lfs pull")


def _is_usable(name: str, size: int, path: Path, findings: Findings) -> bool:
    if size > LARGEST:
        findings.drop("file of more than 1 GiB", f"{path}: {name}")
        return False
    return not PurePosixPath(name).name.startswith("._")  # resource forks of macOS

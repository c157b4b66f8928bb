"""Which format a file or folder has, and which files of it are read for which split."""

import tarfile
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from core.data.images import file_problem
from core.data.other_formats import NAMES, Format, format_of_file, format_of_json
from core.data.split_names import TRAIN, split_in_name
from core.errors import UserError
from core.files.json_files import read_json
from core.formats import arrow, entities, geotext
from core.formats.archives import AGAIN, BROKEN, is_zip, require_archive

SUFFIXES: dict[Format, tuple[str, ...]] = {
    "geotext": (".json",), "karpathy": (".json",), "coco": (".json",), "xvlm": (".json",),
    "jsonl": (".jsonl", ".ndjson", ".json"), "csv": (".csv", ".tsv", ".txt"), "webdataset": (".tar", ".tar.gz", ".tgz"),
}  # fmt: skip
ONE_FILE_A_SPLIT: tuple[Format, ...] = ("karpathy", "coco", "xvlm")
MEMBERS_LOOKED_AT = 1000
"""Of a tar, to tell an archive of GeoText from a webdataset."""


@dataclass(frozen=True, slots=True)
class Detected:
    """A format, and what its reader is called with."""

    format: Format
    parts: tuple[tuple[Path, str], ...]
    """Files or folders to read, in order, each with the split of what does not say its own."""


def detect(path: Path, declared: Format | None = None) -> Detected:
    """The format of a source and its parts.

    Args:
        declared: the format, if the user named it.
    Raises:
        UserError: the source is of no known format, or of several.
    """
    if not path.exists():
        raise UserError("there is no such file or folder", where=path)
    if path.is_dir():
        return _of_folder(path, declared)
    return Detected(declared or _of_file(path), ((path, split_in_name(path)),))


def _of_file(path: Path) -> Format:
    if problem := file_problem(path):
        raise UserError(problem, where=path)
    if path.name.lower().endswith(geotext.ARCHIVES):
        return _of_archive(path)
    found: Format | None
    if path.suffix.lower() == ".json":
        try:
            content = read_json(path)
        except UserError:
            if (found := format_of_file(path)) is None:
                raise
        else:
            found = format_of_json(content)
    else:
        found = format_of_file(path)
    if found is None:
        raise UserError(
            "is of no known format" + (", but an Arrow file" if path.suffix == ".arrow" else ""),
            where=path,
            how="name the folder it lies in" if path.suffix == ".arrow" else f"known are {_known()}; name it --format",
        )
    return found


def _of_archive(path: Path) -> Format:
    """GeoText's if its annotations are in it, else a webdataset."""
    require_archive(path)
    try:
        if is_zip(path):
            with zipfile.ZipFile(path) as archive:
                if any(geotext.is_annotation(PurePosixPath(name).name) for name in archive.namelist()):
                    return "geotext"
            raise UserError("is a zip without train.json or test.json", where=path, how="unpack it, name its folder")
        with tarfile.open(path, "r|*") as tar:
            for number, member in enumerate(tar):
                if geotext.is_annotation(PurePosixPath(member.name).name):
                    return "geotext"
                if number == MEMBERS_LOOKED_AT:
                    break
    except (*BROKEN, OSError, ValueError) as error:
        raise UserError(f"is not an intact archive ({error})", where=path, how=AGAIN) from None
    return "webdataset"


def _of_folder(folder: Path, declared: Format | None) -> Detected:
    found = declared or _marked(folder)
    match found:
        case "arrow":
            return Detected("arrow", _arrow_parts(folder))
        case "entities":
            return Detected("entities", ((folder, TRAIN),))
        case "geotext":
            return Detected("geotext", ((folder, TRAIN),))
        case None:
            found, files = _kind_of_files(folder)
        case _:
            files = [path for path in _files(folder) if path.name.lower().endswith(SUFFIXES[found])]
    if not files:
        raise UserError(
            f"holds no file of the format {found}", where=folder, how="leave out --format, or name another folder"
        )
    parts = tuple((path, split_in_name(path)) for path in files)
    if found in ONE_FILE_A_SPLIT and len({split for _, split in parts}) < len(parts):
        raise UserError(
            f"holds several files of one split: {', '.join(path.name for path in files)[:200]}",
            where=folder,
            how="name one of them, or put those of one data set in a folder of their own",
        )
    return Detected(found, parts)


def _marked(folder: Path) -> Format | None:
    """The format of a folder that one of its names gives away."""
    if (folder / arrow.SPLITS).is_file() or (folder / arrow.STATE).is_file():
        return "arrow"
    if (folder / entities.ANNOTATIONS).is_dir() and (folder / entities.SENTENCES).is_dir():
        return "entities"
    annotations = [path for path in sorted(folder.glob("*.json")) if geotext.is_annotation(path.name)]
    if annotations and all(format_of_json(read_json(path)) == "geotext" for path in annotations):
        return "geotext"
    return None


def _arrow_parts(folder: Path) -> tuple[tuple[Path, str], ...]:
    if (folder / arrow.SPLITS).is_file():
        return tuple((folder / name, name) for name in arrow.splits_of(folder))
    return ((folder, split_in_name(folder / arrow.STATE)),)


def _kind_of_files(folder: Path) -> tuple[Format, list[Path]]:
    """The one format that files of a folder have, and these files."""
    kinds: dict[Format, list[Path]] = {}
    for path in _files(folder):
        try:
            kinds.setdefault(_of_file(path), []).append(path)
        except UserError:
            continue  # a licence, a list of names: not a data set
    if len(kinds) == 1:
        return next(iter(kinds.items()))
    if not kinds:
        raise UserError("holds no file of a known format", where=folder, how=f"known are {_known()}")
    told = "; ".join(f"{', '.join(path.name for path in paths)[:80]}: {NAMES[kind]}" for kind, paths in kinds.items())
    raise UserError(f"holds files of several formats ({told})", where=folder, how="name one file, or --format")


def _files(folder: Path) -> Iterator[Path]:
    """Files in a folder, and tars one folder below, as webdatasets with a folder for each split have them."""
    yield from sorted(path for path in folder.iterdir() if path.is_file())
    yield from sorted(path for path in folder.glob("*/*.tar") if path.is_file())


def _known() -> str:
    return ", ".join(NAMES)

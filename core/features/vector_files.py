"""Files of vectors as encoders leave them: `.npz`, `.npy` beside a file of names, and parquet.

Nothing in a file is run: arrays of Python objects, which are pickled, are refused. A file's names are read at once, its
vectors only when they are asked for, one encoder after the other.
"""

import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as parquet
from numpy.typing import NDArray

from core.data.images import file_problem
from core.errors import UserError, shown
from core.features.vectors import KINDS
from core.files.json_files import GIT_LFS_POINTER, read_json
from core.files.text_files import read_text
from core.readings import VECTOR_NAME, Kind

KEYS: Mapping[str, Kind] = {"image": "images", "text": "texts"}
"""Array of names in an archive, or column of a table → what it names."""
FORMATS = (".npz", ".npy", ".parquet")
ARRAY, ARCHIVE = b"\x93NUMPY", b"PK"
"""First bytes of what `np.save` and `np.savez` write."""
UNPACKED, RATIO = 2**30, 200
"""An array that is larger than this, and this many times as large as its compressed bytes, is not unpacked."""
HOW_TO_NAME = "an array or column image (the paths in the annotations) or text names its rows"


@dataclass(frozen=True, slots=True)
class VectorFile:
    """Vectors of images or of texts in one file."""

    path: Path
    kind: Kind
    names: list[str]
    """Of the rows: images by their path in the annotations, or texts."""
    load: Mapping[str, Callable[[], NDArray[Any]]]
    """Name of an encoder's vectors → what reads them, [N, width] of numbers."""
    ignored: tuple[str, ...] = ()
    """Columns that hold no lists of numbers."""


def read_vector_file(path: Path) -> VectorFile:
    """Open a file of vectors.

    Raises:
        UserError: the file is missing, damaged or of another format, does not name its rows, or holds Python objects.
    """
    if problem := file_problem(path):
        raise UserError("there is no such file" if problem == "is missing" else problem, where=path)
    if path.suffix not in FORMATS:
        raise UserError(f"is no file of vectors; these are {', '.join(FORMATS)}", where=path)
    _require_kind(path)
    opened = {".npz": _read_npz, ".npy": _read_npy, ".parquet": _read_parquet}[path.suffix](path)
    if not opened.load:
        raise UserError("holds no vectors beside the names", where=path, how="add an array or column of an encoder")
    if not opened.names:
        raise UserError("holds no row", where=path)
    if unfit := next((name for name in opened.load if VECTOR_NAME.fullmatch(name) is None), None):
        raise UserError(
            f"vectors cannot be named {shown(unfit)}", where=path, how="use letters, digits, - and _ (at most 64)"
        )
    return opened


def _require_kind(path: Path) -> None:
    """Refuse a file by its first bytes: NumPy takes what it does not know for pickled objects."""
    with path.open("rb") as stream:
        start = stream.read(len(GIT_LFS_POINTER))
    if start == GIT_LFS_POINTER:
        raise UserError("is a Git LFS pointer, not the file itself", where=path, how="run git lfs pull")
    if not start:
        raise UserError("is empty", where=path)
    if path.suffix != ".parquet" and not start.startswith((ARRAY, ARCHIVE)):
        raise UserError("is no file of NumPy", where=path, how="write it with np.savez or np.save")
    if path.suffix == ".npz" and start.startswith(ARRAY):
        raise UserError("is a single array", where=path, how="write it with np.savez, together with the names")


def _read_npz(path: Path) -> VectorFile:
    arrays = _names_in_npz(path)
    key, kind = _key(path, arrays)
    names = _strings(_array_of_npz(path, key), path, key)
    load = {name: partial(_vectors_of_npz, path, name, len(names)) for name in arrays if name != key}
    return VectorFile(path, kind, _normalised(names, kind, path), load)


def _names_in_npz(path: Path) -> list[str]:
    try:
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as archive:
            return list(archive.files)
    except Exception as error:  # a damaged archive makes zipfile and NumPy raise anything
        raise _unreadable(path, error) from None


def _array_of_npz(path: Path, name: str) -> NDArray[Any]:
    try:
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as archive:
            _require_room(archive.zip, name, path)
            return np.asarray(archive[name])
    except UserError:
        raise
    except Exception as error:
        raise _unreadable(path, error, name) from None


def _require_room(archive: zipfile.ZipFile, name: str, path: Path) -> None:
    """Refuse what unpacks to far more than is in the file, since it would fill the memory."""
    member = next((each for each in archive.infolist() if each.filename.removesuffix(".npy") == name), None)
    if member is not None and member.file_size > max(UNPACKED, RATIO * member.compress_size):
        size = f"{member.file_size / 2**30:,.0f} GiB from {member.compress_size:,} bytes"
        raise UserError(f"{name} unpacks to {size}", where=path, how="write it with np.savez, uncompressed")


def _vectors_of_npz(path: Path, name: str, count: int) -> NDArray[Any]:
    return _checked(_array_of_npz(path, name), count, path, name)


def _read_npy(path: Path) -> VectorFile:
    """`clip.images.npy` beside `clip.images.txt` or `clip.images.json`."""
    name, _, word = path.stem.rpartition(".")
    kind = next((kind for kind in KINDS if word == kind), None)
    if kind is None or not name:
        how = "name it NAME.images.npy or NAME.texts.npy, beside NAME.images.txt or .json with the names of its rows"
        raise UserError("does not say what its vectors are of", where=path, how=how)
    names = _names_beside(path)
    return VectorFile(path, kind, _normalised(names, kind, path), {name: partial(_load_npy, path, len(names))})


def _names_beside(path: Path) -> list[str]:
    lines, listed = path.with_suffix(".txt"), path.with_suffix(".json")
    if lines.is_file():
        return read_text(lines).removesuffix("\n").split("\n")
    if not listed.is_file():
        raise UserError("there is no such file of names", where=lines, how=f"write one, or {listed.name}, a JSON list")
    names = read_json(listed)
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise UserError("is not a list of strings", where=listed)
    return names


def _load_npy(path: Path, count: int) -> NDArray[Any]:
    try:
        table = np.load(path, mmap_mode="r", allow_pickle=False)
    except Exception as error:
        raise _unreadable(path, error) from None
    if not isinstance(table, np.ndarray):
        raise UserError("is an archive", where=path, how="rename it to .npz")
    return _checked(table, count, path, path.stem)


def _read_parquet(path: Path) -> VectorFile:
    try:
        schema = parquet.read_schema(path)
    except (pa.ArrowException, OSError, ValueError) as error:
        raise _unreadable(path, error) from None
    key, kind = _key(path, schema.names)
    column = _column(path, key)
    if not (pa.types.is_string(column.type) or pa.types.is_large_string(column.type)) or column.null_count:
        raise UserError(f"column {key} does not hold a string in every row", where=path)
    names: list[str] = column.to_pylist()
    lists = {field.name for field in schema if _is_list_of_numbers(field.type)}
    load = {name: partial(_vectors_of_parquet, path, name, len(names)) for name in schema.names if name in lists}
    ignored = tuple(name for name in schema.names if name not in lists and name != key)
    return VectorFile(path, kind, _normalised(names, kind, path), load, ignored)


def _is_list_of_numbers(column: pa.DataType) -> bool:
    is_list: bool = pa.types.is_list(column) or pa.types.is_large_list(column) or pa.types.is_fixed_size_list(column)
    return is_list and bool(pa.types.is_floating(column.value_type) or pa.types.is_integer(column.value_type))


def _column(path: Path, name: str) -> Any:
    try:
        column = parquet.read_table(path, columns=[name]).column(0).combine_chunks()
        return column.cast(column.type.value_type) if pa.types.is_dictionary(column.type) else column
    except (pa.ArrowException, OSError, ValueError, IndexError) as error:
        raise _unreadable(path, error, name) from None


def _vectors_of_parquet(path: Path, name: str, count: int) -> NDArray[Any]:
    column = _column(path, name)
    if column.null_count:
        raise UserError(f"has no {name} in {column.null_count:,} of {count:,} rows", where=path)
    try:
        lengths = set(column.value_lengths().to_pylist())
        values = column.flatten()
        if values.null_count:
            raise UserError(f"{name} holds lists with missing numbers", where=path)
        if len(lengths) != 1:
            raise UserError(f"{name} holds vectors of {len(lengths)} different widths", where=path)
        table = values.to_numpy(zero_copy_only=False).reshape(count, *lengths)
    except (pa.ArrowException, ValueError) as error:
        raise _unreadable(path, error, name) from None
    return _checked(table, count, path, name)


def _key(path: Path, found: Sequence[str]) -> tuple[str, Kind]:
    keys = [key for key in KEYS if key in found]
    if len(keys) != 1:
        problem = "names both images and texts" if keys else f"does not name its rows (it holds {shown(list(found))})"
        how = "write a file for each" if keys else HOW_TO_NAME
        raise UserError(problem, where=path, how=how)
    return keys[0], KEYS[keys[0]]


def _strings(array: NDArray[Any], path: Path, key: str) -> list[str]:
    if array.ndim != 1 or array.dtype.kind not in "US":
        raise UserError(f"{key} is not a list of strings", where=path, how=f"save np.array(names) as {key}")
    try:
        return [name.decode() if isinstance(name, bytes) else name for name in array.tolist()]
    except UnicodeDecodeError:
        raise UserError(f"{key} holds bytes that are not UTF-8", where=path) from None


def _normalised(names: Sequence[str], kind: Kind, path: Path) -> list[str]:
    """As annotations are read: without blanks around them, paths of images in their shortest form."""
    stripped = [name.strip() for name in names]
    if "" in stripped:
        raise UserError(f"row {stripped.index('')} has no name", where=path)
    for row, name in enumerate(stripped):
        if any("\ud800" <= char <= "\udfff" for char in name):
            raise UserError(f"the name of row {row} holds half of a surrogate pair, which is no text", where=path)
    return [PurePosixPath(name).as_posix() for name in stripped] if kind == "images" else stripped


def _checked(table: NDArray[Any], count: int, path: Path, name: str) -> NDArray[Any]:
    if table.dtype.kind not in "fiu":
        raise UserError(f"{name} holds {table.dtype}, not numbers", where=path)
    if table.ndim != 2 or table.shape[1] == 0:
        shape = " × ".join(map(str, table.shape))
        raise UserError(f"{name} is {shape or 'a single number'}", where=path, how="write one vector a row, N × width")
    if len(table) != count:
        raise UserError(f"{name} has {len(table):,} vectors of {count:,} names", where=path)
    return table


def _unreadable(path: Path, error: Exception, name: str = "") -> UserError:
    if "allow_pickle" in str(error) or "Python objects" in str(error):
        what = f"{name or 'it'} holds Python objects, which are not loaded"
        return UserError(what, where=path, how="save strings as np.array(names), and vectors as floating-point numbers")
    reason = (str(error).strip() or type(error).__name__).splitlines()[0]
    return UserError(f"{name or 'it'} cannot be read ({reason[:200]})", where=path, how="write or download it again")

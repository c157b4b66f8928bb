"""JSON and JSON Lines files: written atomically or line by line, read with precise error messages.

A torn last line of JSON lines (a writer killed half-way) is not read.
"""

import json
import os
import stat
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from core.errors import UserError, shown
from core.files.atomic import write_atomically

TAIL_BYTES = 65536
GIT_LFS_POINTER = b"version https://git-lfs.github.com/spec/"
"""First bytes of a Git LFS pointer, the text file that stands for a large file in a clone."""


def write_json(path: Path, value: Any) -> None:
    """Write one JSON value atomically; NaN and infinity are refused with ValueError."""
    write_atomically(path, json.dumps(value, indent=2, allow_nan=False, ensure_ascii=False) + "\n")


def read_json(path: Path) -> Any:
    """Read one JSON value; a byte order mark is skipped, and an integer of over 4,300 digits becomes infinity.

    Raises:
        UserError: names the file and what is wrong with it, with line and column where they are known. A key that is
            given twice in one object is a mistake.
    """
    return decode_json(_content(path), where=path)


def decode_json(content: bytes, *, where: object) -> Any:
    """One JSON value from the bytes of a file, read as `read_json` does.

    Raises:
        UserError: names `where` and what is wrong.
    """
    if not content.strip(b"\0 \t\r\n"):
        raise UserError("is empty", where=where)
    if content.startswith(GIT_LFS_POINTER):
        raise UserError("is a Git LFS pointer, not the file itself", where=where, how="run git lfs pull")
    if not (encoding := json.detect_encoding(content)).startswith("utf-8"):
        raise UserError(f"is {encoding.upper()} text, not UTF-8", where=where, how="save it as UTF-8")
    try:
        return _DECODER.decode(content.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        raise UserError(f"is not UTF-8 text (byte {error.start})", where=where) from None
    except json.JSONDecodeError as error:
        place = f"line {error.lineno} column {error.colno}"
        raise UserError(f"is not valid JSON ({error.msg} at {place})", where=where) from None
    except ValueError as error:
        raise UserError(f"is not valid JSON ({error})", where=where) from None
    except RecursionError:
        raise UserError("is nested too deeply to be read", where=where) from None


def _content(path: Path) -> bytes:
    """Content of a regular file: reading a pipe or a device may block forever."""
    try:
        if stat.S_ISREG(path.stat().st_mode):
            return path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        raise UserError("there is no such file", where=path) from None
    except ValueError as error:  # a NUL or half a surrogate pair in its name
        raise UserError(f"no file can have this name ({error})", where=path) from None
    raise UserError(f"is {'a folder' if path.is_dir() else 'not a regular file'}, not a JSON file", where=path)


def _integer(digits: str) -> int | float:
    try:
        return int(digits)
    except ValueError:  # Python's limit, 4,300 digits; the reader of the field refuses infinity and names the place
        return float(digits)


def _object(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    mapping = dict(pairs)
    if len(mapping) < len(pairs):
        keys = [key for key, _ in pairs]
        repeated = next(key for key in keys if keys.count(key) > 1)
        raise ValueError(f"the key {shown(repeated)} is given twice in {shown(mapping)}")
    return mapping


_DECODER = json.JSONDecoder(object_pairs_hook=_object, parse_int=_integer)


def append_json_line(path: Path, value: Mapping[str, Any]) -> None:
    """Append one JSON object as a line, after removing a torn last line; NaN and infinity raise ValueError."""
    path.parent.mkdir(parents=True, exist_ok=True)
    line = json.dumps(value, allow_nan=False, ensure_ascii=False) + "\n"
    drop_torn_line(path)
    with path.open("ab") as stream:
        stream.write(line.encode())


def read_json_lines(path: Path) -> list[dict[str, Any]]:
    """All complete lines of a JSON Lines file; an incomplete last line is ignored, a missing file gives an empty list.

    Raises:
        UserError: names the file and the line that is no JSON object.
    """
    if not path.exists():
        return []
    return list(_whole_lines(path))


def _whole_lines(path: Path) -> Iterator[dict[str, Any]]:
    for number, line in enumerate(_content(path).splitlines(keepends=True), start=1):
        if not line.endswith(b"\n"):
            return
        try:
            value = _DECODER.decode(line.decode())
        except (ValueError, RecursionError):
            raise UserError(f"line {number} is not valid JSON", where=path) from None
        if not isinstance(value, dict):
            raise UserError(f"line {number} is not a JSON object", where=path)
        yield value


def drop_torn_line(path: Path) -> None:
    """Remove an incomplete last line, left by a killed writer. Reads from the end only."""
    if not path.exists():
        return
    with path.open("rb+") as stream:
        end = stream.seek(0, os.SEEK_END)
        keep = end
        while keep > 0:
            start = max(0, keep - TAIL_BYTES)
            stream.seek(start)
            newline = stream.read(keep - start).rfind(b"\n")
            if newline >= 0:
                keep = start + newline + 1
                break
            keep = start
        if keep < end:
            stream.truncate(keep)

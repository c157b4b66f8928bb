"""Which files of an output folder this program wrote, and which process may write there now.

A folder named by the user may contain anything. A name in it is overwritten or deleted only after it was claimed here:
a claim is refused while a foreign file has that name, and is recorded in `identity.json` in the folder.
"""

import os
import secrets
import shutil
import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from core.errors import UserError
from core.files.json_files import read_json, write_json

IDENTITY = "identity.json"
LOCK = "driver.lock"
HOLDER = "driver.json"


def claim_folder(root: Path, names: Sequence[str]) -> str:
    """Claim file names in a folder for this program, which may overwrite them from then on; the folder is created.

    Args:
        names: direct children of `root`; glob patterns are allowed.
    Returns:
        The folder's random id, twelve hexadecimal digits, the same for every claim in it.
    Raises:
        UserError: as `require_ours`.
    """
    identity = require_ours(root, names)
    if new := [name for name in names if name not in identity["files"]]:
        write_json(root / IDENTITY, {"id": identity["id"], "files": [*identity["files"], *new]})
    return str(identity["id"])


def require_ours(root: Path, names: Sequence[str]) -> dict[str, Any]:
    """Check that no foreign file has one of these names; writes nothing, and returns the folder's identity.

    Raises:
        UserError: a file has one of the names and was not written by this program, identity.json is damaged, or `root`
            is a file.
    """
    if root.exists() and not root.is_dir():
        raise UserError("is a file, not a folder", where=root, how="name another output folder")
    identity = read_identity(root)
    for name in names:
        if name not in identity["files"] and (foreign := next(root.glob(name), None)):
            raise UserError(
                f"holds {foreign.name}, which crossmodal did not write",
                where=root,
                how="name another output folder, or move that file away",
            )
    return identity


def read_identity(root: Path) -> dict[str, Any]:
    """The id of a folder and the names claimed in it; a new id and no names if nothing was claimed.

    Raises:
        UserError: identity.json is damaged, or was not written by this program.
    """
    path = root / IDENTITY
    if not path.exists():
        return {"id": secrets.token_hex(6), "files": []}
    content: Any = read_json(path)
    match content:
        case {"id": str(name), "files": [*files]} if all(isinstance(file, str) for file in files):
            return {"id": name, "files": files}
    raise UserError("does not say which files are ours", where=path, how="restore it, or name another output folder")


@contextmanager
def scratch_folder(parent: Path) -> Iterator[Path]:
    """A temporary folder inside another one, for files that are moved out once complete; removed at the end.

    Its name is random, so it never contains older files.
    """
    folder = parent / f".unfinished-{secrets.token_hex(8)}"
    folder.mkdir(parents=True)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def hold_folder(root: Path, names: Sequence[str]) -> Iterator[str]:
    """Claim a folder and lock it against other processes while this one writes there.

    Raises:
        UserError: as `claim_folder`, or another process holds the folder (named in the message).
    """
    require_ours(root, [*names, HOLDER])
    root.mkdir(parents=True, exist_ok=True)
    lock = FileLock(root / LOCK, thread_local=False)  # an empty file: locking a foreign one changes nothing
    try:
        lock.acquire(blocking=False)
    except Timeout:
        holder = read_holder(root) or {"pid": "?", "host": "?"}
        raise UserError(
            f"process {holder['pid']} on {holder['host']} is working in this folder",
            where=root,
            how="wait for it, or stop it first",
        ) from None
    try:
        identity = claim_folder(root, [*names, HOLDER])
        write_json(root / HOLDER, {"pid": os.getpid(), "host": socket.gethostname()})
        try:
            yield identity
        finally:
            (root / HOLDER).unlink(missing_ok=True)
    finally:
        lock.release()


def read_holder(root: Path) -> dict[str, Any] | None:
    """`pid` and `host` of the process that holds a folder, or was killed while holding it; None if there is none.

    Raises:
        UserError: the note is damaged.
    """
    path = root / HOLDER
    try:
        content: Any = read_json(path)
    except UserError:
        if not path.exists():  # released in between
            return None
        raise
    match content:
        case {"pid": int(pid), "host": str(host)} if 0 < pid < 2**31:
            return {"pid": pid, "host": host}
    raise UserError("does not name a process", where=path, how="remove it once no driver runs")

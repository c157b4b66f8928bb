"""Checkpoints of workers while a campaign runs, in a folder that every node sees or in an object store.

The location belongs to the user and may contain anything. A campaign uses its own sub-folder there, with one folder per
session. Ray writes; we only read checkpoints, and remove by name the sessions that the ledger lists.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pyarrow import fs

from core.errors import UserError

if TYPE_CHECKING:
    from core.model.checkpoints import Checkpoint

CHECKPOINT_NAME = "checkpoint.pth"


@dataclass(frozen=True, slots=True)
class Storage:
    """The sessions of one campaign, below a folder or a URI such as s3://bucket/prefix."""

    root: str

    @classmethod
    def of_campaign(cls, place: str, name: str, identity: str) -> "Storage":
        """The sub-folder of a campaign in a location that may be shared; name and id keep campaigns apart."""
        if "://" not in place:
            return cls(f"{place.rstrip('/')}/{name}-{identity}")
        path, mark, options = place.partition("?")
        return cls(f"{path.rstrip('/')}/{name}-{identity}{mark}{options}")

    def checkpoints_of(self, number: int) -> list[str]:
        """Paths of a trial's checkpoints from earlier sessions, newest first; see `read_checkpoint`."""
        filesystem, root = self._open()
        entries = filesystem.get_file_info(fs.FileSelector(root, recursive=True, allow_not_found=True))
        ours = [
            info
            for info in entries
            if info.base_name == CHECKPOINT_NAME and _below(root, info.path)[1:2] == [f"{number:04d}"]
        ]
        return [info.path for info in sorted(ours, key=lambda info: info.mtime_ns or 0, reverse=True)]

    def read_checkpoint(self, path: str) -> "Checkpoint | None":
        """A checkpoint, or None if it is missing or torn."""
        filesystem, _ = self._open()
        return read_checkpoint(filesystem, path)

    def clear(self, sessions: Iterable[str]) -> None:
        """Remove these sessions by name, and the campaign's sub-folder if it is then empty."""
        filesystem, root = self._open()
        for name in sessions:
            if filesystem.get_file_info(f"{root}/{name}").type == fs.FileType.Directory:
                filesystem.delete_dir(f"{root}/{name}")
        if filesystem.get_file_info(root).type == fs.FileType.Directory and not _children(filesystem, root):
            filesystem.delete_dir(root)

    def require_writable(self) -> None:
        """Raise UserError if nothing can be written."""
        try:
            filesystem, root = self._open()
            filesystem.create_dir(root, recursive=True)
            with filesystem.open_output_stream(f"{root}/.writable") as stream:
                stream.write(b"yes")
            filesystem.delete_file(f"{root}/.writable")
        except (OSError, ValueError) as error:
            reason = str(error).splitlines()[0]
            raise UserError(f"cannot be written ({reason})", where=self._shown(), how="check storage") from None

    def _open(self) -> tuple[fs.FileSystem, str]:
        return fs.FileSystem.from_uri(self.root)  # type: ignore[no-any-return]

    def _shown(self) -> str:
        return self.root.split("?")[0]


def _below(root: str, path: str) -> list[str]:
    """Parts of a path below the root: session, trial, …"""
    return path.removeprefix(root.rstrip("/")).strip("/").split("/")


def _children(filesystem: fs.FileSystem, folder: str) -> list[fs.FileInfo]:
    return filesystem.get_file_info(fs.FileSelector(folder))  # type: ignore[no-any-return]


def read_checkpoint(filesystem: fs.FileSystem, path: str) -> "Checkpoint | None":
    """A checkpoint on any file system, or None if it is missing or torn."""
    from core.model.checkpoints import parse_checkpoint  # imports torch, of no use to a driver before

    try:
        with filesystem.open_input_stream(path) as stream:
            return parse_checkpoint(stream.read(), where=path)
    except (OSError, UserError):
        return None

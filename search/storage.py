"""Where workers leave their checkpoints while a campaign runs: a folder that every node sees, or an object store.

Ray writes there, one folder a session; we only read checkpoints, by name, and clear up.
"""

from dataclasses import dataclass

from pyarrow import fs

from core.checkpoints import Checkpoint, parse_checkpoint
from core.errors import UserError

CHECKPOINT_NAME = "checkpoint.pth"


@dataclass(frozen=True, slots=True)
class Storage:
    """The sessions of one campaign below a folder or a URI such as s3://bucket/prefix."""

    root: str

    def checkpoints_of(self, number: int) -> list[str]:
        """What earlier sessions left of a trial, newest first, as paths to give to `read_checkpoint`."""
        filesystem, root = self._open()
        found = filesystem.get_file_info(fs.FileSelector(root, recursive=True, allow_not_found=True))
        ours = [info for info in found if info.base_name == CHECKPOINT_NAME and f"/{number:04d}/" in info.path]
        return [info.path for info in sorted(ours, key=lambda info: info.mtime_ns or 0, reverse=True)]

    def read_checkpoint(self, path: str) -> Checkpoint | None:
        """A checkpoint, or None where it is missing or torn."""
        filesystem, _ = self._open()
        return read_checkpoint(filesystem, path)

    def clear(self) -> None:
        """Remove what the sessions left."""
        filesystem, root = self._open()
        filesystem.delete_dir_contents(root, missing_dir_ok=True)

    def require_writable(self) -> None:
        """Raises UserError where nothing can be written."""
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


def read_checkpoint(filesystem: fs.FileSystem, path: str) -> Checkpoint | None:
    """A checkpoint on any file system, or None where it is missing or torn."""
    try:
        with filesystem.open_input_stream(path) as stream:
            return parse_checkpoint(stream.read(), where=path)
    except (OSError, UserError):
        return None

"""Reading text that others wrote."""

from pathlib import Path

from core.errors import UserError


def read_text(path: Path, *, how: str = "save it as UTF-8") -> str:
    """The content of a UTF-8 file, without a byte order mark.

    Args:
        how: to mend it.
    Raises:
        OSError: the file cannot be read.
        UserError: it is not UTF-8.
    """
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"is not UTF-8 text (byte {error.start})", where=path, how=how) from None

"""Exceptions for mistakes that the user can fix, and how their messages quote values."""

import reprlib

ECHOED = 160
"""Maximum number of characters of a value in a message."""


class UserError(Exception):
    """A mistake of the user, as one line: where it is, what is wrong, how to fix it."""

    def __init__(self, what: str, *, where: object = None, how: str | None = None) -> None:
        place = f"{where}: " if where is not None else ""
        remedy = f"; {how}" if how else ""
        super().__init__(_printable(f"{place}{what}{remedy}"))
        self.what = what


class DivergedError(UserError):
    """A loss, a weight or an output of a model is NaN or infinite."""


def shown(value: object) -> str:
    """A value as messages quote it: printable, on one line, a long one without its middle."""
    text = _printable(value if isinstance(value, str) else reprlib.repr(value))
    return text if len(text) <= ECHOED else f"{text[: ECHOED // 2]}…{text[1 - ECHOED // 2 :]}"


def _printable(text: str) -> str:
    """Escape what would break the line, the terminal or its encoding."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)

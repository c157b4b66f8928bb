"""The exceptions that mean: the user can fix this; and how a value from a file is echoed in its line."""

import reprlib

ECHOED = 160
"""Characters of a value that a message shows at most."""


class UserError(Exception):
    """Something a user got wrong, told in one line: where it is, what is wrong, how to fix it."""

    def __init__(self, what: str, *, where: object = None, how: str | None = None) -> None:
        place = f"{where}: " if where is not None else ""
        remedy = f"; {how}" if how else ""
        super().__init__(_printable(f"{place}{what}{remedy}"))
        self.what = what


class DivergedError(UserError):
    """A loss, a weight or an output of a model is NaN or infinite."""


def shown(value: object) -> str:
    """A value as a message echoes it: printable, on one line, and without the middle of a long one."""
    text = _printable(value if isinstance(value, str) else reprlib.repr(value))
    return text if len(text) <= ECHOED else f"{text[: ECHOED // 2]}…{text[1 - ECHOED // 2 :]}"


def _printable(text: str) -> str:
    """What would break the line, the terminal or its encoding is escaped."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)

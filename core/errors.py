"""The exceptions that mean: the user can mend this. Imports nothing."""


class UserError(Exception):
    """Something a user got wrong, told in one line: where it is, what is wrong, how to mend it."""

    def __init__(self, what: str, *, where: object = None, how: str | None = None) -> None:
        place = f"{where}: " if where is not None else ""
        remedy = f"; {how}" if how else ""
        super().__init__(f"{place}{what}{remedy}")
        self.what = what


class DivergedError(UserError):
    """A loss, a weight or an output of a model is NaN or infinite."""

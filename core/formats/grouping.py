"""What a group of images is, as `--group` says it: nothing, a column's value, or a folder of the image's path."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from core.errors import UserError, shown

OPTION = re.compile(r"none|column:(?P<column>.+)|folder:(?P<level>-?[1-9]\d{0,2})")


@dataclass(frozen=True, slots=True)
class Grouping:
    """One of the three; neither means that every image is a group of its own."""

    column: str | None = None
    level: int | None = None
    """Of the folders of an image's path: 1 is the first, -1 the one that the image lies in."""

    @classmethod
    def parse(cls, text: str) -> "Grouping":
        """The grouping that an option names.

        Raises:
            UserError: it is none of the three.
        """
        if not (match := OPTION.fullmatch(text)):
            raise UserError(
                f"{shown(text)} is no grouping",
                where="--group",
                how="write none, column:NAME or folder:N (-1: the last)",
            )
        return cls(match["column"], int(match["level"]) if match["level"] else None)

    def __str__(self) -> str:
        if self.column is not None:
            return f"images with one value of {self.column}"
        if self.level is not None:
            return f"images with one folder at level {self.level} of their path"
        return "every image is a group of its own"

    def group_of(self, name: str, fields: Mapping[str, Any]) -> str | None:
        """Group of an image; None if it has none.

        Args:
            name: path of the image as the source writes it.
        """
        if self.column is not None:
            value = fields.get(self.column)
            return group_name(value) if isinstance(value, str | int | float) and value == value else None
        assert self.level is not None, "images that are their own groups are named by their paths"
        folders = PurePosixPath(name.replace("\\", "/")).parts[:-1]
        index = self.level - 1 if self.level > 0 else self.level
        return group_name(folders[index]) if -len(folders) <= index < len(folders) else None


def group_name(value: object) -> str | None:
    """A value as the first part of an image_id; None if it cannot be one."""
    name = str(value).strip().replace("/", "_")
    return None if name in ("", ".", "..") else name

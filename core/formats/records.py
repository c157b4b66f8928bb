"""What every reader of a published format gives: records as the source has them, and what was left out or repaired.

A record is not yet GeoText's: its boxes have the source's layout and unit, its split and group the source's names.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from core.errors import UserError, shown
from core.formats.boxes import Layout

MESSAGES = 5
"""Number of drops that are told in full."""


@dataclass(frozen=True, slots=True)
class Region:
    """A sentence and the box that it describes."""

    sentence: str
    box: Any
    """As in the source: not yet checked."""
    relation: str | None = None
    """To the image's first region, if the source gives one."""


@dataclass(frozen=True, slots=True)
class Record:
    """An image with one or several of its captions."""

    where: str
    """File and place in it, for messages."""
    names: tuple[str, ...]
    """Path of the image as the source writes it, then other paths at which it may lie."""
    captions: tuple[str, ...]
    split: str
    """As the source calls it; the file's own name if it says nothing."""
    regions: tuple[Region, ...] = ()
    layout: Layout | None = None
    """Of the boxes, if the names of columns say it."""
    content: bytes | None = None
    """The image file itself, if the source contains it; else it is looked for below the folders of images."""
    place: str | None = None
    """Where the image goes below images/, if not at its path in the source."""
    size: tuple[int, int] | None = None
    """Width and height that boxes in pixels refer to; None for those of the image file."""
    image_id: str | None = None
    """GeoText's, with the group as its first part."""
    fields: Mapping[str, Any] = field(default_factory=dict)
    """Everything else that the source says of it, for --group and --split-column."""


@dataclass(slots=True)
class Findings:
    """What an import repaired or left out, by kind."""

    repaired: Counter[str] = field(default_factory=Counter)
    dropped: Counter[str] = field(default_factory=Counter)
    messages: list[str] = field(default_factory=list)
    """The first drops, with their places."""

    def drop(self, what: str, where: str, detail: object = None) -> None:
        """Count something left out.

        Args:
            what: its kind, the same for all of a kind.
            detail: what is specific to this one.
        """
        self.dropped[what] += 1
        if len(self.messages) < MESSAGES:
            told = what if detail is None else f"{what} ({shown(detail)})"
            self.messages.append(str(UserError(told, where=where)))  # printable, on one line

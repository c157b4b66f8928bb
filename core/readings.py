"""Readings: named vectors of an image or a text, by their place in the frozen backbone and their pooling.

`tower.cls+tower.mean` in a configuration concatenates two readings. `@` names a layer as transformers numbers its
hidden states: `lm.mean@12` is the output of block 12, `tower.mean@-6` counts from the end. `vectors.clip` is not the
backbone's: another encoder computed it, and `features.vectors` names the set of vectors that holds it. Free of torch:
trials, the driver and the configuration all use these names.
"""

import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

Kind = Literal["images", "texts"]

POOLINGS: dict[Kind, dict[str, tuple[str, ...]]] = {
    "images": {"tower": ("cls", "mean"), "projector": ("mean",), "lm": ("image_mean", "prompt")},
    "texts": {"lm": ("first", "mean", "last", "prompt")},
}
"""Kind of input → place in the backbone → poolings there. The grid is one more reading of the tower."""
WITHOUT_LAYERS = {"projector"}
"""Places that are a single layer."""
VECTORS = "vectors"
"""Place of readings that another encoder computed; their pooling is the name in the set of vectors."""
VECTOR_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")
_NAME = re.compile(r"(?P<place>[a-z]+)\.(?P<pooling>[a-z_]+)(@(?P<layer>-?\d{1,3}))?")


@dataclass(frozen=True, slots=True)
class Reading:
    """One vector of every image or text; for a grid, one vector of every cell."""

    kind: Kind
    place: str
    pooling: str
    """`grid8` for an average-pooled grid of 8 × 8 cells."""
    layer: int | None = None
    """Index among the hidden states; None for the last one."""
    prompt: str | None = None
    """Asked after an image or a text in the chat template; None where the reading needs none."""

    @property
    def name(self) -> str:
        """As configurations write it."""
        return f"{self.place}.{self.pooling}" + ("" if self.layer is None else f"@{self.layer}")

    @property
    def key(self) -> str:
        """Unique among all readings, and fit for a file's name."""
        prompt = "" if self.prompt is None else f".{hashlib.sha256(self.prompt.encode()).hexdigest()[:8]}"
        return f"{self.kind}.{self.name}{prompt}"

    @property
    def side(self) -> int | None:
        """Rows and columns of a grid; None for a reading that is one vector."""
        is_grid = self.pooling.startswith("grid") and not self.is_vector
        return int(self.pooling.removeprefix("grid")) if is_grid else None

    @property
    def is_vector(self) -> bool:
        """Whether another encoder than the backbone computed it."""
        return self.place == VECTORS


@dataclass(frozen=True, slots=True)
class Readings:
    """What a model reads of the backbone."""

    images: tuple[Reading, ...]
    """Concatenated."""
    texts: tuple[Reading, ...]
    """Concatenated."""
    grid: Reading | None = None

    @property
    def all(self) -> tuple[Reading, ...]:
        return (*self.images, *self.texts, *(() if self.grid is None else (self.grid,)))


def parse_readings(kind: Kind, names: str, *, prompt: str) -> tuple[Reading, ...]:
    """Readings by their names, joined with `+`.

    Args:
        prompt: for those that need one.
    Raises:
        ValueError: a name is unknown or given twice.
    """
    readings = tuple(_parse(kind, name.strip(), prompt) for name in names.split("+"))
    for position, reading in enumerate(readings):
        if reading in readings[:position]:
            raise ValueError(f"{reading.name} is given twice")
    return readings


def grid_reading(side: int) -> Reading:
    """The patch tokens of the tower's last layer, average-pooled to side × side cells."""
    return Reading("images", "tower", f"grid{side}")


def distinct(readings: Iterable[Reading]) -> tuple[Reading, ...]:
    """Without repetition, in order."""
    return tuple(dict.fromkeys(readings))


def _parse(kind: Kind, name: str, prompt: str) -> Reading:
    if name.startswith(f"{VECTORS}."):
        return _parse_vectors(kind, name)
    matched = _NAME.fullmatch(name)
    place, pooling = (matched["place"], matched["pooling"]) if matched else ("", "")
    if matched is None or pooling not in POOLINGS[kind].get(place, ()):
        known = ", ".join(f"{place}.{pooling}" for place, poolings in POOLINGS[kind].items() for pooling in poolings)
        raise ValueError(f"{name[:60]!r} is no reading of {kind}; there are {known}, a layer of the tower or the "
                         "language model as in lm.mean@12, vectors.NAME, and several joined with +")  # fmt: skip
    if matched["layer"] is not None and place in WITHOUT_LAYERS:
        raise ValueError(f"{place} has no layers to choose from, so write {place}.{pooling}")
    asks = pooling == "prompt" or (kind == "images" and place == "lm")
    return Reading(kind, place, pooling, int(matched["layer"]) if matched["layer"] else None, prompt if asks else None)


def _parse_vectors(kind: Kind, name: str) -> Reading:
    vectors = name.removeprefix(f"{VECTORS}.")
    if VECTOR_NAME.fullmatch(vectors) is None:
        raise ValueError(f"{name[:60]!r} names no vectors; after vectors. come letters, digits, - and _")
    return Reading(kind, VECTORS, vectors)

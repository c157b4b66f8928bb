"""A split as a model sees it: embeddings, and for heads that attend to images also their grids and the raw texts.

Grids and texts stay in their tables; heads read the rows of one block of pairs at a time.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor

from core.device import row_blocks
from core.features.store import FeatureSplit, Table, gather
from core.model.model import CrossModalModel, require_finite
from core.model.views import ImageView, TextView

EMBEDDING_BYTES = 32 * 2**20
"""Maximum memory of the features that are embedded in one pass."""
PAIR_BYTES = 32 * 2**20
"""Maximum memory of what the heads see of a block of pairs."""
FUSED_EMBEDDINGS = 8
"""Embeddings that a pair takes: its own two, and what `interaction` makes of them."""


class SelectedRows:
    """Some rows of a table, which stays where it is."""

    def __init__(self, table: Table, selected: Tensor) -> None:
        self._table = table
        self._selected = selected

    @property
    def shape(self) -> Sequence[int]:
        return (len(self._selected), *self._table.shape[1:])

    def __len__(self) -> int:
        return len(self._selected)

    def __getitem__(self, rows: Tensor | slice, /) -> Tensor:
        return gather(self._table, self._selected[rows])

    def to(self, device: torch.device, /) -> "SelectedRows":
        return SelectedRows(self._table.to(device), self._selected.to(device))


@dataclass(frozen=True, slots=True)
class EmbeddedSplit:
    """A split with its embeddings: float32, unit norm."""

    split: FeatureSplit
    images: ImageView
    """N of them"""
    captions: TextView
    """M of them"""
    sentences: TextView
    """R of them"""


@contextmanager
def evaluation_mode(model: CrossModalModel) -> Iterator[None]:
    """Without dropout, which heads with attention have as well as the adapters; the mode is restored afterwards."""
    was_training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(was_training)


@torch.no_grad()
def embed_split(model: CrossModalModel, split: FeatureSplit) -> EmbeddedSplit:
    """Embed a split in evaluation mode; equal texts are embedded once.

    Raises:
        DivergedError: an embedding is not finite.
    """
    with evaluation_mode(model):
        images = torch.cat([model.embed_images(*image_features(split, rows)) for rows in image_blocks(split)])
        texts = embed_texts(model, split)
    attends = model.fusion == "attention"

    def view(rows: Tensor) -> TextView:
        return TextView(texts[rows], SelectedRows(split.texts, rows) if attends else None)

    return EmbeddedSplit(
        split,
        images=ImageView(require_finite(images, "embeddings").float(), split.grid if attends else None),
        captions=view(split.caption_text),
        sentences=view(split.sentence_text),
    )


def captions_once(embedded: EmbeddedSplit) -> tuple[TextView, Tensor]:
    """The distinct captions of a split as the heads see them, [U] in the order of their rows, and the row [M] in them.

    Equal captions are one, whichever images they stand under.
    """
    rows, index = torch.unique(embedded.split.caption_text, return_inverse=True)
    some = torch.empty_like(rows)
    some[index] = torch.arange(len(index), device=rows.device)  # any of the equal ones
    attends = embedded.captions.features is not None
    features = SelectedRows(embedded.split.texts, rows) if attends else None
    return TextView(embedded.captions.embedded[some], features), index


@torch.no_grad()
def embed_texts(model: CrossModalModel, split: FeatureSplit) -> Tensor:
    """Embeddings [T, D] of the distinct texts of a split, in the mode in which the model is.

    Raises:
        DivergedError: an embedding is not finite.
    """
    blocks = row_blocks(len(split.texts), split.texts.shape[1], max_bytes=EMBEDDING_BYTES)
    texts = torch.cat([model.embed_texts(split.texts[rows]) for rows in blocks])
    return require_finite(texts, "embeddings").float()


def image_features(split: FeatureSplit, rows: slice) -> tuple[Tensor, ...]:
    """What `embed_images` takes of some images of a split."""
    images = split.images[rows]
    return (images,) if split.grid is None else (images, split.grid[rows])


def image_blocks(split: FeatureSplit) -> Iterator[slice]:
    """Consecutive slices of so many images as are embedded in one pass."""
    columns = split.images.shape[1] + _row_numbers(split.grid)
    return row_blocks(len(split.images), columns, max_bytes=EMBEDDING_BYTES)


def pair_blocks(pairs: int, images: ImageView, texts: TextView) -> Iterator[slice]:
    """Consecutive slices of so many pairs of these images and texts as the heads may see at once."""
    return row_blocks(pairs, _text_numbers(images, texts) + _row_numbers(images.grid), max_bytes=PAIR_BYTES)


def blocks_of_texts(shape: Sequence[int], images: ImageView, texts: TextView) -> Iterator[tuple[slice, slice]]:
    """Slices of images and of the texts of each, so many as the heads may see at once; grids are not repeated.

    Args:
        shape: number of images, and of texts of each.
    """
    for some in row_blocks(shape[1], _text_numbers(images, texts), max_bytes=PAIR_BYTES):
        columns = (some.stop - some.start) * _text_numbers(images, texts) + _row_numbers(images.grid)
        for block in row_blocks(shape[0], columns, max_bytes=PAIR_BYTES):
            yield block, some


def _text_numbers(images: ImageView, texts: TextView) -> int:
    """Numbers that the heads see of a pair, without its grid."""
    return FUSED_EMBEDDINGS * images.embedded.shape[1] + _row_numbers(texts.features)


def _row_numbers(table: Table | None) -> int:
    """Numbers in a row; heads compute with all of them in float32, however they are stored."""
    return 0 if table is None else int(torch.Size(table.shape[1:]).numel())

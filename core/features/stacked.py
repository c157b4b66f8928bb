"""The training and the validation split as one, for a final model that is trained on every building."""

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from core.features.store import Features, FeatureSplit, Table, gather, move_table


class StackedTable:
    """The rows of one table above those of another; each stays where it is."""

    def __init__(self, upper: Table, lower: Table) -> None:
        self._upper = upper
        self._lower = lower
        self.shape: Sequence[int] = (len(upper) + len(lower), *upper.shape[1:])

    def __len__(self) -> int:
        return int(self.shape[0])

    def __getitem__(self, rows: Tensor | slice, /) -> Tensor:
        border = len(self._upper)
        if isinstance(rows, slice):
            start, stop, _ = rows.indices(len(self))
            upper, lower = self._upper[start : min(stop, border)], slice(max(0, start - border), max(0, stop - border))
            return torch.cat([upper, self._lower[lower]])
        above = rows < border
        found = gather(self._upper, rows[above]), gather(self._lower, rows[~above] - border)
        order = torch.cat([above.nonzero().flatten(), (~above).nonzero().flatten()]).argsort()
        return torch.cat(found).index_select(0, order)

    def to(self, device: torch.device, /) -> Table:
        return StackedTable(move_table(self._upper, device), move_table(self._lower, device))


def train_on_all(features: Features) -> Features:
    """Features whose training split also contains the validation split; statistics stay those of the former.

    A text that occurs in both is two rows, so that `loss.positives: text` takes its captions for different ones.
    """
    return replace(features, train=stack_splits(features.train, features.validation))


def stack_splits(upper: FeatureSplit, lower: FeatureSplit) -> FeatureSplit:
    """Two splits with different buildings as one: the rows of the second follow those of the first."""

    def stacked(name: str, above: int = 0) -> Tensor:
        return torch.cat([getattr(upper, name), getattr(lower, name) + above])

    images, texts, regions = len(upper.images), len(upper.texts), len(upper.boxes)
    return FeatureSplit(
        images=StackedTable(upper.images, lower.images),
        groups=stacked("groups"),
        texts=StackedTable(upper.texts, lower.texts),
        caption_text=stacked("caption_text", texts),
        caption_image=stacked("caption_image", images),
        sentence_text=stacked("sentence_text", texts),
        sentence_image=stacked("sentence_image", images),
        boxes=stacked("boxes"),
        relations=stacked("relations"),
        first_region=stacked("first_region", regions),
        grid=None if upper.grid is None or lower.grid is None else StackedTable(upper.grid, lower.grid),
    )

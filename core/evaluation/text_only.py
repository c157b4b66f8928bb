"""What region sentences alone tell of boxes and relations: a small network that never sees an image.

Sentences give the position away ("on the upper left"), so metrics of regions mean something only beside it.
"""

import math
from collections.abc import Iterator
from itertools import islice
from typing import NamedTuple

import torch
from torch import Tensor, nn

from core.data.geometry import RELATIONS
from core.device import row_blocks
from core.features.store import FeatureSplit, Statistics, gather
from core.model.layers import FeatureNorm
from core.model.losses import box_loss, relation_loss

HIDDEN = (256, 128)
BATCH = 256
EPOCHS = (5, 20)
"""Tried on buildings held out of the training split: phrases of Flickr30k overfit after 5, the demo's sentences gain
until 20."""
HELD_OUT = 0.2
"""Share of the buildings that the number of epochs is chosen on."""
MIN_STEPS = 100
"""For few regions; there, more only overfit (327 regions of the demo data: box IoU 0.42, and 0.39 after 400)."""
MOST_REGIONS = 50_000
"""Regions drawn from larger training splits, which bounds memory and, at 20 epochs, the steps to 3,920."""
LEARNING_RATE = 3e-3
WEIGHT_DECAY = 0.1
GIOU_WEIGHT = 1.0
READ_BYTES = 32 * 2**20
"""Maximum memory of the sentences that are read at once for a prediction."""


class TextOnlyNetwork(nn.Module):
    """Predicts a region's box from its sentence, and its relation to another region from both sentences."""

    def __init__(self, statistics: Statistics) -> None:
        super().__init__()
        width = len(statistics.text_mean)
        self.norm = FeatureNorm(width, "standardize")
        self.norm.use_statistics(statistics.text_mean, statistics.text_std)
        self.box = _perceptron(width, 4)
        self.relation = _perceptron(2 * width, len(RELATIONS))

    def forward(self, sentences: Tensor, references: Tensor) -> tuple[Tensor, Tensor]:
        """Raw features of sentences and of those they refer to [B, text_dim] → [B, 4] boxes, [B, 6] logits."""
        sentences, references = self.norm(sentences.float()), self.norm(references.float())
        free = self.box(sentences).sigmoid()
        size = free[:, 2:]
        corner = free[:, :2] * (1 - size)  # always an ordered box within the image, as the model's is
        return torch.cat([corner, corner + size], dim=1), self.relation(torch.cat([sentences, references], dim=1))

    @torch.no_grad()
    def predict(self, split: FeatureSplit) -> tuple[Tensor, Tensor]:
        """Boxes [R, 4] and relation logits [R, 6] of all regions of a split."""
        references = split.sentence_text[split.first_region]
        blocks = row_blocks(len(split.sentence_text), 2 * split.texts.shape[1], max_bytes=READ_BYTES)
        parts = [
            self(gather(split.texts, split.sentence_text[rows]), gather(split.texts, references[rows]))
            for rows in blocks
        ]
        boxes, relations = zip(*parts, strict=True)
        return torch.cat(boxes), torch.cat(relations)


class _Regions(NamedTuple):
    """Targets of regions, and the rows of `texts` that hold their sentences."""

    texts: Tensor
    """[T, text_dim], the distinct sentences"""
    sentences: Tensor
    """[2, R], row of each region's sentence, and of the one it refers to"""
    boxes: Tensor
    relations: Tensor
    groups: Tensor
    """[R], building of each region"""

    def where(self, chosen: Tensor) -> "_Regions":
        """Those that a mask [R] selects."""
        return _Regions(
            self.texts, self.sentences[:, chosen], self.boxes[chosen], self.relations[chosen], self.groups[chosen]
        )

    def losses(self, network: TextOnlyNetwork, rows: Tensor | slice) -> tuple[Tensor, Tensor]:
        """Mean box loss and mean relation loss of some of the regions."""
        sentence, reference = self.sentences[:, rows]
        boxes, logits = network(self.texts[sentence], self.texts[reference])
        return box_loss(boxes, self.boxes[rows], giou=GIOU_WEIGHT), relation_loss(logits, self.relations[rows])


def fit_text_only(train: FeatureSplit, statistics: Statistics, *, seed: int = 0) -> TextOnlyNetwork:
    """Train the network on the regions of the training split, for as many epochs as held-out buildings favour.

    AdamW, one cycle of the learning rate; boxes by L1 and 1 − GIoU, relations by cross-entropy. The two share no
    parameter, so each has its own number of epochs.

    Args:
        train: with at least one region.
    """
    regions = _draw_regions(train, seed)
    by_box, by_relation = _choose_epochs(regions, statistics, seed)
    network = _fit(regions, statistics, by_box, seed)
    if by_relation != by_box:
        network.relation = _fit(regions, statistics, by_relation, seed).relation
    return network


def _draw_regions(train: FeatureSplit, seed: int) -> _Regions:
    """At most MOST_REGIONS, with their sentences read once: a store reads from disk, a live table runs the backbone."""
    order = torch.randperm(len(train.boxes), generator=torch.Generator().manual_seed(seed))
    chosen = order[:MOST_REGIONS].to(train.boxes.device)
    wanted = torch.stack([train.sentence_text[chosen], train.sentence_text[train.first_region[chosen]]])
    distinct, places = torch.unique(wanted, return_inverse=True)
    return _Regions(
        gather(train.texts, distinct),
        places,
        train.boxes[chosen],
        train.relations[chosen],
        train.groups[train.sentence_image[chosen]],
    )


def _choose_epochs(regions: _Regions, statistics: Statistics, seed: int) -> tuple[int, int]:
    """Epochs with the lowest loss on held-out buildings: of the boxes, and of the relations."""
    groups = regions.groups.unique()
    order = torch.randperm(len(groups), generator=torch.Generator().manual_seed(seed)).to(groups.device)
    held = torch.isin(regions.groups, groups[order[: round(HELD_OUT * len(groups))]])
    count = int((~held).sum())
    if count in (0, len(held)) or len({_steps(epochs, count) for epochs in EPOCHS}) == 1:  # there is no choice
        return EPOCHS[0], EPOCHS[0]
    losses = []
    for epochs in EPOCHS:
        network = _fit(regions.where(~held), statistics, epochs, seed)
        with torch.no_grad():
            losses.append([float(loss) for loss in regions.where(held).losses(network, slice(None))])
    boxes, relations = (EPOCHS[each.index(min(each))] for each in zip(*losses, strict=True))
    return boxes, relations


def _fit(regions: _Regions, statistics: Statistics, epochs: int, seed: int) -> TextOnlyNetwork:
    generator = torch.Generator().manual_seed(seed)
    count, device = len(regions.boxes), regions.boxes.device
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = TextOnlyNetwork(statistics).to(device)
    steps = _steps(epochs, count)
    optimizer = torch.optim.AdamW(network.parameters(), lr=LEARNING_RATE, weight_decay=WEIGHT_DECAY)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, LEARNING_RATE, total_steps=steps, pct_start=0.1)
    for rows in islice(_batches(count, generator), steps):
        optimizer.zero_grad()
        sum(regions.losses(network, rows.to(device)), torch.zeros((), device=device)).backward()
        optimizer.step()
        schedule.step()
    return network


def _steps(epochs: int, regions: int) -> int:
    return max(MIN_STEPS, epochs * math.ceil(regions / BATCH))


def _batches(regions: int, generator: torch.Generator) -> Iterator[Tensor]:
    """Rows of batches, epoch after epoch without an end."""
    while True:
        order = torch.randperm(regions, generator=generator)
        yield from (order[start : start + BATCH] for start in range(0, regions, BATCH))


def _perceptron(width: int, outputs: int) -> nn.Sequential:
    first, second = HIDDEN
    return nn.Sequential(
        nn.Linear(width, first), nn.ReLU(), nn.Linear(first, second), nn.ReLU(), nn.Linear(second, outputs)
    )

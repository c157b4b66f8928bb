"""What region sentences alone tell of boxes and relations: a small network that never sees an image.

Sentences give the position away ("on the upper left"), so metrics of regions mean something only beside it.
"""

import math
from collections.abc import Iterator
from itertools import islice

import torch
from torch import Tensor, nn

from core.data.geometry import RELATIONS
from core.device import row_blocks
from core.features.store import FeatureSplit, Statistics, gather
from core.model.layers import FeatureNorm
from core.model.losses import box_loss, relation_loss

HIDDEN = (256, 128)
BATCH = 256
EPOCHS = 20
"""On the demo data 10 to 20 reach the best box IoU on held-out buildings, and 40 overfit."""
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


def fit_text_only(train: FeatureSplit, statistics: Statistics, *, seed: int = 0) -> TextOnlyNetwork:
    """Train the network on the regions of the training split: AdamW, one cycle of the learning rate, fixed settings.

    Boxes by L1 and 1 − GIoU, relations by cross-entropy; the two share no parameter, so neither costs the other.

    Args:
        train: with at least one region.
    """
    generator = torch.Generator().manual_seed(seed)
    device = train.boxes.device
    chosen = torch.randperm(len(train.boxes), generator=generator)[:MOST_REGIONS].to(device)
    first = train.first_region[chosen]
    wanted = torch.stack([train.sentence_text[chosen], train.sentence_text[first]])  # [2, R]
    distinct, places = torch.unique(wanted, return_inverse=True)
    texts = gather(train.texts, distinct)  # read once: a store reads from disk, and a live table runs the backbone
    boxes, relations = train.boxes[chosen], train.relations[chosen]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = TextOnlyNetwork(statistics).to(device)
    steps = max(MIN_STEPS, EPOCHS * math.ceil(len(chosen) / BATCH))
    optimizer = torch.optim.AdamW(network.parameters(), lr=LEARNING_RATE, weight_decay=WEIGHT_DECAY)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, LEARNING_RATE, total_steps=steps, pct_start=0.1)
    for batch in islice(_batches(len(chosen), generator), steps):
        rows = batch.to(device)
        predicted, logits = network(texts[places[0, rows]], texts[places[1, rows]])
        loss = box_loss(predicted, boxes[rows], giou=GIOU_WEIGHT) + relation_loss(logits, relations[rows])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return network


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

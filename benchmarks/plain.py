"""The same training written without this project, for comparison: plain PyTorch on cached features.

Four losses, two stages, the same batches, dropout, schedule and validation; soft contrastive targets as a dense matrix,
`torch.multinomial` for hard negatives, library modules, everything in memory.
"""

import time
from collections.abc import Iterator
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional

from benchmarks.results import Row
from core.config import LossConfig, TrainConfig
from core.data.geometry import RELATIONS
from core.features.store import Features, FeatureSplit


class PlainModel(nn.Module):
    """Two adapters, three heads, a temperature."""

    def __init__(self, config: TrainConfig, vision_dim: int, text_dim: int) -> None:
        super().__init__()
        model = config.model
        self.images, self.texts = (
            nn.Sequential(
                nn.Linear(width, model.adapter_width),
                nn.ReLU(),
                nn.Dropout(model.dropout),
                nn.Linear(model.adapter_width, model.embed_dim),
            )
            for width in (vision_dim, text_dim)
        )
        self.interaction = model.fusion == "interaction"
        fused = model.embed_dim * (4 if self.interaction else 2)
        self.match, self.box, self.relation = (nn.Linear(fused, n) for n in (2, 4, len(RELATIONS)))
        self.log_temperature = nn.Parameter(torch.tensor(model.temperature).log())

    def embed(self, images: Tensor, texts: Tensor) -> tuple[Tensor, Tensor]:
        return functional.normalize(self.images(images), dim=-1), functional.normalize(self.texts(texts), dim=-1)

    def fuse(self, image: Tensor, text: Tensor) -> Tensor:
        if not self.interaction:
            return torch.cat([image, text], dim=1)
        image, text = image * image.shape[1] ** 0.5, text * text.shape[1] ** 0.5
        return torch.cat([image, text, image * text, (image - text).abs()], dim=1)


def retrieval_loss(model: PlainModel, image: Tensor, text: Tensor, keys: Tensor, config: TrainConfig) -> Tensor:
    """Weighted ITC and ITM."""
    logits = image @ text.T / model.log_temperature.exp()
    same = keys[:, None] == keys
    target = functional.normalize(same.float(), p=1, dim=1)
    loss = config.loss.itc * (functional.cross_entropy(logits, target) + functional.cross_entropy(logits.T, target)) / 2
    if not config.loss.itm:
        return loss
    with torch.no_grad():
        texts = torch.multinomial(logits.softmax(1).masked_fill(same, 0).clamp(min=1e-12), 1).squeeze(1)
        images = torch.multinomial(logits.T.softmax(1).masked_fill(same, 0).clamp(min=1e-12), 1).squeeze(1)
    fused = model.fuse(torch.cat([image, image, image[images]]), torch.cat([text, text[texts], text]))
    matched = torch.cat([torch.ones_like(keys), torch.zeros_like(keys), torch.zeros_like(keys)])
    return loss + config.loss.itm * functional.cross_entropy(model.match(fused), matched)


def region_loss(model: PlainModel, fused: Tensor, boxes: Tensor, relations: Tensor, weights: LossConfig) -> Tensor:
    """Weighted box and relation losses of fused regions and sentences."""
    free = model.box(fused).sigmoid()
    corner = free[:, :2] * (1 - free[:, 2:])
    box = functional.l1_loss(torch.cat([corner, corner + free[:, 2:]], dim=1), boxes)
    spatial = functional.cross_entropy(model.relation(fused), relations, ignore_index=-1)
    return weights.box * box + weights.spatial * spatial


@torch.no_grad()
def recall_mean(model: PlainModel, images: Tensor, texts: Tensor, split: FeatureSplit) -> float:
    """Mean of recall at 1, 5 and 10 in both directions, relevance by building."""
    model.eval()
    image, text = model.embed(images, texts)
    scores = text[split.caption_text] @ image.T
    same = split.groups[split.caption_image][:, None] == split.groups
    recalls = []
    for ranked, relevant in ((scores, same), (scores.T, same.T)):
        hits = relevant.gather(1, ranked.argsort(dim=1, descending=True))
        recalls += [float(hits[:, :k].any(dim=1).float().mean()) for k in (1, 5, 10)]
    return sum(recalls) / len(recalls)


def triangle(step: int, total: int, warm: int) -> float:
    """Learning rate over its peak: linear up, then linear down."""
    return min((step + 1) / warm, (total - step) / max(1, total - warm))


def train_plainly(config: TrainConfig, features: Features) -> Iterator[Row]:
    """Train and validate; yields recall and seconds of each epoch."""
    torch.manual_seed(config.seed)
    model = PlainModel(config, features.vision_dim, features.text_dim)
    norm, train = features.statistics, features.train
    (images, texts), validation = (
        (
            (split.images[:] - norm.image_mean) / norm.image_std.clamp(min=1e-6),
            (split.texts[:] - norm.text_mean) / norm.text_std.clamp(min=1e-6),
        )
        for split in (train, features.validation)
    )
    recipe, batch_size, peak = config.recipe, config.optimizer.batch_size, config.optimizer.learning_rate
    steps = len(train.caption_text) // batch_size
    for joint, epochs in ((False, recipe.stage1_epochs), (True, recipe.epochs - recipe.stage1_epochs)):
        rate = peak * recipe.stage2_lr_scale if joint and recipe.stage1_epochs else peak
        optimizer = torch.optim.AdamW(model.parameters(), lr=rate, weight_decay=config.optimizer.weight_decay)
        total, warm = max(1, epochs * steps), max(1, int(config.optimizer.warmup_ratio * epochs * steps))
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, partial(triangle, total=total, warm=warm))
        for _ in range(epochs):
            started = time.monotonic()
            model.train()
            pairs = torch.randperm(len(train.caption_text))[: steps * batch_size].split(batch_size)
            regions = torch.randperm(len(train.boxes)).tensor_split(steps)
            for pair, region in zip(pairs, regions, strict=True):
                caption_images = train.caption_image[pair]
                image, text = model.embed(images[caption_images], texts[train.caption_text[pair]])
                keys = caption_images if config.loss.positives == "image" else train.groups[caption_images]
                loss = retrieval_loss(model, image, text, keys, config)
                if joint:
                    fused = model.fuse(
                        *model.embed(images[train.sentence_image[region]], texts[train.sentence_text[region]])
                    )
                    loss = loss + region_loss(model, fused, train.boxes[region], train.relations[region], config.loss)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                schedule.step()
            trained = time.monotonic()
            recall = recall_mean(model, *validation, features.validation)
            ended = time.monotonic()
            yield {"recall_mean": recall, "train_seconds": trained - started, "evaluation_seconds": ended - trained}

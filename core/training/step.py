"""One optimisation step, replayed as a CUDA graph on a GPU."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import Tensor

from core.config import LossConfig, TrainConfig
from core.model.losses import (
    Losses,
    Negatives,
    box_loss,
    contrastive_logits,
    hard_negatives,
    itc_loss,
    itm_loss,
    overlapping_itc_loss,
    random_negatives,
    relation_loss,
    sigmoid_loss,
    weighted_sum,
)
from core.model.model import CrossModalModel
from core.model.views import ImageView, TextView
from core.training.batches import Batch
from core.training.optimizer import update_parameters

WARM_UP = 3
"""Steps per batch size that run eagerly before one is recorded, since libraries initialise in the first ones."""

Record = Callable[[Callable[[], None], torch.Generator], Callable[[], None]]
"""Records a function that may draw from the generator; returns a function that repeats it."""


class TrainStep:
    """Forward, backward and AdamW on one batch.

    Everything that changes between steps is in tensors and generators, not in Python, and nothing synchronises with the
    device, so a step can be recorded once and replayed.
    """

    def __init__(self, model: CrossModalModel, optimizer: torch.optim.Optimizer, weights: LossConfig) -> None:
        device = next(model.parameters()).device
        self._model = model
        self._optimizer = optimizer
        self._weights = weights
        self._negatives = torch.Generator(device)
        self.totals = torch.zeros(len(Losses._fields), device=device)
        """[4], sums of the unweighted losses over the steps of this epoch, in the order of `Losses`."""

    def begin_epoch(self, seed: int) -> None:
        """Seed the draws of hard negatives, and reset the sums of the losses."""
        self._negatives.manual_seed(seed)
        self.totals.zero_()

    def __call__(self, batch: Batch) -> None:
        """Update the parameters, and add the losses to `totals`."""
        losses = compute_losses(self._model, batch, self._weights, self._negatives)
        weighted_sum(losses, self._weights).backward()
        update_parameters(self._optimizer)
        self._optimizer.zero_grad()
        self.totals += torch.stack(losses).detach()

    def mean_losses(self, steps: int) -> Losses[float]:
        """Mean unweighted losses of this epoch; synchronises with the device.

        Args:
            steps: number of steps since `begin_epoch`.
        """
        return Losses(*(self.totals / steps).tolist())


class ReplayedStep(TrainStep):
    """A `TrainStep` recorded once per batch size, so that hundreds of small operations become one launch."""

    def __init__(
        self, model: CrossModalModel, optimizer: torch.optim.Optimizer, weights: LossConfig, record: Record
    ) -> None:
        super().__init__(model, optimizer, weights)
        self._record = record
        self._warm: dict[tuple[int, int], int] = {}
        self._recorded: dict[tuple[int, int], tuple[Batch, Callable[[], None]]] = {}

    def __call__(self, batch: Batch) -> None:
        size = (batch.pairs, batch.regions)
        self._warm[size] = self._warm.get(size, 0) + 1
        if self._warm[size] <= WARM_UP:
            super().__call__(batch)
            return
        if size not in self._recorded:
            self._recorded[size] = self._record_on(batch.clone())
        recorded_batch, replay = self._recorded[size]
        recorded_batch.copy_(batch)
        replay()

    def _record_on(self, batch: Batch) -> tuple[Batch, Callable[[], None]]:
        """Record a step on the memory of a batch, from which each replay then reads."""
        for group in self._optimizer.param_groups:
            group["capturable"] = True  # not earlier: AdamW warns if a capturable step runs eagerly
        return batch, self._record(lambda: TrainStep.__call__(self, batch), self._negatives)


def build_step(model: CrossModalModel, optimizer: torch.optim.AdamW, config: TrainConfig) -> TrainStep:
    """A step of a stage: replayed as a CUDA graph on a GPU if `optimizer.cuda_graph`, else eager."""
    if next(model.parameters()).is_cuda and config.optimizer.cuda_graph:
        return ReplayedStep(model, optimizer, config.loss, record_cuda_graph)
    return TrainStep(model, optimizer, config.loss)


def record_cuda_graph(act: Callable[[], None], generator: torch.Generator) -> Callable[[], None]:
    """Record a function as a CUDA graph, on the current stream, which must not be the default one."""
    graph = torch.cuda.CUDAGraph()
    graph.register_generator_state(generator)
    with torch.cuda.graph(graph, stream=torch.cuda.current_stream()):
        act()
    return graph.replay


@contextmanager
def own_stream(device: torch.device) -> Iterator[None]:
    """Run the context on a separate stream of a GPU, as recording requires; does nothing on a CPU."""
    if device.type != "cuda":
        yield
        return
    stream = torch.cuda.Stream(device)
    outer = torch.cuda.current_stream(device)
    stream.wait_stream(outer)
    with torch.cuda.stream(stream):
        yield
    outer.wait_stream(stream)


def compute_losses(
    model: CrossModalModel, batch: Batch, weights: LossConfig, generator: torch.Generator
) -> Losses[Tensor]:
    """The unweighted losses of a step, each a scalar; 0 for a loss with weight 0 or without data.

    Args:
        generator: on the model's device; draws the negatives.
    """
    pairs, regions = _views(model, batch)
    logits = contrastive_logits(pairs.images.embedded, pairs.texts.embedded, model.temperature)
    itc = itm = box = spatial = logits.new_zeros(())
    same = batch.same()
    if weights.itc:
        itc = _contrastive_loss(model, batch, logits, same)
    if weights.itm:
        negatives = _negatives(model, logits.detach(), same, generator)
        itm = itm_loss(model.odds_with_negatives(pairs.images, pairs.texts, negatives), negatives)
    if batch.regions and (weights.box or weights.spatial):
        references = TextView(regions.texts.embedded, batch.references)
        boxes, relations = model.ground(regions.images, regions.texts, references)
        if weights.box:
            box = box_loss(boxes, batch.boxes, giou=weights.giou)
        if weights.spatial:
            spatial = relation_loss(relations, batch.relations)
    return Losses(itc, itm, box, spatial)


class _Views(NamedTuple):
    images: ImageView
    texts: TextView


def _views(model: CrossModalModel, batch: Batch) -> tuple[_Views, _Views]:
    """The embedded pairs, and the embedded regions with their sentences."""
    sizes = [batch.pairs, batch.regions]
    grid = None if batch.grid is None else batch.grid.to(batch.images.dtype)  # one conversion for all uses
    images = torch.split(model.embed_images(batch.images, grid), sizes)
    texts = torch.split(model.embed_texts(batch.texts), sizes)
    if grid is None or model.grounding is None:
        return _Views(ImageView(images[0]), TextView(texts[0])), _Views(ImageView(images[1]), TextView(texts[1]))
    seen = zip(images, torch.split(grid, sizes), texts, torch.split(batch.texts, sizes), strict=True)
    pairs, regions = (_Views(ImageView(*part[:2]), TextView(*part[2:])) for part in seen)
    return pairs, regions


def _contrastive_loss(model: CrossModalModel, batch: Batch, logits: Tensor, same: Tensor) -> Tensor:
    if model.contrastive_bias is not None:
        return sigmoid_loss(logits + model.contrastive_bias, same)
    return itc_loss(logits, same) if batch.caption_keys is None else overlapping_itc_loss(logits, same)


def _negatives(model: CrossModalModel, logits: Tensor, same: Tensor, generator: torch.Generator) -> Negatives:
    """Hard negatives, and for attention also random texts, without which it is not calibrated on easy pairs."""
    texts, images = hard_negatives(logits, same, generator)
    if model.grounding is None:
        return Negatives(texts[None], images)
    return Negatives(torch.stack([texts, random_negatives(same, generator)]), images)

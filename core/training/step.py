"""One optimisation step, and on a GPU its replay as a CUDA graph."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from core.config import LossConfig, TrainConfig
from core.model.losses import (
    Losses,
    box_loss,
    contrastive_logits,
    hard_negatives,
    itc_loss,
    itm_loss,
    relation_loss,
    weighted_sum,
)
from core.model.model import CrossModalModel
from core.training.batches import Batch

WARM_UP = 3
"""Steps of each size that run as written before one is recorded: libraries set themselves up in the first ones."""

Record = Callable[[Callable[[], None], torch.Generator], Callable[[], None]]
"""Records what a function does, which may draw from the generator; returns what does the same once more."""


class TrainStep:
    """Forward, backward and AdamW on one batch.

    All that changes from step to step lies in tensors and generators, nothing in Python, and nothing waits for the
    device: so a step can be recorded once and replayed.
    """

    def __init__(self, model: CrossModalModel, optimizer: torch.optim.Optimizer, weights: LossConfig) -> None:
        device = next(model.parameters()).device
        self._model = model
        self._optimizer = optimizer
        self._weights = weights
        self._negatives = torch.Generator(device)
        self.totals = torch.zeros(len(Losses._fields), device=device)
        """Sums of the unweighted losses over the steps of this epoch, in the order of `Losses`."""

    def begin_epoch(self, seed: int) -> None:
        self._negatives.manual_seed(seed)
        self.totals.zero_()

    def __call__(self, batch: Batch) -> None:
        losses = compute_losses(self._model, batch, self._weights, self._negatives)
        weighted_sum(losses, self._weights).backward()
        self._optimizer.step()
        self._optimizer.zero_grad()
        self.totals += torch.stack(losses).detach()

    def mean_losses(self, steps: int) -> Losses[float]:
        """Of this epoch; waits for the device."""
        return Losses(*(self.totals / steps).tolist())


class ReplayedStep(TrainStep):
    """The same, recorded once for each size of batch: hundreds of small operations become one launch."""

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
        """A replay reads whatever lies in the memory of this batch by then."""
        for group in self._optimizer.param_groups:
            group["capturable"] = True  # not sooner: AdamW warns where a capturable step runs as written
        return batch, self._record(lambda: TrainStep.__call__(self, batch), self._negatives)


def build_step(model: CrossModalModel, optimizer: torch.optim.AdamW, config: TrainConfig) -> TrainStep:
    """On a GPU one that is recorded and replayed, unless the configuration forbids it."""
    if next(model.parameters()).is_cuda and config.optimizer.cuda_graph:
        return ReplayedStep(model, optimizer, config.loss, record_cuda_graph)
    return TrainStep(model, optimizer, config.loss)


def record_cuda_graph(act: Callable[[], None], generator: torch.Generator) -> Callable[[], None]:
    """Record on the current stream, which must not be the default one."""
    graph = torch.cuda.CUDAGraph()
    graph.register_generator_state(generator)
    with torch.cuda.graph(graph, stream=torch.cuda.current_stream()):
        act()
    return graph.replay


@contextmanager
def own_stream(device: torch.device) -> Iterator[None]:
    """On a GPU everything within runs on a stream of its own, as recording demands."""
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
    """The unweighted losses of a step. One whose weight is 0, or that has nothing to learn from, is 0."""
    sizes = [batch.pairs, batch.regions]
    images, region_images = torch.split(model.embed_images(batch.images), sizes)
    captions, sentences = torch.split(model.embed_texts(batch.texts), sizes)
    logits = contrastive_logits(images, captions, model.temperature)
    itc = itm = box = spatial = logits.new_zeros(())
    if weights.itc:
        itc = itc_loss(logits, batch.keys)
    if weights.itm:
        negatives = hard_negatives(logits.detach(), batch.keys, generator)
        itm = itm_loss(model.match_odds, images, captions, *negatives)
    if batch.regions and (weights.box or weights.spatial):
        boxes, relations = model.ground(region_images, sentences)
        if weights.box:
            box = box_loss(boxes, batch.boxes, giou=weights.giou)
        if weights.spatial:
            spatial = relation_loss(relations, batch.relations)
    return Losses(itc, itm, box, spatial)

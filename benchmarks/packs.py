"""A pack: trials of one shape trained together in one process, against the same trials one after the other.

    python -m benchmarks.packs [--packs 2 4 8] [--widths 64 256] [--batches 64 128 512]

The trials of a pack have the same widths, batch size, kind of heads and recipe; learning rate, weight decay, loss
weights, temperature and seed differ. Their parameters are stacked, and the step of one trial is mapped over them
(torch.func), so that every product is a batched one and every operation is launched once for all. Batches, hard
negatives and AdamW are each trial's own, so that without dropout a trial of a pack computes what it computes alone
(tests/benchmarks/test_packs.py); with it the masks are other ones. Random features of InternVL3-1B's widths, no
validation.

On one thread, seconds of a pack are compared with those of its trials one after the other; on two, with two processes
of one thread that share its trials. The operations that a step launches are counted, too: on a GPU small steps are
bound by their number.
"""

import copy
import multiprocessing
import time
from collections.abc import Callable, Iterator, Sequence
from multiprocessing.queues import Queue
from multiprocessing.synchronize import Barrier
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from benchmarks.results import Row, options, say, write
from benchmarks.training import TEXT_DIM, VISION_DIM, shape
from core.config import TrainConfig
from core.features.random import random_features
from core.features.store import Features, Widths
from core.model.losses import (
    BELOW_ONE,
    OUT_OF_REACH,
    Losses,
    Negatives,
    box_loss,
    contrastive_logits,
    itc_loss,
    itm_loss,
    relation_loss,
    weighted_sum,
)
from core.model.model import CrossModalModel, build_model
from core.model.views import ImageView, TextView
from core.training.batches import Batch, epoch_batches
from core.training.optimizer import set_learning_rate
from core.training.stages import Run, begin_stage, stages_of

PAIRS = 4096
"""Captions of an epoch."""
READ = ("images", "texts", "keys", "boxes", "relations")
"""What linear heads read of a batch."""


class TrialLosses(nn.Module):
    """The four losses of a model with linear heads on one batch, with the random numbers of its negatives given."""

    def __init__(self, model: CrossModalModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, batch: dict[str, Tensor], points: Tensor) -> Tensor:
        """The same as `core.training.step.compute_losses`: [4]."""
        given, model = Batch(**batch), self.model
        sizes = [given.pairs, given.regions]
        image, seen = torch.split(model.embed_images(given.images), sizes)
        text, sentence = torch.split(model.embed_texts(given.texts), sizes)
        logits, same = contrastive_logits(image, text, model.temperature), given.same()
        allowed = logits.detach().masked_fill(same, OUT_OF_REACH)
        texts, images = drawn_columns(allowed, points[0]), drawn_columns(allowed.T.contiguous(), points[1])
        negatives = Negatives(texts[None], images)
        itm = itm_loss(model.odds_with_negatives(ImageView(image), TextView(text), negatives), negatives)
        boxes, relations = model.ground(ImageView(seen), TextView(sentence), TextView(sentence))
        box, spatial = box_loss(boxes, given.boxes, giou=0), relation_loss(relations, given.relations)
        return torch.stack([itc_loss(logits, same), itm, box, spatial])


def drawn_columns(logits: Tensor, points: Tensor) -> Tensor:
    """`core.model.losses.draw_columns` without operations in place, which cannot be mapped."""
    cumulative = logits.softmax(dim=1).cumsum(dim=1)
    drawn = torch.searchsorted(cumulative, points * cumulative[:, -1:], right=True)
    return drawn.squeeze(1).clamp(max=len(logits) - 1)


class Pack:
    """Trials of one shape, of a single stage, that take every step together."""

    def __init__(self, configs: Sequence[TrainConfig], features: Features) -> None:
        models = [build_model(config, features).train() for config in configs]
        self._parameters, self._buffers = torch.func.stack_module_state([TrialLosses(model) for model in models])
        self._template = copy.deepcopy(TrialLosses(models[0])).to("meta")
        for row, model in enumerate(models):  # each is a view of its row of the stack
            for name, parameter in model.named_parameters():
                parameter.data = self._parameters[f"model.{name}"].data[row]
        self._runs = [begin(config, features, model) for config, model in zip(configs, models, strict=True)]
        self._generators = [torch.Generator() for _ in configs]

    @property
    def models(self) -> list[CrossModalModel]:
        return [run.model for run in self._runs]

    def train_epoch(self, epoch: int) -> None:
        seeds = [run.seed_of(epoch) for run in self._runs]
        torch.manual_seed(seeds[0])  # dropout's
        for generator, seed in zip(self._generators, seeds, strict=True):
            generator.manual_seed(seed)
        orders = [epoch_of(run, seed) for run, seed in zip(self._runs, seeds, strict=True)]
        for number, batches in enumerate(zip(*orders, strict=True)):
            for run in self._runs:
                set_learning_rate(run.optimizer, run.learning_rate(epoch, number))
            self.step(batches)

    def step(self, batches: Sequence[Batch]) -> None:
        """One step of each trial, on a batch of its own."""
        stacked = {name: torch.stack([getattr(batch, name) for batch in batches]) for name in READ}
        losses = torch.vmap(self._losses, randomness="different")(
            self._parameters, self._buffers, stacked, self._points(batches[0].pairs)
        )
        weighted = [
            weighted_sum(Losses(*of_one), run.config.loss) for of_one, run in zip(losses, self._runs, strict=True)
        ]
        gradients = torch.autograd.grad(torch.stack(weighted).sum(), list(self._parameters.values()))
        for row, run in enumerate(self._runs):
            for (_, parameter), gradient in zip(run.model.named_parameters(), gradients, strict=True):
                parameter.grad = gradient[row].contiguous()  # the fused AdamW reads memory, not strides
            run.optimizer.step()

    def _losses(self, parameters: Any, buffers: Any, batch: dict[str, Tensor], points: Tensor) -> Tensor:
        losses: Tensor = torch.func.functional_call(self._template, (parameters, buffers), (batch, points))
        return losses

    def _points(self, pairs: int) -> Tensor:
        """The random numbers of each trial's negatives, as drawn alone."""
        return torch.stack([torch.rand(2, pairs, 1, generator=each).mul_(BELOW_ONE) for each in self._generators])


def begin(config: TrainConfig, features: Features, model: CrossModalModel) -> Run:
    """A run of a single stage."""
    (stage,) = stages_of(config)
    return begin_stage(config, features, model, stage, None)


def epoch_of(run: Run, seed: int) -> Iterator[Batch]:
    """The batches of an epoch as `core.training.train` draws them."""
    generator = torch.Generator().manual_seed(seed)
    return epoch_batches(run.features.train, run.config, with_regions=run.with_regions, generator=generator)


def train_alone(run: Run, epoch: int) -> None:
    """An epoch of one trial."""
    run.step.begin_epoch(run.seed_of(epoch))
    for number, batch in enumerate(epoch_of(run, run.seed_of(epoch))):
        set_learning_rate(run.optimizer, run.learning_rate(epoch, number))
        run.step(batch)


def configurations(count: int, batch: int, width: int) -> list[TrainConfig]:
    """Trials of one shape that differ in everything else that is searched."""
    return [
        TrainConfig().with_overrides(
            {
                "optimizer.batch_size": batch,
                "model.adapter_width": width,
                "optimizer.learning_rate": 1e-3 * (1 + trial) / count,
                "optimizer.weight_decay": 0.01 * (1 + trial),
                "model.temperature": 0.05 + 0.01 * trial,
                "loss.itm": 0.5 + 0.1 * trial,
                "recipe.epochs": 2,
                "device": "cpu",
                "seed": trial,
            }
        )
        for trial in range(count)
    ]


def alone(configs: Sequence[TrainConfig], features: Features) -> Callable[[int], None]:
    """Trains an epoch of each trial, one after the other."""
    runs = [begin(config, features, build_model(config, features).train()) for config in configs]

    def train_epoch(epoch: int) -> None:
        for run in runs:
            train_alone(run, epoch)

    return train_epoch


def seconds_of(train_epoch: Callable[[int], None], clock: Callable[[], float]) -> float:
    """Of the second epoch; libraries initialise in the first."""
    train_epoch(0)
    started = clock()
    train_epoch(1)
    return clock() - started


class Launches(TorchDispatchMode):
    """Counts operations that compute something: on a GPU each launches a kernel or more."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        views = (result.alias_info and not result.alias_info.is_write for result in func._schema.returns)
        self.count += not any(views)
        return func(*args, **(kwargs or {}))


def launches_of(train_epoch: Callable[[int], None], steps: int) -> float:
    """Operations of a step, those that gather its batches included."""
    with Launches() as counted:
        train_epoch(0)
    return float(counted.count / steps)


def measure(count: int, batch: int, width: int) -> Row:
    """On one thread, in CPU seconds, since machines are busy."""
    torch.set_num_threads(1)
    features = random_features(shape(PAIRS), shape(300), Widths(VISION_DIM, TEXT_DIM))
    configs = configurations(count, batch, width)
    steps = PAIRS // batch
    lone = seconds_of(alone(configs, features), time.process_time) / steps / count
    packed = seconds_of(Pack(configs, features).train_epoch, time.process_time) / steps / count
    return {
        "trials": count,
        "width": width,
        "batch": batch,
        "ms per step and trial": 1e3 * lone,
        "packed": 1e3 * packed,
        "times as fast": lone / packed,
        "operations per step": launches_of(alone(configs[:1], features), steps),
        "of the pack": launches_of(Pack(configs, features).train_epoch, steps),
    }


def train_share(count: int, batch: int, width: int, barrier: Barrier, seconds: "Queue[float]") -> None:
    torch.set_num_threads(1)
    features = random_features(shape(PAIRS), shape(300), Widths(VISION_DIM, TEXT_DIM))
    train_epoch = alone(configurations(count, batch, width), features)
    train_epoch(0)
    barrier.wait()
    started = time.perf_counter()
    train_epoch(1)
    seconds.put(time.perf_counter() - started)


def measure_two_cores(count: int, batch: int, width: int) -> Row:
    """Two processes of one thread with half of the trials each, against a pack of all on two threads."""
    context = multiprocessing.get_context("spawn")
    barrier, answers = context.Barrier(2), context.Queue()
    arguments = (count // 2, batch, width, barrier, answers)
    processes = [context.Process(target=train_share, args=arguments) for _ in range(2)]
    for process in processes:
        process.start()
    shared = max(answers.get() for _ in processes)
    for process in processes:
        process.join()
    torch.set_num_threads(2)
    features = random_features(shape(PAIRS), shape(300), Widths(VISION_DIM, TEXT_DIM))
    packed = seconds_of(Pack(configurations(count, batch, width), features).train_epoch, time.perf_counter)
    return {
        "trials": count,
        "width": width,
        "batch": batch,
        "two processes s": shared,
        "packed s": packed,
        "times as fast": shared / packed,
    }


def main() -> None:
    parser = options(__doc__ or "", "packs")
    parser.add_argument("--packs", type=int, nargs="+", default=[2, 4, 8])
    parser.add_argument("--widths", type=int, nargs="+", default=[64, 256])
    parser.add_argument("--batches", type=int, nargs="+", default=[64, 128, 512])
    settings = parser.parse_args()
    shapes = [
        (count, batch, width) for width in settings.widths for batch in settings.batches for count in settings.packs
    ]
    rows = [measure(*each) for each in shapes]
    say("packs on one thread", rows)
    largest = max(settings.packs)
    cores = [measure_two_cores(largest, batch, width) for width in settings.widths for batch in settings.batches]
    say("packs on two threads against two processes", cores)
    write(settings.output, {"one thread": rows, "two cores": cores})


if __name__ == "__main__":
    main()

"""Speed on a GPU: the full-size backbone, training with both kinds of heads, and trials that share the GPU.

    python -m benchmarks.gpu [--device cuda] [--layers 24] [--scale 1.0] [--together 1 4 16]

The backbone has InternVL3-1B's architecture and random weights, which take as long as real ones; it is timed with
one reading and with every kind of reading at once. The floor, here and of training, is the arithmetic of all matrix
products over the rate of one large product of the same type in the same run. Features have the shape of GeoText-1652's
training split times `--scale`. The grids of all its images, which heads with attention read, take 6.6 GB, first on the
GPU and then on the host. With `--device cpu`, few layers and a small scale, the script runs anywhere as a test; its
figures are then meaningless.
"""

import multiprocessing
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from multiprocessing.queues import Queue
from multiprocessing.synchronize import Barrier

import torch
from torch import Tensor

from benchmarks.full_size import TEXT_DIM, VISION_DIM, full_size_backbone
from benchmarks.results import Row, median, options, say, write
from benchmarks.training import CELLS, GRID_DIM, operations_per_step
from core.backbone.cost import flop_counter
from core.config import TrainConfig
from core.device import choose_device, device_name, peak_memory_mb
from core.features.random import SplitShape, random_features
from core.features.store import Features, HostTable, Widths
from core.readings import Reading, grid_reading, parse_readings
from core.sections import Scalar
from core.training.train import train

IMAGES, CAPTIONS, REGIONS, BUILDINGS = 50_000, 150_000, 135_000, 1_500
"""Approximate sizes of GeoText-1652's training split."""
READ: dict[str, Sequence[Reading]] = {
    "images: tower": parse_readings("images", "tower.mean", prompt="unused"),
    "images: tower, projector, language model and grid": (
        *parse_readings("images", "tower.cls+tower.mean+projector.mean+lm.image_mean+lm.prompt", prompt="What is it?"),
        grid_reading(8),
    ),
    "texts: language model": parse_readings("texts", "lm.last", prompt="unused"),
    "texts: language model, and once more with a prompt": parse_readings(
        "texts", "lm.mean+lm.last+lm.prompt", prompt="In one word:"
    ),
}
"""What is read of the backbone in one call."""


def timed(act: Callable[[], object], device: str) -> float:
    """Seconds of one run, after a warm-up run."""
    act()
    wait(device)
    started = time.perf_counter()
    act()
    wait(device)
    return time.perf_counter() - started


def wait(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


def operations_a_second(device: str, dtype: torch.dtype) -> float:
    """Floating-point operations per second of a large matrix product."""
    side = 8192 if device == "cuda" else 1024
    a, b = (torch.randn(side, side, device=device, dtype=dtype) for _ in range(2))
    return 2 * side**3 / median([timed(lambda: a @ b, device) for _ in range(5)])


def forget_peak(device: str) -> None:
    """Count peak memory from here on; on a CPU it is that of the whole process."""
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()


def measure_backbone(device: str, layers: int, images: int, texts: int) -> list[Row]:
    backbone = full_size_backbone(device, torch.bfloat16, layers=layers, micro_batch=min(images, 64))
    pixels = torch.randint(0, 256, (images, 3, 448, 448), dtype=torch.uint8)
    sentence = "There is a long red warehouse in the upper left of the image and a white tower beside the road. "
    sentences = [sentence * (1 + row % 3) for row in range(texts)]
    rate = operations_a_second(device, torch.bfloat16)
    rows = []
    for name, readings in READ.items():
        encode: Callable[[], object] = partial(backbone.encode_texts, sentences, readings)
        if readings[0].kind == "images":
            encode = partial(backbone.encode_pixels, pixels, readings)
        forget_peak(device)
        with flop_counter() as counted:
            encode()
        seconds = timed(encode, device)
        rows.append(
            {
                "encoding": name,
                "per second": (images if readings[0].kind == "images" else texts) / seconds,
                "of the floor": counted.get_total_flops() / rate / seconds,
                "peak MB": peak_memory_mb(torch.device(device)),
            }
        )
    return rows


def shape(scale: float) -> SplitShape:
    images, captions, regions, buildings = (int(n * scale) for n in (IMAGES, CAPTIONS, REGIONS, BUILDINGS))
    return SplitShape(images, max(2, buildings), captions, captions + regions, regions)


def configuration(device: str, batch: int, **changes: Scalar) -> TrainConfig:
    settings: dict[str, Scalar] = {"optimizer.batch_size": batch, "device": device}
    return TrainConfig().with_overrides(settings | {name.replace("__", "."): value for name, value in changes.items()})


def measure_training(device: str, features: Features, batch: int, width: int) -> Row:
    """Pairs a second of linear heads, eager and replayed."""
    seconds = {}
    for name, replayed in (("eager", False), ("replayed", True)):
        config = configuration(
            device, batch, model__adapter_width=width, recipe__epochs=3, optimizer__cuda_graph=replayed
        )
        seconds[name] = min(epoch.train_seconds for epoch in train(config, features).history[1:])
    pairs = len(features.train.caption_text) // batch * batch
    floor = pairs / batch * operations_per_step(batch, width) / operations_a_second(device, torch.float32)
    return {
        "width": width,
        "batch": batch,
        "eager pairs per second": pairs / seconds["eager"],
        "replayed pairs per second": pairs / seconds["replayed"],
        "ratio": seconds["eager"] / seconds["replayed"],
        "replayed, of the floor": floor / seconds["replayed"],
    }


class GridOnHost:
    """A grid that stays on the host, even if a GPU has room for it."""

    def __init__(self, rows: Tensor) -> None:
        self._rows = rows
        self.shape = rows.shape

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, rows: Tensor | slice, /) -> Tensor:
        return self._rows[rows]

    def to(self, device: torch.device, /) -> HostTable:
        return HostTable(self._rows, device)


def measure_attention(device: str, scale: float, batch: int) -> list[Row]:
    """Pairs a second of heads with attention, with the grids of the training split on the device and on the host."""
    features = random_features(shape(scale), shape(scale / 50), Widths(VISION_DIM, TEXT_DIM, (CELLS, GRID_DIM)))
    assert isinstance(features.train.grid, Tensor)
    grid = features.train.grid.contiguous()  # its rows share their memory, from which they would be read too fast
    pairs = len(features.train.caption_text) // batch * batch
    config = configuration(device, batch, model__fusion="attention", recipe__epochs=2)
    floor = pairs / batch * operations_per_step(batch, config.model.adapter_width, "attention")
    floor /= operations_a_second(device, torch.float32)
    rows = []
    for place, table in (("device", grid), ("host", GridOnHost(grid))):
        forget_peak(device)
        seconds = train(config, replace(features, train=replace(features.train, grid=table))).history[-1].train_seconds
        rows.append(
            {
                "grids on the": place,
                "grids GB": grid.nbytes / 1e9,
                "batch": batch,
                "pairs per second": pairs / seconds,
                "of the floor": floor / seconds,
                "peak MB": peak_memory_mb(torch.device(device)),
            }
        )
    return rows


def run_trial(device: str, scale: float, share: float, barrier: Barrier, answers: "Queue[float]") -> None:
    """One trial of eight epochs in its own process."""
    if device == "cuda":
        torch.cuda.set_per_process_memory_fraction(share)
    else:
        torch.set_num_threads(1)
    features = random_features(shape(scale), shape(scale / 50), Widths(VISION_DIM, TEXT_DIM))
    train(configuration(device, 512, recipe__epochs=1), features)  # what a warm worker has behind it
    barrier.wait()
    started = time.perf_counter()
    train(configuration(device, 512, recipe__epochs=8), features)
    answers.put(time.perf_counter() - started)


def measure_together(device: str, scale: float, count: int) -> Row:
    context = multiprocessing.get_context("spawn")
    barrier, answers = context.Barrier(count), context.Queue()
    arguments = (device, scale, 1 / count, barrier, answers)
    processes = [context.Process(target=run_trial, args=arguments) for _ in range(count)]
    for process in processes:
        process.start()
    seconds = [answers.get() for _ in processes]
    for process in processes:
        process.join()
    return {"trials at once": count, "s per trial": median(seconds), "trials per minute": 60 * count / max(seconds)}


def main() -> None:
    parser = options(__doc__ or "", "gpu")
    parser.add_argument("--device", default="cuda", choices=["cuda", "cpu"])
    parser.add_argument("--layers", type=int, default=24)
    parser.add_argument("--images", type=int, default=512)
    parser.add_argument("--texts", type=int, default=4096)
    parser.add_argument("--scale", type=float, default=1.0)
    parser.add_argument("--batches", type=int, nargs="+", default=[128, 512, 4096])
    parser.add_argument("--together", type=int, nargs="+", default=[1, 4, 16])
    settings = parser.parse_args()
    if settings.device == "cuda" and not torch.cuda.is_available():
        parser.exit(2, "this machine has no usable GPU; with --device cpu it can only be tested\n")
    device = choose_device(settings.device)
    memory = torch.cuda.mem_get_info(device)[1] / 1e9 if device.type == "cuda" else None
    machine = {"device": device_name(device), "memory GB": memory}
    say("the device", [machine])
    backbone = measure_backbone(settings.device, settings.layers, settings.images, settings.texts)
    say("the frozen backbone, bfloat16", backbone)
    features = random_features(shape(settings.scale), shape(settings.scale / 50), Widths(VISION_DIM, TEXT_DIM))
    training = [measure_training(settings.device, features, batch, 256) for batch in settings.batches]
    say("training the adapters and linear heads, float32", training)
    attention = measure_attention(settings.device, settings.scale, 512)
    say("training with attention, float32", attention)
    together = [measure_together(settings.device, settings.scale, count) for count in settings.together]
    say("trials of eight epochs, sharing the device", together)
    write(
        settings.output,
        {**machine, "backbone": backbone, "training": training, "attention": attention, "together": together},
    )


if __name__ == "__main__":
    main()

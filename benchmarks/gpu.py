"""Speed on a GPU: the full-size backbone, eager against replayed steps, and trials that share the GPU.

    python -m benchmarks.gpu [--device cuda] [--layers 24] [--scale 1.0] [--together 1 4 16]

The backbone has InternVL3-1B's architecture and random weights, which take as long as real ones. The floor, here and of
training, is the arithmetic of all matrix products over the rate of one large product of the same type in the same run.
Features have the shape of GeoText-1652's training split times `--scale`. With `--device cpu`, few layers and a small
scale, the script runs anywhere as a test; its figures are then meaningless.
"""

import multiprocessing
import time
from collections.abc import Callable

import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.full_size import TEXT_DIM, VISION_DIM, full_size_backbone
from benchmarks.results import Row, median, options, say, write
from benchmarks.training import operations_per_step
from core.config import TrainConfig
from core.features.random import SplitShape, random_features
from core.features.store import Widths
from core.training.train import train

IMAGES, CAPTIONS, REGIONS, BUILDINGS = 50_000, 150_000, 135_000, 1_500
"""Approximate sizes of GeoText-1652's training split."""


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


def measure_backbone(device: str, layers: int, images: int, texts: int) -> list[Row]:
    backbone = full_size_backbone(device, torch.bfloat16, layers=layers, micro_batch=min(images, 64))
    pixels = torch.randint(0, 256, (images, 3, 448, 448), dtype=torch.uint8)
    sentence = "There is a long red warehouse in the upper left of the image and a white tower beside the road. "
    sentences = [sentence * (1 + row % 3) for row in range(texts)]
    rate = operations_a_second(device, torch.bfloat16)
    work: dict[str, tuple[int, Callable[[], object]]] = {
        "images": (images, lambda: backbone.encode_pixels(pixels)),
        "texts": (texts, lambda: backbone.encode_texts(sentences)),
    }
    rows = []
    for kind, (count, encode) in work.items():
        with FlopCounterMode(display=False) as counted:
            encode()
        seconds = timed(encode, device)
        floor = counted.get_total_flops() / rate
        rows.append({"encoding": kind, "per second": count / seconds, "of the floor": floor / seconds})
    return rows


def shape(scale: float) -> SplitShape:
    images, captions, regions, buildings = (int(n * scale) for n in (IMAGES, CAPTIONS, REGIONS, BUILDINGS))
    return SplitShape(images, max(2, buildings), captions, captions + regions, regions)


def configuration(device: str, batch: int, **changes: Scalar) -> TrainConfig:
    settings: dict[str, Scalar] = {"optimizer.batch_size": batch, "device": device}
    return TrainConfig().with_overrides(settings | {name.replace("__", "."): value for name, value in changes.items()})


def measure_training(device: str, scale: float, batch: int, width: int) -> Row:
    """Pairs a second, eager and replayed."""
    features = random_features(shape(scale), shape(scale / 50), Widths(VISION_DIM, TEXT_DIM))
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


def run_trial(device: str, scale: float, share: float, barrier: Any, answers: Any) -> None:
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
    backbone = measure_backbone(settings.device, settings.layers, settings.images, settings.texts)
    say("the frozen backbone, bfloat16", backbone)
    training = [measure_training(settings.device, settings.scale, batch, 256) for batch in settings.batches]
    say("training the adapters, float32", training)
    together = [measure_together(settings.device, settings.scale, count) for count in settings.together]
    say("trials of eight epochs, sharing the device", together)
    write(
        settings.output, {"device": settings.device, "backbone": backbone, "training": training, "together": together}
    )


if __name__ == "__main__":
    main()

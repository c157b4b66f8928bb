"""Extraction against the bare forward pass; opening a large store; memory of several workers on one store.

    python -m benchmarks.features [--images 256] [--texts 2048] [--full-size-images 4] [--gigabytes 2]

The backbone is the demo's tiny InternVL at several image sizes, then one with InternVL3-1B's architecture and random
weights. Without a GPU, decoding and the model share the cores, so the share of decoding grows as the backbone shrinks.
The bare pass gets images that are already decoded and normalised.
"""

import multiprocessing
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file

from benchmarks.demo import demo_campaign
from benchmarks.full_size import full_size_backbone
from benchmarks.results import Row, median, options, say, write
from core.backbone.internvl import FrozenBackbone, load_backbone
from core.data.images import open_image
from core.data.splits import Split
from core.features.extraction import encode_image_files
from core.features.fingerprint import reading_fingerprint
from core.features.inputs import read_inputs
from core.features.manifest import reading_folder, write_manifest
from core.features.opening import prepare_features
from core.features.store import STATISTICS, FeatureStore
from core.readings import Reading, Readings, parse_readings

ROUNDS = 3
READ = Readings(
    parse_readings("images", "tower.cls", prompt="unused"), parse_readings("texts", "lm.last", prompt="unused")
)
"""Of the store whose opening is measured."""
WIDTH = 1024
"""Of these readings."""


def measure_tiny(size: int, images: int, texts: int) -> Row:
    config = demo_campaign().base.with_overrides({"features.image_size": size})
    return measure_extraction("tiny", size, load_backbone(config.features, config.device), images, texts)


def measure_full_size(images: int) -> Row:
    device = "cuda" if torch.cuda.is_available() else "cpu"
    backbone = full_size_backbone(device, torch.float32, micro_batch=min(images, 32))
    return measure_extraction("full size", 448, backbone, images, 2 * images)


def measure_extraction(name: str, size: int, backbone: FrozenBackbone, images: int, texts: int) -> Row:
    config = demo_campaign().base
    readings = config.readings
    annotated = [image for split in read_inputs(config).images.values() for image in split]
    paths = [image.path for image in annotated][:images]
    sentences = list(dict.fromkeys(text for image in annotated for text in image.captions))[:texts]
    pixels = backbone._normalise(backbone.preprocess([open_image(path)[0] for path in paths]))
    batches = pixels.split(backbone.micro_batch)
    bare_pass(backbone, batches[:1])
    whole, bare = [], []
    for _ in range(ROUNDS):
        started = time.perf_counter()
        encode_image_files(backbone, paths, readings.images)
        between = time.perf_counter()
        bare_pass(backbone, batches)
        whole.append(between - started)
        bare.append(time.perf_counter() - between)
    started = time.perf_counter()
    backbone.encode_texts(sentences, readings.texts)
    text_seconds = time.perf_counter() - started
    return {
        "backbone": name,
        "image size": f"{size} px",
        "extraction per second": len(paths) / median(whole),
        "bare pass per second": len(paths) / median(bare),
        "of the bare pass": median(bare) / median(whole),
        "texts per second": len(sentences) / text_seconds,
    }


@torch.no_grad()
def bare_pass(backbone: FrozenBackbone, batches: Sequence[torch.Tensor]) -> None:
    for pixels in batches:
        backbone._model.vision_tower(pixel_values=pixels)


def make_store(root: Path, gigabytes: float) -> str:
    """A store whose tables take `gigabytes`; everything else is as small as possible."""
    folder = root / "0123456789abcdef"
    rows = int(gigabytes * 1e9 / 2 / 4 / WIDTH)
    index = {"groups": torch.zeros(1, dtype=torch.int64)}
    names = ("caption_text", "caption_image", "sentence_text", "sentence_image", "relations", "first_region")
    index |= {name: torch.zeros(1, dtype=torch.int64) for name in names} | {"boxes": torch.zeros(1, 4)}
    for split in ("train", "validation"):
        (folder / split).mkdir(parents=True)
        save_file(index, folder / split / "index.safetensors")
    write_manifest(folder, {"fingerprint": folder.name, "counts": {}})
    for reading in READ.all:
        write_reading(reading_folder(folder, reading), reading, {"train": rows, "validation": 1})
    return folder.name


def write_reading(folder: Path, reading: Reading, rows: dict[Split, int]) -> None:
    """A reading of the store in the parent folders: tables of so many rows."""
    folder.mkdir(parents=True)
    for split, count in rows.items():
        shape = (count, WIDTH)
        array = np.lib.format.open_memmap(folder / f"{split}.npy", mode="w+", dtype=np.float32, shape=shape)
        array[:] = 0.5
        array.flush()
    save_file({name: torch.ones(WIDTH) for name in ("mean", "std")}, folder / STATISTICS)
    fingerprint = reading_fingerprint(folder.parents[1].name, reading)
    facts = {"fingerprint": fingerprint, "health": {"distinct": 1.0}, "backbone_parameters": 0}
    write_manifest(folder, facts)


def open_and_read(root: Path, fingerprint: str, answers: Any, barrier: Any) -> None:
    """Open and read a store as a worker does; reports the seconds to open it, and the memory added by reading it."""
    before = held_gib()
    started = time.perf_counter()
    features = FeatureStore.open(root, fingerprint).features(READ)
    opened = time.perf_counter() - started
    float(features.train.images[:].sum()), float(features.train.texts[:].sum())
    barrier.wait()  # all workers have read all of it
    after = held_gib()
    answers.put((opened, after[0] - before[0], after[1] - before[1]))
    barrier.wait()


def held_gib() -> tuple[float, float]:
    """Resident memory of this process, and its proportional set size (a page of n processes counts 1/n)."""
    lines = Path("/proc/self/smaps_rollup").read_text().splitlines()
    kilobytes = {line.split(":")[0]: int(line.split()[1]) for line in lines[1:]}
    return kilobytes["Rss"] / 2**20, kilobytes["Pss"] / 2**20


def measure_opening(gigabytes: float, workers: int) -> Row:
    context = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory() as place:
        fingerprint = make_store(Path(place), gigabytes)
        answers, barrier = context.Queue(), context.Barrier(workers)
        arguments = (Path(place), fingerprint, answers, barrier)
        processes = [context.Process(target=open_and_read, args=arguments) for _ in range(workers)]
        for process in processes:
            process.start()
        measured = [answers.get() for _ in processes]
        for process in processes:
            process.join()
    return {
        "store GB": gigabytes,
        "workers": workers,
        "opening s": max(opened for opened, _, _ in measured),
        "summed resident GiB": sum(resident for _, resident, _ in measured),
        "summed proportional GiB": sum(share for _, _, share in measured),
    }


def measure_second_time() -> Row:
    config = demo_campaign().base
    prepare_features(config)
    started = time.perf_counter()
    prepare_features(config)
    return {"second extraction": "encodes nothing", "seconds": time.perf_counter() - started}


def main() -> None:
    parser = options(__doc__ or "", "features")
    parser.add_argument("--images", type=int, default=256)
    parser.add_argument("--texts", type=int, default=2048)
    parser.add_argument("--full-size-images", type=int, default=4, help="0 to skip")
    parser.add_argument("--gigabytes", type=float, default=2.0)
    parser.add_argument("--sizes", type=int, nargs="+", default=[112, 224, 448])
    parser.add_argument("--workers", type=int, default=4)
    settings = parser.parse_args()
    extraction = [measure_tiny(size, settings.images, settings.texts) for size in settings.sizes]
    if settings.full_size_images:
        extraction.append(measure_full_size(settings.full_size_images))
    say("extraction against the bare forward pass", extraction)
    opening = measure_opening(settings.gigabytes, settings.workers)
    say("one store, several workers, each reading all of it", [opening])
    again = measure_second_time()
    say("the same features again", [again])
    write(settings.output, {"extraction": extraction, "opening": opening, "again": again})


if __name__ == "__main__":
    main()

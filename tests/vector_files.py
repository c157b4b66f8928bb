"""Vectors of an encoder that does not exist, for the small data set: each building has a code, seen noisily."""

import json
from pathlib import Path
from typing import Any

import numpy as np

from core.config import TrainConfig
from core.data.annotations import AnnotatedImage, read_annotations
from core.features.vector_files import read_vector_file
from core.features.vector_import import import_vectors


def annotated(demo: Path) -> list[AnnotatedImage]:
    """All images of the small data set, without pictures."""
    return [image for name in ("train", "test") for image in read_annotations(demo / f"{name}.json", None).images]


def encode(demo: Path, folder: Path, *, seed: int = 0) -> list[Path]:
    """Archives as an encoder leaves them: images by two readings, texts by one."""
    generator, images = np.random.default_rng(seed), annotated(demo)
    codes = {group: generator.normal(size=12) for group in dict.fromkeys(image.group for image in images)}
    texts = {text: image.group for image in images for text in (*image.captions, *(r.sentence for r in image.regions))}

    def seen(groups: list[str], width: int) -> Any:
        codes_of = np.stack([codes[group] for group in groups])
        mixing = np.random.default_rng(width).normal(size=(12, width))
        return (codes_of @ mixing + 0.2 * generator.normal(size=(len(groups), width))).astype(np.float16)

    folder.mkdir(parents=True, exist_ok=True)
    groups = [image.group for image in images]
    names = np.array([image.path.as_posix() for image in images])
    np.savez(folder / "images.npz", image=names, cnn=seen(groups, 16), clip=seen(groups, 8))
    np.savez(folder / "texts.npz", text=np.array(list(texts)), clip=seen(list(texts.values()), 8))
    return [folder / "images.npz", folder / "texts.npz"]


def imported(demo: Path, folder: Path, *, seed: int = 0) -> Path:
    """A set of these vectors."""
    files = [read_vector_file(path) for path in encode(demo, folder / "encoded", seed=seed)]
    import_vectors(folder / "set", files, annotated(demo))
    return folder / "set"


def without_pictures(demo: Path, folder: Path, config: TrainConfig) -> TrainConfig:
    """The configuration on vectors alone: the annotations lie where there is neither an image nor a backbone."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("train", "test"):
        (folder / f"{name}.json").write_text(json.dumps(json.loads((demo / f"{name}.json").read_text())))
    content = config.model_dump(mode="json")
    content["data"] |= {
        "image_root": None,
        "train_annotations": str(folder / "train.json"),
        "test_annotations": str(folder / "test.json"),
    }
    content["features"] |= {
        "backbone": None,
        "vectors": str(imported(demo, folder)),
        "image": "vectors.cnn+vectors.clip",
        "text": "vectors.clip",
    }
    return TrainConfig.model_validate(content)

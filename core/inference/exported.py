"""An exported model: weights as safetensors, all else as config.json, and a card, as a repository of the hub holds it.

Paths of training data are left out of it; only the digest of the test annotations stays, by which a measurement on them
is recognised.
"""

import hashlib
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load, save

from core.config import TrainConfig
from core.errors import UserError
from core.evaluation.read_count import TEST_READS, final_folder
from core.files.atomic import write_atomically
from core.files.json_files import GIT_LFS_POINTER, read_json, write_json
from core.files.ownership import claim_folder
from core.model.checkpoints import Checkpoint, checkpoint_of, plain_fields

WEIGHTS, SETTINGS, CARD = "model.safetensors", "config.json", "README.md"
FILES = (WEIGHTS, SETTINGS, CARD, TEST_READS)
MODEL_TYPE = "crossmodal-search"
FORMAT = 1


@dataclass(frozen=True, slots=True)
class Exported:
    """A checkpoint, and what was measured of it."""

    checkpoint: Checkpoint
    verdicts: Mapping[str, str]
    """Whether box_iou and relation_accuracy are grounded, where that was measured."""
    test_digest: str | None
    """SHA-256 of the annotations of the test split."""


def write_export(folder: Path, exported: Exported, card: str, *, source: Path) -> None:
    """Write an exported model, which `read_export` reads; reads of the test split stay counted in it.

    Args:
        source: file of the checkpoint.
        card: README.md.
    Raises:
        UserError: a foreign file has one of the names.
    """
    claim_folder(folder, FILES)
    checkpoint = exported.checkpoint
    fields = {**plain_fields(checkpoint), "config": without_places(checkpoint.config).model_dump(mode="json")}
    measured = {"verdicts": dict(exported.verdicts), "test_annotations_sha256": exported.test_digest}
    weights = {name: value.contiguous() for name, value in checkpoint.weights.items()}
    write_atomically(folder / WEIGHTS, save(weights))
    write_json(folder / SETTINGS, {"model_type": MODEL_TYPE, "format": FORMAT, **fields, **measured})
    write_atomically(folder / CARD, card)
    final = final_folder(source)
    if final is not None and not (folder / TEST_READS).exists():
        write_json(folder / TEST_READS, read_json(final / TEST_READS))


def read_export(folder: Path) -> Exported:
    """Read an exported model.

    Raises:
        UserError: a file is missing or damaged, or the folder holds a model of another kind.
    """
    settings = read_json(folder / SETTINGS)
    if not isinstance(settings, dict) or settings.get("model_type") != MODEL_TYPE:
        raise UserError("holds no exported model of crossmodal-search", where=folder, how="run crossmodal export")
    if settings.pop("format", None) != FORMAT:
        raise UserError("was exported by another version", where=folder, how="update crossmodal-search")
    settings.pop("model_type")
    verdicts, digest = settings.pop("verdicts", {}), settings.pop("test_annotations_sha256", None)
    weights = _weights(folder / WEIGHTS)
    tensors = {"weights": weights, "best_weights": weights, "optimizer": None}
    checkpoint = checkpoint_of({**settings, **tensors}, where=folder / SETTINGS)
    if not isinstance(verdicts, dict) or not all(isinstance(each, str) for each in verdicts.values()):
        raise UserError("does not say whether boxes are grounded", where=folder / SETTINGS, how="export it again")
    return Exported(checkpoint, verdicts, digest if isinstance(digest, str) else None)


def is_export(folder: Path) -> bool:
    """Whether a folder may hold an exported model."""
    return (folder / WEIGHTS).is_file() and (folder / SETTINGS).is_file()


def without_places(config: TrainConfig) -> TrainConfig:
    """A configuration without the paths of this machine, except a backbone that is a folder."""
    data = config.data
    places: dict[str, Path | None] = {
        "data.train_annotations": data.train_annotations,
        "data.test_annotations": data.test_annotations,
        "data.image_root": data.image_root,
        "features.store": config.features.store,
        "features.vectors": config.features.vectors,
    }
    return config.with_overrides({key: path.name for key, path in places.items() if path is not None})


def test_digest(config: TrainConfig) -> str | None:
    """SHA-256 of the annotations of the test split; None if there are none, or no longer."""
    if config.data.test_annotations is None:
        return None
    with suppress(OSError):
        return digest_of(config.data.test_annotations)
    return None


def digest_of(annotations: Path) -> str:
    """SHA-256 of a file of annotations."""
    return hashlib.sha256(annotations.read_bytes()).hexdigest()


def _weights(path: Path) -> dict[str, Any]:
    try:
        content = path.read_bytes()
        if content.startswith(GIT_LFS_POINTER):
            raise UserError("is a Git LFS pointer, not the file itself", where=path, how="run git lfs pull")
        weights: dict[str, Any] = load(content)
    except (OSError, SafetensorError, ValueError, KeyError) as error:
        reason = getattr(error, "strerror", None) or (str(error).strip() or type(error).__name__).splitlines()[0][:200]
        raise UserError(f"cannot be read as weights ({reason})", where=path, how="export or download again") from None
    return weights

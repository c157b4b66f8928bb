"""The name of a model for what is cached of it: other weights, settings or another backbone give another one."""

import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING

from core.backbone.checkpoint_files import backbone_files
from core.backbone.hub import checkpoint_folder
from core.errors import UserError
from core.features.fingerprint import backbone_digest
from core.inference.encoding import backbone_of, require_backbone

if TYPE_CHECKING:
    from core.inference.retrieval_model import RetrievalModel

VERSION = 1
"""Increment when pictures are encoded differently, so that old embeddings are not reused."""


def model_identity(model: "RetrievalModel", memory: Path) -> str:
    """Sixteen hexadecimal digits of a model's weights and settings and of the files of its backbone.

    Args:
        memory: folder that remembers digests of files.
    Raises:
        UserError: the backbone is not there, or not the one that the model was trained on.
    """
    config = model.config
    require_backbone(config, model.name)
    backbone = backbone_digest(backbone_files(checkpoint_folder(backbone_of(config))), memory)
    require_same_backbone(model, backbone)
    settings = config.model_dump(mode="json")
    read = {name: settings["features"][name] for name in ("image_size", "max_tokens", "dtype", "grid")}
    readings = [reading.key for reading in config.readings.all]
    facts = [VERSION, settings["model"], settings["features"]["normalization"], read, readings, backbone]
    content = hashlib.sha256(json.dumps(facts).encode())
    for name, value in sorted(model.checkpoint.weights.items()):
        content.update(f"{name} {list(value.shape)}".encode() + value.numpy().tobytes())
    return content.hexdigest()[:16]


def require_given_backbone(model: "RetrievalModel") -> None:
    """Check a backbone that the user named instead of the one of training, all of whose files are read."""
    if model.config.features.backbone != model.checkpoint.config.features.backbone:
        require_backbone(model.config, model.name)
        files = backbone_files(checkpoint_folder(backbone_of(model.config)))
        require_same_backbone(model, backbone_digest(files, memory=None))


def require_same_backbone(model: "RetrievalModel", digest: str) -> None:
    """Check that a model was trained on the backbone whose files have this digest.

    Another one of the same widths would give features that mean nothing to the model.

    Raises:
        UserError: it was trained on another one. Models of earlier versions do not know theirs, and pass.
    """
    trained_on = model.checkpoint.receipt.backbone
    if trained_on is not None and digest != trained_on:
        raise UserError(
            f"was trained on another backbone than {backbone_of(model.config)}, whose files differ",
            where=model.name,
            how="name the one that it was trained on: --backbone, or backbone= in Python",
        )

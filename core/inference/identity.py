"""The name of a model for what is cached of it: other weights, settings or another backbone give another one."""

import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING

from core.backbone.checkpoint_files import backbone_files
from core.backbone.hub import checkpoint_folder
from core.files.digests import file_digests
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
        UserError: the backbone is not there.
    """
    config = model.config
    require_backbone(config, model.name)
    files = backbone_files(checkpoint_folder(backbone_of(config)))
    settings = config.model_dump(mode="json")
    read = {name: settings["features"][name] for name in ("image_size", "max_tokens", "dtype", "grid")}
    readings = [reading.key for reading in config.readings.all]
    backbone = list(zip(files, file_digests(list(files.values()), memory), strict=True))
    facts = [VERSION, settings["model"], settings["features"]["normalization"], read, readings, backbone]
    content = hashlib.sha256(json.dumps(facts).encode())
    for name, value in sorted(model.checkpoint.weights.items()):
        content.update(f"{name} {list(value.shape)}".encode() + value.numpy().tobytes())
    return content.hexdigest()[:16]

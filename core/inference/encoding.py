"""Pictures and texts as features: what a model reads of the frozen backbone, side by side."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from PIL.Image import Image
from torch import Tensor

from core.config import TrainConfig
from core.data.images import as_displayed, open_image
from core.errors import UserError, shown
from core.readings import Readings

if TYPE_CHECKING:
    from core.backbone.internvl import FrozenBackbone


class Encoder:
    """The frozen backbone, and what one model reads of it."""

    def __init__(self, backbone: "FrozenBackbone", readings: Readings) -> None:
        self.backbone = backbone
        self._readings = readings

    @classmethod
    def load(cls, config: TrainConfig, device: torch.device, name: str) -> "Encoder":
        """Load the backbone of a configuration.

        Args:
            name: of the model, in messages.
        Raises:
            UserError: it cannot be loaded, cannot give a reading, or a reading is one of another program.
        """
        require_backbone(config, name)
        from core.backbone.internvl import load_backbone  # importing transformers takes seconds

        backbone = load_backbone(config.features, "cuda" if device.type == "cuda" else "cpu")
        backbone.require(config.readings.all)
        return cls(backbone, config.readings)

    @property
    def batch(self) -> int:
        """Pictures that are encoded in one pass."""
        return self.backbone.micro_batch

    def encode_images(self, images: Sequence[Path | str | Image]) -> tuple[Tensor, Tensor | None]:
        """Features [N, width] and, if the model looks at it, the grid [N, P, grid width], on the backbone's device.

        Raises:
            UserError: a picture cannot be read.
        """
        parts = []
        for start in range(0, len(images), self.batch):
            opened = [_opened(image) for image in images[start : start + self.batch]]
            parts.append(self.encode_opened(opened))
        features = torch.cat([part for part, _ in parts])
        grids = [grid for _, grid in parts if grid is not None]
        return features, torch.cat(grids) if grids else None

    def encode_opened(self, images: Sequence[Image]) -> tuple[Tensor, Tensor | None]:
        """`encode_images` of upright RGB pictures in one pass."""
        readings = self._readings
        wanted = [*readings.images, *([readings.grid] if readings.grid else [])]
        encoded = self.backbone.encode_images(images, wanted)
        features = torch.cat([encoded[reading] for reading in readings.images], dim=1)
        return features, encoded[readings.grid] if readings.grid else None

    def encode_texts(self, texts: Sequence[str]) -> Tensor:
        """Features [N, width] on the backbone's device.

        Raises:
            UserError: a text is empty.
        """
        encoded = self.backbone.encode_texts(texts, self._readings.texts)
        return torch.cat([encoded[reading] for reading in self._readings.texts], dim=1)


def require_backbone(config: TrainConfig, name: str) -> None:
    """Check that the features of a model can be computed here.

    Args:
        name: of the model, in messages.
    Raises:
        UserError: it reads vectors of another program, or its backbone is a folder that is not there.
    """
    if foreign := [reading.name for reading in config.readings.all if reading.is_vector]:
        raise UserError(
            f"reads {foreign[0]}, vectors that another program computes",
            where=name,
            how="pass them to embed_image_vectors and embed_text_vectors, or measure it by crossmodal train --evaluate",
        )
    place = backbone_of(config)
    if place.startswith("/") and not Path(place).is_dir():
        raise UserError(
            f"its backbone {place} is not there", where=name, how="say where it is: --backbone, or backbone= in Python"
        )


def backbone_of(config: TrainConfig) -> str:
    """Folder or hub id of the frozen backbone, of a model that `require_backbone` lets pass."""
    return str(config.features.backbone)


def require_texts(texts: object) -> None:
    """Check that several texts are given, none of them blank or no text at all.

    Raises:
        UserError: one cannot be encoded.
    """
    require_list(texts, "texts")
    for text in texts if isinstance(texts, Sequence) else ():
        if isinstance(text, str) and not text.strip():
            raise UserError("a text is blank, so it has no token", how="write what is looked for")
        if isinstance(text, str) and any("\ud800" <= char <= "\udfff" for char in text):
            raise UserError(f"{shown(text)} holds half of a surrogate pair, which is no text", how="write it as UTF-8")


def require_list(items: object, name: str) -> None:
    """Check that several items are given, not one.

    Raises:
        UserError: it is a string, a path or a picture, or an empty list.
    """
    if isinstance(items, str | Path | Image):
        raise UserError(f"a list of {name} is needed, not one of them", how="put it in brackets: [...]")
    if not len(items):  # type: ignore[arg-type]
        raise UserError(f"there are no {name}")


def _opened(image: Path | str | Image) -> Image:
    return as_displayed(image) if isinstance(image, Image) else open_image(Path(image))[0]

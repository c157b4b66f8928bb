"""The trainable part: two adapters, two projectors, three heads and a temperature on top of pooled features.

Knows nothing of the backbone but the widths of its features. Applying an adapter to every token and then taking
one token, as the methodology draws it, equals pooling first, as done here (tests/core/model/test_model.py).
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from core.config import ModelConfig, Normalization
from core.data.geometry import RELATIONS
from core.errors import DivergedError
from core.features.store import Features, Statistics
from core.model.layers import FeatureNorm, interaction
from core.model.views import ImageView, TextView

MIN_TEMPERATURE, MAX_TEMPERATURE = 0.001, 1.0


class CrossModalModel(nn.Module):
    """Embeds pooled image and text features in one space, and reads matches, boxes and relations off pairs.

    With (1024, 896) features, width 256, embedding 256 and `concat` it has 629,773 parameters.
    """

    def __init__(
        self,
        vision_dim: int,
        text_dim: int,
        config: ModelConfig,
        *,
        normalization: Normalization = "none",
    ) -> None:
        super().__init__()
        width, embed_dim = config.adapter_width, config.embed_dim
        self.fusion = config.fusion
        self.vision_norm = FeatureNorm(vision_dim, normalization)
        self.text_norm = FeatureNorm(text_dim, normalization)
        self.vision_adapter = _adapter(vision_dim, width, config.dropout)
        self.text_adapter = _adapter(text_dim, width, config.dropout)
        self.vision_projector = nn.Linear(width, embed_dim)
        self.text_projector = nn.Linear(width, embed_dim)
        fused = embed_dim * (2 if config.fusion == "concat" else 4)
        self.match_head = nn.Linear(fused, 2)
        self.box_head = nn.Linear(fused, 4)
        self.relation_head = nn.Linear(fused, len(RELATIONS))
        self.log_temperature = nn.Parameter(torch.tensor(math.log(config.temperature)))

    @property
    def temperature(self) -> Tensor:
        """Scalar that divides similarities; learned, kept within 0.001..1."""
        return self.log_temperature.exp().clamp(MIN_TEMPERATURE, MAX_TEMPERATURE)

    def embed_images(self, features: Tensor, grid: Tensor | None = None) -> Tensor:
        """[B, vision_dim] → [B, embed_dim], unit norm."""
        embedded: Tensor = self.vision_projector(self.vision_adapter(self.vision_norm(features)))
        return functional.normalize(embedded, dim=-1)

    def embed_texts(self, features: Tensor) -> Tensor:
        """[B, text_dim] → [B, embed_dim], unit norm."""
        embedded: Tensor = self.text_projector(self.text_adapter(self.text_norm(features)))
        return functional.normalize(embedded, dim=-1)

    def match(self, images: ImageView, texts: TextView) -> Tensor:
        """B pairs → [B, 2] logits: no match, match."""
        logits: Tensor = self.match_head(self._fuse(images, texts))
        return logits

    def match_odds(self, images: ImageView, texts: TextView) -> Tensor:
        """Logarithm of the odds that pairs match: B images, B texts → [B].

        It is the difference of the two logits of `match`, which is all that a softmax over them depends on.
        """
        weight, bias = self.match_head.weight.diff(dim=0)[0], self.match_head.bias.diff()
        return self._fuse(images, texts) @ weight + bias

    def ground(self, images: ImageView, texts: TextView, references: TextView) -> tuple[Tensor, Tensor]:
        """Where B phrases lie in their images, and how they relate to another region there.

        Args:
            references: sentences of the regions that the relations refer to.
        Returns:
            [B, 4] box x1 y1 x2 y2, always within the image and ordered; [B, 6] logits in the order of
            geometry.RELATIONS.
        """
        fused = self._fuse(images, texts)
        free = self.box_head(fused).sigmoid()  # [B, 4]
        size = free[:, 2:]
        corner = free[:, :2] * (1 - size)
        return torch.cat([corner, corner + size], dim=1), self.relation_head(fused)

    def _fuse(self, images: ImageView, texts: TextView) -> Tensor:
        image, text = images.embedded, texts.embedded
        return torch.cat([image, text], dim=1) if self.fusion == "concat" else interaction(image, text)


def _adapter(width_in: int, width_out: int, dropout: float) -> nn.Sequential:
    return nn.Sequential(nn.Linear(width_in, width_out), nn.ReLU(), nn.Dropout(dropout))


def build_model(config: ModelConfig, features: Features, *, normalization: Normalization, seed: int) -> CrossModalModel:
    """A fresh model for these features; equal seeds give equal weights."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = CrossModalModel(features.vision_dim, features.text_dim, config, normalization=normalization)
    _use_statistics(model, features.statistics)
    return model


def _use_statistics(model: CrossModalModel, statistics: Statistics) -> None:
    model.vision_norm.use_statistics(statistics.image_mean, statistics.image_std)
    model.text_norm.use_statistics(statistics.text_mean, statistics.text_std)


def require_finite(output: Tensor, name: str) -> Tensor:
    """An output of a model as it is; DivergedError if weights of such a size left NaN or infinity in it."""
    if not output.isfinite().all():
        raise DivergedError(f"{name} of the model are not finite", how="train with a lower optimizer.learning_rate")
    return output


def parameter_counts(model: CrossModalModel) -> dict[str, int]:
    """Trainable parameters of each part, in the model's order."""
    counts: dict[str, int] = {}
    for name, parameter in model.named_parameters():
        part = name.split(".")[0]
        counts[part] = counts.get(part, 0) + parameter.numel()
    return counts

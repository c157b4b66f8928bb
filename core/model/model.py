"""The trainable part: two adapters, two projectors, the heads and a temperature on top of frozen features.

Depends on the backbone only by the widths of its features. Applying an adapter to every token and then taking one
token, as in the methodology, equals pooling first, as done here (tests/core/model/test_model.py).
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from core.config import Contrastive, ModelConfig, Normalization, TrainConfig
from core.data.geometry import RELATIONS
from core.errors import DivergedError, UserError
from core.features.store import Features, Statistics, Widths
from core.model.attention import GridAttention
from core.model.grounding import GroundingHead
from core.model.layers import FeatureNorm, interaction
from core.model.losses import Negatives
from core.model.pooling import GridPooling
from core.model.views import ImageView, TextView, whole

MIN_TEMPERATURE, MAX_TEMPERATURE = 0.001, 1.0
CONTRASTIVE_BIAS = -10.0
"""Initial bias of the sigmoid loss (SigLIP, 2303.15343 §3.2), since nearly all pairs of a batch do not match."""


class CrossModalModel(nn.Module):
    """Embeds image and text features in a joint space, and predicts matches, boxes and relations of pairs.

    With (1024, 896) features, width 256, embedding 256 and `concat` it has 629,773 parameters. With `attention`, one
    module `grounding` replaces the three linear heads.
    """

    def __init__(
        self,
        widths: Widths,
        config: ModelConfig,
        *,
        normalization: Normalization = "none",
        contrastive: Contrastive = "infonce",
    ) -> None:
        """Initialise with PyTorch's default weights.

        Args:
            widths: of the features, and of the grid for `fusion: attention` and `image_pooling: attention`.
            contrastive: the sigmoid loss adds a learned bias to the model.
        """
        super().__init__()
        width, embed_dim = config.adapter_width, config.embed_dim
        self.fusion = config.fusion
        self.image_pooling = GridPooling(_attention(widths, normalization)) if config.image_pooling != "none" else None
        image_width = widths.images + (self.image_pooling.width if self.image_pooling else 0)
        self.vision_norm = FeatureNorm(widths.images, normalization)
        self.text_norm = FeatureNorm(widths.texts, normalization)
        self.vision_adapter = _adapter(image_width, width, config.dropout)
        self.text_adapter = _adapter(widths.texts, width, config.dropout)
        self.vision_projector = nn.Linear(width, embed_dim)
        self.text_projector = nn.Linear(width, embed_dim)
        self.grounding: GroundingHead | None = None
        if config.fusion == "attention":
            attention = _attention(widths, normalization)
            self.grounding = GroundingHead(widths.texts, attention, dropout=config.dropout)
        else:
            fused = embed_dim * (2 if config.fusion == "concat" else 4)
            self.match_head = nn.Linear(fused, 2)
            self.box_head = nn.Linear(fused, 4)
            self.relation_head = nn.Linear(fused, len(RELATIONS))
        self.log_temperature = nn.Parameter(torch.tensor(math.log(config.temperature)))
        self.contrastive_bias = nn.Parameter(torch.tensor(CONTRASTIVE_BIAS)) if contrastive == "sigmoid" else None

    @property
    def temperature(self) -> Tensor:
        """Learned scalar by which similarities are divided, clipped to 0.001..1."""
        return self.log_temperature.exp().clamp(MIN_TEMPERATURE, MAX_TEMPERATURE)

    def embed_images(self, features: Tensor, grid: Tensor | None = None) -> Tensor:
        """Embed image features: [B, vision_dim] → [B, embed_dim], unit norm.

        Args:
            grid: [B, P, grid_dim] as stored; required for `image_pooling: attention`, else ignored.
        """
        normalised = self.vision_norm(features)
        if self.image_pooling is not None:
            normalised = torch.cat([normalised, self.image_pooling(whole(grid))], dim=1)
        embedded: Tensor = self.vision_projector(self.vision_adapter(normalised))
        return functional.normalize(embedded, dim=-1)

    def embed_texts(self, features: Tensor) -> Tensor:
        """Embed text features: [B, text_dim] → [B, embed_dim], unit norm."""
        embedded: Tensor = self.text_projector(self.text_adapter(self.text_norm(features)))
        return functional.normalize(embedded, dim=-1)

    def match(self, images: ImageView, texts: TextView) -> Tensor:
        """Logits of B pairs: [B, 2], no match and match."""
        if self.grounding is not None:
            odds = self.match_odds(images, texts)
            return torch.stack([torch.zeros_like(odds), odds], dim=1)
        logits: Tensor = self.match_head(self._fuse(images, texts))
        return logits

    def match_odds(self, images: ImageView, texts: TextView) -> Tensor:
        """Log-odds that each of B images matches each of its T texts: [B × T].

        The difference of the two logits of `match`, the only thing that a softmax over them depends on.

        Args:
            texts: B × T of them, the T texts of an image consecutive.
        """
        if self.grounding is not None:
            similarity = self._similarity(images.embedded, texts.embedded)
            return self.grounding.odds(whole(images.grid), self.text_norm(whole(texts.features)), similarity)
        weight, bias = self.match_head.weight.diff(dim=0)[0], self.match_head.bias.diff()
        return self._fuse(images, texts) @ weight + bias

    def odds_with_negatives(self, images: ImageView, texts: TextView, negatives: Negatives) -> Tensor:
        """Log-odds of B pairs and of their negatives.

        Returns:
            [1 + T + 1, B]: of image i with text i, of image i with each of its T negative texts, and of text i with its
            negative image.
        """
        own, negatives = torch.arange(len(images.embedded), device=images.embedded.device), negatives.clamped()
        shown = torch.cat([own[None], negatives.texts])  # [1 + T, B], texts of each image
        image_rows, text_rows = torch.cat([own.repeat(len(shown)), negatives.images]), torch.cat([shown.flatten(), own])
        if self.grounding is None:
            return self.match_odds(images.rows(image_rows), texts.rows(text_rows)).view(-1, len(own))
        similarity = self._similarity(images.embedded[image_rows], texts.embedded[text_rows]).view(-1, len(own))
        normalised = self.text_norm(whole(texts.features))
        return self.grounding.odds_with_negatives(whole(images.grid), normalised, similarity, negatives)

    def ground(self, images: ImageView, texts: TextView, references: TextView) -> tuple[Tensor, Tensor]:
        """Locate B phrases in their images, and relate them to another region of the image.

        Args:
            references: sentences of the other regions; used only with `fusion: attention`.
        Returns:
            Boxes [B, 4] x1 y1 x2 y2, always ordered and within 0..1; relation logits [B, 6] in the order of
            geometry.RELATIONS.
        """
        if self.grounding is not None:
            sentences = torch.stack([whole(texts.features), whole(references.features)], dim=1)  # [B, 2, text_dim]
            return self.grounding.ground(whole(images.grid), self.text_norm(sentences))
        fused = self._fuse(images, texts)
        fractions = self.box_head(fused).sigmoid()  # [B, 4]
        size = fractions[:, 2:]
        corner = fractions[:, :2] * (1 - size)
        return torch.cat([corner, corner + size], dim=1), self.relation_head(fused)

    @torch.no_grad()
    def _similarity(self, image: Tensor, text: Tensor) -> Tensor:
        """Similarity divided by the temperature, without gradient, of N images with T texts each: [N × T]."""
        return (_for_each(text, image) * text).sum(dim=1) / self.temperature

    def _fuse(self, images: ImageView, texts: TextView) -> Tensor:
        text = texts.embedded
        image = _for_each(text, images.embedded)
        return torch.cat([image, text], dim=1) if self.fusion == "concat" else interaction(image, text)


def _for_each(texts: Tensor, images: Tensor) -> Tensor:
    """Rows of B images, repeated for each of the T texts of an image: [B, D] → [B × T, D]."""
    return images if len(images) == len(texts) else images.repeat_interleave(len(texts) // len(images), dim=0)


def _adapter(width_in: int, width_out: int, dropout: float) -> nn.Sequential:
    return nn.Sequential(nn.Linear(width_in, width_out), nn.ReLU(), nn.Dropout(dropout))


def _attention(widths: Widths, normalization: Normalization) -> GridAttention:
    assert widths.grid is not None, "the configuration needs features with a grid"
    return GridAttention(*widths.grid, normalization)


def build_model(config: TrainConfig, features: Features) -> CrossModalModel:
    """A new model on the CPU for these features, with their statistics; equal seeds give equal weights.

    Raises:
        UserError: the model uses the grid, and the features have none.
    """
    grid = features.train.grid
    if config.model.uses_grid and grid is None:
        raise UserError(
            "model.fusion or model.image_pooling is attention, but these features have no grid",
            how="extract them with this configuration",
        )
    widths = Widths(
        features.vision_dim, features.text_dim, None if grid is None else (int(grid.shape[1]), int(grid.shape[2]))
    )
    model = new_model(config, widths)
    _use_statistics(model, features.statistics)
    return model


def new_model(config: TrainConfig, widths: Widths) -> CrossModalModel:
    """A new model on the CPU for features of these widths, without their statistics; equal seeds give equal weights."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        return CrossModalModel(
            widths, config.model, normalization=config.features.normalization, contrastive=config.loss.contrastive
        )


def _use_statistics(model: CrossModalModel, statistics: Statistics) -> None:
    model.vision_norm.use_statistics(statistics.image_mean, statistics.image_std)
    model.text_norm.use_statistics(statistics.text_mean, statistics.text_std)
    for part in (model.image_pooling, model.grounding):
        if part is not None:
            assert statistics.grid_mean is not None, "a grid has statistics"
            assert statistics.grid_std is not None
            part.attention.norm.use_statistics(statistics.grid_mean, statistics.grid_std)


def require_finite(output: Tensor, name: str) -> Tensor:
    """Return an output of a model unchanged.

    Args:
        output: any shape.
        name: plural noun for the message.
    Raises:
        DivergedError: the output contains NaN or infinity, since the weights are too large.
    """
    if not output.isfinite().all():
        raise DivergedError(f"{name} of the model are not finite", how="train with a lower optimizer.learning_rate")
    return output


def parameter_counts(model: CrossModalModel) -> dict[str, int]:
    """Part of the model (e.g. `match_head`) → number of its trainable parameters, in the model's order."""
    counts: dict[str, int] = {}
    for name, parameter in model.named_parameters():
        part = name.split(".")[0]
        counts[part] = counts.get(part, 0) + parameter.numel()
    return counts

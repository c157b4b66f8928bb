"""The frozen InternVL: loading a checkpoint, and encoding images and texts.

Every pooling comes out of one pass. Only this folder imports transformers, so that "a trial never loads the backbone"
is a fact of the import graph.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import torch
from PIL.Image import Image
from torch import Tensor
from transformers import (
    AutoImageProcessor,
    AutoModel,
    AutoTokenizer,
    GotOcr2ImageProcessorPil,
    InternVLModel,
)
from transformers.utils import logging as transformers_logging

from core.backbone.checkpoint_files import backbone_files, these_alone
from core.backbone.hub import checkpoint_folder
from core.backbone.pooling import pool_images, pool_texts
from core.config import Device, FeaturesConfig, ImagePooling, TextPooling
from core.device import choose_device
from core.errors import UserError

ItemT = TypeVar("ItemT")


class FrozenBackbone:
    """An InternVL that only encodes: no gradients, no dropout, no output head."""

    def __init__(
        self,
        model: InternVLModel,
        tokenizer: Any,
        image_processor: GotOcr2ImageProcessorPil,
        config: FeaturesConfig,
    ) -> None:
        self._model = model.eval().requires_grad_(False)
        self._tokenizer = tokenizer
        self._image_processor = image_processor
        self._image_size, self._max_tokens = config.image_size, config.max_tokens
        per_channel = torch.tensor([image_processor.image_mean, image_processor.image_std], device=self.device)
        self._mean, self._std = per_channel[:, :, None, None] / image_processor.rescale_factor
        self.micro_batch = config.micro_batch
        """Halved permanently when memory runs out."""

    @property
    def vision_dim(self) -> int:
        """Width of an image feature."""
        return int(self._model.config.vision_config.hidden_size)

    @property
    def text_dim(self) -> int:
        """Width of a text feature."""
        return int(self._model.config.text_config.hidden_size)

    @property
    def patches(self) -> int:
        """Patch tokens of one image, without CLS."""
        return int(self._image_size // self._model.config.vision_config.patch_size[0]) ** 2

    @property
    def parameter_count(self) -> int:
        """Number of parameters, all of them frozen."""
        return sum(parameter.numel() for parameter in self._model.parameters())

    @property
    def device(self) -> torch.device:
        """Device of the parameters."""
        return torch.device(next(self._model.parameters()).device)

    def preprocess(self, images: Sequence[Image]) -> Tensor:
        """Resize to a square without keeping the aspect ratio: RGB images → [N, 3, S, S] uint8 on the CPU.

        Normalisation is left to `encode_pixels`, which is much faster at it than the image processor.
        """
        size = {"height": self._image_size, "width": self._image_size}
        as_they_are = {"do_rescale": False, "do_normalize": False, "crop_to_patches": False}
        pixels: Tensor = self._image_processor(list(images), size=size, **as_they_are, return_tensors="pt")[
            "pixel_values"
        ]
        return pixels

    def _normalise(self, pixels: Tensor) -> Tensor:
        """[N, 3, S, S] uint8 → float32 on the backbone's device, normalised as the checkpoint specifies."""
        return pixels.to(self.device, non_blocking=True).to(torch.float32).sub_(self._mean).div_(self._std)

    @torch.no_grad()
    def encode_pixels(self, pixels: Tensor) -> dict[ImagePooling, Tensor]:
        """Resized images [N, 3, S, S] uint8 → [N, vision_dim] float32 per pooling, on the backbone's device."""
        return self._in_micro_batches(self._encode_pixels, pixels)

    def encode_images(self, images: Sequence[Image]) -> dict[ImagePooling, Tensor]:
        """RGB images → [N, vision_dim] float32 per pooling, on the backbone's device."""
        return self.encode_pixels(self.preprocess(images))

    @torch.no_grad()
    def encode_texts(self, texts: Sequence[str]) -> dict[TextPooling, Tensor]:
        """Texts → [N, text_dim] float32 per pooling, on the backbone's device; longer ones are cut.

        Raises:
            UserError: a text has no token at all.
        """
        tokens = self._tokenizer(list(texts), truncation=True, max_length=self._max_tokens)["input_ids"]
        if empty := [text for text, ids in zip(texts, tokens, strict=True) if not ids]:
            raise UserError(f"the text {empty[0]!r} has no token")
        by_length = sorted(range(len(tokens)), key=lambda row: len(tokens[row]))  # little padding in a micro batch
        pooled = self._in_micro_batches(self._encode_tokens, [tokens[row] for row in by_length])
        order = torch.tensor(by_length, device=self.device).argsort()
        return {pooling: features[order] for pooling, features in pooled.items()}

    def _encode_pixels(self, pixels: Tensor) -> dict[ImagePooling, Tensor]:
        pixels = self._normalise(pixels).to(self._model.dtype)
        return pool_images(self._model.vision_tower(pixel_values=pixels).last_hidden_state)

    def _encode_tokens(self, tokens: Sequence[list[int]]) -> dict[TextPooling, Tensor]:
        rows = [torch.tensor(ids) for ids in tokens]
        ids = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True).to(self.device)
        lengths = torch.tensor([len(row) for row in rows], device=self.device)
        mask = (torch.arange(ids.shape[1], device=self.device) < lengths[:, None]).long()
        output = self._model.language_model(input_ids=ids, attention_mask=mask, use_cache=False)
        return pool_texts(output.last_hidden_state, mask)

    def _in_micro_batches(self, encode: Callable[[Any], dict[Any, Tensor]], items: Any) -> dict[Any, Tensor]:
        parts: list[dict[Any, Tensor]] = []
        start = 0
        while start < len(items):
            try:
                parts.append(encode(items[start : start + self.micro_batch]))
            except torch.OutOfMemoryError:
                if self.micro_batch == 1:
                    raise
                self.micro_batch //= 2
                continue
            start += len(next(iter(parts[-1].values())))
        return {pooling: torch.cat([part[pooling] for part in parts]) for pooling in parts[0]}


def load_backbone(config: FeaturesConfig, device: Device) -> FrozenBackbone:
    """Load an InternVL in transformers format from a folder or the hub, frozen.

    Only files covered by the fingerprint are accessible, and none of them can run code.

    Raises:
        UserError: the folder is no InternVL checkpoint, or a part of it is missing or damaged.
    """
    transformers_logging.disable_progress_bar()
    transformers_logging.set_verbosity(transformers_logging.CRITICAL)  # its warnings are errors below, in one line each
    folder = checkpoint_folder(config.backbone)
    model, tokenizer, image_processor = _load_parts(folder, getattr(torch, config.dtype))
    tokenizer.padding_side = "right"
    return FrozenBackbone(model.to(choose_device(device)), tokenizer, image_processor, config)


def _load_parts(folder: Path, dtype: torch.dtype) -> tuple[InternVLModel, Any, GotOcr2ImageProcessorPil]:
    with these_alone(backbone_files(folder)) as place:
        here: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
        try:
            model, loading = AutoModel.from_pretrained(
                place,
                dtype=dtype,
                use_safetensors=True,
                ignore_mismatched_sizes=True,
                output_loading_info=True,
                **here,
            )
            tokenizer = AutoTokenizer.from_pretrained(place, **here)
            image_processor = AutoImageProcessor.from_pretrained(place, backend="pil", **here)
        except Exception as error:  # a damaged file makes transformers raise anything, KeyError and TypeError included
            reason = (str(error).strip() or type(error).__name__).splitlines()[0].replace(str(place), str(folder))
            raise UserError(f"the checkpoint cannot be loaded ({reason[:300]})", where=folder) from None
    if loading["missing_keys"]:
        raise UserError(f"the checkpoint lacks weights, e.g. {min(loading['missing_keys'])}", where=folder)
    if loading["mismatched_keys"]:
        name, found, needed = min(loading["mismatched_keys"])
        raise UserError(f"the weight {name} has shape {list(found)} instead of {list(needed)}", where=folder)
    if len(tokenizer) > model.get_input_embeddings().num_embeddings:
        raise UserError(f"the tokenizer has {len(tokenizer)} tokens, more than the model knows", where=folder)
    _require_normalisation(image_processor, folder)
    return model, tokenizer, image_processor


def _require_normalisation(processor: Any, folder: Path) -> None:
    """Check that images are processed as InternVL expects: normalised by three means and deviations."""
    if not isinstance(processor, GotOcr2ImageProcessorPil):
        raise UserError(f"its image processor is {type(processor).__name__}, not that of InternVL", where=folder)
    try:
        figures = torch.tensor([processor.image_mean, processor.image_std], dtype=torch.float64)
        sound = (
            figures.shape == (2, 3) and figures.isfinite().all() and figures[1].all() and processor.rescale_factor > 0
        )
    except (TypeError, ValueError, RuntimeError):
        sound = False
    if not sound:
        raise UserError("image_mean, image_std or rescale_factor cannot be used", where=folder, how="download it again")

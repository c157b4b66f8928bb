"""The frozen InternVL: loading a checkpoint, and encoding images and texts.

All readings come out of as few passes as possible. Only this folder imports transformers, so that "a trial never loads
the backbone" is a fact of the import graph.
"""

from collections.abc import Callable, Iterable, Sequence
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
from core.backbone.pooling import pool_grid, pool_image, pool_text
from core.backbone.prompts import image_prompt_tokens, text_prompt_tokens
from core.config import Device, FeaturesConfig
from core.device import choose_device
from core.errors import UserError
from core.readings import Reading

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
        return self._rows**2

    @property
    def image_tokens(self) -> int:
        """Tokens that stand for one image in the language model."""
        return int(self.patches * self._model.config.downsample_ratio**2)

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

    def require(self, readings: Iterable[Reading]) -> None:
        """Make sure that this backbone can give the readings, before hours of passes.

        Raises:
            UserError: a layer does not exist, the patches do not fit the projector or the grid, or the checkpoint has
                no chat template for a prompt.
        """
        config, rows = self._model.config, self._rows
        for reading in readings:
            model = config.vision_config if reading.place == "tower" else config.text_config
            layers = model.num_hidden_layers
            if reading.layer is not None and not -layers - 1 <= reading.layer <= layers:
                raise UserError(f"{reading.name} asks for a layer that is not there; there are 0 to {layers}")
            if reading.side is not None and reading.side > rows:
                raise UserError(f"a grid of {reading.side} × {reading.side} is finer than the {rows} × {rows} patches")
            if reading.kind == "images" and reading.place != "tower" and rows % 2:
                size, patch = self._image_size, config.vision_config.patch_size[0]
                lower = rows // 2 * 2 * patch
                raise UserError(
                    f"{reading.name} needs an even number of patches in a row, and {size} pixels give {rows}",
                    where="features.image_size",
                    how=f"use {lower} or {lower + 2 * patch}",
                )
            if reading.prompt is not None:
                self._prompt_tokens(reading)

    def width(self, reading: Reading) -> int:
        """Length of the reading's vectors."""
        return self.vision_dim if reading.place == "tower" else self.text_dim

    @torch.no_grad()
    def encode_pixels(self, pixels: Tensor, readings: Sequence[Reading]) -> dict[Reading, Tensor]:
        """Resized images [N, 3, S, S] uint8 → [N, width] float32 per reading, on the backbone's device.

        A grid is [N, side², width] float16. All readings come out of one pass of the tower, and one of the language
        model for each prompt.
        """
        return self._in_micro_batches(lambda part: self._encode_pixels(part, readings), pixels)

    def encode_images(self, images: Sequence[Image], readings: Sequence[Reading]) -> dict[Reading, Tensor]:
        """`encode_pixels` of RGB images."""
        return self.encode_pixels(self.preprocess(images), readings)

    @torch.no_grad()
    def encode_texts(self, texts: Sequence[str], readings: Sequence[Reading]) -> dict[Reading, Tensor]:
        """Texts → [N, width] float32 per reading, on the backbone's device; longer ones are cut.

        All readings come out of one pass of the language model, and one more for each prompt.

        Raises:
            UserError: a text has no token at all.
        """
        plain = self._tokenizer(list(texts), truncation=True, max_length=self._max_tokens)["input_ids"]
        if empty := [text for text, ids in zip(texts, plain, strict=True) if not ids]:
            raise UserError(f"the text {empty[0]!r} has no token")
        encoded: dict[Reading, Tensor] = {}
        for prompt in dict.fromkeys(reading.prompt for reading in readings):
            tokens = plain if prompt is None else self._text_tokens(texts, prompt)
            asked = [reading for reading in readings if reading.prompt == prompt]
            encoded |= self._encode_sorted(tokens, asked)
        return {reading: encoded[reading] for reading in readings}

    @property
    def _rows(self) -> int:
        return int(self._image_size // self._model.config.vision_config.patch_size[0])

    def _text_tokens(self, texts: Sequence[str], prompt: str) -> list[list[int]]:
        return text_prompt_tokens(self._tokenizer, texts, prompt, self._max_tokens)

    def _prompt_tokens(self, reading: Reading) -> list[int]:
        prompt = reading.prompt or ""
        if reading.kind == "texts":
            return self._text_tokens(["text"], prompt)[0]
        return image_prompt_tokens(self._tokenizer, prompt, self.image_tokens)

    def _encode_pixels(self, pixels: Tensor, readings: Sequence[Reading]) -> dict[Reading, Tensor]:
        by_layer = any(reading.place == "tower" and reading.layer is not None for reading in readings)
        pixels = self._normalise(pixels).to(self._model.dtype)
        tower = self._model.vision_tower(pixel_values=pixels, output_hidden_states=by_layer)
        encoded: dict[Reading, Tensor] = {}
        for reading in readings:
            if reading.place == "tower":
                hidden = _hidden_state(tower, reading.layer)
                pool = pool_image(hidden, reading.pooling) if reading.side is None else pool_grid(hidden, reading.side)
                encoded[reading] = pool
        beyond = [reading for reading in readings if reading.place != "tower"]
        return encoded | (self._encode_projected(self._project(tower.last_hidden_state), beyond) if beyond else {})

    def _project(self, hidden: Tensor) -> Tensor:
        """Patches of the tower's last layer [B, 1 + P, vision_dim] → image tokens [B, P / 4, text_dim]."""
        rows = self._rows
        patches = hidden[:, 1:].reshape(len(hidden), rows, rows, -1)
        shuffled = self._model.pixel_shuffle(patches, scale_factor=self._model.config.downsample_ratio)
        projected: Tensor = self._model.multi_modal_projector(shuffled.flatten(1, 2))
        return projected

    def _encode_projected(self, images: Tensor, readings: Sequence[Reading]) -> dict[Reading, Tensor]:
        """Readings behind the tower, from image tokens [B, T, text_dim]."""
        encoded = {reading: images.float().mean(dim=1) for reading in readings if reading.place == "projector"}
        for prompt in dict.fromkeys(reading.prompt for reading in readings if reading.place == "lm"):
            asked = [reading for reading in readings if reading.place == "lm" and reading.prompt == prompt]
            tokens = self._prompt_tokens(asked[0])
            first = tokens.index(self._model.config.image_token_id)
            image = slice(first, first + images.shape[1])
            ids = torch.tensor(tokens, device=self.device)
            embedded = self._model.get_input_embeddings()(ids).repeat(len(images), 1, 1)  # [B, L, text_dim]
            embedded[:, image] = images.to(embedded.dtype)
            by_layer = any(reading.layer is not None for reading in asked)
            mask = embedded.new_ones(embedded.shape[:2], dtype=torch.int64)  # else positions are read
            output = self._model.language_model(
                inputs_embeds=embedded, attention_mask=mask, use_cache=False, output_hidden_states=by_layer
            )
            for reading in asked:
                hidden = _hidden_state(output, reading.layer)
                last = reading.pooling == "prompt"
                encoded[reading] = hidden[:, -1].float() if last else hidden[:, image].float().mean(dim=1)
        return encoded

    def _encode_sorted(self, tokens: Sequence[list[int]], readings: Sequence[Reading]) -> dict[Reading, Tensor]:
        """In order of length, so that a micro batch holds little padding; the result is in the order given."""
        by_length = sorted(range(len(tokens)), key=lambda row: len(tokens[row]))
        encoded = self._in_micro_batches(
            lambda part: self._encode_tokens(part, readings), [tokens[row] for row in by_length]
        )
        order = torch.tensor(by_length, device=self.device).argsort()
        return {reading: features[order] for reading, features in encoded.items()}

    def _encode_tokens(self, tokens: Sequence[list[int]], readings: Sequence[Reading]) -> dict[Reading, Tensor]:
        rows = [torch.tensor(ids) for ids in tokens]
        ids = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True).to(self.device)
        lengths = torch.tensor([len(row) for row in rows], device=self.device)
        mask = (torch.arange(ids.shape[1], device=self.device) < lengths[:, None]).long()
        by_layer = any(reading.layer is not None for reading in readings)
        output = self._model.language_model(
            input_ids=ids, attention_mask=mask, use_cache=False, output_hidden_states=by_layer
        )
        return {reading: pool_text(_hidden_state(output, reading.layer), mask, reading.pooling) for reading in readings}

    def _in_micro_batches(self, encode: Callable[[Any], dict[Reading, Tensor]], items: Any) -> dict[Reading, Tensor]:
        parts: list[dict[Reading, Tensor]] = []
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
        return {reading: torch.cat([part[reading] for part in parts]) for reading in parts[0]}


def _hidden_state(output: Any, layer: int | None) -> Tensor:
    """[B, L, width] of a pass: the last state, or one of all."""
    hidden: Tensor = output.last_hidden_state if layer is None else output.hidden_states[layer]
    return hidden


def load_backbone(config: FeaturesConfig, device: Device) -> FrozenBackbone:
    """Load an InternVL in transformers format from a folder or the hub, frozen.

    Only files covered by the fingerprint are accessible, and none of them can run code.

    Raises:
        UserError: the folder is no InternVL checkpoint, or a part of it is missing or damaged.
    """
    transformers_logging.disable_progress_bar()
    transformers_logging.set_verbosity(transformers_logging.CRITICAL)  # its warnings are errors below, in one line each
    if config.backbone is None:
        raise UserError("features.backbone is null, so there is no backbone to load", how="name one")
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

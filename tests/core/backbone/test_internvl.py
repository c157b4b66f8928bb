import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import AutoImageProcessor, InternVLConfig, InternVLModel, InternVLVisionConfig, Qwen2Config

from core.backbone.internvl import FrozenBackbone, load_backbone
from core.backbone.tiny import build_tiny_checkpoint
from core.config import FeaturesConfig
from core.errors import UserError


def settings(folder: Path, **changes: object) -> FeaturesConfig:
    return FeaturesConfig.model_validate({"backbone": str(folder), "image_size": 112, "max_tokens": 32, **changes})


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tiny")
    build_tiny_checkpoint(folder, ["The image shows a red building beside a round pool."] * 20, seed=0)
    return folder


@pytest.fixture(scope="module")
def backbone(checkpoint: Path) -> FrozenBackbone:
    return load_backbone(settings(checkpoint), "cpu")


def images(count: int) -> list[Image.Image]:
    generator = np.random.default_rng(0)
    return [Image.fromarray(generator.integers(0, 255, (90, 120, 3), dtype=np.uint8)) for _ in range(count)]


def test_dimensions_are_read_off_the_model(backbone: FrozenBackbone) -> None:
    assert (backbone.vision_dim, backbone.text_dim, backbone.patches) == (128, 112, 64)
    assert backbone.parameter_count < 3_000_000


def test_it_is_frozen(backbone: FrozenBackbone) -> None:
    encoded = backbone.encode_images(images(1))
    assert all(not features.requires_grad and features.dtype == torch.float32 for features in encoded.values())


def test_a_micro_batch_changes_nothing_but_memory(checkpoint: Path, backbone: FrozenBackbone) -> None:
    one_by_one = load_backbone(settings(checkpoint, micro_batch=1), "cpu")
    texts = ["a pool", "The image shows a red building beside a round pool.", "grass"]
    for pooling, features in backbone.encode_texts(texts).items():
        torch.testing.assert_close(one_by_one.encode_texts(texts)[pooling], features, atol=1e-5, rtol=1e-4)
    for name, features in backbone.encode_images(images(3)).items():
        torch.testing.assert_close(one_by_one.encode_images(images(3))[name], features, atol=1e-5, rtol=1e-4)


def test_micro_batches_are_halved_when_memory_runs_out(
    checkpoint: Path, backbone: FrozenBackbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = load_backbone(settings(checkpoint, micro_batch=8), "cpu")
    encode = small._encode_pixels

    def starved(pixels: torch.Tensor) -> dict[str, torch.Tensor]:
        if len(pixels) > 2:
            raise torch.OutOfMemoryError
        return encode(pixels)  # type: ignore[return-value]

    monkeypatch.setattr(small, "_encode_pixels", starved)
    encoded = small.encode_images(images(5))
    assert small.micro_batch == 2
    torch.testing.assert_close(encoded["mean"], backbone.encode_images(images(5))["mean"], atol=1e-5, rtol=1e-4)


def test_pictures_are_normalised_as_the_checkpoints_own_processor_does(
    checkpoint: Path, backbone: FrozenBackbone
) -> None:
    processor = AutoImageProcessor.from_pretrained(checkpoint, backend="pil", local_files_only=True)
    size = {"height": 112, "width": 112}
    theirs = processor(images(3), size=size, crop_to_patches=False, return_tensors="pt")["pixel_values"]
    torch.testing.assert_close(backbone._normalise(backbone.preprocess(images(3))), theirs, atol=1e-6, rtol=1e-6)


def test_under_causal_attention_the_first_token_tells_captions_with_one_opening_nothing_apart(
    backbone: FrozenBackbone,
) -> None:
    pooled = backbone.encode_texts(["The image shows a red building.", "The image shows a green pool and grass."])
    torch.testing.assert_close(pooled["first"][0], pooled["first"][1], atol=1e-5, rtol=1e-5)
    assert (pooled["last"][0] - pooled["last"][1]).abs().max() > 0.1
    assert (pooled["mean"][0] - pooled["mean"][1]).abs().max() > 0.1


def test_long_texts_are_cut_at_max_tokens(checkpoint: Path) -> None:
    short = load_backbone(settings(checkpoint, max_tokens=4), "cpu")
    pooled = short.encode_texts(["a b c d e f g h", "a b c d e f g i j k"])
    torch.testing.assert_close(pooled["last"][0], pooled["last"][1], atol=1e-5, rtol=1e-5)


def test_an_empty_text_is_refused(backbone: FrozenBackbone) -> None:
    with pytest.raises(UserError, match="the text '' has no token"):
        backbone.encode_texts(["a", ""])


def test_half_precision_gives_nearly_the_same_features(checkpoint: Path, backbone: FrozenBackbone) -> None:
    half = load_backbone(settings(checkpoint, dtype="bfloat16"), "cpu")
    full, rounded = backbone.encode_images(images(2))["mean"], half.encode_images(images(2))["mean"]
    assert torch.nn.functional.cosine_similarity(full, rounded).min() > 0.99


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({}, "holds no config.json, so it is no InternVL checkpoint"),
        ({"config.json": "{"}, "is not a valid checkpoint configuration"),
        ({"config.json": json.dumps({"model_type": "bert"})}, "is a bert checkpoint, not InternVL"),
    ],
)
def test_a_folder_that_is_no_internvl_is_refused_in_one_line(
    tmp_path: Path, files: dict[str, str], message: str
) -> None:
    for name, content in files.items():
        (tmp_path / name).write_text(content)
    with pytest.raises(UserError, match=message) as caught:
        load_backbone(settings(tmp_path), "cpu")
    assert "\n" not in str(caught.value)


def test_a_checkpoint_without_weights_is_refused(tmp_path: Path, checkpoint: Path) -> None:
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json", "preprocessor_config.json"):
        (tmp_path / name).write_bytes((checkpoint / name).read_bytes())
    with pytest.raises(UserError, match=r"has no model\.safetensors; download"):
        load_backbone(settings(tmp_path), "cpu")


def test_internvl3_1b_has_the_published_sizes_and_feature_shapes() -> None:
    """From the published configuration, on the meta device: no weights, real shapes."""
    vision = InternVLVisionConfig(
        hidden_size=1024, num_hidden_layers=24, num_attention_heads=16, intermediate_size=4096, image_size=[448, 448],
        patch_size=[14, 14], attention_bias=True, norm_type="layer_norm", use_qk_norm=False, use_mean_pooling=True,
    )  # fmt: skip
    text = Qwen2Config(
        vocab_size=151_674, hidden_size=896, num_hidden_layers=24, num_attention_heads=14, num_key_value_heads=2,
        intermediate_size=4864, max_position_embeddings=32_768,
    )  # fmt: skip
    with torch.device("meta"):
        model = InternVLModel(InternVLConfig(vision_config=vision, text_config=text)).eval()

        def count(part: torch.nn.Module) -> int:
            return sum(parameter.numel() for parameter in part.parameters())

        assert count(model.vision_tower) == 304_012_288
        assert count(model.multi_modal_projector) == 4_482_816
        assert count(model.language_model) == 493_798_016
        assert count(model) == 802_293_120
        for size, tokens in ((448, 1 + 32**2), (384, 1 + 27**2), (336, 1 + 24**2)):
            hidden = model.vision_tower(pixel_values=torch.empty(1, 3, size, size)).last_hidden_state
            assert hidden.shape == (1, tokens, 1024)
        ids = torch.zeros(2, 7, dtype=torch.long)
        hidden = model.language_model(input_ids=ids).last_hidden_state
        assert hidden.shape == (2, 7, 896)

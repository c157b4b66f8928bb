import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import (
    AutoImageProcessor,
    AutoModel,
    AutoTokenizer,
    InternVLConfig,
    InternVLModel,
    InternVLProcessor,
    InternVLVisionConfig,
    Qwen2Config,
)

from core.backbone.internvl import FrozenBackbone, load_backbone
from core.backbone.tiny import build_tiny_checkpoint
from core.config import FeaturesConfig
from core.errors import UserError
from core.readings import Reading, Readings, grid_reading
from tests.conftest import EVERY_READING, readings

IMAGES = [reading for reading in EVERY_READING if reading.kind == "images" and reading.side is None]
TEXTS = [reading for reading in EVERY_READING if reading.kind == "texts"]
(MEAN,) = readings().images
TOWER = readings("tower.cls+tower.mean").images


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
    encoded = backbone.encode_images(images(1), IMAGES)
    assert all(not features.requires_grad and features.dtype == torch.float32 for features in encoded.values())


def test_a_micro_batch_changes_nothing_but_memory(checkpoint: Path, backbone: FrozenBackbone) -> None:
    one_by_one = load_backbone(settings(checkpoint, micro_batch=1), "cpu")
    texts = ["a pool", "The image shows a red building beside a round pool.", "grass"]
    alone = one_by_one.encode_texts(texts, TEXTS) | one_by_one.encode_images(images(3), IMAGES)
    together = backbone.encode_texts(texts, TEXTS) | backbone.encode_images(images(3), IMAGES)
    for reading, features in together.items():
        torch.testing.assert_close(alone[reading], features, atol=1e-4, rtol=1e-4)


def test_micro_batches_are_halved_when_memory_runs_out(
    checkpoint: Path, backbone: FrozenBackbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = load_backbone(settings(checkpoint, micro_batch=8), "cpu")
    encode = small._encode_pixels

    def starved(pixels: torch.Tensor, asked: Sequence[Reading]) -> dict[Reading, torch.Tensor]:
        if len(pixels) > 2:
            raise torch.OutOfMemoryError
        return encode(pixels, asked)

    monkeypatch.setattr(small, "_encode_pixels", starved)
    encoded = small.encode_images(images(5), IMAGES)
    assert small.micro_batch == 2
    expected = backbone.encode_images(images(5), IMAGES)
    torch.testing.assert_close(encoded[MEAN], expected[MEAN], atol=1e-5, rtol=1e-4)


class ImageProcessorAlone(InternVLProcessor):  # type: ignore[misc]
    """transformers' own processor where its video processor, which needs torchvision, cannot be imported."""

    def check_argument_for_proper_class(self, argument_name: str, argument: object) -> object:
        return None if argument is None else super().check_argument_for_proper_class(argument_name, argument)


class Expected(NamedTuple):
    """What transformers' own processor and model make of one image and one text in the chat template."""

    image: torch.Tensor
    """Hidden states [layers + 1, L, D]"""
    is_image: torch.Tensor
    text: torch.Tensor


@pytest.fixture(scope="module")
def expected(checkpoint: Path) -> Expected:
    tokenizer = AutoTokenizer.from_pretrained(checkpoint, local_files_only=True)
    processor = ImageProcessorAlone(
        AutoImageProcessor.from_pretrained(checkpoint, backend="pil", local_files_only=True),
        tokenizer,
        image_seq_length=16,
        chat_template=tokenizer.chat_template,
    )
    model = AutoModel.from_pretrained(checkpoint, local_files_only=True).eval()
    image_chat = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "What is it?"}]}]
    text_chat = [{"role": "user", "content": "a red building\nIn one word:"}]
    rendered = [processor.apply_chat_template(chat, add_generation_prompt=True) for chat in (image_chat, text_chat)]
    size = {"height": 112, "width": 112}
    image = processor(
        images=images(1), text=rendered[0], images_kwargs={"size": size, "crop_to_patches": False}, return_tensors="pt"
    )
    with torch.no_grad():
        of_image = model(**image, output_hidden_states=True)
        of_text = model(**processor(text=rendered[1], return_tensors="pt"), output_hidden_states=True)
    is_image = image["input_ids"][0] == model.config.image_token_id
    return Expected(torch.cat(of_image.hidden_states), is_image, torch.cat(of_text.hidden_states))


def test_readings_of_the_language_model_are_those_of_transformers_own_processor_and_model(
    backbone: FrozenBackbone, expected: Expected
) -> None:
    of_images = readings("lm.image_mean+lm.prompt+lm.prompt@1").images
    of_texts = readings(text="lm.prompt+lm.prompt@1").texts
    mean, last, earlier = backbone.encode_images(images(1), of_images).values()
    text, text_earlier = backbone.encode_texts(["a red building"], of_texts).values()
    assert int(expected.is_image.sum()) == backbone.image_tokens == 16
    for ours, theirs in (
        (mean, expected.image[-1, expected.is_image].mean(dim=0)),
        (last, expected.image[-1, -1]),
        (earlier, expected.image[1, -1]),
        (text, expected.text[-1, -1]),
        (text_earlier, expected.text[1, -1]),
    ):
        torch.testing.assert_close(ours[0], theirs, atol=1e-4, rtol=1e-4)


def test_readings_of_the_tower_and_the_projector_are_those_of_transformers(
    checkpoint: Path, backbone: FrozenBackbone
) -> None:
    model = AutoModel.from_pretrained(checkpoint, local_files_only=True).eval()
    pixels = backbone._normalise(backbone.preprocess(images(2)))
    with torch.no_grad():
        tower = model.vision_tower(pixel_values=pixels, output_hidden_states=True)
        projected = model.get_image_features(pixel_values=pixels).pooler_output
    ours = backbone.encode_images(images(2), readings("tower.cls+tower.mean@1+projector.mean").images)
    theirs = [tower.last_hidden_state[:, 0], tower.hidden_states[1][:, 1:].mean(dim=1), projected.mean(dim=1)]
    for mine, other in zip(ours.values(), theirs, strict=True):
        torch.testing.assert_close(mine, other, atol=1e-4, rtol=1e-4)
    grid = grid_reading(8)
    patches = backbone.encode_images(images(2), [grid])[grid]
    torch.testing.assert_close(patches.float(), tower.last_hidden_state[:, 1:], atol=0.02, rtol=0.01)


def test_moving_an_object_moves_the_features(checkpoint: Path, backbone: FrozenBackbone) -> None:
    """Positions reach every reading of the tower, and the cells where the object is change most."""
    blind = load_backbone(settings(checkpoint), "cpu")
    blind._model.vision_tower.embeddings.position_embeddings.zero_()  # as transformers initialises them
    left, right = (Image.new("RGB", (112, 112), (90, 130, 70)) for _ in range(2))
    left.paste((200, 30, 30), (14, 42, 42, 70))
    right.paste((200, 30, 30), (70, 42, 98, 70))
    grid = grid_reading(8)
    encoded = backbone.encode_images([left, right], [*TOWER, grid])
    for reading, without_positions in blind.encode_images([left, right], TOWER).items():
        moved, unmoved = ((each[0] - each[1]).norm() for each in (encoded[reading], without_positions))
        assert moved > 100 * unmoved
        assert moved > 0.01 * encoded[reading][0].norm()
    change = (encoded[grid][0] - encoded[grid][1]).float().norm(dim=1).view(8, 8)
    assert change[3:5][:, [1, 2, 5, 6]].mean() > 1.5 * change[[0, 7]].mean()


@pytest.mark.parametrize(
    ("wanted", "size", "message"),
    [
        (readings("tower.mean@7"), 112, "tower.mean@7 asks for a layer that is not there; there are 0 to 3"),
        (readings(text="lm.mean@-4"), 112, "lm.mean@-4 asks for a layer that is not there; there are 0 to 2"),
        (readings(grid=9), 112, "a grid of 9 × 9 is finer than the 8 × 8 patches"),
        (readings("projector.mean"), 98, "98 pixels give 7; use 84 or 112"),
    ],
)
def test_a_reading_that_this_backbone_cannot_give_is_refused_before_any_pass(
    checkpoint: Path, wanted: Readings, size: int, message: str
) -> None:
    backbone = load_backbone(settings(checkpoint, image_size=size), "cpu")
    with pytest.raises(UserError, match=re.escape(message)):
        backbone.require(wanted.all)


def test_a_prompt_needs_a_chat_template(checkpoint: Path, tmp_path: Path) -> None:
    for path in checkpoint.iterdir():
        if path.name != "chat_template.jinja":
            (tmp_path / path.name).write_bytes(path.read_bytes())
    bare = load_backbone(settings(tmp_path), "cpu")
    bare.require(readings().all)
    for wanted in (readings("lm.prompt"), readings(text="lm.prompt")):
        with pytest.raises(UserError, match="has no chat template"):
            bare.require(wanted.all)


@pytest.mark.parametrize(
    "template", ["", "3", "{", "{% if %}", "{{ raise_exception('no images') }}", "{{ messages[9].x.y }}"]
)
def test_a_chat_template_that_cannot_be_used_is_one_line(checkpoint: Path, tmp_path: Path, template: str) -> None:
    for path in checkpoint.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    (tmp_path / "chat_template.jinja").write_text(template)
    backbone = load_backbone(settings(tmp_path), "cpu")
    for wanted in (readings("lm.prompt"), readings(text="lm.prompt")):
        with pytest.raises(UserError, match="chat template") as caught:
            backbone.require(wanted.all)
        assert "\n" not in str(caught.value)


def test_a_long_text_is_cut_before_its_prompt(checkpoint: Path) -> None:
    short = load_backbone(settings(checkpoint, max_tokens=4), "cpu")
    (prompted,) = readings(text="lm.prompt").texts
    texts = ["a b c d e f g h", "a b", "a z"]
    features = short.encode_texts(texts, [prompted])[prompted]
    cut = short._tokenizer.decode(short._tokenizer(texts[0], truncation=True, max_length=4)["input_ids"])
    (of_cut,) = short.encode_texts([cut], [prompted]).values()
    torch.testing.assert_close(features[0], of_cut[0], atol=1e-5, rtol=1e-5)
    assert (features[1] - features[2]).abs().max() > 0.01


def test_images_are_normalised_as_by_the_checkpoints_own_processor(checkpoint: Path, backbone: FrozenBackbone) -> None:
    processor = AutoImageProcessor.from_pretrained(checkpoint, backend="pil", local_files_only=True)
    size = {"height": 112, "width": 112}
    theirs = processor(images(3), size=size, crop_to_patches=False, return_tensors="pt")["pixel_values"]
    torch.testing.assert_close(backbone._normalise(backbone.preprocess(images(3))), theirs, atol=1e-6, rtol=1e-6)


def test_under_causal_attention_the_first_token_cannot_distinguish_captions_with_the_same_opening(
    backbone: FrozenBackbone,
) -> None:
    texts = ["The image shows a red building.", "The image shows a green pool and grass."]
    first, mean, last = backbone.encode_texts(texts, readings(text="lm.first+lm.mean+lm.last").texts).values()
    torch.testing.assert_close(first[0], first[1], atol=1e-5, rtol=1e-5)
    assert (last[0] - last[1]).abs().max() > 0.1
    assert (mean[0] - mean[1]).abs().max() > 0.1


def test_long_texts_are_cut_at_max_tokens(checkpoint: Path) -> None:
    short = load_backbone(settings(checkpoint, max_tokens=4), "cpu")
    (features,) = short.encode_texts(["a b c d e f g h", "a b c d e f g i j k"], readings().texts).values()
    torch.testing.assert_close(features[0], features[1], atol=1e-5, rtol=1e-5)


def test_an_empty_text_is_refused(backbone: FrozenBackbone) -> None:
    with pytest.raises(UserError, match="the text '' has no token"):
        backbone.encode_texts(["a", ""], TEXTS)


def test_half_precision_gives_nearly_the_same_features(checkpoint: Path, backbone: FrozenBackbone) -> None:
    half = load_backbone(settings(checkpoint, dtype="bfloat16"), "cpu")
    full, rounded = (each.encode_images(images(2), [MEAN])[MEAN] for each in (backbone, half))
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


def test_internvl3_1b_has_the_published_sizes_and_feature_shapes(backbone: FrozenBackbone) -> None:
    """From the published configuration, on the meta device: no weights, real shapes."""
    vision = InternVLVisionConfig(
        hidden_size=1024, num_hidden_layers=24, num_attention_heads=16, intermediate_size=4096, image_size=[448, 448],
        patch_size=[14, 14], attention_bias=True, norm_type="layer_norm", use_qk_norm=False, use_mean_pooling=True,
    )  # fmt: skip
    text = Qwen2Config(
        vocab_size=151_674, hidden_size=896, num_hidden_layers=24, num_attention_heads=14, num_key_value_heads=2,
        intermediate_size=4864, max_position_embeddings=32_768,
    )  # fmt: skip
    image_token = backbone._tokenizer.context_image_token_id
    with torch.device("meta"):
        config = InternVLConfig(vision_config=vision, text_config=text, image_token_id=image_token)
        model = InternVLModel(config).eval()

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
    model.set_attn_implementation("eager")  # the other ones look into the mask, which has no values here
    full = FrozenBackbone(model, backbone._tokenizer, backbone._image_processor, settings(Path(), image_size=448))
    everything = readings(
        "tower.cls+tower.mean@-6+projector.mean+lm.image_mean+lm.prompt", "lm.last+lm.mean@12+lm.prompt", grid=8
    )
    full.require(everything.all)
    assert (full.patches, full.image_tokens) == (1024, 256)
    shapes = [features.shape[1:] for features in full.encode_images(images(1), everything.images).values()]
    assert shapes == [(1024,), (1024,), (896,), (896,), (896,)]
    shapes = [features.shape[1:] for features in full.encode_texts(["a red building"], everything.texts).values()]
    assert shapes == [(896,)] * 3
    assert everything.grid is not None
    assert full.encode_images(images(1), [everything.grid])[everything.grid].shape == (1, 64, 1024)

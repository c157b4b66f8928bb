"""Tests of core.backbone.checkpoint_files."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers import InternVLModel

from core.backbone.checkpoint_files import backbone_files
from core.backbone.internvl import load_backbone
from core.config import FeaturesConfig
from core.errors import UserError
from tests.conftest import readings

PARTS = [
    "chat_template.jinja", "config.json", "model.safetensors", "preprocessor_config.json", "tokenizer.json",
    "tokenizer_config.json",
]  # fmt: skip
TEMPLATE = "chat_template.jinja"  # any text is one; refused where it is rendered, see test_internvl


@pytest.fixture
def whole(demo: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(demo / "tiny-internvl", tmp_path / "whole"))


@pytest.fixture
def sharded(whole: Path, tmp_path: Path) -> Path:
    """The same model, its weights in several files."""
    folder = Path(shutil.copytree(whole, tmp_path / "sharded", ignore=shutil.ignore_patterns("model.safetensors")))
    InternVLModel.from_pretrained(whole, local_files_only=True).save_pretrained(folder, max_shard_size="1MB")
    return folder


def encoded(folder: Path) -> torch.Tensor:
    settings = {"backbone": str(folder), "image_size": 112, "max_tokens": 32}
    backbone = load_backbone(FeaturesConfig.model_validate(settings), "cpu")
    asked = readings()
    (image,) = backbone.encode_images([Image.new("RGB", (90, 60), (200, 40, 90))], asked.images).values()
    (text,) = backbone.encode_texts(["a red building beside a round pool"], asked.texts).values()
    return torch.cat([image, text], dim=1)


def test_the_files_of_a_checkpoint_are_found_by_name(whole: Path) -> None:
    assert list(backbone_files(whole)) == PARTS


def test_an_index_brings_its_shards_and_the_model_is_the_same(whole: Path, sharded: Path) -> None:
    names = list(backbone_files(sharded))
    assert "model.safetensors.index.json" in names
    assert len([name for name in names if name.startswith("model-0")]) > 2
    assert torch.equal(encoded(sharded), encoded(whole))


def test_weights_that_the_configuration_names_are_those_that_are_loaded(whole: Path) -> None:
    expected = encoded(whole)
    (whole / "weights").mkdir()
    (whole / "model.safetensors").rename(whole / "weights" / "other.safetensors")
    config = json.loads((whole / "config.json").read_text())
    (whole / "config.json").write_text(json.dumps({**config, "transformers_weights": "weights/other.safetensors"}))
    assert "weights/other.safetensors" in backbone_files(whole)
    assert torch.equal(encoded(whole), expected)


def test_other_files_are_neither_named_nor_loaded(whole: Path, tmp_path: Path) -> None:
    names, expected = list(backbone_files(whole)), encoded(whole)
    mark = tmp_path / "was-run"
    (whole / "evil.py").write_text(f"open({str(mark)!r}, 'w')\nclass Model: ...\n")
    for name in ("pytorch_model.bin", "model.fp16.safetensors", "README.md", "generation_config.json", "notes.txt"):
        (whole / name).write_bytes(b"neither JSON nor weights")
    assert list(backbone_files(whole)) == names
    assert torch.equal(encoded(whole), expected)
    config = json.loads((whole / "config.json").read_text())
    (whole / "config.json").write_text(json.dumps({**config, "auto_map": {"AutoModel": "evil.Model"}}))
    assert torch.equal(encoded(whole), expected)
    assert not mark.exists()


def test_the_links_of_the_hubs_cache_are_followed(sharded: Path, tmp_path: Path) -> None:
    expected = encoded(sharded)
    blobs, snapshot = tmp_path / "blobs", tmp_path / "snapshots" / "abc"
    blobs.mkdir()
    snapshot.mkdir(parents=True)
    for number, path in enumerate(sorted(sharded.iterdir())):
        path.rename(blobs / str(number))
        (snapshot / path.name).symlink_to(Path("../../blobs") / str(number))
    assert torch.equal(encoded(snapshot), expected)


def edit_index(change: Callable[[dict[str, dict[str, str]]], object]) -> Callable[[Path], None]:
    def edit(folder: Path) -> None:
        path = folder / "model.safetensors.index.json"
        content = json.loads(path.read_text())
        change(content)
        path.write_text(json.dumps(content))

    return edit


def first_shard(name: object) -> Callable[[Path], None]:
    return edit_index(lambda index: index["weight_map"].update({min(index["weight_map"]): name}))  # type: ignore[dict-item]


BROKEN: dict[str, tuple[Callable[[Path], object], str]] = {
    "shard gone": (lambda folder: min(folder.glob("model-0*")).unlink(), "model-00001.*, which is missing"),
    "shard outside": (first_shard("../whole/model.safetensors"), "names weights outside of the checkpoint"),
    "shard anywhere": (first_shard("/etc/model.safetensors"), "names weights outside of the checkpoint"),
    "shard pickled": (first_shard("model-00001.bin"), "which is no safetensors file"),
    "shard of another type": (first_shard(3), "names '3' as weights"),
    "shard with NUL": (first_shard("a\0.safetensors"), "which is no safetensors file"),
    "index without map": (edit_index(lambda index: index.pop("weight_map")), "is not an index of weights"),
    "index without metadata": (edit_index(lambda index: index.pop("metadata")), "is not an index of weights"),
    "index empty": (lambda folder: (folder / "model.safetensors.index.json").write_text(""), "is not an index"),
    "index nested": (
        lambda folder: (folder / "model.safetensors.index.json").write_text("[" * 100_000),
        "not an index",
    ),
    "no weights": (lambda folder: (folder / "model.safetensors.index.json").unlink(), "has no model.safetensors;"),
    "adapter": (lambda folder: (folder / "adapter_config.json").write_text("{}"), "is an adapter, not a whole model"),
    "no vocabulary": (lambda folder: (folder / "tokenizer.json").unlink(), "no tokenizer.json"),
    "not fetched": (
        lambda folder: min(folder.glob("model-0*")).write_text("version https://git-lfs.github.com/spec/v1\noid …"),
        "is a pointer of Git LFS.*git lfs pull",
    ),
    "configuration nested": (
        lambda folder: (folder / "config.json").write_text("[" * 100_000),
        "not a valid checkpoint",
    ),
    "configuration a list": (lambda folder: (folder / "config.json").write_text("[]"), "not a valid checkpoint"),
    "configuration gone": (lambda folder: (folder / "config.json").unlink(), "holds no config.json"),
}


@pytest.mark.parametrize(("damage", "message"), BROKEN.values(), ids=BROKEN.keys())
def test_a_broken_checkpoint_is_one_line(sharded: Path, damage: Callable[[Path], object], message: str) -> None:
    damage(sharded)
    with pytest.raises(UserError, match=message) as caught:
        backbone_files(sharded)
    assert len(str(caught.value)) < 400
    assert "\n" not in str(caught.value)


def test_pickled_weights_are_refused_with_the_way_to_convert_them(whole: Path) -> None:
    (whole / "model.safetensors").rename(whole / "pytorch_model.bin")
    with pytest.raises(UserError, match=r"pytorch_model\.bin is pickled: .*never read; convert it .*save_pretrained"):
        backbone_files(whole)


@pytest.mark.parametrize("name", [name for name in PARTS if name != TEMPLATE])
@pytest.mark.parametrize("content", [b"", b"[]", b"{", b"\xff\xfe\x00", b"3"])
def test_a_damaged_part_is_one_line_when_it_is_loaded(whole: Path, name: str, content: bytes) -> None:
    (whole / name).write_bytes(content)
    with pytest.raises(UserError) as caught:
        encoded(whole)
    assert str(whole) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"image_std": [0.2, 0.2, 0.0]}, "image_mean, image_std or rescale_factor cannot be used"),
        ({"image_mean": None}, "image_mean, image_std or rescale_factor cannot be used"),
        ({"image_mean": [0.5]}, "image_mean, image_std or rescale_factor cannot be used"),
        ({"rescale_factor": "none"}, "image_mean, image_std or rescale_factor cannot be used"),
        ({"image_processor_type": "CLIPImageProcessor"}, "its image processor is CLIPImageProcessorPil, not that of"),
    ],
)
def test_images_are_processed_as_internvls_or_not_at_all(whole: Path, change: dict[str, object], message: str) -> None:
    path = whole / "preprocessor_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(UserError, match=message):
        encoded(whole)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda weights: weights.pop(min(weights)), "the checkpoint lacks weights, e.g. language_model"),
        (lambda weights: weights.update({min(weights): torch.zeros(3, 5)}), r"has shape \[3, 5\] instead of \["),
    ],
)
def test_weights_that_do_not_fit_are_named_and_nothing_else_is_printed(
    whole: Path,
    capfd: pytest.CaptureFixture[str],
    change: Callable[[dict[str, torch.Tensor]], object],
    message: str,
) -> None:
    weights = {name: tensor.clone() for name, tensor in load_file(whole / "model.safetensors").items()}
    change(weights)
    save_file(weights, whole / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(UserError, match=message):
        encoded(whole)
    assert capfd.readouterr() == ("", "")


def test_a_tokenizer_with_more_tokens_than_the_model_is_refused(whole: Path) -> None:
    content = json.loads((whole / "tokenizer.json").read_text())
    extra = {"special": False, "single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
    content["added_tokens"] += [{"id": 5000 + number, "content": f"<x{number}>", **extra} for number in range(999)]
    (whole / "tokenizer.json").write_text(json.dumps(content))
    with pytest.raises(UserError, match="tokens, more than the model knows"):
        encoded(whole)

"""The full content of the shipped training configurations, independent of their form."""

from pathlib import Path
from typing import Any

import pytest

from core.config import TrainConfig, load_config
from core.sections import Scalar, dotted_keys, parse

ROOT = Path(__file__).resolve().parent.parent.parent
METHODOLOGY: dict[str, Scalar | None] = {
    "model.adapter_width": 256, "model.embed_dim": 256, "model.dropout": 0.1, "model.fusion": "concat",
    "model.image_pooling": "none", "model.temperature": 0.07, "loss.itc": 1.0, "loss.itm": 1.0, "loss.box": 0.1,
    "loss.spatial": 0.1, "loss.giou": 0.0, "loss.positives": "image", "loss.contrastive": "infonce",
    "optimizer.weight_decay": 0.01, "optimizer.warmup_ratio": 0.1,
    "optimizer.cuda_graph": True, "data.split_seed": 0, "data.train_on": "training",
    "features.dtype": "float32", "features.micro_batch": 32,
    "features.image": "tower.cls", "features.text": "lm.last", "features.grid": 8,
    "features.image_prompt": "Summary above image in one word:",
    "features.text_prompt": "Summary above sentence in one word:", "features.allow_degenerate": False,
    "features.source": "cached", "features.vectors": None, "evaluation.k_test": 256, "evaluation.rerank_weight": None,
    "evaluation.query_bank": "none", "evaluation.unique_texts": False, "objective": "recall_mean",
    "device": "auto", "seed": 0,
}  # fmt: skip
REAL: dict[str, Scalar] = {
    "optimizer.learning_rate": 1.0e-4, "optimizer.batch_size": 4, "data.validation_fraction": 0.1,
    "data.train_annotations": str(ROOT / "data/GeoText1652/train.json"),
    "data.test_annotations": str(ROOT / "data/GeoText1652/test_951_version.json"),
    "data.image_root": str(ROOT / "data/GeoText1652/images"),
    "features.backbone": "OpenGVLab/InternVL3-1B-hf", "features.store": str(ROOT / "output/features"),
    "features.image_size": 384, "features.max_tokens": 50, "features.normalization": "none",
}  # fmt: skip
DEMO: dict[str, Scalar] = {
    "optimizer.learning_rate": 1.0e-3, "optimizer.batch_size": 128, "data.validation_fraction": 0.2,
    "data.train_annotations": str(ROOT / "output/demo-data/train.json"),
    "data.test_annotations": str(ROOT / "output/demo-data/test.json"),
    "data.image_root": str(ROOT / "output/demo-data/images"),
    "features.backbone": str(ROOT / "output/demo-data/tiny-internvl"),
    "features.store": str(ROOT / "output/demo-data/features"),
    "features.image_size": 112, "features.max_tokens": 128, "features.normalization": "standardize",
}  # fmt: skip
RECIPES: dict[str, dict[str, Scalar]] = {
    "internvl3_bbox": {"recipe.epochs": 5, "recipe.stage1_epochs": 0, "recipe.stage2_lr_scale": 1.0},
    "internvl3_stage1": {"recipe.epochs": 3, "recipe.stage1_epochs": 3, "recipe.stage2_lr_scale": 1.0},
    "internvl3_stage2": {"recipe.epochs": 5, "recipe.stage1_epochs": 0, "recipe.stage2_lr_scale": 1.0},
    "two_stage": {"recipe.epochs": 8, "recipe.stage1_epochs": 3, "recipe.stage2_lr_scale": 0.5},
}


def in_full(name: str, family: dict[str, Scalar]) -> TrainConfig:
    """Every setting written out."""
    settings = METHODOLOGY | family | RECIPES[name]
    if name == "internvl3_stage2":
        settings["optimizer.learning_rate"] = 5.0e-5 if family is REAL else 5.0e-4
    assert settings.keys() == set(dotted_keys(TrainConfig))
    content: dict[str, Any] = {}
    for path, value in settings.items():
        section, _, key = path.rpartition(".")
        (content.setdefault(section, {}) if section else content)[key] = value
    return parse(TrainConfig, content, where=name)


@pytest.mark.parametrize("name", RECIPES)
@pytest.mark.parametrize(("folder", "family"), [("configs", REAL), ("configs/demo", DEMO)])
def test_a_shipped_configuration_has_every_setting_that_it_should(
    name: str, folder: str, family: dict[str, Scalar]
) -> None:
    assert load_config(ROOT / folder / f"{name}.yaml") == in_full(name, family)


def test_the_campaign_for_geotext_starts_from_the_methodology_at_an_even_number_of_patches() -> None:
    base = load_config(ROOT / "configs" / "two_stage.yaml")
    start = load_config(ROOT / "configs" / "geotext1652.yaml")
    assert start == base.with_overrides({"features.image_size": 448})
    assert (start.features.image_size // 14) % 2 == 0

from dataclasses import replace
from pathlib import Path

import pytest

from core import RetrievalModel
from core.errors import UserError
from core.inference.identity import model_identity, require_same_backbone


def test_other_weights_settings_or_backbones_have_another_name(model: RetrievalModel, tmp_path: Path) -> None:
    checkpoint = model.checkpoint
    weights = {
        name: value + 1 if name == "text_projector.bias" else value for name, value in checkpoint.weights.items()
    }
    larger = checkpoint.config.with_overrides({"features.image_size": 168})
    others = [
        RetrievalModel(checkpoint),
        RetrievalModel(replace(checkpoint, weights=weights)),
        RetrievalModel(replace(checkpoint, config=larger)),
        RetrievalModel(replace(checkpoint, config=checkpoint.config.with_overrides({"loss.itc": 0.5}))),
    ]
    names = [model_identity(each, tmp_path / "digests") for each in others]
    assert names[0] == names[3] == model_identity(model, tmp_path / "digests")
    assert len(set(names)) == 3


def test_a_model_of_an_earlier_version_takes_any_backbone(model: RetrievalModel) -> None:
    receipt = replace(model.checkpoint.receipt, backbone=None)
    require_same_backbone(RetrievalModel(replace(model.checkpoint, receipt=receipt)), "0" * 64)
    with pytest.raises(UserError, match="was trained on another backbone than"):
        require_same_backbone(model, "0" * 64)

from dataclasses import replace
from pathlib import Path

from core import RetrievalModel
from core.inference.identity import model_identity


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

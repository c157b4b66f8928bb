from dataclasses import replace
from pathlib import Path

import yaml

from core import RetrievalModel
from core.config import TrainConfig
from core.features.opening import open_features
from core.inference.card import export_card
from core.training.train import train
from tests.vector_files import without_pictures


def front_matter(card: str) -> dict[str, object]:
    _, facts, _ = card.split("---\n", 2)
    content: dict[str, object] = yaml.safe_load(facts)
    return content


def test_the_card_of_a_final_model_gets_front_matter_and_use(model: RetrievalModel) -> None:
    card = export_card(model, place="owner/name", written="# Model card: a\n\nAn introduction.\n\n## Data\n\nfigures\n")
    facts = front_matter(card)
    assert facts["library_name"] == "crossmodal-search"
    assert "base_model" not in facts  # a folder of this machine
    sections = [line for line in card.splitlines() if line.startswith("#")]
    assert sections == ["# Model card: a", "## Use", "## Data"]
    assert 'load_model("owner/name", backbone="FOLDER OF THE BACKBONE")' in card


def test_a_model_of_the_hubs_backbone_names_it(model: RetrievalModel) -> None:
    config = model.checkpoint.config.with_overrides({"features.backbone": "owner/backbone", "loss.box": 0})
    other = RetrievalModel(replace(model.checkpoint, config=config))
    card = export_card(other, place="out", written=None)
    assert front_matter(card)["base_model"] == "owner/backbone"
    assert 'load_model("out")' in card
    assert "- No boxes: the model was not trained on them." in card


def test_a_model_on_vectors_says_which_it_reads(demo: Path, demo_config: TrainConfig, tmp_path: Path) -> None:
    config = without_pictures(demo, tmp_path, demo_config.with_overrides({"recipe.epochs": 1}))
    card = export_card(RetrievalModel(train(config, open_features(config)).last), place="owner/name", written=None)
    assert "base_model" not in front_matter(card)
    assert "on the set of vectors set, after epoch 0" in card
    assert "model.embed_image_vectors(image_vectors)  # [N, 24]: vectors.cnn+vectors.clip, side by side" in card
    assert "ImageIndex" not in card

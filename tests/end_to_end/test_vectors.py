"""A campaign on vectors of other encoders alone: no picture, no backbone, and no process that imports transformers."""

import os
from pathlib import Path

import pytest

from core.config import TrainConfig
from core.files.json_files import read_json
from core.sections import dump_yaml
from tests.commands import Outcome, run
from tests.conftest import ONE_AT_A_TIME
from tests.vector_files import encode, imported, without_pictures

IMPORTED = """
import os, sys
with open(os.environ["IMPORTED"], "a") as stream:
    stream.write(f"{sys.argv}\\n")
raise ImportError("transformers is not installed here")
"""
CAMPAIGN = """
name: vectors
train: train.yaml
limits: {trials: 2}
pruner: {kind: none}
space:
  features.image: {choice: [vectors.cnn, vectors.clip, vectors.cnn+vectors.clip]}
  optimizer.learning_rate: {log: [1.0e-4, 1.0e-2]}
"""


@pytest.mark.slow
def test_the_whole_product_runs_on_vectors_alone(demo: Path, demo_config: TrainConfig, tmp_path: Path) -> None:
    (tmp_path / "stub" / "transformers").mkdir(parents=True)
    (tmp_path / "stub" / "transformers" / "__init__.py").write_text(IMPORTED)
    search_path = os.pathsep.join([str(tmp_path / "stub"), os.environ.get("PYTHONPATH", "")])
    extra = {"PYTHONPATH": search_path, "IMPORTED": str(tmp_path / "imported")}

    def crossmodal(*arguments: object) -> Outcome:
        outcome = run(*arguments, cwd=tmp_path, extra=extra)
        assert outcome.code == 0, outcome.err
        assert not (tmp_path / "imported").exists(), (tmp_path / "imported").read_text()
        return outcome

    config = without_pictures(demo, tmp_path / "data", demo_config)
    (tmp_path / "train.yaml").write_text(dump_yaml(config))
    (tmp_path / "campaign.yaml").write_text(CAMPAIGN + ONE_AT_A_TIME)
    encode(demo, tmp_path / "encoded")
    data = tmp_path / "data"
    crossmodal(
        *("features", "import", data / "set", "encoded/images.npz", "encoded/texts.npz"),
        *("--train", data / "train.json", "--test", data / "test.json"),
    )
    crossmodal("plan", "campaign.yaml", "--output-dir", "c")
    crossmodal("search", "campaign.yaml", "--output-dir", "c")
    crossmodal("retrain", "c", "--output-dir", "c/final")
    assert "without pictures: " in crossmodal("report", "c").out
    assert "the set of vectors set" in (tmp_path / "c" / "final" / "model_card.md").read_text()
    assert read_json(tmp_path / "c" / "final" / "metrics.json")["evaluations"][0]["split"] == "test"
    imported(demo, data, seed=1)
    changed = run("search", "campaign.yaml", "--output-dir", "c", "--trials", 3, cwd=tmp_path, extra=extra)
    assert (changed.code, changed.err.count("\n")) == (2, 1)
    assert "the vectors changed since the campaign started" in changed.err

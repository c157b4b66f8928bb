import json
from pathlib import Path

import pytest

from core import RetrievalModel, load_model
from core.config import EvaluationConfig
from core.errors import UserError
from core.evaluation.scorecard import MeasuredSet, measure, measure_alone
from core.features.opening import NoDisplay, open_features
from core.inference.measuring import open_test_set, read_test_set, shared_images


class Display(NoDisplay):
    """Counts what is encoded."""

    def __init__(self) -> None:
        self.done: dict[str, int] = {}

    def progress(self, kind: str, done: int, total: int) -> None:
        self.done[kind] = done


@pytest.mark.parametrize("kind", ["model", "attending_model"])
def test_figures_are_those_of_the_campaigns_own_evaluation(
    kind: str, request: pytest.FixtureRequest, demo: Path, tmp_path: Path
) -> None:
    model: RetrievalModel = request.getfixturevalue(kind)
    inputs = read_test_set(model, demo / "test.json", demo / "images", tmp_path)
    tested = open_test_set(model, inputs, tmp_path, name="test", display=NoDisplay())
    alone = measure_alone(model.checkpoint, model.model, tested, name="m").scorecard
    settings = EvaluationConfig(k_test=8, rerank_weight=0.5)
    features = open_features(model.config, with_test=True)
    whole = measure(model.checkpoint, features, name="m", settings=settings).scorecard
    for ours, theirs in zip(alone.evaluations, whole.evaluations, strict=True):
        assert ours.metrics == pytest.approx(theirs.metrics, abs=1e-6)
    assert (alone.regions_split, alone.grounding) == (None, {})  # GeoText's test files have no regions

    validation = MeasuredSet(features.validation, "validation", features.fingerprint, 0)
    alone = measure_alone(model.checkpoint, model.model, validation, name="m").scorecard
    assert alone.regions.keys() == {each for each in whole.regions if not each.endswith(("text_only", "mean_box"))}
    assert all(value == pytest.approx(whole.regions[name], abs=1e-4) for name, value in alone.regions.items())
    assert alone.confusion == whole.confusion


def test_only_the_test_set_is_encoded_and_only_once(model: RetrievalModel, demo: Path, tmp_path: Path) -> None:
    entries = json.loads((demo / "test.json").read_text())[:5]
    (tmp_path / "few.json").write_text(json.dumps(entries))
    for expected in ({"images": 5}, {}):
        inputs = read_test_set(model, tmp_path / "few.json", demo / "images", tmp_path / "store")
        display = Display()
        tested = open_test_set(model, inputs, tmp_path / "store", name="few", display=display)
        assert {kind: count for kind, count in display.done.items() if kind == "images"} == expected
        assert len(tested.split.groups) == 5
        assert tested.backbone_parameters > 0


def test_images_of_the_models_own_data_are_counted(
    model: RetrievalModel, trained: Path, demo: Path, tmp_path: Path
) -> None:
    train = read_test_set(model, demo / "train.json", demo / "images", tmp_path)
    test = read_test_set(model, demo / "test.json", demo / "images", tmp_path)
    images = len(test.images["test"])
    shared = shared_images(model, [*test.images["test"][:3], *train.images["test"][:2]])
    assert (shared.trained_on, shared.own_test) == (2, 3)
    assert images > 3
    lost = load_model(trained)
    config = lost.checkpoint.config.with_overrides({"data.train_annotations": "/gone.json"})
    object.__setattr__(lost.checkpoint, "config", config)
    assert shared_images(lost, test.images["test"]).trained_on is None


def test_a_mistake_in_the_annotations_is_one_clear_line(model: RetrievalModel, demo: Path, tmp_path: Path) -> None:
    (tmp_path / "empty.json").write_text("[]")
    with pytest.raises(UserError, match="holds no entry"):
        read_test_set(model, tmp_path / "empty.json", demo / "images", tmp_path / "store")

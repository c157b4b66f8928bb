from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.campaign.campaign import Pruner, load_campaign
from core.config import TrainConfig
from core.features.random import SplitShape
from core.files.folders import CampaignFolder
from core.sections import dump_yaml
from search import plan
from search.plan import Tables, TrainingCost, estimate, expected_epochs
from tests.commands import CommandLine
from tests.conftest import CAMPAIGN, readings, write_campaign
from tests.vector_files import without_pictures


def test_epochs_with_pruning_by_hand() -> None:
    pruner = Pruner(min_epochs=1, reduction_factor=2, bootstrap=0)
    # 8 trials: 8 run epoch 1, 4 epoch 2, 2 epochs 3 and 4
    assert expected_epochs(pruner, epochs=4, trials=8) == (8 * 1 + 4 * 1 + 2 * 2) / 8
    assert expected_epochs(Pruner(kind="none"), epochs=4, trials=8) == 4


@given(
    st.builds(
        Pruner,
        min_epochs=st.integers(1, 9),
        reduction_factor=st.integers(2, 5),
        bootstrap=st.integers(0, 20),
    ),
    st.integers(1, 50),
    st.integers(1, 300),
)
def test_a_trial_runs_between_its_first_rung_and_all_epochs(pruner: Pruner, epochs: int, trials: int) -> None:
    mean = expected_epochs(pruner, epochs=epochs, trials=trials)
    assert min(pruner.min_epochs, epochs) - 1e-9 <= mean <= epochs + 1e-9


def test_a_fresh_campaign_is_measured_and_nothing_is_written(demo: Path, tmp_path: Path) -> None:
    path = write_campaign(tmp_path, demo, CAMPAIGN + "resources: {cpu: 1}\n")
    store = tmp_path / "store"
    train = tmp_path / "train.yaml"
    train.write_text(train.read_text().replace(str(demo / "features"), str(store)))
    found = estimate(load_campaign(path), CampaignFolder(tmp_path / "c"), slots=2)
    (extraction,) = found.extraction
    assert extraction.images == 66
    assert extraction.seconds > 0
    assert found.trials_left == 5
    assert found.training.epochs_per_trial == 3  # its pruner is off
    assert found.training.seconds_per_epoch > 0
    assert found.wall_hours == pytest.approx(3 * 3 * found.training.seconds_per_epoch / 3600)
    assert not list(store.glob("*/manifest.json"))
    assert not (tmp_path / "c").exists()


def test_vectors_cost_no_extraction(demo: Path, demo_config: TrainConfig, tmp_path: Path) -> None:
    config = without_pictures(demo, tmp_path / "data", demo_config)
    (tmp_path / "train.yaml").write_text(dump_yaml(config))
    (tmp_path / "campaign.yaml").write_text(
        "{name: v, train: train.yaml, limits: {trials: 3}, space: {features.image: {choice: [vectors.cnn, vectors.cnn+"
        "vectors.clip]}}}"
    )
    found = estimate(load_campaign(tmp_path / "campaign.yaml"), CampaignFolder(tmp_path / "c"), slots=1)
    (extraction,) = found.extraction
    assert extraction.seconds == 0
    assert {cost.reading.key: (cost.shape, cost.gigaflops) for cost in extraction.costs} == {
        "images.vectors.cnn": ((16,), 0),
        "images.vectors.clip": ((8,), 0),
        "texts.vectors.clip": ((8,), 0),
    }


def test_a_campaign_that_ran_is_estimated_from_its_own_epochs(
    finished_campaign: CampaignFolder, crossmodal: CommandLine
) -> None:
    outcome = crossmodal("plan", finished_campaign.campaign, "--output-dir", finished_campaign.root, "--slots", "3")
    assert outcome.code == 0, outcome.err
    assert "15 epochs of this campaign" in outcome.out
    assert "0 trials, 3 concurrent" in outcome.out
    assert "no pass of the backbone is needed" in outcome.out


def test_features_of_every_shape_are_timed_and_the_slowest_is_reported(
    demo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever order they come in; here the second set of features is far wider."""
    path = write_campaign(tmp_path, demo)
    shape = SplitShape(images=40, groups=8, captions=40, texts=40, regions=20)
    narrow, wide = (
        Tables((shape, shape), tuple((reading, (width,)) for reading in readings().all)) for width in (8, 16)
    )
    taken = {narrow: 1.0, wide: 3.0}
    monkeypatch.setattr(plan, "_calibrate", lambda _, tables: TrainingCost(taken[tables], 100.0, "an epoch", 3.0))
    for order in ([narrow, wide], [wide, narrow]):
        cost = plan._calibrate_each(load_campaign(path), order)
        assert cost.seconds_per_epoch == 3.0
        assert cost.basis == "an epoch, on the slowest of 2 feature shapes"
    assert plan._calibrate_each(load_campaign(path), [narrow]).basis == "an epoch"

"""Warm start between campaigns whose trials are told without being trained; Ray runs one in tests/end_to_end."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from analysis.trials import load_trials
from core.campaign.campaign import Campaign
from core.campaign.study import read_trials
from core.config import TrainConfig
from core.errors import UserError
from core.features.fingerprint import FingerprintParts
from core.files.folders import CampaignFolder
from search.campaign import CampaignFeatures, claim, extraction_variant, keep_features
from search.study.ledger import Ledger, TrialOutcome
from search.study.proposals import SearchProposals
from search.warm_start import TRIED_FIRST, require_sources, take_over
from tests.conftest import epoch_metrics
from tests.search.conftest import SPACE

Build = Callable[..., Campaign]


def features_of(config: TrainConfig, data: str = "data") -> CampaignFeatures:
    wanted = config.features
    parts = FingerprintParts("weights", wanted.image_size, wanted.max_tokens, wanted.dtype, data)
    return CampaignFeatures({extraction_variant(config): parts}, config.readings.all)


def run(campaign: Campaign, folder: CampaignFolder, features: CampaignFeatures) -> tuple[list[TrainConfig], list[str]]:
    """Runs a campaign to its limits; a trial's value is its dropout. Returns configurations, and what was said."""
    lines: list[str] = []
    folder.root.mkdir(exist_ok=True)
    claim(campaign, folder)
    keep_features(features, folder)
    proposals = SearchProposals(campaign, lambda: take_over(campaign, features, lines.append))
    configs = []
    with Ledger(proposals, folder, "id", features.fingerprints) as ledger:
        while asked := ledger.ask():
            value = asked.config.model.dropout
            best = epoch_metrics(recall_mean=value, box_iou=value)
            ledger.tell(asked.number, TrialOutcome("complete", value, best, None, 1.0, trainable_parameters=9))
            configs.append(asked.config)
    return configs, lines


@pytest.fixture
def source(campaign_of: Build, base: TrainConfig, tmp_path: Path) -> CampaignFolder:
    """Eight complete trials."""
    folder = CampaignFolder(tmp_path / "source")
    run(campaign_of(name="source", limits={"trials": 8}), folder, features_of(base))
    return folder


def dropouts(folder: CampaignFolder, state: str) -> list[float]:
    return sorted(float(trial.parameters["model.dropout"]) for trial in read_trials(folder) if trial.state == state)


def test_trials_that_could_be_its_own_are_history_and_nothing_else(
    campaign_of: Build, base: TrainConfig, source: CampaignFolder, tmp_path: Path
) -> None:
    folder = CampaignFolder(tmp_path / "new")
    campaign = campaign_of(name="new", warm_start=[str(source.root)], limits={"trials": 3})
    configs, lines = run(campaign, folder, features_of(base))
    assert lines == [f"warm start from {source.root}: 8 of 8 complete trials are history for the sampler"]
    trials = read_trials(folder)
    assert [trial.state for trial in trials] == ["complete", *["imported"] * 8, "complete", "complete"]
    assert configs[0] == base  # the baseline still comes first
    assert dropouts(folder, "imported") == dropouts(source, "complete")
    assert {trial.imported_from for trial in trials[1:9]} == {f"{source.root}, trial {n}" for n in range(8)}
    assert load_trials(folder)["number"].tolist() == [0, 9, 10]  # no figure of another campaign is ranked
    assert not folder.trial(1).root.exists()


def test_history_guides_the_sampler_from_the_first_proposal(
    campaign_of: Build, base: TrainConfig, tmp_path: Path
) -> None:
    """The value is the dropout: with 30 trials of history, proposals are above the middle at once."""
    source, features = CampaignFolder(tmp_path / "source"), features_of(base)
    run(campaign_of(name="source", limits={"trials": 30}), source, features)
    campaign = campaign_of(name="new", warm_start=[str(source.root)], limits={"trials": 7})
    configs, _ = run(campaign, CampaignFolder(tmp_path / "new"), features)
    assert all(config.model.dropout > 0.25 for config in configs[1:])


@pytest.mark.parametrize(
    ("changes", "data", "reason"),
    [
        ({}, "others", "the annotations or images differ (8)"),
        ({"train": {"recipe.epochs": 2}}, "data", "recipe.epochs differs (8)"),
        ({"train": {"model.temperature": 0.1}}, "data", "model.temperature differs (8)"),
        (
            {"train": {"features.max_tokens": 64}},
            "data",
            "features of 448 px, 128 tokens, float32 are not this campaign's",
        ),
        ({"objective": "t2i_r1"}, "data", "objective differs (8)"),
    ],
)
def test_of_others_the_best_settings_are_tried_first(
    campaign_of: Build, base: TrainConfig, source: CampaignFolder, tmp_path: Path,
    changes: dict[str, Any], data: str, reason: str,
) -> None:  # fmt: skip
    train = base.with_overrides(changes.get("train", {}))
    campaign = campaign_of(
        name="new",
        warm_start=[str(source.root)],
        limits={"trials": 1 + TRIED_FIRST},
        **{**changes, "train": train.model_dump(mode="json")},
    )
    folder = CampaignFolder(tmp_path / "new")
    configs, lines = run(campaign, folder, features_of(train, data))
    best = sorted(read_trials(source), key=lambda trial: -(trial.value or 0))[:TRIED_FIRST]
    assert [config.model.dropout for config in configs[1:]] == [trial.parameters["model.dropout"] for trial in best]
    assert [trial.settings_from for trial in read_trials(folder)[1:]] == [
        f"{source.root}, trial {trial.number}" for trial in best
    ]
    assert lines[0].endswith(": 0 of 8 complete trials are history for the sampler")
    assert lines[1].startswith(f"warm start from {source.root}: 3 of the other settings are tried first, since ")
    assert reason in lines[1]
    assert not dropouts(folder, "imported")


def test_what_changes_no_result_may_differ(
    campaign_of: Build, base: TrainConfig, source: CampaignFolder, tmp_path: Path
) -> None:
    train = base.with_overrides({"seed": 5, "device": "cpu", "evaluation.k_test": 3})
    campaign = campaign_of(name="new", warm_start=[str(source.root)], train=train.model_dump(mode="json"))
    folder = CampaignFolder(tmp_path / "new")
    run(campaign, folder, features_of(train))
    assert len(dropouts(folder, "imported")) == 8


def test_a_setting_outside_the_space_keeps_a_trial_out_and_is_not_tried(
    campaign_of: Build, base: TrainConfig, source: CampaignFolder, tmp_path: Path
) -> None:
    narrow = {**SPACE, "model.dropout": {"uniform": [0.0, 0.2]}}
    campaign = campaign_of(name="new", warm_start=[str(source.root)], space=narrow, limits={"trials": 4})
    folder = CampaignFolder(tmp_path / "new")
    configs, lines = run(campaign, folder, features_of(base))
    inside = [value for value in dropouts(source, "complete") if value <= 0.2]
    assert 0 < len(inside) < 8
    assert dropouts(folder, "imported") == inside
    assert f"model.dropout is outside this space ({8 - len(inside)})" in lines[1]
    assert all(config.model.dropout <= 0.2 for config in configs)
    tried = [trial for trial in read_trials(folder) if trial.settings_from]
    assert len(tried) == min(TRIED_FIRST, 8 - len(inside))


def test_history_keeps_the_verdict_of_constraints(
    campaign_of: Build, base: TrainConfig, source: CampaignFolder, tmp_path: Path
) -> None:
    """Relative to the baseline, whose dropout is 0.1: a dropout above 0.3 breaks the bound. None is the best."""
    bound = {"box_iou": {"at_most": "baseline + 0.2"}}
    folder = CampaignFolder(tmp_path / "new")
    campaign = campaign_of(name="new", warm_start=[str(source.root)], constraints=bound, limits={"trials": 1})
    features = features_of(base)
    run(campaign, folder, features)
    with Ledger(SearchProposals(campaign), folder, "id", features.fingerprints) as ledger:
        kept = {
            trial.params["model.dropout"] <= base.model.dropout + 0.2: trial.constraints["box_iou"] <= 0
            for trial in ledger._study.trials[1:]
        }
        assert kept == {True: True, False: False}
        assert ledger.standing().best == (0, base.model.dropout)
        assert (ledger.standing().imported, ledger.standing().ended) == (8, 1)
        assert ledger.spent().gpu_hours == 0


def test_with_several_goals_history_has_a_value_of_each(
    campaign_of: Build, base: TrainConfig, source: CampaignFolder, tmp_path: Path
) -> None:
    goals = ["recall_mean", {"box_iou": "max"}, {"trainable_parameters": "min"}]
    campaign = campaign_of(name="new", warm_start=[str(source.root)], objectives=goals, limits={"trials": 14})
    folder = CampaignFolder(tmp_path / "new")
    run(campaign, folder, features_of(base))
    assert len(dropouts(folder, "imported")) == 8
    missing = campaign_of(name="third", warm_start=[str(source.root)], objectives=["recall_mean", "relation_accuracy"])
    for trial in read_trials(source):
        assert trial.best is not None
    _, lines = run(missing, CampaignFolder(tmp_path / "third"), features_of(base))
    assert lines[0].endswith("8 of 8 complete trials are history for the sampler")


def test_other_campaigns_are_read_at_the_start_alone_even_if_it_was_interrupted(
    campaign_of: Build, base: TrainConfig, source: CampaignFolder, tmp_path: Path
) -> None:
    features, folder = features_of(base), CampaignFolder(tmp_path / "new")
    campaign = campaign_of(name="new", warm_start=[str(source.root)], limits={"trials": 2})
    starts = take_over(campaign, features, lambda line: None)
    folder.root.mkdir()
    with Ledger(SearchProposals(campaign, lambda: starts[:3]), folder, "id", features.fingerprints):
        pass  # a driver that died after three
    with Ledger(SearchProposals(campaign, lambda: starts), folder, "id", features.fingerprints) as ledger:
        assert [trial.state for trial in ledger.trials()] == ["waiting", *["imported"] * 8]
        assert ledger.ask() is not None

    def gone() -> list[Any]:
        raise AssertionError("read again")

    with Ledger(SearchProposals(campaign, gone), folder, "id", features.fingerprints) as ledger:
        assert ledger.reconcile() == [0]
        assert len(ledger.trials()) == 10


def test_a_folder_without_a_campaign_is_one_line(campaign_of: Build, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="holds no campaign") as refused:
        require_sources(campaign_of(warm_start=[str(tmp_path)]))
    assert str(tmp_path) in str(refused.value)
    assert len(str(refused.value).splitlines()) == 1

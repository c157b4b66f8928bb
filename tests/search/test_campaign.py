from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from core.campaign.campaign import Campaign, Limits, load_campaign, read_campaign
from core.config import TrainConfig
from core.errors import UserError
from core.features.fingerprint import FingerprintParts
from core.files.folders import CampaignFolder
from search.campaign import (
    CampaignFeatures,
    advance,
    campaign_readings,
    change_limits,
    claim,
    extraction_variant,
    extraction_variants,
    keep_features,
    require_regions,
    require_unchanged_features,
    with_current_limits,
)
from search.study.proposals import SearchProposals


def made_of(config: TrainConfig, **changes: Any) -> FingerprintParts:
    wanted = config.features
    parts = FingerprintParts("weights", wanted.image_size, wanted.max_tokens, wanted.dtype, "data")
    return replace(parts, **changes)


Build = Callable[..., Campaign]


def test_the_resolved_campaign_is_written_and_read_back(campaign_of: Build, folder_of: Path) -> None:
    folder = CampaignFolder(folder_of)
    claim(campaign_of(), folder)
    assert load_campaign(folder.campaign).space == campaign_of().space


def test_limits_may_change_and_nothing_else(campaign_of: Build, folder_of: Path) -> None:
    folder = CampaignFolder(folder_of)
    claim(campaign_of(), folder)
    claim(campaign_of(limits={"trials": 9}), folder)
    assert load_campaign(folder.campaign).limits.trials == 9
    with pytest.raises(UserError, match=r"differs from the started campaign in sampler\.seed; only limits may change"):
        claim(campaign_of(sampler={"kind": "tpe", "seed": 3}), folder)


def test_a_repeated_search_keeps_changed_limits_and_one_that_asks_for_others_replaces_them(
    campaign_of: Build, folder_of: Path
) -> None:
    folder, asked = CampaignFolder(folder_of), campaign_of(limits={"trials": 4, "hours": 2.0})
    claim(asked, folder)
    assert with_current_limits(asked, folder) == asked
    assert change_limits(folder, trials=9, hours=None, gpu_hours=None) == (asked.limits, Limits(trials=9, hours=2.0))
    claim(asked, folder)
    for current in (with_current_limits(asked, folder), read_campaign(folder)):
        assert current.limits == Limits(trials=9, hours=2.0)
    other = campaign_of(limits={"trials": 6})
    assert with_current_limits(other, folder).limits == Limits(trials=6)
    claim(other, folder)
    assert read_campaign(folder).limits == with_current_limits(other, folder).limits == Limits(trials=6)
    claim(asked, folder)
    assert read_campaign(folder).limits == asked.limits  # what was set before is not set again


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"trials": 0}, "limits.trials: Input should be greater than or equal to 1"),
        ({"hours": 0.0}, "limits.hours: Input should be greater than 0"),
        ({"gpu_hours": 3.0}, "limits.gpu_hours has no effect, since resources.gpu is 0"),
    ],
)
def test_invalid_limits_are_one_line_and_change_nothing(
    campaign_of: Build, folder_of: Path, change: dict[str, Any], message: str
) -> None:
    folder = CampaignFolder(folder_of)
    claim(campaign_of(), folder)
    change_limits(folder, trials=9, hours=None, gpu_hours=None)
    before = {path: path.read_bytes() for path in folder_of.iterdir()}
    with pytest.raises(UserError) as refused:
        change_limits(folder, **{"trials": None, "hours": None, "gpu_hours": None, **change})
    assert message in str(refused.value)
    assert len(str(refused.value).splitlines()) == 1
    assert {path: path.read_bytes() for path in folder_of.iterdir()} == before


def test_every_searched_extraction_gets_features_of_its_own(campaign_of: Build, base: TrainConfig) -> None:
    space = {
        "features.max_tokens": {"choice": [50, 128]},
        "features.dtype": {"choice": ["float32", "bfloat16"]},
        "model.dropout": {"uniform": [0.0, 0.5]},
    }
    variants = extraction_variants(campaign_of(space=space), base)
    assert len({extraction_variant(config) for config in variants}) == 4
    features = CampaignFeatures({extraction_variant(config): made_of(config) for config in variants}, base.readings.all)
    wanted = base.with_overrides({"features.max_tokens": 50, "features.dtype": "bfloat16", "model.dropout": 0.4})
    assert features.fingerprint(wanted) == made_of(wanted).fingerprint
    assert len(features.fingerprints) == 4


def test_every_reading_that_a_trial_may_use_is_known_before_the_first(campaign_of: Build, base: TrainConfig) -> None:
    space = {
        "features.image": {"choice": ["tower.cls", "tower.cls+lm.prompt"]},
        "features.image_prompt": {"choice": ["What is it?", "Where is it?"]},
        "features.text": {"choice": ["lm.mean", "lm.mean@1"]},
        "model.fusion": {"choice": ["interaction", "attention"]},
        "features.grid": {"choice": [4, 8]},
    }
    found = campaign_readings(campaign_of(space=space))
    assert len(found) == len(set(found))
    by_name = Counter(reading.name for reading in found)
    assert by_name["lm.prompt"] == 2  # one for each prompt
    assert {name: by_name[name] for name in ("tower.cls", "lm.mean", "lm.mean@1", "tower.grid4", "tower.grid8")} == (
        dict.fromkeys(("tower.cls", "lm.mean", "lm.mean@1", "tower.grid4", "tower.grid8"), 1)
    )


def test_a_space_without_grids_needs_none(campaign_of: Build, base: TrainConfig) -> None:
    space = {"features.grid": {"choice": [4, 8]}, "model.fusion": {"choice": ["concat", "interaction"]}}
    assert all(reading.side is None for reading in campaign_readings(campaign_of(space=space)))


def test_a_foreign_folder_is_refused_and_left_unchanged(campaign_of: Build, folder_of: Path) -> None:
    folder = CampaignFolder(folder_of)
    (folder_of / "trials").mkdir(parents=True)
    (folder_of / "trials" / "thesis.tex").write_text("mine")
    with pytest.raises(UserError, match="holds trials, which crossmodal did not write"):
        advance(SearchProposals(campaign_of()), folder, CampaignFeatures({}, ()))
    assert [str(path.relative_to(folder_of)) for path in sorted(folder_of.rglob("*"))] == [
        "trials",
        "trials/thesis.tex",
    ]


def features_of(base: TrainConfig, **changes: Any) -> CampaignFeatures:
    return CampaignFeatures({extraction_variant(base): made_of(base, **changes)}, base.readings.all)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"data": "other"}, "the annotations or images changed since the campaign started"),
        ({"backbone": "other"}, "the backbone's files changed since"),
        ({"version": 99, "data": "other"}, "the annotations or images and the extraction version changed"),
    ],
)
def test_features_stay_those_that_the_campaign_started_with(
    base: TrainConfig, tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    folder = CampaignFolder(tmp_path)
    keep_features(features_of(base), folder)
    keep_features(features_of(base), folder)
    with pytest.raises(UserError, match=message):
        require_unchanged_features(features_of(base, **changes), folder)


@pytest.mark.parametrize("content", ["", "[]", "3", '{"a": 1}', "{}", '{"448 px, 128 tokens, float32": {}}'])
def test_a_damaged_features_file_is_one_line(base: TrainConfig, tmp_path: Path, content: str) -> None:
    folder = CampaignFolder(tmp_path)
    folder.features.write_text(content)
    with pytest.raises(UserError) as refused:
        keep_features(features_of(base), folder)
    assert len(str(refused.value).splitlines()) == 1
    assert folder.features.read_text() == content


@pytest.mark.parametrize(
    ("boxes", "relations", "refused"),
    [
        (False, False, "loss.box and loss.spatial would have no effect, since the training data contain no boxes"),
        (True, False, "loss.spatial would have no effect, since the training data contain no relations"),
        (True, True, None),
    ],
)
def test_loss_weights_without_targets_are_not_searched(
    campaign_of: Build, boxes: bool, relations: bool, refused: str | None
) -> None:
    weights = {name: {"uniform": [0.0, 1.0]} for name in ("loss.box", "loss.spatial", "loss.itc")}
    campaign = campaign_of(space=weights)
    if refused is None:
        require_regions(campaign, boxes=boxes, relations=relations)
        return
    with pytest.raises(UserError, match=refused):
        require_regions(campaign, boxes=boxes, relations=relations)

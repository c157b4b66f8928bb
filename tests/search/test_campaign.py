from collections.abc import Callable
from pathlib import Path

import pytest

from core.config import TrainConfig
from core.errors import UserError
from core.files import CampaignFolder
from search.campaign import FeatureFingerprints, claim, extraction_variant, extraction_variants
from search.config import Campaign, load_campaign

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


def test_every_searched_extraction_gets_features_of_its_own(campaign_of: Build, base: TrainConfig) -> None:
    space = {
        "features.max_tokens": {"choice": [50, 128]},
        "features.dtype": {"choice": ["float32", "bfloat16"]},
        "model.dropout": {"uniform": [0.0, 0.5]},
    }
    variants = extraction_variants(campaign_of(space=space), base)
    assert len({extraction_variant(config) for config in variants}) == 4
    fingerprints = FeatureFingerprints({extraction_variant(config): str(n) for n, config in enumerate(variants)})
    wanted = base.with_overrides({"features.max_tokens": 50, "features.dtype": "bfloat16", "model.dropout": 0.4})
    assert fingerprints(wanted) == "1"

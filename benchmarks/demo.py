"""The demo data, backbone and campaign for benchmarks, created if they are missing."""

from pathlib import Path

from core.campaign.campaign import Campaign, load_campaign
from core.campaign.space import Space
from core.features.extraction import Extraction
from core.features.inputs import read_inputs
from core.features.opening import prepare_features
from core.features.store import FeatureStore
from search.data_cli import synth

ROOT = Path(__file__).parents[1]


def demo_campaign(**changes: object) -> Campaign:
    """configs/campaigns/demo.yaml with other settings at its top level."""
    campaign = load_campaign(ROOT / "configs" / "campaigns" / "demo.yaml")
    if not campaign.base.data.train_annotations.exists():
        synth(ROOT / "output" / "demo-data")
    return campaign.model_copy(update=changes)


def pooled_campaign(**changes: object) -> Campaign:
    """The same with linear heads alone: without the part of its space that attends to the grid."""
    campaign = demo_campaign(**changes)
    attending = "model.fusion"
    pooled = {
        key: content
        for key, content in campaign.space.root.items()
        if key != attending and attending not in content.get("when", {})
    }
    return campaign.model_copy(update={"space": Space(pooled)})


def demo_store(campaign: Campaign) -> FeatureStore:
    """The feature store of a campaign, with every reading of its trials; what is missing is extracted."""
    from search.campaign import campaign_readings  # imports Ray, which takes seconds

    return prepare_features(campaign.base, Extraction(read_inputs(campaign.base), campaign_readings(campaign)))

"""The demo data, backbone and campaign, for benchmarks: made where they are missing."""

from pathlib import Path

from core.cli import prepare_features, synth
from core.config import TrainConfig
from core.features import FeatureStore
from search.config import Campaign, load_campaign

ROOT = Path(__file__).parents[1]


def demo_campaign(**changes: object) -> Campaign:
    """configs/campaigns/demo.yaml with other settings at its top level."""
    campaign = load_campaign(ROOT / "configs" / "campaigns" / "demo.yaml")
    if not campaign.base.data.image_root.exists():
        synth(ROOT / "output" / "demo-data")
    return campaign.model_copy(update=changes)


def demo_store(config: TrainConfig) -> FeatureStore:
    """Its features, extracted at the first time."""
    return prepare_features(config)

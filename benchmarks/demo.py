"""The demo data, backbone and campaign for benchmarks, created if they are missing."""

from pathlib import Path

from core.campaign.campaign import Campaign, load_campaign
from core.config import TrainConfig
from core.features.opening import prepare_features
from core.features.store import FeatureStore
from core.terminal.cli import synth

ROOT = Path(__file__).parents[1]


def demo_campaign(**changes: object) -> Campaign:
    """configs/campaigns/demo.yaml with other settings at its top level."""
    campaign = load_campaign(ROOT / "configs" / "campaigns" / "demo.yaml")
    if not campaign.base.data.image_root.exists():
        synth(ROOT / "output" / "demo-data")
    return campaign.model_copy(update=changes)


def demo_store(config: TrainConfig) -> FeatureStore:
    """The feature store of a configuration, extracted if it is missing."""
    return prepare_features(config)

"""A campaign: start it, continue it, extend it. All three are the same act: bring it to its limits."""

import itertools
from collections.abc import Callable
from dataclasses import dataclass, replace

from core.config import TrainConfig, dump_yaml
from core.errors import UserError
from core.files import CampaignFolder, write_atomically
from core.tracking import build_tracker
from search.book import SessionBook
from search.cluster import connect, count_slots
from search.config import Campaign, changed_keys, load_campaign
from search.preflight import preflight, preflight_here
from search.session import run_session
from search.space import Choice
from search.storage import Storage
from search.study import Ledger

EXTRACTION_KEYS = ("features.image_size", "features.max_tokens", "features.dtype")
"""Settings that need features of their own; they may be searched as choices."""


@dataclass(frozen=True, slots=True)
class CampaignStatus:
    """Where a campaign stands."""

    limit: int
    finished: int
    running: int
    pruned: int
    failed: int
    best_number: int | None
    best_value: float | None
    baseline_value: float | None
    stop_reason: str | None
    """Why it ended before its limits, if it did."""
    stopped_by: int | None = None
    """The signal that stopped this session."""


OnStatus = Callable[[CampaignStatus], None]


@dataclass(frozen=True, slots=True)
class FeatureFingerprints:
    """The feature store that each configuration of a campaign reads."""

    by_variant: dict[tuple[object, ...], str]

    def __call__(self, config: TrainConfig) -> str:
        return self.by_variant[extraction_variant(config)]


def extraction_variant(config: TrainConfig) -> tuple[object, ...]:
    """The values of a configuration that decide which features it needs."""
    return (config.features.image_size, config.features.max_tokens, config.features.dtype)


def extraction_variants(campaign: Campaign, base: TrainConfig) -> list[TrainConfig]:
    """One configuration for every feature store that the campaign's trials may read."""
    searched = {
        key: dimension.choice
        for key, dimension in campaign.space.dimensions.items()
        if key in EXTRACTION_KEYS and isinstance(dimension, Choice)
    }
    combinations = itertools.product(*searched.values())
    return [base.with_overrides(dict(zip(searched, values, strict=True))) for values in combinations]


def advance(
    campaign: Campaign,
    folder: CampaignFolder,
    fingerprints: FeatureFingerprints,
    *,
    address: str | None = None,
    nodes: int = 1,
    reuse_actors: bool = True,
    on_status: OnStatus = lambda status: None,
) -> CampaignStatus:
    """Start, continue or extend: bring the campaign to its limits.

    Args:
        nodes: of the cluster at `address` that must have joined before trials are placed.
    Raises:
        UserError: another driver is at work, something else than the limits was changed, or nothing fits the cluster.
    """
    claim(campaign, folder)
    with Ledger(campaign, folder) as ledger:
        ledger.reconcile()
        on_status(_status(campaign, ledger))
        tracker = build_tracker(
            project=campaign.wandb.project,
            group=campaign.name,
            mode=campaign.wandb.mode,
            folder=folder.root,
            identity=folder.root.name,
        )
        storage = Storage(campaign.storage or str(folder.sessions))
        book = SessionBook(
            campaign,
            folder,
            ledger,
            storage,
            tracker,
            fingerprints,
            on_change=lambda: on_status(_status(campaign, ledger)),
        )
        stopped_by = None
        if ledger.has_work:
            try:
                with connect(address, nodes=nodes):
                    resources = campaign.resources
                    slots = count_slots(cpu=resources.cpu, gpu=resources.gpu)
                    if address is None:
                        preflight_here(campaign, storage)
                    else:
                        preflight(campaign, fingerprints.by_variant.values(), storage)
                    stopped_by = run_session(
                        book, campaign, storage, number=ledger.session, slots=slots, reuse_actors=reuse_actors
                    )
            finally:
                tracker.close()
        return replace(_status(campaign, ledger), stopped_by=stopped_by)


def claim(campaign: Campaign, folder: CampaignFolder) -> None:
    """Write the resolved campaign into its folder, or make sure that only limits differ from the one there.

    Raises:
        UserError: names the settings that were changed.
    """
    if folder.campaign.exists() and (changed := changed_keys(load_campaign(folder.campaign), campaign)):
        raise UserError(
            f"differs from the started campaign in {', '.join(changed)}; only limits may change",
            where=folder.campaign,
            how="undo the change, or choose another --output-dir",
        )
    write_atomically(folder.campaign, dump_yaml(campaign))


def _status(campaign: Campaign, ledger: Ledger) -> CampaignStatus:
    counts, best = ledger.counts(), ledger.best()
    return CampaignStatus(
        limit=campaign.limits.trials,
        finished=counts.complete,
        running=counts.running,
        pruned=counts.pruned,
        failed=counts.failed,
        best_number=None if best is None else best[0],
        best_value=None if best is None else best[1],
        baseline_value=ledger.baseline_value(),
        stop_reason=ledger.stop_reason,
    )

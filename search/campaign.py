"""Starting, continuing and extending a campaign: all three run it up to its limits."""

import itertools
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

from core.campaign.campaign import Campaign, Limits, changed_keys, read_campaign, read_limits, read_started
from core.campaign.dimensions import Choice
from core.campaign.trials import SCORED, Standing
from core.config import TrainConfig
from core.errors import UserError
from core.features.fingerprint import FingerprintParts
from core.files.atomic import write_atomically
from core.files.folders import CampaignFolder
from core.files.json_files import read_json, write_json
from core.files.ownership import claim_folder, hold_folder
from core.readings import Reading, distinct
from core.records import GROUNDING_METRICS
from core.sections import dump_yaml
from search.study.ledger import Ledger
from search.study.proposals import Proposals

EXTRACTION_KEYS = ("features.image_size", "features.max_tokens", "features.dtype")
"""Settings that need features of their own; they may be searched as choices."""
IMAGE_READING_KEYS = ("features.image", "features.image_prompt")
TEXT_READING_KEYS = ("features.text", "features.text_prompt")
GRID_KEYS = ("features.grid", "model.fusion", "model.image_pooling")
"""Settings that decide which readings a trial uses."""
PART_NAMES = {
    "backbone": "the backbone's files", "data": "the annotations or images", "version": "the extraction version",
    "vectors": "the vectors",
}  # fmt: skip
"""Names of fingerprint parts in messages; the other parts are settings."""

BOX_KEYS = ("loss.box", "loss.giou")
"""Settings that have an effect only if the data contain boxes."""

Variant = str
"""Values of EXTRACTION_KEYS, which determine the features that a configuration reads."""


@dataclass(frozen=True, slots=True)
class SessionEnd:
    """Standing of a campaign after a session, and why the session ended."""

    standing: Standing
    stop_reason: str | None = None
    """Why the campaign stopped before its limits; None if it did not."""
    stopped_by: int | None = None
    """Signal that stopped the session; None if there was none."""


@dataclass(frozen=True, slots=True)
class Listeners:
    """Callbacks for the progress of a campaign."""

    on_standing: Callable[[Standing], None] = lambda standing: None
    """Called at the start and whenever a trial begins or ends."""
    on_note: Callable[[str], None] = lambda note: None
    """Called with one line per lost file, which says whether it was restored."""


@dataclass(frozen=True, slots=True)
class CampaignFeatures:
    """Fingerprint parts of the features that the configurations of a campaign read."""

    by_variant: Mapping[Variant, FingerprintParts]
    readings: Sequence[Reading]
    """All that the trials may use."""

    def fingerprint(self, config: TrainConfig) -> str:
        """Fingerprint of the features that a configuration reads."""
        return self.by_variant[extraction_variant(config)].fingerprint

    @property
    def fingerprints(self) -> list[str]:
        """All distinct fingerprints, sorted."""
        return sorted({parts.fingerprint for parts in self.by_variant.values()})


def extraction_variant(config: TrainConfig) -> Variant:
    """Values of a configuration that determine which features it reads."""
    return f"{config.features.image_size} px, {config.features.max_tokens} tokens, {config.features.dtype}"


def extraction_variants(campaign: Campaign, base: TrainConfig) -> list[TrainConfig]:
    """One configuration for every feature store that the campaign's trials may read."""
    return _combinations(campaign, base, EXTRACTION_KEYS)


def campaign_readings(campaign: Campaign) -> tuple[Reading, ...]:
    """All readings that the baseline and the campaign's trials may use."""
    found = [*campaign.base.readings.all]
    for keys in (IMAGE_READING_KEYS, TEXT_READING_KEYS, GRID_KEYS):
        found += itertools.chain(*(config.readings.all for config in _combinations(campaign, campaign.base, keys)))
    return distinct(found)


def _combinations(campaign: Campaign, base: TrainConfig, keys: Collection[str]) -> list[TrainConfig]:
    """A configuration for every combination of the values that the space gives these settings."""
    searched = {
        key: dimension.choice
        for key, dimension in campaign.space.dimensions.items()
        if key in keys and isinstance(dimension, Choice)
    }
    combinations = itertools.product(*searched.values())
    return [base.with_overrides(dict(zip(searched, values, strict=True))) for values in combinations]


@dataclass(frozen=True, slots=True)
class Cluster:
    """Where the trials of a session run."""

    address: str | None = None
    """Address of a Ray cluster to join; None for this machine alone."""
    nodes: int = 1
    """Minimum number of nodes to wait for before trials start."""
    reuse_actors: bool = True
    """Run many trials in one worker process."""


def advance(
    proposals: Proposals,
    folder: CampaignFolder,
    features: CampaignFeatures,
    cluster: Cluster = Cluster(),
    listeners: Listeners = Listeners(),
) -> SessionEnd:
    """Start, continue or extend a campaign: run its trials until its proposals have no more.

    Args:
        folder: of the campaign's search or confirmation, as the proposals are.
    Raises:
        UserError: another driver holds the campaign, a setting other than a limit, the data or the backbone changed
            since the start, or no trial fits on the cluster.
    """
    campaign = proposals.campaign
    with hold_folder(folder.root, folder.NAMES) as identity:
        claim(campaign, folder)
        keep_features(features, folder)
        with Ledger(proposals, folder, identity, features.fingerprints) as ledger:
            _restore_files(ledger, folder, listeners)
            ledger.reconcile()
            listeners.on_standing(ledger.standing())
            stopped_by = _run_session(ledger, folder, features, cluster, listeners) if ledger.has_work else None
            return SessionEnd(ledger.standing(), ledger.stop_reason, stopped_by)


def _restore_files(ledger: Ledger, folder: CampaignFolder, listeners: Listeners) -> None:
    trials = ledger.trials()
    if any(trial.state in SCORED for trial in trials):
        from search.study.restore import restore_files  # imports torch, which a new campaign needs later

        for note in restore_files(ledger.campaign, folder, trials):
            listeners.on_note(note)


def _run_session(
    ledger: Ledger, folder: CampaignFolder, features: CampaignFeatures, cluster: Cluster, listeners: Listeners
) -> int | None:
    """Run trials on Ray; returns the signal that stopped them, if one did."""
    from search.cluster.connection import connect

    resources = ledger.campaign.resources
    fills_each_cpu = resources.cpu <= 1 and not resources.gpu
    with connect(cluster.address, nodes=cluster.nodes, workers_ahead=fills_each_cpu):
        from search.session.course import clear_storage, run_trials  # takes seconds, in which the workers start

        stopped_by = run_trials(ledger, folder, features, cluster, listeners)
    if stopped_by is None:
        clear_storage(ledger, folder)
    return stopped_by


def claim(campaign: Campaign, folder: CampaignFolder) -> None:
    """Write the resolved campaign into its folder, unless more than the limits differ from the one there.

    If it asks for other limits than before, these replace what `crossmodal limits` had set.

    Raises:
        UserError: names the settings that changed.
    """
    if folder.campaign.exists() and (changed := changed_keys(read_started(folder), campaign)):
        raise UserError(
            f"differs from the started campaign in {', '.join(changed)}; only limits may change",
            where=folder.campaign,
            how="undo the change, or choose another --output-dir",
        )
    if folder.limits.exists() and read_started(folder).limits != campaign.limits:
        folder.limits.unlink()
    write_atomically(folder.campaign, dump_yaml(campaign))


def with_current_limits(campaign: Campaign, folder: CampaignFolder) -> Campaign:
    """The campaign under the limits that count if it is searched now.

    What was changed last counts: `crossmodal limits` changes those of the folder, and a search changes them again if it
    asks for others than the search before it. So a command that is simply repeated continues under changed limits.
    """
    if not folder.limits.exists() or read_started(folder).limits != campaign.limits:
        return campaign
    return campaign.with_limits(**read_limits(folder).model_dump())


def change_limits(
    folder: CampaignFolder, *, trials: int | None, hours: float | None, gpu_hours: float | None
) -> tuple[Limits, Limits]:
    """Change those limits of a campaign that are not None, also while it runs; returns the limits before and after.

    Raises:
        UserError: the folder holds no campaign, or a limit is invalid; nothing is changed then.
    """
    before = read_campaign(folder)
    after = before.with_limits(trials=trials, hours=hours, gpu_hours=gpu_hours)
    if after != before:
        claim_folder(folder.root, [folder.limits.name])
        write_atomically(folder.limits, dump_yaml(after.limits))
    return before.limits, after.limits


def keep_features(features: CampaignFeatures, folder: CampaignFolder) -> None:
    """Save the fingerprint parts of a campaign's features at its first start; later, refuse a change of them."""
    require_unchanged_features(features, folder)
    if not folder.features.exists():
        write_json(folder.features, {variant: parts.to_json() for variant, parts in features.by_variant.items()})


def require_unchanged_features(features: CampaignFeatures, folder: CampaignFolder) -> None:
    """Check that a started campaign still reads the features it started with; writes nothing.

    Trials with other data or another backbone cannot be ranked with the existing ones.

    Raises:
        UserError: the features changed (names what), or features.json is damaged.
    """
    if not folder.features.exists():
        return
    started = read_features(folder)
    now = {variant: parts.to_json() for variant, parts in features.by_variant.items()}
    if not now.keys() <= started.keys():
        raise UserError("does not hold the features of this campaign", where=folder.features, how="restore it")
    changed = {
        name
        for variant, parts in now.items()
        for name in parts.keys() | started[variant].keys()
        if parts.get(name) != started[variant].get(name)
    }
    if changed:
        changed_parts = " and ".join(PART_NAMES.get(name, name) for name in sorted(changed))
        raise UserError(
            f"{changed_parts} changed since the campaign started, so new trials could not be compared with its own",
            where=folder.root,
            how="undo the change, or choose another --output-dir",
        )


def require_regions(campaign: Campaign, *, boxes: bool, relations: bool) -> None:
    """Refuse to search weights of losses, and to ask for figures, for which the training data contain no targets.

    Args:
        boxes, relations: whether they contain any.
    Raises:
        UserError: names the settings, or the figures.
    """
    missing = "relations between regions" if boxes else "boxes"
    pointless = [key for key, used in {**dict.fromkeys(BOX_KEYS, boxes), "loss.spatial": relations}.items()
                 if key in campaign.space.dimensions and not used]  # fmt: skip
    if pointless:
        raise UserError(
            f"{' and '.join(pointless)} would have no effect, since the training data contain no {missing}",
            where="space",
            how="remove them from the space",
        )
    measured = dict(zip(GROUNDING_METRICS, (boxes, relations), strict=True))
    asked = {"constraints": campaign.constraints.root, "objectives": [goal.figure for goal in campaign.goals]}
    for place, names in asked.items():
        if unknown := [name for name in names if not measured.get(name, True)]:
            raise UserError(
                f"{' and '.join(unknown)} is never measured, since the data contain no {missing}",
                where=place,
                how="leave it out",
            )


def read_features(folder: CampaignFolder) -> dict[Variant, dict[str, object]]:
    """Fingerprint parts of a campaign's features as they were when it started, by variant.

    Raises:
        UserError: the file is missing or damaged.
    """
    content = read_json(folder.features)
    if not isinstance(content, dict) or not all(isinstance(parts, dict) for parts in content.values()):
        raise UserError("does not list the features of the campaign", where=folder.features, how="restore it")
    return content

"""Warm start: what a new campaign takes over from others.

A complete trial that could be one of the new campaign's own (same features, objective, epochs and all other settings
that are not searched, and the searched ones in their ranges) is history for its sampler. Of all others, only the
settings are worth anything, and the best are tried first.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass

from core.campaign.campaign import Campaign, read_campaign
from core.campaign.constraints import Figures, baseline_figures
from core.campaign.space import NOT_SEARCHED, SWITCH, Space, setting
from core.campaign.study import Notes, read_trials
from core.campaign.trials import TrialRecord, baseline_of
from core.config import TrainConfig
from core.files.folders import CampaignFolder
from core.sections import Scalar, dotted_keys
from search.campaign import PART_NAMES, CampaignFeatures, extraction_variant, read_features
from search.study.proposals import Start
from search.study.restore import trial_config

TRIED_FIRST = 3
"""How many of the best settings of a campaign are tried first, if they are no history."""
WITHOUT_EFFECT = NOT_SEARCHED.keys() - {"objective"}
"""Settings that may differ: they change no result, or luck alone, or are covered by the features' fingerprint."""


def require_sources(campaign: Campaign) -> None:
    """Raise UserError if a folder of `warm_start` holds no campaign, or its study cannot be read."""
    for place in campaign.warm_start:
        read_trials(CampaignFolder(place))


def take_over(campaign: Campaign, features: CampaignFeatures, on_line: Callable[[str], None]) -> list[Start]:
    """History and first settings from the campaigns that a new one names in `warm_start`.

    Args:
        on_line: called with a line for each of them, or two, which say what is taken over and why no more.
    Raises:
        UserError: as `require_sources`.
    """
    starts: list[Start] = []
    for place in campaign.warm_start:
        taken = _compare(campaign, features, CampaignFolder(place))
        starts += [*taken.history, *taken.tried_first]
        for line in taken.lines():
            on_line(f"warm start from {place}: {line}")
    return starts


@dataclass(frozen=True, slots=True)
class Taken:
    """What is taken over from one campaign."""

    history: list[Start]
    tried_first: list[Start]
    obstacles: Counter[str]
    """Why trials are no history → how many."""

    def lines(self) -> Iterator[str]:
        """What is taken over, and why no more."""
        total = len(self.history) + self.obstacles.total()
        yield f"{len(self.history)} of {total} complete trials are history for the sampler"
        if self.obstacles:
            why = ", ".join(f"{reason} ({count})" for reason, count in self.obstacles.most_common())
            yield f"{len(self.tried_first)} of the other settings are tried first, since {why}"


def _compare(campaign: Campaign, features: CampaignFeatures, folder: CampaignFolder) -> Taken:
    other, trials = read_campaign(folder), read_trials(folder)
    there = read_features(folder) if folder.features.exists() else {}
    baseline = _shared_baseline(campaign, other, trials)
    taken = Taken([], [], Counter())
    complete = [trial for trial in trials if trial.state == "complete"]
    for trial in sorted(complete, key=lambda trial: (bool(trial.broken), -(trial.value or 0.0))):  # the best first
        config, source = trial_config(other, trial.parameters), f"{folder.root}, trial {trial.number}"
        obstacle = _feature_obstacle(features, config, there) or _obstacle(campaign, config, trial)
        if obstacle is None:
            violations = campaign.constraints.violations(trial.figure, baseline)
            notes = Notes(
                imported_from=source,
                best_value=trial.value,
                best=trial.best,
                trainable_parameters=trial.trainable_parameters,
                violations=violations or None,
            )
            taken.history.append((campaign.space.baseline(config), notes))
        else:
            taken.obstacles[obstacle] += 1
            _try_first(taken, _settings_within(campaign.space, config), source)
    return taken


def _try_first(taken: Taken, settings: Mapping[str, Scalar], source: str) -> None:
    if settings and len(taken.tried_first) < TRIED_FIRST and all(settings != other for other, _ in taken.tried_first):
        taken.tried_first.append((settings, Notes(settings_from=source)))


def _shared_baseline(campaign: Campaign, other: Campaign, trials: list[TrialRecord]) -> Figures:
    """The other campaign's baseline if it is this one's, too, which has not run yet; constraints may refer to it."""
    baseline = baseline_of(trials)
    if baseline is None or _differing(trial_config(other, baseline.parameters), campaign.base):
        return baseline_figures([])
    return baseline.figure


def _feature_obstacle(
    features: CampaignFeatures, config: TrainConfig, there: Mapping[str, Mapping[str, object]]
) -> str | None:
    """How the features that a trial read differ from those that it would read in the new campaign."""
    variant = extraction_variant(config)
    here, before = features.by_variant.get(variant), there.get(variant)
    if here is None or before is None:
        return f"features of {variant} are not this campaign's"
    differing = [PART_NAMES.get(name, name) for name, part in asdict(here).items() if before.get(name) != part]
    return f"{' and '.join(differing)} differ" if differing else None


def _obstacle(campaign: Campaign, config: TrainConfig, trial: TrialRecord) -> str | None:
    """Why a trial could not be one of the new campaign's own, apart from its features."""
    parameters = campaign.space.baseline(config)
    drawn = {name.removesuffix(SWITCH) for name in parameters}
    if fixed := [key for key in _differing(config, campaign.base) if key not in drawn]:
        return f"{fixed[0]} differs"
    if outside := parameters.keys() - _settings_within(campaign.space, config).keys():
        return f"{min(outside).removesuffix(SWITCH)} is outside this space"
    unmeasured = [goal.figure for goal in campaign.goals if trial.figure(goal.figure) is None]
    return f"{unmeasured[0]} was not measured" if unmeasured else None


def _differing(config: TrainConfig, other: TrainConfig) -> list[str]:
    """Settings that have an effect and differ."""
    return [
        key
        for key in dotted_keys(TrainConfig)
        if setting(config, key) != setting(other, key)
        and not any(key == each or key.startswith(f"{each}.") for each in WITHOUT_EFFECT)
    ]


def _settings_within(space: Space, config: TrainConfig) -> dict[str, Scalar]:
    """The searched settings of a configuration, as Optuna names them, without those outside the space."""
    outside = {key for key, dimension in space.dimensions.items() if not dimension.contains(setting(config, key))}
    return {name: value for name, value in space.baseline(config).items() if name.removesuffix(SWITCH) not in outside}

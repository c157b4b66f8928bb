"""What a confirmation tells: each confirmed trial over several seeds, with intervals, ranks and the winner's curse.

The search picked its best trials by one seed's luck on one set of buildings. Their means over fresh seeds are what they
are worth, and two of them differ only if the interval of their difference excludes zero.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from core.bootstrap import DRAWS, by_building
from core.campaign.campaign import read_campaign
from core.campaign.constraints import Figures
from core.campaign.study import read_confirmations, read_trials
from core.campaign.trials import TrialRecord
from core.files.folders import CampaignFolder
from core.records import GROUNDING_METRICS, RETRIEVAL_KEYS, Interval, Samples, parts_of
from core.samples import read_samples

Draws = NDArray[np.float64]
"""[DRAWS] values of a metric, each with other seeds and buildings."""


@dataclass(frozen=True, slots=True)
class Confirmed:
    """A trial of the search over the seeds that it was repeated with."""

    trial: int
    rank: int
    """1 + the number of trials that are better beyond doubt; trials that cannot be told apart may share one."""
    seeds: Sequence[int]
    values: Sequence[float]
    """The metric at the best epoch, by seed."""
    mean: Interval
    """Over seeds and buildings."""
    gain: Interval
    """Paired difference to the baseline."""
    searched: float
    """The metric in the search."""
    figures: Mapping[str, Interval] = field(default_factory=dict)
    """Means of all figures that were measured for every seed: recalls, boxes and relations."""
    broken: tuple[str, ...] = ()
    """Constraints of the campaign that its means break; such a trial is never the winner."""

    @property
    def curse(self) -> float:
        """How much the search flattered the trial: its value there minus its mean here."""
        return self.searched - self.mean.value


def load_confirmation(folder: CampaignFolder, metric: str | None = None) -> list[Confirmed]:
    """The confirmed trials of a campaign, best mean first, baseline included; empty before `crossmodal confirm`.

    Repeats that are not yet measured, or failed, are left out.

    Args:
        metric: what they are ranked by; by default the campaign's objective.
    Raises:
        UserError: the folder holds no campaign, or a file of samples is damaged.
    """
    metric = metric or read_campaign(folder).objective
    return load_confirmations([(folder, read_trials(folder))], metric)[0]


def load_confirmations(
    searches: Sequence[tuple[CampaignFolder, Sequence[TrialRecord]]], metric: str
) -> list[list[Confirmed]]:
    """`load_confirmation` of campaigns on the same validation split; ranks count the trials of all of them.

    Args:
        searches: the folder of each campaign, and the trials of its search.
    Raises:
        UserError: a folder holds no campaign, or a file of samples is damaged.
    """
    repeats = {
        (place, parent): of_parent
        for place, (folder, _) in enumerate(searches)
        for parent, of_parent in _repeats(folder, metric).items()
    }
    searched = {(place, parent): searches[place][1][parent] for place, parent in repeats}
    judged = _judge(repeats, searched, metric) if repeats else {}
    constraints = [read_campaign(folder).constraints for folder, _ in searches]
    baselines = {
        place: of_parent for (place, number), of_parent in repeats.items() if searched[place, number].is_baseline
    }
    broken = {
        (place, parent): constraints[place].broken(mean_figures(of_parent), mean_figures(baselines.get(place, ())))
        for (place, parent), of_parent in repeats.items()
    }
    return [
        [replace(each, broken=broken[parent]) for parent, each in judged.items() if parent[0] == place]
        for place in range(len(searches))
    ]


def best_confirmed(folder: CampaignFolder) -> Confirmed | None:
    """The confirmed trial with the best mean whose means keep the constraints; None if there is none."""
    return next((each for each in load_confirmation(folder) if not each.broken), None)


Repeat = tuple[TrialRecord, dict[str, Samples]]
Parent = tuple[int, int]
"""Place of a campaign, and number of a trial of its search."""


def _repeats(folder: CampaignFolder, metric: str) -> dict[int, list[Repeat]]:
    """The measured repeats of each confirmed trial."""
    by_parent: dict[int, list[Repeat]] = {}
    for trial in read_confirmations(folder):
        path = folder.confirmation.samples(trial.number)
        if trial.state != "complete" or not path.exists():
            continue
        assert trial.confirms is not None, "every trial of a confirmation names the one that it repeats"
        samples = read_samples(path)
        if parts_of(metric)[0] in samples:
            by_parent.setdefault(trial.confirms, []).append((trial, samples))
    return by_parent


def mean_figures(repeats: Sequence[Repeat]) -> Figures:
    """Figures of a trial, each the mean over its repeats; None where one of them has none."""

    def mean(name: str) -> float | None:
        values = [trial.figure(name) for trial, _ in repeats]
        known = [value for value in values if value is not None]
        return sum(known) / len(known) if known and len(known) == len(values) else None

    return mean


def _judge(
    by_parent: Mapping[Parent, Sequence[Repeat]], searched: Mapping[Parent, TrialRecord], metric: str
) -> dict[Parent, Confirmed]:
    """Best mean first."""
    rng = np.random.default_rng(0)
    groups = np.unique(next(iter(by_parent.values()))[0][1][parts_of(metric)[0]].groups)
    buildings = rng.multinomial(len(groups), np.full(len(groups), 1 / len(groups)), size=DRAWS)
    figures = {parent: _figures(repeats, groups, buildings, rng) for parent, repeats in sorted(by_parent.items())}
    values = {parent: [_value(trial, metric) for trial, _ in repeats] for parent, repeats in by_parent.items()}
    means = {parent: float(np.mean(each)) for parent, each in values.items()}
    draws = {parent: each[metric] for parent, each in figures.items()}
    baselines = {place: (place, number) for place, number in by_parent if searched[place, number].is_baseline}
    return {
        parent: Confirmed(
            trial=parent[1],
            rank=1 + sum(_interval(0.0, draws[other] - draws[parent]).low > 0 for other in draws if other != parent),
            seeds=[int(trial.seed or 0) for trial, _ in by_parent[parent]],
            values=values[parent],
            mean=_interval(means[parent], draws[parent]),
            gain=_gain(parent, baselines.get(parent[0]), means, draws),
            searched=_value(searched[parent], metric),
            figures=_intervals(by_parent[parent], figures[parent]),
        )
        for parent in sorted(by_parent, key=lambda each: (-means[each], each))
    }


def _value(trial: TrialRecord, metric: str) -> float:
    """A figure of a complete trial; the one that it was scored by, where its record holds no other."""
    value = getattr(trial.best, metric, trial.value)
    return 0.0 if value is None else float(value)


def _gain(
    parent: Parent, baseline: Parent | None, means: Mapping[Parent, float], draws: Mapping[Parent, Draws]
) -> Interval:
    if baseline is None:
        return Interval(float("nan"), float("nan"), float("nan"))
    return _interval(means[parent] - means[baseline], draws[parent] - draws[baseline])


def _intervals(repeats: Sequence[Repeat], draws: Mapping[str, Draws]) -> dict[str, Interval]:
    """The mean of each figure over seeds, with its interval."""
    return {
        metric: _interval(float(np.mean([_value(trial, metric) for trial, _ in repeats])), each)
        for metric, each in draws.items()
        if all(trial.best is not None for trial, _ in repeats)
    }


def _figures(
    repeats: Sequence[Repeat], groups: NDArray[np.int64], buildings: NDArray[np.int64], rng: np.random.Generator
) -> dict[str, Draws]:
    """Each figure with seeds and buildings drawn again, with replacement and independently of each other.

    Source: Owen 2007, "The pigeonhole bootstrap" (Annals of Applied Statistics 1), for two crossed factors. The draws
    of buildings are shared by all trials, which makes differences paired; those of seeds by the figures of a trial.
    """
    seeds = rng.multinomial(len(repeats), np.full(len(repeats), 1 / len(repeats)), size=DRAWS) / len(repeats)
    figures: dict[str, Draws] = {}
    for metric in (*RETRIEVAL_KEYS, *GROUNDING_METRICS):
        if any(metric not in samples for _, samples in repeats):
            continue
        sums, counts = zip(*(by_building(samples[metric], groups) for _, samples in repeats), strict=True)
        drawn = buildings @ counts[0]  # 0 where a draw has no building with regions
        figures[metric] = np.einsum("ds,ds->d", seeds, buildings @ np.stack(sums).T) / np.where(drawn, drawn, np.nan)
    if all(part in figures for part in RETRIEVAL_KEYS):
        figures["recall_mean"] = np.mean([figures[part] for part in RETRIEVAL_KEYS], axis=0)
    return figures


def _interval(value: float, draws: Draws) -> Interval:
    low, high = np.nanquantile(draws, [0.025, 0.975])
    return Interval(value, float(low), float(high))

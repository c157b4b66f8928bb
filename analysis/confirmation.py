"""What a confirmation tells: each confirmed trial over several seeds, with intervals, ranks and the winner's curse.

The search picked its best trials by one seed's luck on one set of buildings. Their means over fresh seeds are what they
are worth, and two of them differ only if the interval of their difference excludes zero.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from core.campaign.campaign import Campaign, read_campaign
from core.campaign.constraints import Figures
from core.campaign.study import read_confirmations, read_trials
from core.campaign.trials import BASELINE, TrialRecord
from core.files.folders import CampaignFolder
from core.records import RETRIEVAL_KEYS, Interval, Samples
from core.samples import read_samples

DRAWS = 2000

Repeats = Mapping[int, Sequence[tuple[TrialRecord, dict[str, Samples]]]]
"""Number of a trial of the search → its repeats, each with its samples."""
Draws = NDArray[np.float64]
"""[DRAWS] values of the objective, each with other seeds and buildings."""


@dataclass(frozen=True, slots=True)
class Confirmed:
    """A trial of the search over the seeds that it was repeated with."""

    trial: int
    rank: int
    """1 + the number of trials that are better beyond doubt; trials that cannot be told apart may share one."""
    seeds: Sequence[int]
    values: Sequence[float]
    """Objective at the best epoch, by seed."""
    mean: Interval
    """Over seeds and buildings."""
    gain: Interval
    """Paired difference to the baseline."""
    searched: float
    """Objective in the search."""
    broken: tuple[str, ...] = ()
    """Constraints that its means over the seeds break; such a trial is never the winner."""

    @property
    def curse(self) -> float:
        """How much the search flattered the trial: its value there minus its mean here."""
        return self.searched - self.mean.value


def load_confirmation(folder: CampaignFolder) -> list[Confirmed]:
    """The confirmed trials of a campaign, best mean first, baseline included; empty before `crossmodal confirm`.

    Repeats that are not yet measured, or failed, are left out.

    Raises:
        UserError: the folder holds no campaign, or a file of samples is damaged.
    """
    repeats = [trial for trial in read_confirmations(folder) if trial.state == "complete"]
    measured = [(trial, path) for trial in repeats if (path := folder.confirmation.samples(trial.number)).exists()]
    by_parent: dict[int, list[tuple[TrialRecord, dict[str, Samples]]]] = {}
    for trial, path in measured:
        assert trial.confirms is not None, "every trial of a confirmation names the one that it repeats"
        by_parent.setdefault(trial.confirms, []).append((trial, read_samples(path)))
    return _judge(by_parent, read_trials(folder), read_campaign(folder)) if by_parent else []


def best_confirmed(folder: CampaignFolder) -> Confirmed | None:
    """The confirmed trial with the best mean whose means keep the constraints; None if there is none."""
    return next((each for each in load_confirmation(folder) if not each.broken), None)


def _judge(
    by_parent: Repeats,
    searched: Sequence[TrialRecord],
    campaign: Campaign,
) -> list[Confirmed]:
    objective, constraints = campaign.objective, campaign.constraints
    rng = np.random.default_rng(0)
    metrics = RETRIEVAL_KEYS if objective == "recall_mean" else (objective,)
    groups = np.unique(next(iter(by_parent.values()))[0][1][metrics[0]].groups)
    buildings = rng.multinomial(len(groups), np.full(len(groups), 1 / len(groups)), size=DRAWS)
    draws = {
        parent: _draw([samples for _, samples in repeats], metrics, groups, buildings, rng)
        for parent, repeats in sorted(by_parent.items())
    }
    means = {parent: float(np.mean([trial.value for trial, _ in repeats])) for parent, repeats in by_parent.items()}
    confirmed = [
        Confirmed(
            trial=parent,
            rank=1 + sum(_interval(0.0, draws[other] - draws[parent]).low > 0 for other in draws if other != parent),
            seeds=[int(trial.seed or 0) for trial, _ in repeats],
            values=[float(trial.value or 0.0) for trial, _ in repeats],
            mean=_interval(means[parent], draws[parent]),
            gain=_gain(parent, means, draws),
            searched=float(searched[parent].value or 0.0),
            broken=constraints.broken(_means(by_parent, parent), _means(by_parent, BASELINE)),
        )
        for parent, repeats in by_parent.items()
    ]
    return sorted(confirmed, key=lambda each: (-each.mean.value, each.trial))


def _means(by_parent: Repeats, parent: int) -> Figures:
    """Figures of a trial, each the mean over its repeats."""

    def mean(name: str) -> float | None:
        values = [trial.figure(name) for trial, _ in by_parent.get(parent, ())]
        known = [value for value in values if value is not None]
        return sum(known) / len(known) if known else None

    return mean


def _gain(parent: int, means: Mapping[int, float], draws: Mapping[int, Draws]) -> Interval:
    if BASELINE not in draws:
        return Interval(float("nan"), float("nan"), float("nan"))
    return _interval(means[parent] - means[BASELINE], draws[parent] - draws[BASELINE])


def _draw(
    repeats: Sequence[Mapping[str, Samples]],
    metrics: Sequence[str],
    groups: NDArray[np.int64],
    buildings: NDArray[np.int64],
    rng: np.random.Generator,
) -> Draws:
    """The objective with seeds and buildings drawn again, with replacement and independently of each other.

    Source: Owen 2007, "The pigeonhole bootstrap" (Annals of Applied Statistics 1), for two crossed factors. The draws
    of buildings are shared by all trials, which makes differences paired.
    """
    seeds = rng.multinomial(len(repeats), np.full(len(repeats), 1 / len(repeats)), size=DRAWS) / len(repeats)
    total = np.zeros(DRAWS)
    for metric in metrics:
        sums = np.stack([_by_building(repeat[metric], groups) for repeat in repeats])  # [S, G]
        counts = np.bincount(np.searchsorted(groups, repeats[0][metric].groups), minlength=len(groups))
        total += np.einsum("ds,ds->d", seeds, buildings @ sums.T) / (buildings @ counts)
    return total / len(metrics)


def _by_building(samples: Samples, groups: NDArray[np.int64]) -> NDArray[np.float64]:
    """Sum of the values of each building."""
    sums = np.bincount(np.searchsorted(groups, samples.groups), weights=samples.values, minlength=len(groups))
    return sums.astype(np.float64)


def _interval(value: float, draws: Draws) -> Interval:
    low, high = np.quantile(draws, [0.025, 0.975])
    return Interval(value, float(low), float(high))

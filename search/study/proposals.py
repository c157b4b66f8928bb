"""What the trials of a study are: the search's own, proposed by its sampler, or repeats that confirm some of them.

The ledger and the session treat both alike, so that a confirmation survives everything that a search survives.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from optuna.samplers import BaseSampler, RandomSampler
from optuna.trial import Trial

from core.campaign.campaign import Campaign
from core.campaign.study import Notes, confirmation_study
from core.campaign.trials import TrialRecord
from core.config import TrainConfig
from core.sections import Scalar
from search.study.pruner import should_stop
from search.study.strategy import build_sampler

Parameters = Mapping[str, Scalar]
Start = tuple[Parameters, Notes]
"""A trial that a study has from the start: queued, or known to the sampler if it was imported."""


class Proposals(Protocol):
    """Where the settings of the trials of a study come from."""

    @property
    def campaign(self) -> Campaign:
        """The campaign that they belong to."""

    @property
    def study(self) -> str:
        """Name of the study."""

    def sampler(self, progress: Sequence[int]) -> BaseSampler:
        """Proposes what is not queued.

        Args:
            progress: numbers of sessions and of trials so far, for the seed.
        """

    def stops(self, trial: TrialRecord, trials: Sequence[TrialRecord]) -> bool:
        """Whether a trial that just reported is stopped early."""

    def first(self, trials: Sequence[TrialRecord]) -> list[Start]:
        """What is queued or imported when the study is opened with these trials."""

    def parameters(self, trial: TrialRecord) -> Parameters:
        """What a retry of this trial is queued with; the trial may have died before it drew them."""

    def config(self, trial: Trial, record: TrialRecord) -> TrainConfig:
        """Draw the configuration of a trial; `record` is the same trial as stored."""

    def has_more(self, trials: Sequence[TrialRecord], *, has_room: bool) -> bool:
        """Whether another trial may start.

        Args:
            has_room: whether the campaign's limits allow one more.
        """


@dataclass(frozen=True, slots=True)
class SearchProposals:
    """The baseline, and then what the campaign's sampler proposes, up to its limits."""

    campaign: Campaign
    warm_start: Callable[[], Sequence[Start]] = list
    """What is taken over from other campaigns, which are read when a campaign starts and never again."""

    @property
    def study(self) -> str:
        return self.campaign.name

    def sampler(self, progress: Sequence[int]) -> BaseSampler:
        return build_sampler(self.campaign.sampler, progress, self.campaign.space.always_drawn)

    def stops(self, trial: TrialRecord, trials: Sequence[TrialRecord]) -> bool:
        return should_stop(self.campaign.pruner, self.campaign.goals, trial, trials)

    def first(self, trials: Sequence[TrialRecord]) -> list[Start]:
        """Once a trial was started, all of them are in the study; until then, a driver may have died in between."""
        if any(trial.state not in ("waiting", "imported") for trial in trials):
            return []
        known = {(trial.imported_from, trial.settings_from) for trial in trials}
        baseline: list[Start] = [] if trials else [(self._baseline(), Notes())]
        return baseline + [
            start for start in self.warm_start() if (start[1].imported_from, start[1].settings_from) not in known
        ]

    def parameters(self, trial: TrialRecord) -> Parameters:
        return self._baseline() if trial.is_baseline else trial.parameters

    def config(self, trial: Trial, record: TrialRecord) -> TrainConfig:
        return self.campaign.base.with_overrides(self.campaign.space.suggest(trial, self.campaign.base))

    def has_more(self, trials: Sequence[TrialRecord], *, has_room: bool) -> bool:
        return has_room

    def _baseline(self) -> dict[str, Scalar]:
        return self.campaign.space.baseline(self.campaign.base)


@dataclass(frozen=True, slots=True)
class ConfirmationProposals:
    """Some trials of a search, each once more with every one of several seeds; none is stopped early."""

    campaign: Campaign
    searched: Sequence[TrialRecord]
    """All trials of the search, in order of their numbers."""
    parents: Sequence[int]
    """Numbers of those to confirm."""
    seeds: Sequence[int]

    @property
    def repeats(self) -> list[tuple[int, int]]:
        """Trial and seed of each repeat, all trials with one seed before the next seed."""
        return [(number, seed) for seed in self.seeds for number in self.parents]

    @property
    def study(self) -> str:
        return confirmation_study(self.campaign)

    def sampler(self, progress: Sequence[int]) -> BaseSampler:
        """Never used, since all settings are queued; another one would prepare each time for a proposal of its own."""
        return RandomSampler()

    def stops(self, trial: TrialRecord, trials: Sequence[TrialRecord]) -> bool:
        return False

    def first(self, trials: Sequence[TrialRecord]) -> list[Start]:
        """Seed by seed, so that an interrupted confirmation has compared all parents on the seeds that it finished."""
        known = {(trial.confirms, trial.seed) for trial in trials}
        return [
            (self.searched[number].parameters, Notes(confirms=number, seed=seed))
            for number, seed in self.repeats
            if (number, seed) not in known
        ]

    def parameters(self, trial: TrialRecord) -> Parameters:
        return self.searched[_parent(trial)].parameters

    def config(self, trial: Trial, record: TrialRecord) -> TrainConfig:
        assert record.seed is not None, "every trial of a confirmation has a seed of its own"
        overrides = self.campaign.space.suggest(trial, self.campaign.base)
        return self.campaign.base.with_overrides({**overrides, "seed": record.seed})

    def has_more(self, trials: Sequence[TrialRecord], *, has_room: bool) -> bool:
        return any(trial.state == "waiting" for trial in trials)


def _parent(trial: TrialRecord) -> int:
    assert trial.confirms is not None, "every trial of a confirmation names the one that it repeats"
    return trial.confirms

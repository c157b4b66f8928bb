"""The ledger of a campaign: its open Optuna study, which proposes trials and stores how they ended.

The study outlives every Ray session and is the only source of trial scores. A trial left RUNNING by a dead driver would
repel the sampler permanently, so it is put back in the queue and told FAIL before any trial is asked for.
"""

import math
import secrets
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Literal, Self

from optuna.exceptions import StorageInternalError
from optuna.trial import FixedTrial, Trial, TrialState, create_trial

from core.campaign.constraints import baseline_figures
from core.campaign.study import Notes, note, read_records
from core.campaign.trials import Standing, TrialRecord, earlier_attempts, figure_of, standing_of
from core.config import TrainConfig, config_hash
from core.errors import UserError
from core.files.folders import CampaignFolder
from core.records import EpochMetrics
from core.sections import Scalar
from search.study.binding import open_study
from search.study.limits import CurrentLimits, Spent, failures_in_a_row, has_room, spent_by
from search.study.proposals import Proposals

SESSIONS, HOURS = "sessions", "hours"
"""User attributes of the study: names of all sessions, and their total wall time."""


@dataclass(frozen=True, slots=True)
class AskedTrial:
    """A trial to run."""

    number: int
    name: str
    """Of its run in the tracker."""
    config: TrainConfig
    lineage: list[int]
    """Interrupted trials that this one continues, most recent first."""


@dataclass(frozen=True, slots=True)
class TrialOutcome:
    """How a trial ended."""

    state: Literal["complete", "pruned", "failed"]
    value: float | None
    """Objective of the best epoch."""
    best: EpochMetrics | None
    """Metrics of that epoch, stored in the study."""
    reason: str | None
    """Why it failed."""
    seconds: float
    trainable_parameters: int | None = None


class Ledger:
    """Context manager around the study, and its only writer: the caller holds the campaign's folder."""

    def __init__(
        self, proposals: Proposals, folder: CampaignFolder, identity: str, fingerprints: Sequence[str]
    ) -> None:
        self.campaign = proposals.campaign
        self._proposals = proposals
        self._folder = folder
        self.identity = identity
        """Of the campaign's folder."""
        self._fingerprints = fingerprints
        self._limits = CurrentLimits(folder, proposals.campaign.limits)
        self._open_trials: dict[int, Trial] = {}
        self._known: list[TrialRecord] = []

    def __enter__(self) -> Self:
        self._study = open_study(self._proposals, self._folder, self.identity, self._fingerprints)
        self._study.set_user_attr(SESSIONS, [*self.sessions, f"{self.session + 1:04d}-{secrets.token_hex(4)}"])
        self._study.sampler = self._proposals.sampler([self.session, len(self._records())])
        self._started = time.monotonic()
        self._hours_before = float(self._study.user_attrs.get(HOURS, 0.0))
        for parameters, notes in self._proposals.first(self._records()):
            self._import(parameters, notes) if notes.imported_from else self.enqueue(parameters, notes)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if error is None:
                self._study.set_user_attr(HOURS, self.hours)
        except StorageInternalError as lost:
            error = lost
        if isinstance(error, StorageInternalError):
            raise UserError(
                "the database of the study no longer answers",
                where="study.url_variable",
                how="no ended trial is lost; run the same command again once it is back",
            ) from None

    @property
    def study(self) -> str:
        """Name of the study."""
        return self._proposals.study

    @property
    def session(self) -> int:
        """Number of this session, from 1."""
        return len(self.sessions)

    @property
    def sessions(self) -> list[str]:
        """Names of all sessions, this one last; no other campaign has a session of the same name."""
        return list(self._study.user_attrs.get(SESSIONS, []))

    @property
    def hours(self) -> float:
        """Wall time of all sessions."""
        return self._hours_before + (time.monotonic() - self._started) / 3600

    def trials(self) -> list[TrialRecord]:
        """All trials, in order of their numbers, with the constraints that they break."""
        return self.campaign.judge(self._records())

    def _records(self) -> list[TrialRecord]:
        """The same as stored, for what Ray asks at every step: judging all trials costs more than reading them."""
        self._known = read_records(self._study, self._known)
        return self._known

    def standing(self) -> Standing:
        """Current standing of the campaign."""
        return standing_of(self.trials())

    def spent(self) -> Spent:
        """What the campaign has used up so far."""
        return spent_by(self._records(), hours=self.hours, gpu=self.campaign.resources.gpu)

    @property
    def has_work(self) -> bool:
        """Whether `ask` would return another trial."""
        room = has_room(self._limits.read(), self.spent())
        return self.stop_reason is None and self._proposals.has_more(self._records(), has_room=room)

    @property
    def stop_reason(self) -> str | None:
        """Why the campaign must stop before its limits: too many failures in a row, grouped by reason."""
        return failures_in_a_row(self._records(), session=self.session, limit=self.campaign.max_failed_trials)

    def reconcile(self) -> list[int]:
        """Put the trials that a dead driver left RUNNING back in the queue, and return their numbers."""
        left = [trial for trial in self._records() if trial.state == "running"]
        for trial in left:
            self._retry(trial)
        return [trial.number for trial in left]

    def interrupt(self, number: int, *, seconds: float) -> None:
        """Put a trial that had no time to end back in the queue."""
        note(self._open_trials.pop(number), Notes(seconds=seconds))
        self._retry(self._records()[number])

    def _retry(self, trial: TrialRecord) -> None:
        """Enqueue the retry before telling FAIL: a kill in between loses nothing and runs nothing twice, since the
        write that enqueues the retry also makes the trial stale.
        """
        if not trial.is_stale:
            notes = Notes(retry_of=trial.number, origin=trial.origin, confirms=trial.confirms, seed=trial.seed)
            self.enqueue(self._proposals.parameters(trial), replace(notes, settings_from=trial.settings_from))
        self._study.tell(trial.number, state=TrialState.FAIL)

    def enqueue(self, parameters: Mapping[str, Scalar], notes: Notes | None = None) -> None:
        """Add a trial with these parameters to the end of the queue."""
        self._study.enqueue_trial(dict(parameters), user_attrs=(notes or Notes()).attributes())

    def _import(self, parameters: Mapping[str, Scalar], notes: Notes) -> None:
        """Add a trial of another campaign, for the sampler alone: the pruner sees none of its epochs."""
        drawn = FixedTrial(dict(parameters))
        self.campaign.space.suggest(drawn, self.campaign.base)
        others = [figure_of(goal.figure, notes.best, notes.trainable_parameters) for goal in self.campaign.goals[1:]]
        self._study.add_trial(
            create_trial(
                values=[notes.best_value, *others],
                params=drawn.params,
                distributions=drawn.distributions,
                user_attrs=notes.attributes(),
                constraints=notes.violations,
            )
        )

    def ask(self) -> AskedTrial | None:
        """The next trial; None once a limit is reached."""
        if not self.has_work:
            return None
        trial = self._study.ask()
        record = self._records()[trial.number]
        config = self._proposals.config(trial, record)
        self._open_trials[trial.number] = trial
        note(trial, Notes(session=self.session, config_hash=config_hash(config)))
        return AskedTrial(trial.number, record.name, config, earlier_attempts(self._records(), trial.number))

    def record(self, number: int, epoch: int, *values: float) -> None:
        """Report the value of each goal at an epoch (from 0)."""
        trial = self._open_trials[number]
        if len(values) == 1:
            trial.report(values[0], step=epoch + 1)
        else:
            note(trial, Notes(reports={**self._records()[number].reports, epoch + 1: values}))

    def should_stop(self, number: int) -> bool:
        """Whether the pruner stops the trial; never the baseline, since all others are compared with it."""
        trials = self._records()
        return not trials[number].is_baseline and self._proposals.stops(trials[number], trials)

    def tell(self, number: int, outcome: TrialOutcome) -> None:
        """Store how a trial ended. A complete one is told with its best value; without a finite value it failed."""
        trial = self._open_trials.pop(number)
        value = outcome.value if outcome.value is not None and math.isfinite(outcome.value) else None
        others = self._other_values(outcome)
        reason = outcome.reason
        if outcome.state == "complete":
            missing = [name for name, found in others.items() if found is None]
            reason = reason or (f"the objective is {outcome.value}" if value is None else None)
            reason = reason or (f"{missing[0]} was not measured" if missing else None)
        notes = Notes(best_value=value, best=outcome.best, reason=reason, seconds=outcome.seconds)
        note(trial, replace(notes, trainable_parameters=outcome.trainable_parameters))
        self._study.set_user_attr(HOURS, self.hours)
        self._set_constraints(trial)
        if reason is not None:
            self._study.tell(trial, state=TrialState.FAIL)
        elif outcome.state == "pruned":
            self._study.tell(trial, state=TrialState.PRUNED)
        else:
            self._study.tell(trial, [value, *others.values()])

    def _set_constraints(self, trial: Trial) -> None:
        """Tell the sampler by how much a trial with figures breaks each constraint."""
        trials = self._records()
        record = trials[trial.number]
        if record.best is not None:
            violations = self.campaign.constraints.violations(record.figure, baseline_figures(trials))
            for figure, excess in violations.items():
                trial.set_constraint(figure, excess)

    def _other_values(self, outcome: TrialOutcome) -> dict[str, float | None]:
        """Values of the goals after the first."""
        figures = [goal.figure for goal in self.campaign.goals[1:]]
        return {figure: figure_of(figure, outcome.best, outcome.trainable_parameters) for figure in figures}

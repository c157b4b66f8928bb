"""The ledger of a campaign: one open Optuna study, bound to the campaign, and its limits.

The study outlives every session of Ray, and is the one source of what a trial scored. A trial left RUNNING by a dead
driver would repel the sampler for good, so it is told FAIL and put back in the queue before anything is asked.
"""

import hashlib
import json
import math
import secrets
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Literal, Self

import optuna
from optuna.exceptions import StorageInternalError
from optuna.pruners import BasePruner, NopPruner
from optuna.samplers import BaseSampler, RandomSampler, TPESampler
from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial, Trial, TrialState

from analysis.trials import open_database, open_journal
from core.campaign.campaign import Campaign, settings_hash
from core.config import Scalar, TrainConfig, config_hash
from core.errors import UserError
from core.files.folders import CampaignFolder
from core.files.json_files import drop_torn_line
from core.records import EpochMetrics
from search.study.pruner import AshaPruner

STALE = "stale"
"""Reason of a trial whose driver died; it is retried and counts for nothing."""
BASELINE = 0
"""Number of the first trial, which runs the campaign's base configuration."""


@dataclass(frozen=True, slots=True)
class PlannedTrial:
    """A trial to run."""

    number: int
    config: TrainConfig
    lineage: list[int]
    """Interrupted trials that this one continues, the last one first."""


@dataclass(frozen=True, slots=True)
class TrialOutcome:
    """How a trial ended."""

    state: Literal["complete", "pruned", "failed"]
    value: float | None
    """Objective of the best epoch."""
    best: EpochMetrics | None
    """That epoch; kept in the study, which is the one source of figures."""
    reason: str | None
    """Why it failed."""
    seconds: float


@dataclass(frozen=True, slots=True)
class Counts:
    """Trials by state; those of dead drivers are left out, since they are retried."""

    complete: int
    pruned: int
    failed: int
    running: int

    @property
    def ended(self) -> int:
        return self.complete + self.pruned + self.failed


class Ledger:
    """Context manager over the study. Its only writer: the caller holds the campaign's folder."""

    def __init__(self, campaign: Campaign, folder: CampaignFolder, identity: str, fingerprints: Sequence[str]) -> None:
        self._campaign = campaign
        self._folder = folder
        self._binding = {"id": identity, "settings": settings_hash(campaign), "features": list(fingerprints)}
        self._open_trials: dict[int, Trial] = {}

    def __enter__(self) -> Self:
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        self._study = optuna.create_study(
            storage=self._open_storage(),
            study_name=self._campaign.name,
            direction="maximize",
            load_if_exists=True,
            pruner=_build_pruner(self._campaign),
        )
        self._bind()
        self._require_trials_of(len(self._study.get_trials(deepcopy=False)))
        self._study.set_user_attr("sessions", [*self.sessions, f"{self.session + 1:04d}-{secrets.token_hex(4)}"])
        self._study.sampler = _build_sampler(self._campaign, [self.session, len(self._study.trials)])
        self._started = time.monotonic()
        self._hours_before = float(self._study.user_attrs.get("hours", 0.0))
        if not self._study.trials:
            self.enqueue(self._campaign.space.baseline(self._campaign.base))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if error is None:
                self._study.set_user_attr("hours", self.hours)
        except StorageInternalError as lost:
            error = lost
        if isinstance(error, StorageInternalError):
            raise UserError(
                "the database of the study no longer answers",
                where="study.url_variable",
                how="nothing that ended is lost; once it is back, run the same command again",
            ) from None

    @property
    def session(self) -> int:
        """Number of this session, from 1."""
        return len(self.sessions)

    @property
    def sessions(self) -> list[str]:
        """Names of all sessions, this one last; no other campaign has a session of the same name."""
        return list(self._study.user_attrs.get("sessions", []))

    @property
    def hours(self) -> float:
        """Wall time of all sessions."""
        return self._hours_before + (time.monotonic() - self._started) / 3600

    @property
    def has_work(self) -> bool:
        """Whether `ask` would give another trial."""
        counts = self.counts()
        if self.stop_reason or counts.ended + counts.running >= self._campaign.limits.trials:
            return False
        limits = self._campaign.limits
        return (limits.hours is None or self.hours < limits.hours) and (
            limits.gpu_hours is None or self._gpu_hours_with_another() <= limits.gpu_hours
        )

    @property
    def gpu_hours(self) -> float:
        """Of the trials that ended or were interrupted. The last epochs of a trial that was killed with its driver are
        known to nobody.
        """
        return sum(self._trial_hours()) * self._campaign.resources.gpu

    def _trial_hours(self) -> list[float]:
        trials = self._study.get_trials(deepcopy=False)
        return [trial.user_attrs["seconds"] / 3600 for trial in trials if "seconds" in trial.user_attrs]

    def _gpu_hours_with_another(self) -> float:
        """At the end of those that run and of one more, if each takes as long as the others did on average."""
        hours = self._trial_hours()
        expected = sum(hours) / len(hours) if hours else 0.0
        return (sum(hours) + (self.counts().running + 1) * expected) * self._campaign.resources.gpu

    @property
    def stop_reason(self) -> str | None:
        """Why the campaign must stop before its limits: too many failures in a row, grouped by reason."""
        limit = self._campaign.max_failed_trials
        ended = [trial for trial in self.ended() if trial.user_attrs.get("session") == self.session]
        last = sorted(ended, key=lambda trial: trial.datetime_complete or 0)[-limit:]
        if len(last) < limit or any(trial.state != TrialState.FAIL for trial in last):
            return None
        reasons = Counter(str(trial.user_attrs.get("reason")) for trial in last)
        grouped = "; ".join(f"{count} × {reason}" for reason, count in reasons.most_common())
        return f"{limit} trials failed in a row ({grouped})"

    def reconcile(self) -> list[int]:
        """Tell the trials that a dead driver left RUNNING, put each back in the queue, and return their numbers."""
        stale = self._study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
        for trial in stale:
            self._retry(trial)
        return [trial.number for trial in stale]

    def interrupt(self, number: int, *, seconds: float) -> None:
        """Put a trial back in the queue that had no time to end."""
        trial = self._open_trials.pop(number)
        self._set_attributes(trial._trial_id, seconds=seconds)
        self._retry(self._study.trials[number])

    def _retry(self, trial: FrozenTrial) -> None:
        """Marked, queued again and only then told: a kill between the steps loses nothing and runs nothing twice."""
        if trial.number not in self._retried():
            origin = trial.user_attrs.get("origin", trial.number)
            self._study.enqueue_trial(trial.params, user_attrs={"retry_of": trial.number, "origin": origin})
        self._set_attributes(trial._trial_id, reason=STALE)
        self._study.tell(trial.number, state=TrialState.FAIL)

    def _retried(self) -> set[int]:
        return {trial.user_attrs.get("retry_of", -1) for trial in self._study.get_trials(deepcopy=False)}

    def enqueue(self, parameters: Mapping[str, Scalar]) -> None:
        """Have a trial with these parameters asked for next, after those that are in the queue already."""
        self._study.enqueue_trial(dict(parameters))

    def ask(self) -> PlannedTrial | None:
        """The next trial; None once a limit is reached."""
        if not self.has_work:
            return None
        trial = self._study.ask()
        config = self._campaign.base.with_overrides(self._campaign.space.suggest(trial, self._campaign.base))
        self._open_trials[trial.number] = trial
        self._set_attributes(trial._trial_id, session=self.session, config_hash=config_hash(config))
        return PlannedTrial(trial.number, config, self._lineage(trial.number))

    def _lineage(self, number: int) -> list[int]:
        """The trials that this one retries, one before the other, the last one first."""
        trials = self._study.get_trials(deepcopy=False)
        found: list[int] = []
        while (number := trials[number].user_attrs.get("retry_of", -1)) >= 0:
            found.append(number)
        return found

    def record(self, number: int, epoch: int, value: float) -> None:
        """Note the objective of an epoch (from 0)."""
        self._open_trials[number].report(value, step=epoch + 1)

    def should_stop(self, number: int) -> bool:
        """Whether the pruner gives the trial up. Never the baseline, since all others are compared with it."""
        trial = self._open_trials[number]
        return trial.user_attrs.get("origin", number) != BASELINE and bool(trial.should_prune())

    def tell(self, number: int, outcome: TrialOutcome) -> None:
        """Note how a trial ended. A complete one is told with its best epoch; no finite value is a failure."""
        trial = self._open_trials.pop(number)
        finite = outcome.value is not None and math.isfinite(outcome.value)
        unscored = not finite and outcome.state == "complete"
        reason = outcome.reason or (f"the objective is {outcome.value}" if unscored else None)
        self._set_attributes(
            trial._trial_id,
            best_value=outcome.value if finite else None,
            best=None if outcome.best is None else outcome.best.to_json(),
            reason=reason,
            seconds=outcome.seconds,
        )
        self._study.set_user_attr("hours", self.hours)
        if reason is not None:
            self._study.tell(trial, state=TrialState.FAIL)
        elif outcome.state == "pruned":
            self._study.tell(trial, state=TrialState.PRUNED)
        else:
            self._study.tell(trial, outcome.value)

    def counts(self) -> Counts:
        """Trials by state."""
        trials = self._study.get_trials(deepcopy=False)
        states = Counter(trial.state for trial in trials if trial.user_attrs.get("reason") != STALE)
        return Counts(
            states[TrialState.COMPLETE], states[TrialState.PRUNED], states[TrialState.FAIL], states[TrialState.RUNNING]
        )

    def best(self) -> tuple[int, float] | None:
        """Number and value of the best complete trial."""
        complete = [trial for trial in self.ended() if trial.state == TrialState.COMPLETE]
        best = max(complete, key=_value, default=None)
        return None if best is None else (best.number, _value(best))

    def baseline_value(self) -> float | None:
        """Value of trial 0, or of the one that continued it after interruptions."""
        ended = [trial for trial in self.ended() if trial.user_attrs.get("origin", trial.number) == BASELINE]
        return next((_value(trial) for trial in ended if trial.state == TrialState.COMPLETE), None)

    def ended(self) -> list[FrozenTrial]:
        """Trials that are complete, pruned or failed; those of dead drivers are left out."""
        states = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL)
        trials = self._study.get_trials(deepcopy=False, states=states)
        return [trial for trial in trials if trial.user_attrs.get("reason") != STALE]

    def _set_attributes(self, trial_id: int, **attributes: Scalar | dict[str, Any] | None) -> None:
        for name, value in attributes.items():
            if value is not None:
                self._study._storage.set_trial_user_attr(trial_id, name, value)

    def _bind(self) -> None:
        """A study belongs to one campaign, told by its folder's id, its features and all settings that may not change.

        Another campaign of the same name would take over its trials as its own.
        """
        bound = self._study.user_attrs.get("campaign")
        if bound is None and not self._study.user_attrs and not self._study.get_trials(deepcopy=False):
            self._study.set_user_attr("campaign", self._binding)
            return
        variable = self._campaign.study.url_variable
        where = self._folder.journal if variable is None else f"the database behind {variable}"
        if not isinstance(bound, dict) or bound.get("id") != self._binding["id"]:
            raise UserError(
                f"the study {self._campaign.name} belongs to another campaign, or to another program",
                where=where,
                how="give this campaign another name, or continue the other one from its own folder",
            )
        if bound != self._binding:
            raise UserError(
                "was started with other settings or features than campaign.yaml and features.json tell",
                where=where,
                how="restore those files, or choose another --output-dir",
            )

    def _require_trials_of(self, known: int) -> None:
        """A study that was lost and begun anew would write over the trials of the old one."""
        if lost := [path for path in self._folder.trials() if int(path.name) >= known]:
            raise UserError(
                f"the study knows {known} trials, but the folder holds {lost[-1].name}",
                where=lost[-1].parent,
                how="restore study.journal, or start the campaign in another --output-dir",
            )

    def _open_storage(self) -> BaseStorage:
        if variable := self._campaign.study.url_variable:
            return open_database(variable)
        self._repair_journal()
        if not self._folder.journal.exists() or not self._folder.journal.stat().st_size:
            self._require_trials_of(0)  # before a study is begun anew
        return open_journal(self._folder.journal)

    def _repair_journal(self) -> None:
        """We hold the campaign, so a journal lock can only be a dead driver's (Optuna would wait 30 s for it), and a
        torn last line what it was writing; the next line would be appended to it and lost with it.
        """
        for path in self._folder.root.glob(f"{self._folder.journal.name}.lock*"):
            path.unlink()
        if self._folder.journal.exists():
            drop_torn_line(self._folder.journal)


def _value(trial: FrozenTrial) -> float:
    """Of a complete trial; a finite one always has it."""
    return -math.inf if trial.value is None else float(trial.value)


def _build_sampler(campaign: Campaign, progress: list[int]) -> BaseSampler:
    """Seeded by the campaign and its progress: the same seed again would repeat the first draws."""
    digest = hashlib.sha256(json.dumps([campaign.sampler.seed, progress]).encode()).digest()
    seed = int.from_bytes(digest[:4], "big")
    match campaign.sampler.kind:
        case "tpe":
            return TPESampler(seed=seed, n_startup_trials=campaign.sampler.startup_trials)
        case "random":
            return RandomSampler(seed=seed)


def _build_pruner(campaign: Campaign) -> BasePruner:
    pruner = campaign.pruner
    match pruner.kind:
        case "asha":
            return AshaPruner(
                min_epochs=pruner.min_epochs,
                reduction_factor=pruner.reduction_factor,
                bootstrap=pruner.bootstrap,
            )
        case "none":
            return NopPruner()

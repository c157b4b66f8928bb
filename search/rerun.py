"""Repeating a trial in this process, with its settings and threads, to see whether its figures come out the same."""

import math
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass

import torch

from core.campaign.campaign import read_campaign
from core.campaign.study import read_trials
from core.campaign.trials import SCORED, TrialRecord
from core.config import TrainConfig
from core.errors import UserError
from core.features.store import Features
from core.files.folders import CampaignFolder, TrialFolder
from core.files.json_files import read_json, read_json_lines
from core.model.checkpoints import Checkpoint
from core.records import EpochMetrics, Receipt
from core.training.runs import OnEpoch
from core.training.train import train
from search.study.restore import trial_config

Figures = Mapping[str, float | None]
"""Metrics of an epoch by name."""
TIMES = ("train_seconds", "evaluation_seconds")
"""Figures that no repetition has to share."""
RECEIPT_FACTS = ("device", "versions", "git_commit")
"""What may make figures differ, although settings and features are the same."""


@dataclass(frozen=True, slots=True)
class FoundTrial:
    """A trial as it ran."""

    config: TrainConfig
    threads: int
    epochs: Mapping[int, Figures]
    """Figures of the epochs that are known of it, by number."""
    receipt: Receipt | None
    """None if it is lost."""


@dataclass(frozen=True, slots=True)
class Change:
    """A figure that came out differently."""

    epoch: int
    name: str
    before: float
    """NaN if there was none."""
    after: float


@dataclass(frozen=True, slots=True)
class Repeated:
    """What a repetition tells."""

    changes: Sequence[Change]
    """None of them if the figures are the same to the last digit."""
    notes: Sequence[str]
    """What else differs, and may be the reason."""


def find_trial(folder: CampaignFolder, number: int) -> FoundTrial:
    """A complete or pruned trial of a campaign's search; settings come from the study, figures from its log.

    If the log is lost, the study still knows the figures of the best epoch.

    Raises:
        UserError: there is no such trial, or it has no figures.
    """
    campaign, trials = read_campaign(folder), read_trials(folder)
    if number >= len(trials):
        raise UserError(f"holds no trial {number}, but {len(trials)} trials from 0", where=folder.root)
    trial, files = trials[number], folder.trial(number)
    epochs = _known_epochs(trial, files)
    if trial.state not in SCORED or not epochs:
        raise UserError(
            f"trial {number} is {trial.state} and has no figures to compare", where=folder.root, how="name another one"
        )
    config = trial_config(campaign, trial.parameters)
    return FoundTrial(config, campaign.resources.threads, epochs, _receipt(files))


def _known_epochs(trial: TrialRecord, files: TrialFolder) -> dict[int, Figures]:
    try:
        history = [EpochMetrics.from_json(row) for row in read_json_lines(files.metrics)]
    except ValueError:
        raise UserError("is not the log of a trial", where=files.metrics, how="remove it") from None
    rows = {metrics.epoch: _without_times(metrics) for metrics in history}
    if trial.best is not None and trial.best.epoch not in rows:
        rows[trial.best.epoch] = _without_times(trial.best)
    return rows


def _receipt(files: TrialFolder) -> Receipt | None:
    try:
        return Receipt.from_json(read_json(files.receipt)) if files.receipt.exists() else None
    except ValueError:
        raise UserError("is not the receipt of a trial", where=files.receipt, how="remove it") from None


def repeat(trial: FoundTrial, features: Features, *, on_epoch: OnEpoch = lambda metrics: None) -> Repeated:
    """Train a trial again up to its last known epoch, and compare every figure but the times. Writes nothing.

    Args:
        features: those that the trial read.
    """
    torch.set_num_threads(trial.threads)
    changes: list[Change] = []
    receipts: list[Receipt] = []

    def report(metrics: EpochMetrics, checkpoint: Checkpoint) -> None:
        on_epoch(metrics)
        changes.extend(compare_epoch(metrics.epoch, trial.epochs.get(metrics.epoch, {}), _without_times(metrics)))
        receipts[:] = [checkpoint.receipt]
        if metrics.epoch == max(trial.epochs):
            raise SystemExit  # there is nothing more to compare with if the trial was pruned

    with suppress(SystemExit):
        train(trial.config, features, report)
    return Repeated(changes, _notes(trial.receipt, receipts[-1]))


def compare_epoch(epoch: int, before: Figures, after: Figures) -> list[Change]:
    """The figures that are known of an epoch and came out differently."""
    changed = [name for name, value in before.items() if value != after[name]]
    return [Change(epoch, name, *(_number(figures[name]) for figures in (before, after))) for name in changed]


def _number(value: float | None) -> float:
    return math.nan if value is None else float(value)


def _without_times(metrics: EpochMetrics) -> Figures:
    return {name: value for name, value in metrics.to_json().items() if name not in TIMES}


def _notes(before: Receipt | None, now: Receipt) -> list[str]:
    if before is None:
        return ["the receipt of the trial is lost, so it is not known where it ran"]
    pairs = [(name, getattr(before, name), getattr(now, name)) for name in RECEIPT_FACTS]
    return [f"{name}: the trial had {was}, this is {this}" for name, was, this in pairs if was != this]

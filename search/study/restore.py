"""Restores lost or torn files of trials from the study or from another file, where possible.

The study is the only source of figures, so a lost file changes no ranking, but it is reported.
"""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path

from optuna.trial import FixedTrial

from analysis.lost_files import lost_of_trial
from core.campaign.campaign import Campaign
from core.campaign.trials import SCORED, TrialRecord
from core.config import TrainConfig
from core.errors import UserError
from core.files.atomic import write_atomically
from core.files.folders import CampaignFolder, TrialFolder
from core.files.json_files import write_json
from core.model.checkpoints import Checkpoint, load_checkpoint
from core.sections import Scalar, dump_yaml


def trial_config(campaign: Campaign, parameters: Mapping[str, Scalar]) -> TrainConfig:
    """The configuration of a trial, from its parameters in the study.

    Raises:
        UserError: the parameters do not fit the campaign's space.
    """
    try:
        return campaign.base.with_overrides(campaign.space.suggest(FixedTrial(dict(parameters)), campaign.base))
    except ValueError as error:
        raise UserError(f"the study's parameters do not fit the space ({error})", where="study") from None


def restore_files(campaign: Campaign, folder: CampaignFolder, trials: Iterable[TrialRecord]) -> list[str]:
    """Restore lost files of ended trials where possible; returns one line per lost file."""
    notes = []
    for trial in trials:
        if trial.state not in SCORED:
            continue
        files = folder.trial(trial.number)
        for path in lost_of_trial(files, pruned=trial.state == "pruned", epochs=trial.epochs):
            outcome = _restore(path, files, campaign, trial)
            notes.append(f"{path.relative_to(folder.root)} was missing or torn: {outcome}")
    return notes


def _restore(path: Path, files: TrialFolder, campaign: Campaign, trial: TrialRecord) -> str:
    """Restore one lost file if possible; returns the outcome in words."""
    if path == files.config:
        write_atomically(path, dump_yaml(trial_config(campaign, trial.parameters)))
        return "restored from the study"
    checkpoint = None if path == files.best_checkpoint else _checkpoint(files)
    if checkpoint is None:
        return f"its figures are in the study; crossmodal train --config {files.config} repeats the trial"
    if path == files.receipt:
        write_json(path, checkpoint.receipt.to_json())
    else:
        rows = [json.dumps(metrics.to_json(), ensure_ascii=False) for metrics in checkpoint.history]
        write_atomically(path, "".join(f"{row}\n" for row in rows))
    return f"restored from {files.best_checkpoint.name}"


def _checkpoint(files: TrialFolder) -> Checkpoint | None:
    try:
        return load_checkpoint(files.best_checkpoint)
    except UserError:
        return None

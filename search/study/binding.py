"""Opening the study of a campaign for writing, and checking that it belongs to the campaign.

The caller holds the campaign's folder, so there is no other writer.
"""

from collections.abc import Sequence
from typing import Any

import optuna
from optuna.storages import BaseStorage

from core.campaign.campaign import Campaign, settings_hash
from core.campaign.study import open_database, open_journal
from core.errors import UserError
from core.files.folders import CampaignFolder
from core.files.json_files import drop_torn_line
from search.study.proposals import Proposals

BOUND_TO = "campaign"
"""User attribute of a study that identifies its campaign."""


def open_study(
    proposals: Proposals, folder: CampaignFolder, identity: str, fingerprints: Sequence[str]
) -> optuna.Study:
    """Open a study of a campaign, or create it.

    Args:
        identity: random id of the campaign's folder.
        fingerprints: fingerprints of all features that its trials may read.
    Raises:
        UserError: it cannot be read, belongs to another campaign, or was lost.
    """
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    campaign = proposals.campaign
    study = optuna.create_study(
        storage=_open_storage(campaign, folder),
        study_name=proposals.study,
        directions=[f"{goal.direction}imize" for goal in campaign.goals],
        load_if_exists=True,
    )
    binding = {"id": identity, "settings": settings_hash(campaign), "features": list(fingerprints)}
    _bind(study, binding, where=_place(campaign, folder))
    _require_trials_of(folder, len(study.get_trials(deepcopy=False)))
    return study


def _bind(study: optuna.Study, binding: dict[str, Any], *, where: object) -> None:
    """Bind a new study to its campaign (folder id, features, all settings that may not change), or check the binding.

    Without it, another campaign of the same name would adopt the trials.
    """
    bound = study.user_attrs.get(BOUND_TO)
    if bound is None and not study.user_attrs and not study.get_trials(deepcopy=False):
        study.set_user_attr(BOUND_TO, binding)
        return
    if not isinstance(bound, dict) or bound.get("id") != binding["id"]:
        raise UserError(
            f"the study {study.study_name} belongs to another campaign, or to another program",
            where=where,
            how="give this campaign another name, or continue the other one from its own folder",
        )
    if bound != binding:
        raise UserError(
            "was started with settings or features other than those in campaign.yaml and features.json",
            where=where,
            how="restore those files, or choose another --output-dir",
        )


def _place(campaign: Campaign, folder: CampaignFolder) -> object:
    variable = campaign.study.url_variable
    return folder.journal if variable is None else f"the database behind {variable}"


def _open_storage(campaign: Campaign, folder: CampaignFolder) -> BaseStorage:
    if variable := campaign.study.url_variable:
        return open_database(variable)
    _repair_journal(folder)
    if not folder.journal.exists() or not folder.journal.stat().st_size:
        _require_trials_of(folder, 0)  # before a new study is created
    return open_journal(folder.journal)


def _require_trials_of(folder: CampaignFolder, known: int) -> None:
    """A new study in place of a lost one would overwrite the trials of the old one."""
    if lost := [path for path in folder.trials() if int(path.name) >= known]:
        raise UserError(
            f"the study knows {known} trials, but the folder holds {lost[-1].name}",
            where=lost[-1].parent,
            how="restore study.journal, or start the campaign in another --output-dir",
        )


def _repair_journal(folder: CampaignFolder) -> None:
    """Remove a dead driver's journal lock, for which Optuna would wait 30 s, and its torn last line, to which the next
    line would be appended and lost. Both can only be a dead driver's, since this process holds the campaign.
    """
    for path in folder.root.glob(f"{folder.journal.name}.lock*"):
        path.unlink()
    if folder.journal.exists():
        drop_torn_line(folder.journal)

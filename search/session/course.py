"""The course of one session on a Ray that is connected: preflight, tracker, trials, and the tracked leaderboard.

Imports torch, Ray Tune and Weights & Biases, so `search.campaign` imports it only once Ray's workers are starting.
"""

import signal
from contextlib import closing
from typing import TYPE_CHECKING

from core.files.folders import CampaignFolder
from core.tracked_runs import Tracker
from core.tracking import build_tracker
from search.cluster.connection import count_slots
from search.cluster.preflight import preflight, preflight_here
from search.session.book import SessionBook
from search.session.storage import Storage
from search.session.trial_log import TrialLog
from search.session.trial_runs import track_leaderboard
from search.session.tuner import Session, run_session
from search.study.ledger import Ledger

if TYPE_CHECKING:
    from search.campaign import CampaignFeatures, Cluster, Listeners


def run_trials(
    ledger: Ledger, folder: CampaignFolder, features: "CampaignFeatures", cluster: "Cluster", listeners: "Listeners"
) -> signal.Signals | None:
    """Run the trials of a ledger until it has no more.

    Returns:
        The signal that stopped the session; None if none did.
    Raises:
        UserError: no trial fits on the cluster, or a node or the storage cannot be used.
    """
    campaign, storage = ledger.campaign, _storage(ledger, folder)
    slots = count_slots(cpu=campaign.resources.cpu, gpu=campaign.resources.gpu)
    if cluster.address is None:
        preflight_here(campaign, storage)
    else:
        preflight(campaign, dict.fromkeys(features.fingerprints, features.readings), storage)
    with closing(_tracker(ledger, folder)) as tracker, closing(TrialLog(ledger, folder, tracker)) as log:
        book = SessionBook(
            ledger, log, storage, features.fingerprint, on_change=lambda: listeners.on_standing(ledger.standing())
        )
        session = Session(
            ledger.sessions[-1], campaign.resources, slots, cluster.reuse_actors, here=cluster.address is None
        )
        stopped_by = run_session(book, storage, session)
        if ledger.study == campaign.name:
            track_leaderboard(tracker, campaign, folder, ledger.trials())
    return stopped_by


def clear_storage(ledger: Ledger, folder: CampaignFolder) -> None:
    """Remove the checkpoints of sessions that ended, once Ray no longer runs."""
    _storage(ledger, folder).clear(ledger.sessions)


def _storage(ledger: Ledger, folder: CampaignFolder) -> Storage:
    campaign = ledger.campaign
    return Storage.of_campaign(campaign.storage or str(folder.sessions), campaign.name, ledger.identity)


def _tracker(ledger: Ledger, folder: CampaignFolder) -> Tracker:
    campaign = ledger.campaign
    project, mode = campaign.wandb.project, campaign.wandb.mode
    return build_tracker(project=project, group=campaign.name, mode=mode, folder=folder.root, identity=ledger.identity)

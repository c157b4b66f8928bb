"""Confirmation: the best trials of a search and its baseline, trained again with fresh seeds."""

from collections.abc import Callable

from core.campaign.campaign import read_campaign
from core.campaign.study import read_confirmations, read_trials
from core.campaign.trials import baseline_of
from core.evaluation.scorecard import sample_checkpoint
from core.features.opening import open_features
from core.files.folders import CampaignFolder
from core.model.checkpoints import load_checkpoint
from core.samples import write_samples
from search.study.proposals import ConfirmationProposals
from search.winner import eligible_trials


def propose_confirmation(folder: CampaignFolder, *, top: int, seeds: int) -> ConfirmationProposals:
    """The best trials of a campaign and its baseline, each with the first seeds after the search's own.

    Args:
        top: number of complete trials that keep the constraints; settings that are the same count once.
        seeds: number of seeds.
    Raises:
        UserError: the folder holds no campaign, or no trial is complete and keeps the constraints.
    """
    campaign, trials = read_campaign(folder), read_trials(folder)
    eligible = eligible_trials(folder, trials).drop_duplicates("config_hash")
    baseline = baseline_of(trials)
    first = [] if baseline is None else [baseline.number]
    parents = dict.fromkeys([*first, *map(int, eligible["number"].head(top))])
    used = campaign.base.seed
    return ConfirmationProposals(campaign, trials, list(parents), range(used + 1, used + 1 + seeds))


def measure_repeats(folder: CampaignFolder, on_measured: Callable[[int, int], None]) -> None:
    """Save the values per query and region of every complete repeat that has none yet.

    Args:
        on_measured: called with the number of repeats measured so far, and of all to measure.
    Raises:
        UserError: a checkpoint is damaged, or the features cannot be opened.
    """
    files = folder.confirmation
    repeats = [trial.number for trial in read_confirmations(folder) if trial.state == "complete"]
    missing = [number for number in repeats if not files.samples(number).exists()]
    for done, number in enumerate(missing, start=1):
        checkpoint = load_checkpoint(files.trial(number).best_checkpoint)
        samples = sample_checkpoint(checkpoint, open_features(checkpoint.config))
        write_samples(files.samples(number), samples)
        on_measured(done, len(missing))

"""Writes the progress of trials to their folders, to the tracker and, last and authoritative, to the ledger."""

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from core.campaign.trials import awaits_baseline
from core.files.atomic import write_atomically
from core.files.folders import CampaignFolder
from core.files.json_files import append_json_line, write_json
from core.records import EpochMetrics, Receipt
from core.sections import dump_yaml
from core.tracked_runs import RunEnd, Tracker
from search.session.trial_runs import trial_end, trial_start, with_gain
from search.study.ledger import AskedTrial, Ledger, TrialOutcome

if TYPE_CHECKING:
    from core.model.checkpoints import Checkpoint


class TrialLog:
    """Used by the driver only."""

    def __init__(self, ledger: Ledger, folder: CampaignFolder, tracker: Tracker) -> None:
        self._ledger = ledger
        self._folder = folder
        self._tracker = tracker
        self._names: dict[int, str] = {}
        self._ended: dict[int, RunEnd] = {}
        """Ends of runs that are held back until the baseline has ended, too, for their gain over it."""

    def begin(self, asked: AskedTrial) -> None:
        write_atomically(self._folder.trial(asked.number).config, dump_yaml(asked.config))
        self._names[asked.number] = asked.name
        trial = self._ledger.trials()[asked.number]
        self._tracker.start(trial_start(self._ledger.campaign.name, trial, asked.config))

    def epoch(self, number: int, metrics: EpochMetrics, values: Sequence[float]) -> None:
        """Log an epoch and the value of each goal."""
        append_json_line(self._folder.trial(number).metrics, metrics.to_json())
        self._tracker.epoch(self._names[number], metrics)
        self._ledger.record(number, metrics.epoch, *values)

    def interrupt(self, number: int, *, seconds: float) -> None:
        """Put a trial that had no time to end back in the queue."""
        self._ledger.interrupt(number, seconds=seconds)
        self._finish(number, None)

    def end(self, number: int, outcome: TrialOutcome, receipt: Receipt | None, checkpoint: "Checkpoint | None") -> None:
        """Write the files before the ledger: a trial that ended according to the ledger has all its files.

        Args:
            checkpoint: the last intact one; its best epoch is kept if the trial is complete.
        """
        files = self._folder.trial(number)
        if receipt is not None:
            write_json(files.receipt, receipt.to_json())
        if checkpoint is not None and outcome.state == "complete":
            from core.model.checkpoints import save_checkpoint  # imports torch, of no use before

            save_checkpoint(files.best_checkpoint, checkpoint.best())
        self._ledger.tell(number, outcome)
        self._finish(number, receipt)

    def close(self) -> None:
        """End the runs that are still held back."""
        for number, end in self._ended.items():
            self._tracker.finish(self._names[number], end)
        self._ended.clear()

    def _finish(self, number: int, receipt: Receipt | None) -> None:
        trials = self._ledger.trials()
        self._names[number] = trials[number].name
        parameters = None if receipt is None else receipt.parameters
        self._ended[number] = self._publish(number, trial_end(trials, trials[number], parameters=parameters))
        for ended in [each for each in self._ended if not awaits_baseline(trials, trials[each])]:
            self._tracker.finish(self._names.pop(ended), with_gain(self._ended.pop(ended), trials, trials[ended]))

    def _publish(self, number: int, end: RunEnd) -> RunEnd:
        asked_for = self._ledger.campaign.wandb.artifacts and end.state == "complete"
        return replace(end, checkpoint=self._folder.trial(number).best_checkpoint) if asked_for else end

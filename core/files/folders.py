"""Paths of the files in the folder of a run, a trial or a campaign, and of what is kept for the user."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

SYNTHETIC = "synthetic.json"
"""Written beside annotations that are drawn."""


def is_synthetic(annotations: Path) -> bool:
    """Whether annotations were drawn by `crossmodal data synth`."""
    return (annotations.parent / SYNTHETIC).exists()


def cache_folder() -> Path:
    """Folder of what can be computed again: below $XDG_CACHE_HOME, or ~/.cache."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "crossmodal-search"


@dataclass(frozen=True, slots=True)
class RunFolder:
    """Files of one training run."""

    root: Path

    @property
    def config(self) -> Path:
        return self.root / "config.yaml"

    @property
    def log(self) -> Path:
        """One JSON object per epoch."""
        return self.root / "log.txt"

    @property
    def receipt(self) -> Path:
        return self.root / "receipt.json"

    @property
    def best_checkpoint(self) -> Path:
        return self.root / "checkpoint_best.pth"

    def checkpoint(self, epoch: int) -> Path:
        """Checkpoint of an epoch, from 0."""
        return self.root / f"checkpoint_{epoch}.pth"


@dataclass(frozen=True, slots=True)
class TrialFolder:
    """Files that the driver keeps of one trial."""

    root: Path

    @property
    def config(self) -> Path:
        return self.root / "config.yaml"

    @property
    def metrics(self) -> Path:
        """One JSON object per epoch: the canonical log."""
        return self.root / "metrics.jsonl"

    @property
    def receipt(self) -> Path:
        return self.root / "receipt.json"

    @property
    def best_checkpoint(self) -> Path:
        return self.root / "checkpoint_best.pth"


@dataclass(frozen=True, slots=True)
class CampaignFolder:
    """Files of one search campaign."""

    NAMES: ClassVar = (
        "campaign.yaml", "features.json", "study.journal*", "trials", "wandb", "sessions", "leaderboard.*",
        "confirmation", "limits.yaml",
    )  # fmt: skip
    """Names claimed by the driver; the commands that write the final model or a report claim those."""
    root: Path

    @property
    def campaign(self) -> Path:
        """The campaign as resolved when it started; only its limits may change later."""
        return self.root / "campaign.yaml"

    @property
    def limits(self) -> Path:
        """Limits that `crossmodal limits` set, in place of those in `campaign`."""
        return self.root / "limits.yaml"

    @property
    def features(self) -> Path:
        """Fingerprints of the features that its trials read, as they were when it started."""
        return self.root / "features.json"

    @property
    def journal(self) -> Path:
        """The Optuna study: the ledger of all trials."""
        return self.root / "study.journal"

    @property
    def final_metrics(self) -> Path:
        """Scorecard of the final model, if it was retrained into the campaign's folder."""
        return self.root / "final" / "metrics.json"

    @property
    def final_checkpoint(self) -> Path:
        """Weights of that model."""
        return self.root / "final" / "stage2" / "checkpoint_best.pth"

    @property
    def confirmation(self) -> "CampaignFolder":
        """Files of the trials that repeat the best of the search with other seeds: of the same kind."""
        return CampaignFolder(self.root / "confirmation")

    @property
    def sessions(self) -> Path:
        """Ray's files, one folder per session; disposable."""
        return self.root / "sessions"

    @property
    def leaderboard(self) -> Path:
        """Without suffix: .csv, .md and the other formats share this name."""
        return self.root / "leaderboard"

    def samples(self, number: int) -> Path:
        """Values of a trial per query and region of the validation split; only of those that confirm others."""
        return self.trial(number).root / "samples.safetensors"

    def trials(self) -> list[Path]:
        """Folders of trials, in order of their numbers."""
        numbered = [path for path in (self.root / "trials").glob("*") if path.name.isdecimal()]
        return sorted(numbered, key=lambda path: int(path.name))

    def trial(self, number: int) -> TrialFolder:
        """Folder of a trial, from 0."""
        return TrialFolder(self.root / "trials" / f"{number:04d}")

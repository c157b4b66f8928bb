from pathlib import Path

import pytest

from analysis.lost_files import lost_of_trial
from core.files.folders import CampaignFolder, TrialFolder


@pytest.fixture
def files(tmp_path: Path) -> TrialFolder:
    trial = CampaignFolder(tmp_path).trial(0)
    trial.config.parent.mkdir(parents=True)
    trial.config.write_text("seed: 0\n")
    trial.metrics.write_text("{}\n{}\n")
    trial.receipt.write_text("{}\n")
    return trial


def test_a_pruned_trial_is_whole_without_a_checkpoint(files: TrialFolder) -> None:
    assert lost_of_trial(files, pruned=True, epochs=2) == []
    assert lost_of_trial(files, pruned=False, epochs=2) == [files.best_checkpoint]


def test_missing_epochs_torn_lines_and_missing_files_are_named(files: TrialFolder) -> None:
    assert lost_of_trial(files, pruned=True, epochs=3) == [files.metrics]
    files.metrics.write_text("{}\n{")
    files.config.unlink()
    assert lost_of_trial(files, pruned=True, epochs=2) == [files.config, files.metrics]

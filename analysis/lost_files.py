"""Files of trials that are missing or torn. Their figures are still in the study, and `search` restores them."""

import zipfile
from pathlib import Path

from core.files.folders import TrialFolder


def lost_of_trial(files: TrialFolder, *, pruned: bool, epochs: int) -> list[Path]:
    """Files of one ended trial that are missing or torn, found without parsing any; a pruned one has no checkpoint."""
    whole = {
        files.config: _ends_a_line(files.config),
        files.metrics: _ends_a_line(files.metrics) and files.metrics.read_bytes().count(b"\n") == epochs,
        files.receipt: _ends_a_line(files.receipt),
        files.best_checkpoint: pruned or zipfile.is_zipfile(files.best_checkpoint),
    }
    return [path for path, is_whole in whole.items() if not is_whole]


def _ends_a_line(path: Path) -> bool:
    return path.is_file() and path.read_bytes().endswith(b"\n")

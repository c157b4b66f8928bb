"""Receipts: what a run really used, read off the objects that do the work and off the code that is running.

Versions are those of the imported modules and the commit is that of the checkout that holds this file, so neither
needs an installed distribution, and neither can be that of something else on the machine.
"""

import os
import platform
import subprocess
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from pathlib import Path

from core import __version__
from core.config import config_hash
from core.device import device_name, peak_memory_mb
from core.model.checkpoints import Checkpoint
from core.model.model import parameter_counts
from core.records import Receipt
from core.training.stages import Run

CHECKOUT = Path(__file__).resolve().parent.parent.parent
OUR_FOLDERS = ("core/", "search/", "analysis/")
GIT_WITHIN_S = 10


@dataclass(frozen=True, slots=True)
class EarlierRuns:
    """What the runs took whose weights this one began with."""

    epochs: int = 0
    seconds: float = 0.0


def earlier_runs(resume_from: Checkpoint | None, start_from: Checkpoint | None) -> EarlierRuns:
    """Of a run that continues `resume_from`, or else begins with the weights of `start_from`."""
    if resume_from is not None:
        receipt = resume_from.receipt
        return EarlierRuns(receipt.earlier_epochs, receipt.earlier_seconds)
    if start_from is None:
        return EarlierRuns()
    receipt = start_from.receipt
    return EarlierRuns(receipt.epochs + receipt.earlier_epochs, receipt.seconds + receipt.earlier_seconds)


def make_receipt(run: Run, previous: Checkpoint | None, *, seconds: float, earlier: EarlierRuns) -> Receipt:
    """The receipt of a run after one more epoch.

    Args:
        previous: the run one epoch earlier.
        seconds: that the run has taken.
    """
    stage, weights = run.stage.number, run.config.loss
    device = next(run.model.parameters()).device
    groups = [] if previous is None else [g for g in previous.receipt.optimizer_groups if g["stage"] != stage]
    for group in run.optimizer.param_groups:
        settings = {"learning_rate": group["initial_lr"], "weight_decay": group["weight_decay"]}
        groups.append({"stage": float(stage), **settings})
    return Receipt(
        config_hash=config_hash(run.config),
        fingerprint=run.features.fingerprint,
        parameters=sum(parameter_counts(run.model).values()),
        optimizer_groups=groups,
        loss_weights={"itc": weights.itc, "itm": weights.itm, "box": weights.box, "spatial": weights.spatial},
        seed=run.config.seed,
        device=device_name(device),
        versions=versions(),
        git_commit=git_commit(CHECKOUT),
        seconds=seconds,
        peak_memory_mb=peak_memory_mb(device),
        epochs=1 if previous is None else len(previous.history) + 1,
        earlier_epochs=earlier.epochs,
        earlier_seconds=earlier.seconds,
    )


def versions() -> dict[str, str]:
    """Of this code, of Python and of what computes."""
    return {
        "python": platform.python_version(),
        "crossmodal-search": __version__,
        **{name: module_version(name) for name in ("torch", "numpy")},
    }


def module_version(name: str) -> str:
    """Of a package as it is imported here, whatever distribution it came from, or from none."""
    return str(getattr(import_module(name), "__version__", "unknown"))


@cache
def git_commit(root: Path) -> str | None:
    """The commit of the repository whose top is `root` and which tracks our code; `<hash>-dirty` if code differs.

    Files that git does not track count only inside our packages. None outside of such a repository (one above or around
    `root` tells nothing of our code), without git, or where git refuses to answer.
    """
    try:
        top, commit = _git(root, "rev-parse", "--show-toplevel", "HEAD").splitlines()
        if Path(top).resolve() != root:
            return None
        _git(root, "ls-files", "--error-unmatch", "core/training/receipts.py")
        changes = _git(root, "status", "--porcelain", "-z").split("\0")
    except (OSError, ValueError, subprocess.SubprocessError):
        return None
    return f"{commit}-dirty" if any(map(_changes_code, changes)) else commit


def _changes_code(entry: str) -> bool:
    """Of one entry of `git status`: two letters, a blank and a path; `??` stands before what is not tracked."""
    return bool(entry) and (not entry.startswith("?? ") or entry[3:].startswith(OUR_FOLDERS))


def _git(root: Path, *arguments: str) -> str:
    """Variables such as GIT_DIR, set within hooks, would point git elsewhere; the index is not written."""
    answer = subprocess.run(
        ["git", "--no-optional-locks", "-C", str(root), *arguments],
        env={name: value for name, value in os.environ.items() if not name.startswith("GIT_")},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=GIT_WITHIN_S,
        check=True,
    )
    return os.fsdecode(answer.stdout)

"""Receipts: what a run actually used, read from the objects that do the work and from the running code.

Versions are those of the imported modules, and the commit is that of the checkout that contains this file: neither
needs an installed distribution, and neither can belong to another copy on the machine.
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
"""Timeout of git in seconds."""


@dataclass(frozen=True, slots=True)
class EarlierRuns:
    """Total cost of the runs whose weights a run started from."""

    epochs: int = 0
    seconds: float = 0.0


def earlier_runs(resume_from: Checkpoint | None, start_from: Checkpoint | None) -> EarlierRuns:
    """Cost of earlier runs of a run that continues `resume_from`, or else starts from the weights of `start_from`."""
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
        previous: checkpoint of the epoch before; None after the first.
        seconds: duration of the run so far.
        earlier: cost of the runs whose weights it started from.
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
        backbone=run.features.backbone,
    )


def versions() -> dict[str, str]:
    """Versions of Python, this package, torch and numpy."""
    return {
        "python": platform.python_version(),
        "crossmodal-search": __version__,
        **{name: module_version(name) for name in ("torch", "numpy")},
    }


def module_version(name: str) -> str:
    """Version of a module as imported, with or without an installed distribution; 'unknown' if it has none."""
    return str(getattr(import_module(name), "__version__", "unknown"))


@cache
def git_commit(root: Path) -> str | None:
    """Commit of the repository with top folder `root` that tracks our code; `<hash>-dirty` if code differs from it.

    Untracked files count only inside our packages. None if there is no such repository (a repository around `root` says
    nothing about our code), no git, or git fails or takes longer than 10 seconds.
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
    """Whether an entry of `git status` (two letters, a blank, a path; `??` if untracked) means that code differs."""
    return bool(entry) and (not entry.startswith("?? ") or entry[3:].startswith(OUR_FOLDERS))


def _git(root: Path, *arguments: str) -> str:
    """Run git without variables such as GIT_DIR, which hooks set and which name another repository; writes no index."""
    answer = subprocess.run(
        ["git", "--no-optional-locks", "-C", str(root), *arguments],
        env={name: value for name, value in os.environ.items() if not name.startswith("GIT_")},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=GIT_WITHIN_S,
        check=True,
    )
    return os.fsdecode(answer.stdout)

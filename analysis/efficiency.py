"""Speed of convergence, from the log of a single-stage run and the summary of a two-stage run."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from core.errors import UserError
from core.files.json_files import read_json, read_json_lines

CLOSE_ENOUGH = 0.01
"""A run has converged at the first epoch within this share of its best recall_mean."""
LARGEST = 1e12
"""Upper bound of any figure that is read; seconds and megabytes stay far below."""


@dataclass(frozen=True, slots=True)
class Curve:
    """The validation curve of one run, over both of its stages."""

    label: str
    recall_mean: list[float]
    """One fraction per epoch."""
    seconds: list[float]
    """Training and validation time up to the end of each epoch."""
    peak_memory_mb: float | None
    scored_from: int
    """First epoch of the last stage, whose best epoch is the model that is kept."""

    @property
    def best(self) -> float:
        """Best recall_mean of the last stage."""
        return max(self.recall_mean[self.scored_from :])


def read_single_stage(log: Path) -> Curve:
    """Read log.txt, and the peak memory from the receipt beside it.

    Raises:
        UserError: the log is not a training log or is empty, or the receipt is not a receipt.
    """
    if not log.exists():
        raise UserError("there is no such file", where=log)
    receipt = log.parent / "receipt.json"
    memory = _peak_memory(read_json(receipt), receipt) if receipt.exists() else None
    return _curve("single-stage", read_json_lines(log), memory, log)


def read_two_stage(summary: Path) -> Curve:
    """Read experiment_summary.json; stage 2 follows stage 1.

    Raises:
        UserError: it is not such a summary.
    """
    match read_json(summary):
        case {"stage1": {"history": [*first]} as stage1, "stage2": {"history": [*second]} as stage2}:
            memory = max(_peak_memory(stage, summary) for stage in (stage1, stage2))
            return _curve("two-stage", [*first, *second], memory, summary)
    raise UserError(
        "is not the summary of a two-stage run", where=summary, how="use the one that crossmodal train-two-stage wrote"
    )


def _peak_memory(content: Any, where: Path) -> float:
    match content:
        case {"peak_memory_mb": peak} if _is_measure(peak):
            return float(peak)
    raise UserError("has no valid peak_memory_mb", where=where, how="use the files that crossmodal wrote")


def _curve(label: str, rows: list[Any], memory: float | None, where: Path) -> Curve:
    recall, times, stages = [], [], []
    for row in rows:
        match row:
            case {"recall_mean": mean, "train_seconds": train, "evaluation_seconds": evaluation} if all(
                map(_is_measure, (mean, train, evaluation))
            ):
                recall.append(float(mean))
                times.append(float(train + evaluation))
                stages.append(row.get("stage"))
            case _:
                raise UserError("is not a training log of crossmodal", where=where)
    if not rows:
        raise UserError("contains no epoch", where=where, how="wait until the run has finished one")
    return Curve(label, recall, pd.Series(times).cumsum().tolist(), memory, stages.index(stages[-1]))


def _is_measure(value: object) -> bool:
    """Whether a value from JSON, which may contain NaN and integers of any length, is a plausible figure."""
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= LARGEST


def convergence_epoch(recall_mean: list[float], best: float) -> int:
    """First epoch, from 0, whose recall_mean is within 1 % of `best`."""
    return first_epoch_reaching(recall_mean, (1 - CLOSE_ENOUGH) * best)  # type: ignore[return-value]


def first_epoch_reaching(recall_mean: list[float], target: float) -> int | None:
    """First epoch, from 0, with at least this recall_mean; None if none has."""
    return next((epoch for epoch, value in enumerate(recall_mean) if value >= target), None)


def efficiency_table(single: Curve, two: Curve) -> pd.DataFrame:
    """One row per quantity: metric, single_stage, two_stage, ratio (two-stage / single-stage); NaN: never reached."""
    quantities = {curve.label: _quantities(curve, other) for curve, other in ((single, two), (two, single))}
    rows = []
    for metric, first in quantities[single.label].items():
        second = quantities[two.label][metric]
        ratio = second / first if first else float("nan")
        rows.append({"metric": metric, "single_stage": first, "two_stage": second, "ratio": ratio})
    return pd.DataFrame(rows)


def _quantities(curve: Curve, other: Curve) -> dict[str, float]:
    converged = convergence_epoch(curve.recall_mean, curve.best)
    reached = first_epoch_reaching(curve.recall_mean, other.best)
    missing = float("nan")
    return {
        "best_recall_mean": curve.best,
        "epochs": len(curve.recall_mean),
        "seconds": curve.seconds[-1],
        "epochs_to_convergence": converged + 1,
        "seconds_to_convergence": curve.seconds[converged],
        "epochs_to_the_others_best": missing if reached is None else reached + 1,
        "seconds_to_the_others_best": missing if reached is None else curve.seconds[reached],
        "peak_memory_mb": missing if curve.peak_memory_mb is None else curve.peak_memory_mb,
    }


def curves_frame(curves: list[Curve]) -> pd.DataFrame:
    """One row per epoch: label, epoch, seconds, recall_mean."""
    return pd.DataFrame(
        [
            {"label": curve.label, "epoch": epoch, "seconds": seconds, "recall_mean": recall}
            for curve in curves
            for epoch, (seconds, recall) in enumerate(zip(curve.seconds, curve.recall_mean, strict=True))
        ]
    )

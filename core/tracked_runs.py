"""What a tracker is told of a run: how it starts, its epochs, what is shown with it, and how it ends.

Independent of any tracker's library: `core.tracking` writes it to Weights & Biases, `core.mlflow_tracking` to MLflow.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

from core.config import TrainConfig
from core.records import EpochMetrics, Receipt, best_epoch

if TYPE_CHECKING:
    from PIL.Image import Image

JobType = Literal["search", "confirm", "final", "leaderboard", "train", "evaluate"]
"""A trial of a search, a repeat of one under another seed, the retrained winner, the ranking of trials, or a run of
`crossmodal train` outside a campaign."""
EndState = Literal["complete", "pruned", "failed", "interrupted"]


@dataclass(frozen=True, slots=True)
class RunStart:
    """What is known of a run before its first epoch."""

    name: str
    """Unique within its group."""
    job: JobType
    config: Mapping[str, Any]
    """Settings by their dotted paths, as in a search space."""
    tags: Sequence[str] = ()

    @classmethod
    def of_training(
        cls, name: str, job: JobType, config: TrainConfig, about: Mapping[str, Any] | None = None
    ) -> "RunStart":
        """A run that trains this configuration, tagged with its number of stages and its heads.

        Args:
            about: what identifies the run beside its settings; None values are left out.
        """
        identifying = {key: value for key, value in (about or {}).items() if value is not None}
        return cls(name, job, {**identifying, **dotted(config.model_dump(mode="json"))}, training_tags(config))


@dataclass(frozen=True, slots=True)
class RunEnd:
    """How a run ended."""

    state: EndState
    summary: Mapping[str, Any]
    """One value a run, by which runs are sorted: figures are those of the best epoch, not of the last."""
    checkpoint: Path | None = None
    """The model, to be uploaded; None if that is not asked for."""

    @classmethod
    def of_training(cls, history: Sequence[EpochMetrics], receipt: Receipt, objective: str) -> "RunEnd":
        """A finished run with the figures of its best epoch."""
        best = best_epoch(history, objective)
        cost = {"epochs": len(history), "seconds": receipt.seconds, "parameters": receipt.parameters}
        return cls("complete", {**cost, "best_value": getattr(best, objective), **best_figures(best)})

    @property
    def failed(self) -> bool:
        return self.state in ("failed", "interrupted")


@dataclass(frozen=True, slots=True)
class DrawnBox:
    """A box on a picture."""

    kind: Literal["true", "predicted"]
    box: tuple[float, float, float, float]
    """x1 y1 x2 y2, as fractions of the picture."""
    label: str


@dataclass(frozen=True, slots=True, eq=False)
class Picture:
    """An image with its caption, and boxes on it."""

    image: "Image"
    caption: str
    boxes: Sequence[DrawnBox] = ()


@dataclass(frozen=True, slots=True, eq=False)
class ShownTable:
    """A table whose cells are texts, numbers, pictures or None."""

    columns: Sequence[str]
    rows: Sequence[Sequence[Any]]


Shown = ShownTable | Sequence[Picture]


class Tracker(Protocol):
    """Receives the progress of runs."""

    problems: int
    """Number of calls that failed and were skipped."""

    def holds(self, name: str) -> bool:
        """Whether a run of this name was finished before, here or by an earlier process."""

    def start(self, run: RunStart) -> None:
        """Open a run."""

    def epoch(self, name: str, metrics: EpochMetrics) -> None:
        """Log one epoch of an open run."""

    def show(self, name: str, title: str, shown: Shown) -> None:
        """Log a table or pictures of an open run."""

    def finish(self, name: str, end: RunEnd) -> None:
        """Write the summary of a run and close it."""

    def close(self) -> None:
        """Close the runs that are still open; the tracker cannot be used afterwards."""


class NoTracker:
    """No-op tracker."""

    problems = 0

    def holds(self, name: str) -> bool:
        return False

    def start(self, run: RunStart) -> None: ...

    def epoch(self, name: str, metrics: EpochMetrics) -> None: ...

    def show(self, name: str, title: str, shown: Shown) -> None: ...

    def finish(self, name: str, end: RunEnd) -> None: ...

    def close(self) -> None: ...


def training_tags(config: TrainConfig) -> list[str]:
    """`single-stage` or `two-stage`, and how the heads fuse image and text, such as `fusion-concat`."""
    two_stages = 0 < config.recipe.stage1_epochs < config.recipe.epochs
    return ["two-stage" if two_stages else "single-stage", f"fusion-{config.model.fusion}"]


def best_figures(metrics: EpochMetrics) -> dict[str, Any]:
    """The metrics of a run's best epoch for its summary, with `best_epoch`; without those that were not measured."""
    figures = {name: value for name, value in metrics.to_json().items() if value is not None and name != "epoch"}
    return {"best_epoch": metrics.epoch, **figures}


def dotted(content: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings under their dotted paths: {'loss': {'itm': 1}} gives {'loss.itm': 1}."""
    flat: dict[str, Any] = {}
    for name, value in content.items():
        flat |= dotted(value, f"{prefix}{name}.") if isinstance(value, Mapping) else {f"{prefix}{name}": value}
    return flat

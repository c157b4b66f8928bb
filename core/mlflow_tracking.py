"""MLflow, an optional extra: runs that are rebuilt from our own files, in a local file store or on a server.

Figures of epochs are metrics named epoch/<name>; those without a prefix are the best epoch's, by which runs are sorted.
"""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from core.errors import UserError
from core.files.ownership import claim_folder
from core.records import EpochMetrics
from core.tracked_runs import Picture, RunEnd, RunStart, Shown, ShownTable
from core.tracking import run_id

FOLDER = "mlruns"
SERVER = "MLFLOW_TRACKING_URI"
"""Environment variable: where runs are written instead of a folder."""
FILE_STORE = "MLFLOW_ALLOW_FILE_STORE"
"""Environment variable without which recent versions refuse to use a folder."""
OURS = "crossmodal.run"
"""Tag with the id of a run, which MLflow does not let us choose."""
PARAMETERS_AT_ONCE = 100
"""MLflow refuses more in one call."""
COLOURS = {"true": "lime", "predicted": "red"}


class MlflowTracker:
    """Writes to the experiment of a project; unlike the tracker of a campaign, it raises what goes wrong."""

    problems = 0

    def __init__(self, *, project: str, group: str, folder: Path, identity: str) -> None:
        """Open the store, and remove runs of ours that a killed process left open.

        Args:
            folder: where runs are written, below `mlruns`, unless MLFLOW_TRACKING_URI names another place.
            identity: distinguishes groups of the same name.
        Raises:
            UserError: MLflow is not installed, or its store cannot be used.
        """
        self._group, self._identity = group, identity
        self._client = _client(folder)
        self._open: dict[str, str] = {}
        with _in_one_line():
            experiment = self._client.get_experiment_by_name(project)
            self._experiment = experiment.experiment_id if experiment else self._client.create_experiment(project)
            self._finished = self._read_finished()

    def holds(self, name: str) -> bool:
        """Whether the experiment has the run, and it has ended."""
        return self._id(name) in self._finished

    def start(self, run: RunStart) -> None:
        """Open a run; its settings are parameters."""
        tags = {OURS: self._id(run.name), "group": self._group, "job_type": run.job, **dict.fromkeys(run.tags, "true")}
        with _in_one_line():
            opened = self._client.create_run(self._experiment, run_name=run.name, tags=tags).info.run_id
            self._open[run.name] = opened
            settings = list(run.config.items())
            for first in range(0, len(settings), PARAMETERS_AT_ONCE):
                self._log(opened, params=dict(settings[first : first + PARAMETERS_AT_ONCE]))

    def epoch(self, name: str, metrics: EpochMetrics) -> None:
        """Log one epoch."""
        figures = {f"epoch/{key}": value for key, value in metrics.to_json().items() if value is not None}
        with _in_one_line():
            self._log(self._open[name], metrics=figures, step=metrics.epoch)

    def show(self, name: str, title: str, shown: Shown) -> None:
        """Store a table as <title>.json, as `mlflow.load_table` reads it, and pictures as <title>/<number>.png."""
        with _in_one_line():
            if isinstance(shown, ShownTable):
                rows = [[_as_text(cell) for cell in row] for row in shown.rows]
                content = {"columns": list(shown.columns), "data": rows}
                self._client.log_dict(self._open[name], content, f"{title}.json")
            else:
                for number, picture in enumerate(shown):
                    self._client.log_image(self._open[name], _drawn(picture), f"{title}/{number:02d}.png")

    def finish(self, name: str, end: RunEnd) -> None:
        """Write the summary and close the run."""
        opened, summary = self._open[name], {"state": end.state, **end.summary}
        numbers = {key: value for key, value in summary.items() if isinstance(value, int | float)}
        texts = {key: value for key, value in summary.items() if isinstance(value, str)}
        with _in_one_line():
            self._log(opened, metrics=numbers)
            for key, value in texts.items():
                self._client.set_tag(opened, key, value)
            if end.checkpoint is not None:
                self._client.log_artifact(opened, str(end.checkpoint), "model")
            self._client.set_terminated(opened, "FAILED" if end.failed else "FINISHED")
        del self._open[name]
        self._finished.add(self._id(name))

    def close(self) -> None:
        """Remove the runs that are still open: they are written again next time."""
        with _in_one_line():
            for opened in self._open.values():
                self._client.delete_run(opened)

    def _id(self, name: str) -> str:
        return run_id(self._group, name, self._identity)

    def _log(self, opened: str, *, params: Any = None, metrics: Any = None, step: int = 0) -> None:
        from mlflow.entities import Metric, Param

        now = int(time.time() * 1000)
        self._client.log_batch(
            opened,
            params=[Param(key, str(value)) for key, value in (params or {}).items()],
            metrics=[Metric(key, float(value), now, step) for key, value in (metrics or {}).items()],
        )

    def _read_finished(self) -> set[str]:
        finished, token = set(), None
        while True:
            page = self._client.search_runs([self._experiment], page_token=token)
            for run in page:
                ours = run.data.tags.get(OURS)
                if ours is not None and run.info.status == "RUNNING":
                    self._client.delete_run(run.info.run_id)
                elif ours is not None:
                    finished.add(ours)
            token = page.token
            if not token:
                return finished


def mlflow_place(folder: Path) -> str:
    """Where runs are written."""
    return os.environ.get(SERVER) or str((folder / FOLDER).absolute())


def _client(folder: Path) -> Any:
    try:
        from mlflow import MlflowClient
    except ImportError:
        raise UserError("MLflow is not installed", where="--to mlflow", how="run pip install mlflow-skinny") from None
    if not os.environ.get(SERVER):
        claim_folder(folder, [FOLDER])
        os.environ.setdefault(FILE_STORE, "true")
    with _in_one_line():
        return MlflowClient(mlflow_place(folder))


@contextmanager
def _in_one_line() -> Iterator[None]:
    """Turns MLflow's exceptions into UserErrors."""
    from mlflow.exceptions import MlflowException

    try:
        yield
    except MlflowException as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"MLflow: {reason}", where="--to mlflow", how=f"check {SERVER}") from None


def _as_text(cell: Any) -> Any:
    return cell.caption if isinstance(cell, Picture) else cell


def _drawn(picture: Picture) -> Any:
    from PIL import ImageDraw

    image = picture.image.copy()
    draw = ImageDraw.Draw(image)
    for box in picture.boxes:
        x1, y1, x2, y2 = box.box
        corners = (x1 * image.width, y1 * image.height, x2 * image.width, y2 * image.height)
        draw.rectangle(corners, outline=COLOURS[box.kind])
    return image

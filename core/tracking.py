"""Weights & Biases, written by the process that the user started, never by a worker: one run per trial or stage.

Tracking never fails a trial: problems are counted and the first one is logged, and if the server cannot be reached, the
rest of the session is written offline. The JSON Lines files of runs are the canonical log, from which W&B runs can be
rebuilt.
"""

import logging
import os
import re
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Literal

import wandb

from core.errors import UserError
from core.files.json_files import read_json, write_json
from core.files.ownership import claim_folder
from core.records import EpochMetrics
from core.tracked_runs import NoTracker, Picture, RunEnd, RunStart, Shown, ShownTable, Tracker

logger = logging.getLogger(__name__)

Mode = Literal["auto", "online", "offline", "disabled"]
Resolved = Literal["online", "offline", "disabled"]

WANDB_FOLDER = "wandb"
FINISHED = "finished.json"
"""In the folder of a run once it is closed with its summary, so that it is not written twice."""
STAGING = "WANDB_DATA_DIR"
"""Environment variable: where W&B keeps tables and checkpoints that are not uploaded yet."""
ID_LENGTH = 64
GROUP_LENGTH = 128
"""Maximum length of a group in W&B."""
ANSWERS_WITHIN_S = 20
UPLOADS_WITHIN_S = 30
LEAN = wandb.Settings(
    silent=True,
    use_dot_wandb=False,  # W&B would write into a folder .wandb wherever there is one
    init_timeout=ANSWERS_WITHIN_S,
    finish_timeout=UPLOADS_WITHIN_S,
    finish_timeout_raises=True,
    console="off",
    disable_git=True,  # the receipt has commit and versions; W&B would look for them in each run
    x_save_requirements=False,  # parsing the metadata of all packages takes six times as long as the rest
    x_disable_stats=True,
    x_disable_meta=True,
)


class WandbTracker:
    """Several W&B runs open in one process; offline ones are written to `folder`/wandb.

    Calls are sent to W&B in order by a separate thread, so that training never waits for a slow disk or network.
    """

    def __init__(self, *, project: str, group: str, mode: Resolved, folder: Path, identity: str) -> None:
        self._project = project
        self._group = group
        self._mode = mode
        self._folder = folder
        self._identity = identity
        self._runs: dict[str, Any] = {}
        self._starts: dict[str, RunStart] = {}
        self._finished = finished_runs(folder, project)
        self._thread = ThreadPoolExecutor(max_workers=1)
        self.problems = 0
        """Number of calls to W&B that failed and were skipped."""
        self._thread.submit(self._try, set_up)

    def holds(self, name: str) -> bool:
        """Whether the run's files are in the folder, with its summary."""
        return self._id(name) in self._finished

    def start(self, run: RunStart) -> None:
        """Open a run."""
        self._thread.submit(self._try, self._open, run)

    def epoch(self, name: str, metrics: EpochMetrics) -> None:
        """Log one epoch."""
        self._thread.submit(self._try, self._log, name, metrics)

    def show(self, name: str, title: str, shown: Shown) -> None:
        """Log a table or pictures."""
        self._thread.submit(self._try, self._show, name, title, shown)

    def finish(self, name: str, end: RunEnd) -> None:
        """Write the summary and close the run."""
        self._thread.submit(self._try, self._finish, name, end)

    def close(self) -> None:
        """Flush all pending calls and close the runs that are still open, e.g. after an interruption."""
        self._thread.shutdown()
        for name in list(self._runs):
            self._try(self._finish, name, RunEnd("interrupted", {}))
        self._try(wandb.teardown)  # files are complete only once its service has ended
        if self.problems:
            logger.warning("%d calls to Weights & Biases failed; the JSON lines on disk hold everything", self.problems)

    def _try(self, call: Callable[..., None], *arguments: Any) -> None:
        try:
            call(*arguments)
        except Exception as error:
            self.problems += 1
            if self.problems == 1:
                logger.warning("Weights & Biases: %s", _reason(error))

    def _open(self, run: RunStart) -> None:
        self._starts[run.name] = run
        try:
            self._runs[run.name] = self._init(run)
        except Exception as error:
            if self._mode == "offline":
                raise
            self._go_offline(error)

    def _id(self, name: str) -> str:
        return run_id(self._group, name, self._identity)

    def _init(self, start: RunStart) -> Any:
        if self._mode == "online" and not wandb.login(prompt=False, verify=False):
            raise wandb.Error("there is no API key; run `wandb login`")  # instead of a prompt in a thread
        run = wandb.init(
            project=self._project,
            group=self._group[:GROUP_LENGTH],
            name=start.name,
            id=self._id(start.name),
            job_type=start.job,
            config=dict(start.config),
            tags=list(start.tags),
            mode=self._mode,
            dir=str(self._folder),
            reinit="create_new",
            resume="allow",
            settings=LEAN.model_copy(),  # W&B modifies it
        )
        run.define_metric("epoch", summary="none")
        run.define_metric("*", step_metric="epoch", summary="none")  # the summary would be the last epoch's
        return run

    def _go_offline(self, error: Exception) -> None:
        """Stay offline, since each further run would wait as long; open runs continue offline under the same ids."""
        self._mode = "offline"
        logger.warning(
            "Weights & Biases cannot be used online (%s); runs are written offline from here on, to %s",
            _reason(error),
            self._folder / WANDB_FOLDER,
        )
        wandb.teardown()  # an id is taken until then, even if its run failed to open
        set_up()
        self._runs = {name: self._init(start) for name, start in self._starts.items()}

    def _log(self, name: str, metrics: EpochMetrics) -> None:
        if run := self._runs.get(name):
            measured = {key: value for key, value in metrics.to_json().items() if value is not None}
            run.log(measured, step=metrics.epoch)

    def _show(self, name: str, title: str, shown: Shown) -> None:
        if run := self._runs.get(name):
            with _staged_in(self._folder / WANDB_FOLDER):
                run.define_metric(title, summary="last")  # panels find tables and pictures in the summary
                run.log({title: _as_table(shown) if isinstance(shown, ShownTable) else _as_images(shown)})

    def _finish(self, name: str, end: RunEnd) -> None:
        start, run = self._starts.pop(name, None), self._runs.pop(name, None)
        if start is None or run is None:
            return
        summary = {"state": end.state, **end.summary}
        run.summary.update({key: value for key, value in summary.items() if value is not None})
        run.tags = (*start.tags, end.state)
        if end.checkpoint is not None:
            with _staged_in(self._folder / WANDB_FOLDER):
                self._upload(run, name, end.checkpoint)
        try:
            run.finish(exit_code=int(end.failed))
        except TimeoutError as error:
            self._go_offline(error)
        write_json(Path(run.dir).parent / FINISHED, {"id": self._id(name), "project": self._project})
        self._finished.add(self._id(name))

    def _upload(self, run: Any, name: str, checkpoint: Path) -> None:
        artifact = wandb.Artifact(f"{self._id(name)}-model", type="model")
        artifact.add_file(str(checkpoint.absolute()), name=checkpoint.name, skip_cache=True, policy="immutable")
        run.log_artifact(artifact)


@contextmanager
def _staged_in(folder: Path) -> Iterator[None]:
    """Keep what is to be uploaded beside the runs: W&B would put it into the home directory, where a later `wandb sync`
    from a copy of the folder misses it.
    """
    if STAGING in os.environ:
        yield
        return
    os.environ[STAGING] = str(folder.absolute())
    try:
        yield
    finally:
        del os.environ[STAGING]


def _as_table(table: ShownTable) -> Any:
    rows = [[_as_image(cell) if isinstance(cell, Picture) else cell for cell in row] for row in table.rows]
    return wandb.Table(columns=list(table.columns), data=rows, allow_mixed_types=True)


def _as_images(pictures: Sequence[Picture]) -> list[Any]:
    return [_as_image(picture) for picture in pictures]


def _as_image(picture: Picture) -> Any:
    kinds = list(dict.fromkeys(box.kind for box in picture.boxes))
    layers = {
        kind: {
            "box_data": [
                {
                    "position": dict(zip(("minX", "minY", "maxX", "maxY"), box.box, strict=True)),
                    "class_id": number,
                    "box_caption": box.label,
                }
                for box in picture.boxes
                if box.kind == kind
            ],
            "class_labels": {number: kind},
        }
        for number, kind in enumerate(kinds)
    }
    return wandb.Image(picture.image, caption=picture.caption, boxes=layers or None)


def finished_runs(folder: Path, project: str) -> set[str]:
    """Ids of the runs of a project whose files in `folder`/wandb have their summary."""
    found = set()
    for path in folder.glob(f"{WANDB_FOLDER}/*run-*/{FINISHED}"):
        with suppress(UserError):  # a torn file: the run counts as not finished
            match read_json(path):
                case {"id": str(name), "project": str(of)} if of == project:
                    found.add(name)
    return found


def run_id(group: str, name: str, identity: str) -> str:
    """The W&B id of a run: at most 64 safe characters, the same whenever the run continues.

    Args:
        identity: id of the output folder; distinguishes folders of the same name, and names that differ only in unsafe
            characters.
    """
    tail = re.sub(r"[^A-Za-z0-9_-]", "-", f"-{name}-{identity}")[-ID_LENGTH:]
    return re.sub(r"[^A-Za-z0-9_-]", "-", group)[: ID_LENGTH - len(tail)] + tail


def resolve_mode(mode: Mode) -> Resolved:
    """`auto` follows WANDB_MODE, else is online with credentials, else offline; unknown values are logged."""
    if mode != "auto":
        return mode
    if os.environ.get("WANDB_DISABLED", "").lower() in ("true", "1", "yes", "on"):
        logger.warning("WANDB_DISABLED is set: there are no Weights & Biases runs")
        return "disabled"
    requested = os.environ.get("WANDB_MODE")
    if requested is None:
        return _by_credentials()
    resolved: Resolved
    match requested.strip().lower():
        case "":
            resolved = _by_credentials()
        case "online" | "run" | "shared":
            resolved = "online"
        case "disabled":
            resolved = "disabled"
        case _:
            resolved = "offline"
    if requested != resolved:
        logger.warning("WANDB_MODE is %r: Weights & Biases is %s", requested[:40], resolved)
    return resolved


def _by_credentials() -> Resolved:
    return "online" if has_credentials() else "offline"


def has_credentials() -> bool:
    """Whether W&B finds an API key or an identity token: in the environment, its own settings or a netrc file.

    Also true if it finds one but refuses it; opening the first run then shows why.
    """
    try:
        set_up()
        return bool(wandb.login(prompt=False, verify=False))
    except Exception:
        return True


def set_up() -> None:
    """Set up W&B without the environment variables that are handled here: on some values of them every run would fail.

    An identity token file that cannot be read would crash its service, so the variable is removed.
    """
    token = os.environ.get("WANDB_IDENTITY_TOKEN_FILE")
    if token is not None and not os.access(token, os.R_OK):
        logger.warning("WANDB_IDENTITY_TOKEN_FILE names %r, which cannot be read; it is ignored", token[:80])
        del os.environ["WANDB_IDENTITY_TOKEN_FILE"]
    mode = os.environ.pop("WANDB_MODE", None)
    try:
        wandb.setup(LEAN.model_copy())
    finally:
        if mode is not None:
            os.environ["WANDB_MODE"] = mode


def _reason(error: Exception) -> str:
    """Its message on one line, at most 200 characters."""
    return " ".join(str(error).split())[:200] or type(error).__name__


def build_tracker(*, project: str, group: str, mode: Mode, folder: Path, identity: str) -> Tracker:
    """The tracker for a mode.

    Args:
        folder: where offline runs are written.
        identity: id of `folder`, for the ids of runs.
    Raises:
        UserError: `folder` has a foreign file or folder named wandb.
    """
    resolved = resolve_mode(mode)
    if resolved == "disabled":
        return NoTracker()
    claim_folder(folder, [WANDB_FOLDER])
    return WandbTracker(project=project, group=group, mode=resolved, folder=folder, identity=identity)

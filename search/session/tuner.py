"""One session: a disposable Ray Tuner over the study. Ray runs the trials; the ledger decides and stores.

Ray's own state of the session is never read back; whatever must survive goes to the ledger or the campaign folder,
written by this process alone (`search.session.book`).
"""

import signal
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

import ray
from ray import tune
from ray.tune.experiment import Trial
from ray.tune.schedulers import FIFOScheduler, TrialScheduler
from ray.tune.search import Searcher

from core.campaign.campaign import Resources
from search.session.book import SessionBook
from search.session.storage import CHECKPOINT_NAME, Storage, read_checkpoint
from search.session.task import read_task, run_in_worker

if TYPE_CHECKING:
    from core.model.checkpoints import Checkpoint

MAX_RECOVERIES = 3
"""How often a trial may move to another worker after its node or process died."""
STOP_WITHIN_S = 30
"""Time for running trials to finish their epoch after SIGINT or SIGTERM."""


class LedgerSearcher(Searcher):  # type: ignore[misc]
    """Passes the ledger's trials to Ray Tune, which asks at every step of its loop while others run."""

    def __init__(self, book: SessionBook) -> None:
        super().__init__()
        self._book = book

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        """A trial; None for none now; FINISHED, after which Ray never asks again, for none at all."""
        task = self._book.next_trial(trial_id)
        if task is not None:
            return task.to_plain()
        return Searcher.FINISHED if self._book.is_over() else None

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Handled by the scheduler, which receives more information."""


class LedgerScheduler(FIFOScheduler):  # type: ignore[misc]
    """Passes every report to the ledger and stops the trials that its pruner prunes."""

    def __init__(self, book: SessionBook) -> None:
        super().__init__()
        self._book = book

    def on_trial_result(self, controller: Any, trial: Trial, result: dict[str, Any]) -> str:
        stop = self._book.record(trial.trial_id, result)
        return TrialScheduler.STOP if stop else TrialScheduler.CONTINUE  # type: ignore[no-any-return]

    def on_trial_complete(self, controller: Any, trial: Trial, result: dict[str, Any]) -> None:
        self._book.finish(trial.trial_id, _last_checkpoint(trial), crash=None)

    def on_trial_error(self, controller: Any, trial: Trial) -> None:
        if trial.status == Trial.ERROR:  # also called when Ray, which has stopped it, moves it to another worker
            return
        if trial.should_recover():  # given up, since it failed again before its next worker had started
            self._book.put_back(trial.trial_id)
            return
        self._book.finish(trial.trial_id, None, crash=_crash_reason(trial))

    def on_trial_remove(self, controller: Any, trial: Trial) -> None:
        self._book.finish(trial.trial_id, None, crash="removed before it started")


class SessionWatch(tune.Callback, tune.Stopper):  # type: ignore[misc]
    """At every step of Ray's loop, kills hanging workers, and ends a session whose time to stop is over."""

    def __init__(self, book: SessionBook) -> None:
        self._book = book

    def on_step_end(self, iteration: int, trials: list[Trial], **info: Any) -> None:
        for name in self._book.silent():
            trial = next(trial for trial in trials if trial.trial_id == name)
            trial.max_failures = 0  # it would hang again
            if actor := trial.temporary_state.ray_actor:
                ray.kill(actor)

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        return False

    def stop_all(self) -> bool:
        return self._book.stopping_for() > STOP_WITHIN_S


def _last_checkpoint(trial: Trial) -> "Checkpoint | None":
    stored = trial.checkpoint
    return read_checkpoint(stored.filesystem, f"{stored.path}/{CHECKPOINT_NAME}") if stored else None


def _crash_reason(trial: Trial) -> str:
    try:
        lines = Path(trial.error_file).read_text().strip().splitlines()
    except (OSError, TypeError):
        lines = []
    return lines[-1] if lines else "the worker died"


@dataclass(frozen=True, slots=True)
class Session:
    """How Ray runs the trials of one session."""

    name: str
    """Name of its folder in the storage."""
    resources: Resources
    """Resources of one trial."""
    slots: int
    """Maximum number of concurrent trials."""
    reuse_actors: bool
    """Run many trials in one worker process."""
    here: bool = False
    """On this machine alone, so that workers inherit the environment of this process."""


def run_session(book: SessionBook, storage: Storage, session: Session) -> signal.Signals | None:
    """Run trials until the ledger has no more, or until SIGINT or SIGTERM.

    Returns:
        The signal that stopped the session; None if none did.
    """
    watch = SessionWatch(book)
    tuner = tune.Tuner(
        tune.with_resources(run_in_worker, session.resources.model_dump()),
        tune_config=tune.TuneConfig(
            search_alg=LedgerSearcher(book),
            scheduler=LedgerScheduler(book),
            num_samples=-1,
            max_concurrent_trials=session.slots,
            reuse_actors=session.reuse_actors,
            trial_dirname_creator=_trial_folder_name,
        ),
        run_config=tune.RunConfig(
            name=session.name,
            storage_path=storage.root,
            verbose=0,
            callbacks=[watch],
            stop=watch,
            checkpoint_config=tune.CheckpointConfig(num_to_keep=1),
            failure_config=tune.FailureConfig(max_failures=MAX_RECOVERIES),
        ),
    )
    with _stop_signals(book) as received, _inherited_environment() if session.here else nullcontext():
        tuner.fit()
        book.close()
    return received[0] if received else None


@contextmanager
def _inherited_environment() -> Iterator[None]:
    """Tune names variables for its workers, for which Ray would start others than those that it started ahead."""
    try:
        from ray.tune.execution import class_cache
    except ImportError:  # not part of its interface: without it, the first trials only start later
        yield
        return
    names = [name for name in ("DEFAULT_ENV_VARS", "ENV_VARS_TO_PROPAGATE") if hasattr(class_cache, name)]
    before = {name: getattr(class_cache, name) for name in names}
    for name, variables in before.items():
        setattr(class_cache, name, type(variables)())
    try:
        yield
    finally:
        for name, variables in before.items():
            setattr(class_cache, name, variables)


@contextmanager
def _stop_signals(book: SessionBook) -> Iterator[list[signal.Signals]]:
    """The first SIGINT or SIGTERM stops the session gracefully; the second has its usual effect."""
    received: list[signal.Signals] = []
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def stop(number: int, frame: FrameType | None) -> None:
        received.append(signal.Signals(number))
        book.stop()
        for each, handler in before.items():
            signal.signal(each, handler)

    for number in before:
        signal.signal(number, stop)
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _trial_folder_name(trial: Trial) -> str:
    return f"{read_task(trial.config).number:04d}"

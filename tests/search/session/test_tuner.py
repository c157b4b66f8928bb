"""Ray's side of a session with simulated events; real Ray runs it in tests/end_to_end."""

import os
import signal
from types import SimpleNamespace
from typing import Any

import pytest
import ray
from ray.tune.search import Searcher

from search.session.tuner import (
    STOP_WITHIN_S,
    LedgerScheduler,
    LedgerSearcher,
    SessionWatch,
    _crash_reason,
    _stop_signals,
)


class Book:
    """Stands in for a SessionBook."""

    def __init__(self, silent: tuple[str, ...] = (), stopping_for: float = 0.0, over: bool = False) -> None:
        self._silent, self._stopping_for, self.stopped, self._over = list(silent), stopping_for, 0, over

    def next_trial(self, ray_id: str) -> None:
        return None

    def is_over(self) -> bool:
        return self._over

    def silent(self) -> list[str]:
        return self._silent

    def stopping_for(self) -> float:
        return self._stopping_for

    def stop(self) -> None:
        self.stopped += 1


@pytest.mark.parametrize(("over", "answer"), [(False, None), (True, Searcher.FINISHED)])
def test_ray_is_told_to_ask_no_more_only_when_nothing_can_come(over: bool, answer: str | None) -> None:
    assert LedgerSearcher(Book(over=over)).suggest("a") == answer  # type: ignore[arg-type]


def test_a_silent_trials_worker_is_killed_and_not_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    killed: list[Any] = []
    monkeypatch.setattr(ray, "kill", killed.append)
    trials: Any = [
        SimpleNamespace(trial_id=name, max_failures=3, temporary_state=SimpleNamespace(ray_actor=f"actor {name}"))
        for name in "ab"
    ]
    SessionWatch(Book(silent=("b",))).on_step_end(1, trials)  # type: ignore[arg-type]
    assert killed == ["actor b"]
    assert [trial.max_failures for trial in trials] == [3, 0]


@pytest.mark.parametrize(("seconds", "ends"), [(0.0, False), (STOP_WITHIN_S - 1, False), (STOP_WITHIN_S + 1, True)])
def test_a_stopping_session_waits_for_the_end_of_an_epoch_but_not_forever(seconds: float, ends: bool) -> None:
    assert SessionWatch(Book(stopping_for=seconds)).stop_all() is ends  # type: ignore[arg-type]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_first_signal_stops_the_book_and_the_second_takes_effect_at_once(number: signal.Signals) -> None:
    book = Book()
    before = signal.getsignal(number)
    with _stop_signals(book) as received:  # type: ignore[arg-type]
        os.kill(os.getpid(), number)
        assert received == [number]
        assert book.stopped == 1
        assert signal.getsignal(number) is before
    assert signal.getsignal(number) is before


@pytest.mark.parametrize(
    ("status", "recovers", "told"),
    [
        ("ERROR", True, []),  # Ray moves it to another worker
        ("PENDING", True, ["back in the queue"]),  # Ray gives it up, since it failed before its next worker started
        ("PENDING", False, ["the worker died"]),
        ("RUNNING", False, ["the worker died"]),
    ],
)
def test_a_trial_that_ray_gives_up_ends_or_waits_again(status: str, recovers: bool, told: list[str]) -> None:
    heard: list[str] = []
    book: Any = SimpleNamespace(
        finish=lambda name, checkpoint, crash: heard.append(crash),
        put_back=lambda name: heard.append("back in the queue"),
    )
    trial: Any = SimpleNamespace(trial_id="a", status=status, error_file=None, should_recover=lambda: recovers)
    LedgerScheduler(book).on_trial_error(None, trial)
    assert heard == told


def test_the_last_line_of_rays_error_is_the_reason(tmp_path: Any) -> None:
    path = tmp_path / "error.txt"
    path.write_text("Traceback\n  ...\nActorDiedError: the actor died\n")
    assert _crash_reason(SimpleNamespace(error_file=str(path))) == "ActorDiedError: the actor died"
    assert _crash_reason(SimpleNamespace(error_file=None)) == "the worker died"

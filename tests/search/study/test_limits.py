from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from core.campaign.campaign import Limits
from core.campaign.trials import STALE, State, TrialRecord
from core.files.atomic import write_atomically
from core.files.folders import CampaignFolder
from core.sections import dump_yaml
from search.study.limits import CurrentLimits, Spent, failures_in_a_row, has_room, spent_by

small = st.integers(0, 20)
spents = st.builds(Spent, ended=small, running=small, hours=st.floats(0, 10), timed=small, gpu_hours=st.floats(0, 10))
limits = st.builds(
    Limits,
    trials=st.integers(1, 30),
    hours=st.none() | st.floats(0.1, 10),
    gpu_hours=st.none() | st.floats(0.1, 10),
)


@given(limits, spents, small, st.floats(0, 10))
def test_what_was_spent_never_makes_room(limit: Limits, spent: Spent, more: int, hours: float) -> None:
    further = replace(spent, ended=spent.ended + more, hours=spent.hours + hours)
    assert has_room(limit, spent) or not has_room(limit, further)


@given(limits, spents, small)
def test_a_larger_limit_never_takes_room_away(limit: Limits, spent: Spent, more: int) -> None:
    larger = Limits(trials=limit.trials + more, hours=None, gpu_hours=limit.gpu_hours)
    assert has_room(larger, spent) or not has_room(limit, spent)


@given(st.integers(1, 30), st.integers(1, 5), st.floats(0.1, 3), st.floats(0.5, 20))
def test_a_campaign_that_asks_before_every_trial_stays_within_its_limits(
    trials: int, slots: int, hours_each: float, gpu_hours: float
) -> None:
    """Trials of equal length, ended one after the other; the first ones start before any time is known."""
    limit = Limits(trials=trials, gpu_hours=gpu_hours)
    ended = running = 0

    def spent() -> Spent:
        return Spent(ended, running, 0.0, ended, ended * hours_each)

    while True:
        while running < slots and has_room(limit, spent()):
            running += 1
        if not running:
            break
        ended, running = ended + 1, running - 1
    assert ended <= trials
    assert ended * hours_each <= max(gpu_hours, min(slots, trials) * hours_each) + 1e-9
    assert ended == trials or (ended + 1) * hours_each > gpu_hours


def test_the_mean_of_those_that_ended_is_expected_of_all_others() -> None:
    spent = Spent(ended=2, running=1, hours=0.0, timed=2, gpu_hours=3.0)
    assert spent.gpu_hours_with_another == 3.0 + 2 * 1.5
    assert replace(spent, timed=0, gpu_hours=0.0).gpu_hours_with_another == 0.0


def test_interrupted_trials_cost_time_and_count_for_nothing_else() -> None:
    trials = [
        TrialRecord(0, "failed", 0, reason=STALE, seconds=1800.0),
        TrialRecord(1, "complete", 1, value=0.1, seconds=3600.0),
        TrialRecord(2, "running", 0, retry_of=0),
        TrialRecord(3, "waiting", 3),
    ]
    assert spent_by(trials, hours=2.0, gpu=0.5) == Spent(ended=1, running=1, hours=2.0, timed=2, gpu_hours=0.75)


def ended(number: int, state: State, reason: str | None = None, session: int = 1) -> TrialRecord:
    """They end in the opposite order of their numbers."""
    at = datetime.fromtimestamp(1000 - number, UTC)
    return TrialRecord(number, state, number, reason=reason, session=session, ended_at=at)


def test_failures_count_in_the_order_in_which_they_ended_within_one_session() -> None:
    trials = [
        ended(0, "failed", "a"),
        ended(1, "failed", "b"),
        ended(2, "complete"),
        ended(3, "failed", "c", session=2),
    ]
    assert failures_in_a_row(trials, session=1, limit=2) == "2 trials failed in a row (1 × b; 1 × a)"
    assert failures_in_a_row(trials, session=1, limit=3) is None
    assert failures_in_a_row(trials, session=2, limit=1) == "1 trials failed in a row (1 × c)"


def test_an_interrupted_trial_is_no_failure() -> None:
    trials = [ended(0, "failed", STALE), ended(1, "failed", "a")]
    assert failures_in_a_row(trials, session=1, limit=2) is None


def test_limits_follow_their_file_and_a_damaged_one_changes_nothing(tmp_path: Path) -> None:
    folder = CampaignFolder(tmp_path)
    current = CurrentLimits(folder, Limits(trials=5))
    assert current.read() == Limits(trials=5)
    for changed in (Limits(trials=9, hours=2.0), Limits(trials=3)):
        write_atomically(folder.limits, dump_yaml(changed))
        assert current.read() == changed
    for damage in ("trials: 0\n", "trials: [", "trails: 7\n"):
        write_atomically(folder.limits, damage)
        assert current.read() == Limits(trials=3)


def test_imported_trials_use_nothing_up() -> None:
    trials = [TrialRecord(0, "complete", 0, seconds=3600.0), TrialRecord(1, "imported", 1, imported_from="x")]
    assert spent_by(trials, hours=1.0, gpu=1.0) == Spent(ended=1, running=0, hours=1.0, timed=1, gpu_hours=1.0)

import pytest

from benchmarks.samplers import against_seconds, against_trials, best_so_far, best_within, over_random

ROWS = [{"value": value, "seconds": 2.0, "asking": 0.5} for value in (0.2, 0.1, 0.4)]
WORSE = [{"value": value, "seconds": 4.0, "asking": 1.5} for value in (0.2, 0.2, 0.3)]


def test_the_best_so_far_never_falls() -> None:
    assert best_so_far(ROWS) == [0.2, 0.2, 0.4]


@pytest.mark.parametrize(("seconds", "best"), [(0.0, 0.2), (3.9, 0.2), (6.0, 0.4), (99.0, 0.4)])
def test_a_trial_counts_when_it_has_ended(seconds: float, best: float) -> None:
    assert best_within(ROWS, seconds) == best


def test_tables_give_means_and_standard_deviations_over_seeds() -> None:
    runs = {"tpe": [ROWS, ROWS], "random": [ROWS, WORSE]}
    assert against_trials(runs, 3) == [
        {"sampler": "tpe", "after 1": "20.00 ± 0.00", "after 3": "40.00 ± 0.00"},
        {"sampler": "random", "after 1": "20.00 ± 0.00", "after 3": "35.00 ± 7.07"},
    ]
    assert against_seconds(runs)[1] == {
        "sampler": "random", "after 2 s": "20.00 ± 0.00", "after 3 s": "20.00 ± 0.00", "after 4 s": "20.00 ± 0.00",
        "after 6 s": "30.00 ± 14.14", "s to propose": 1.0,
    }  # fmt: skip
    assert over_random(runs) == [{"sampler": "tpe", "over random": "5.00 ± 7.07", "better in": "1 of 2"}]
    assert over_random({"tpe": [ROWS]}) == []

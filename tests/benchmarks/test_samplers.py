import pytest

from benchmarks.results import Row
from benchmarks.samplers import against_seconds, against_trials, best_within, over_random, search
from core.campaign.campaign import Campaign, Pruner
from core.config import TrainConfig
from core.features.store import Features
from core.sections import parse

ROWS = [{"value": value, "epochs": 2, "seconds": 2.0, "asking": 0.5} for value in (0.2, 0.1, 0.4)]
WORSE = [{"value": value, "epochs": 2, "seconds": 4.0, "asking": 1.5} for value in (0.2, 0.2, 0.3)]


@pytest.mark.parametrize(("seconds", "best"), [(0.0, 0.2), (3.9, 0.2), (6.0, 0.4), (99.0, 0.4)])
def test_a_trial_counts_when_it_has_ended(seconds: float, best: float) -> None:
    assert best_within(ROWS, seconds, "seconds") == best


def test_a_pruned_trial_takes_time_and_finds_nothing() -> None:
    pruned: Row = {"value": None, "epochs": 1, "seconds": 1.0, "asking": 0.5}
    rows = [ROWS[0], pruned, ROWS[2]]
    assert [best_within(rows, epochs, "epochs") for epochs in (2, 4, 5)] == [0.2, 0.2, 0.4]


def test_pruning_starts_more_trials_in_the_same_epochs(planted_features: Features, small_config: TrainConfig) -> None:
    """A real search, in which the baseline is complete and most others are not."""
    campaign = parse(
        Campaign,
        {
            "name": "a",
            "train": small_config.model_dump(mode="json"),
            "space": {"optimizer.learning_rate": {"log": [1e-5, 1e-2]}},
            "pruner": {"bootstrap": 1},
        },
        where="test",
    )
    plain = search(campaign.model_copy(update={"pruner": Pruner(kind="none")}), planted_features, trials=4)
    pruned = search(campaign, planted_features, trials=4)
    assert [row["epochs"] for row in plain] == [4] * 4
    assert len(pruned) > 4
    assert sum(row["epochs"] for row in pruned) >= 16
    assert [row["value"] is None for row in pruned] == [row["epochs"] < 4 for row in pruned]
    assert pruned[0]["value"] == plain[0]["value"]


def test_tables_give_means_and_standard_deviations_over_seeds() -> None:
    runs = {"tpe": [ROWS, ROWS], "random": [ROWS, WORSE]}
    assert against_trials(runs, 3) == [
        {"sampler": "tpe", "trials": "3", "after 1": "20.00 ± 0.00", "after 3": "40.00 ± 0.00"},
        {"sampler": "random", "trials": "3", "after 1": "20.00 ± 0.00", "after 3": "35.00 ± 7.07"},
    ]
    assert against_seconds(runs)[1] == {
        "sampler": "random", "after 2 s": "20.00 ± 0.00", "after 3 s": "20.00 ± 0.00", "after 4 s": "20.00 ± 0.00",
        "after 6 s": "30.00 ± 14.14", "s to propose": 1.0,
    }  # fmt: skip
    assert over_random(runs, 3) == [{"sampler": "tpe", "over random": "5.00 ± 7.07", "better in": "1 of 2"}]
    assert over_random({"tpe": [ROWS]}, 3) == []

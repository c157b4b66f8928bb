"""Campaigns on a surrogate behave like campaigns; which strategy is better is never tested."""

import math
from dataclasses import replace
from functools import partial

import optuna
import pytest

from benchmarks.campaign import draw
from benchmarks.results import Row
from benchmarks.simulated import STRATEGIES, Strategy, Surrogate, asha, judge_epochs, simulate
from core.campaign.campaign import Campaign
from core.sections import parse

EPOCHS = 4
SPACE = {
    "optimizer.learning_rate": {"log": [1e-4, 1e-2]},
    "loss.itm": {"log": [0.1, 10.0], "off": True},
    "recipe.stage1_epochs": {"int": [0, 2]},
    "recipe.stage2_lr_scale": {"log": [0.05, 1.0], "when": {"recipe.stage1_epochs": {"min": 1}}},
}


def measured(parameters: dict[str, object]) -> Row:
    """Recall is best at a rate of 1e-3, and without matching it is lower."""
    distance = abs(math.log10(float(str(parameters["optimizer.learning_rate"]))) + 3)
    end = 0.6 - 0.2 * distance - (0.0 if parameters["loss.itm.on"] else 0.1)
    return {"parameters": parameters, "curve": [end * (epoch + 1) / EPOCHS for epoch in range(EPOCHS)]}


class Counting(optuna.samplers.RandomSampler):  # type: ignore[misc]
    """Random draws that are counted in `made`."""

    def __init__(self, made: list["Counting"], seed: int) -> None:
        super().__init__(seed=seed)
        self.asked: list[int] = []
        made.append(self)

    def before_trial(self, study: optuna.Study, trial: optuna.trial.FrozenTrial) -> None:
        self.asked.append(trial.number)


@pytest.fixture(scope="module")
def surrogate() -> Surrogate:
    content = {"name": "small", "train": {"recipe": {"epochs": EPOCHS}}, "space": SPACE}
    campaign = parse(Campaign, content, where="test")
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    return Surrogate(campaign, [measured(dict(parameters)) for parameters in draw(campaign, 60)])


def test_it_predicts_the_curve_of_a_configuration_that_it_has_not_seen(surrogate: Surrogate) -> None:
    for parameters in draw(surrogate.campaign, 70)[60:]:
        assert surrogate.curve(parameters) == pytest.approx(measured(dict(parameters))["curve"], abs=0.03)


def test_the_noise_of_a_configuration_is_always_the_same(surrogate: Surrogate) -> None:
    one, other = (row["parameters"] for row in surrogate.rows[:2])
    assert surrogate.drawn_curve(one) == surrogate.drawn_curve(dict(one))
    added = [surrogate.drawn_curve(each)[0] - surrogate.curve(each)[0] for each in (one, other)]
    assert added[0] != added[1]


def test_only_epochs_of_the_joint_stage_count(surrogate: Surrogate) -> None:
    assert surrogate.value([0.9, 0.8, 0.1, 0.2], {"recipe.stage1_epochs": 2}) == 0.2


def test_every_strategy_trains_the_epochs_that_it_may(surrogate: Surrogate) -> None:
    for name, strategy in STRATEGIES.items():
        if name != "gp":  # slow
            standing = simulate(surrogate, strategy, 0, 9 * EPOCHS)
            assert len(standing) == 9 * EPOCHS
            assert standing[-1] > 0.2


def test_pruning_starts_more_trials_in_the_same_epochs(surrogate: Surrogate) -> None:
    drawn: list[Counting] = []

    def counted(strategy: Strategy) -> int:
        drawn.clear()
        simulate(surrogate, strategy, 0, 20 * EPOCHS)
        return len(drawn[0].asked)

    random = partial(Counting, drawn)
    assert counted(Strategy(random)) == 20
    assert counted(Strategy(random, asha(1, 3))) > 25


def test_an_epoch_is_worth_what_it_tells_of_the_value(surrogate: Surrogate) -> None:
    """Here every epoch ranks alike, but for one of which the worse configurations have more."""
    assert [row["rank correlation"] for row in judge_epochs(surrogate)] == pytest.approx([1.0] * EPOCHS)
    misled = [{**row, "curve": [row["curve"][0], 1 - row["curve"][1], *row["curve"][2:]]} for row in surrogate.rows]
    single = [{**row, "parameters": {**row["parameters"], "recipe.stage1_epochs": 2}} for row in misled]
    first, second, *_ = judge_epochs(replace(surrogate, rows=single))
    assert (first["best tenth kept"], second["best tenth kept"]) == (1.0, 0.0)
    assert second["rank correlation"] == pytest.approx(-1.0)

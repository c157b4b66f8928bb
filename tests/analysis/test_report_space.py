from pathlib import Path
from typing import Any

import pytest
import yaml

from analysis.leaderboard import rank
from analysis.report_space import NextSpace, propose_space
from core.campaign.campaign import Campaign, load_campaign
from core.config import TrainConfig
from core.sections import dump_yaml, parse
from tests.analysis.report_tables import trials

SPACE: dict[str, Any] = {
    "optimizer.learning_rate": {"log": [1e-4, 1e-2]},
    "model.dropout": {"uniform": [0.0, 0.2]},
    "recipe.stage1_epochs": {"int": [0, 7]},
    "loss.itm": {"log": [0.1, 10.0], "off": True},
    "model.fusion": {"choice": ["concat", "interaction"]},
}


@pytest.fixture
def campaign(tmp_path: Path) -> Campaign:
    train = TrainConfig().with_overrides({"model.dropout": 0.1})
    return parse(Campaign, {"name": "c", "train": train.model_dump(mode="json"), "space": SPACE}, where="test")


def proposed(campaign: Campaign, **values: list[float]) -> NextSpace:
    """From complete trials, the best first, that drew these values of settings; `__` in a name is a dot."""
    count = len(next(iter(values.values())))
    drawn = ({f"param:{key.replace('__', '.')}": of[number] for key, of in values.items()} for number in range(count))
    table = trials(*({"value": 0.9 - number / 100, **row} for number, row in enumerate(drawn)))
    return propose_space(campaign, rank(table))


def test_a_setting_whose_best_trials_lie_at_a_bound_is_stuck(campaign: Campaign) -> None:
    found = proposed(campaign, optimizer__learning_rate=[9.9e-3, 2e-4, 9e-3, 1e-3])
    (stuck,) = found.stuck
    assert (stuck.key, stuck.side, stuck.bound, stuck.trials, stuck.looked_at) == (
        "optimizer.learning_rate", "upper", 1e-2, 2, 3,
    )  # fmt: skip
    assert stuck.proposed == pytest.approx(0.1)  # half of two decades further
    assert found.space.root["optimizer.learning_rate"] == {"log": [1e-4, 0.1]}


@pytest.mark.parametrize(
    "rates",
    [[1e-3, 9.9e-3, 9.9e-3], [9.9e-3, 1e-3, 1e-3], [9.9e-3, 9.9e-3]],
    ids=["the best is inside", "the others are inside", "too few trials"],
)
def test_one_trial_at_a_bound_says_nothing(campaign: Campaign, rates: list[float]) -> None:
    found = proposed(campaign, optimizer__learning_rate=rates)
    assert not found.stuck
    assert found.space.root == campaign.space.root


def test_a_bound_beyond_which_no_configuration_is_valid_stays(campaign: Campaign) -> None:
    found = proposed(campaign, model__dropout=[0.0, 0.01, 0.0], recipe__stage1_epochs=[7, 7, 7])
    assert {stuck.key: stuck.proposed for stuck in found.stuck} == {
        "model.dropout": None,
        "recipe.stage1_epochs": 8,  # of 8 epochs; 7 + 4 would be too many
    }
    assert found.space.root["model.dropout"] == SPACE["model.dropout"]


def test_a_trial_that_switched_a_setting_off_is_at_no_bound(campaign: Campaign) -> None:
    assert not proposed(campaign, loss__itm=[float("nan"), 0.1, 0.1]).stuck


def test_the_next_space_is_one_of_a_campaign_file(campaign: Campaign, tmp_path: Path) -> None:
    found = proposed(campaign, optimizer__learning_rate=[1e-4, 1.1e-4, 1e-4], loss__itm=[9.9, 9.9, 9.9])
    assert found.is_wider
    (tmp_path / "train.yaml").write_text(dump_yaml(campaign.train))
    path = tmp_path / "next.yaml"
    path.write_text("name: next\ntrain: train.yaml\n" + found.as_yaml())
    assert load_campaign(path).space.root == found.space.root
    assert yaml.safe_load(found.as_yaml())["space"]["loss.itm"] == {"log": [0.1, 100.0], "off": True}

from pathlib import Path
from typing import Any

import pytest
import yaml

from core.config import dump_yaml
from core.errors import UserError
from search.config import changed_keys, load_campaign


def write(folder: Path, **changes: Any) -> Path:
    (folder / "train.yaml").write_text("recipe: {epochs: 3}\n")
    content = {"name": "mine", "train": "train.yaml", "space": {"loss.itm": {"log": [0.1, 10.0]}}, **changes}
    path = folder / "campaign.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


def test_a_campaign_reads_its_baseline_from_the_named_file(tmp_path: Path) -> None:
    assert load_campaign(write(tmp_path)).base.recipe.epochs == 3


def test_what_is_resolved_stands_alone_and_reads_back_equal(tmp_path: Path) -> None:
    campaign = load_campaign(write(tmp_path))
    resolved = tmp_path / "elsewhere.yaml"
    resolved.write_text(dump_yaml(campaign))
    (tmp_path / "train.yaml").unlink()
    assert load_campaign(resolved) == campaign
    assert changed_keys(load_campaign(resolved), campaign) == []


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"objective": "loss_itc"}, "objective: a loss cannot be the objective"),
        ({"objective": "accuracy"}, "objective: the objective must be one of recall_mean"),
        ({"name": "../evil"}, "name: a name is made of letters"),
        ({"limts": {"trials": 3}}, "limts is not a setting; did you mean limits?"),
        ({"limits": {"trial": 3}}, "limits.trial is not a setting; did you mean limits.trials?"),
        ({"limits": {"trials": 0}}, "limits.trials: Input should be greater than or equal to 1"),
        ({"limits": {"gpu_hours": 5}}, "limits.gpu_hours limits nothing, since resources.gpu is 0"),
        ({"train": "nowhere.yaml"}, "nowhere.yaml: there is no such file"),
        ({"space": {"loss.itm": {"log": [1.0, 0.1]}}}, "the lower bound 1.0 is not below the upper bound 0.1"),
        ({"space": {"loss.itm": {"log": [0.0, 0.1]}}}, "must be above 0"),
        ({"space": {"loss.itm": {"normal": [0.0, 0.1]}}}, "needs exactly one of log, uniform, int and choice"),
        ({"space": {"loss.itm": {"log": [0.1, 1.0], "of": True}}}, "of is not a setting; did you mean off?"),
        ({"space": {"loss.itmm": {"log": [0.1, 1.0]}}}, "did you mean loss.itm?"),
        ({"space": {"model.fusion": {"choice": ["concat"]}}}, "at least 2 items"),
        (
            {
                "space": {
                    "loss.box": {"log": [0.01, 1.0], "when": {"loss.itm": {"min": 1}}},
                    "loss.itm": {"log": [0.1, 10.0], "when": {"loss.box": {"min": 0.1}}},
                }
            },
            "depend on each other",
        ),
    ],
)
def test_a_mistake_is_one_line_that_names_file_and_key(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    path = write(tmp_path, **changes)
    with pytest.raises(UserError) as caught:
        load_campaign(path)
    assert message in str(caught.value)
    assert str(tmp_path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_changes_are_named_and_limits_do_not_count(tmp_path: Path) -> None:
    before = load_campaign(write(tmp_path))
    after = load_campaign(write(tmp_path, limits={"trials": 7}, sampler={"seed": 3}, objective="t2i_r1"))
    assert changed_keys(before, after) == ["objective", "sampler.seed"]


def test_limits_given_on_the_command_line_win(tmp_path: Path) -> None:
    campaign = load_campaign(write(tmp_path, limits={"trials": 7, "hours": 2.0})).with_limits(trials=9, hours=None)
    assert (campaign.limits.trials, campaign.limits.hours) == (9, 2.0)


def test_off_and_on_are_words_not_booleans(tmp_path: Path) -> None:
    path = write(tmp_path)
    path.write_text("name: mine\ntrain: train.yaml\nspace:\n  loss.itm: {log: [0.1, 10.0], off: true}\n")
    assert load_campaign(path).space.dimensions["loss.itm"].contains(0)


@pytest.mark.parametrize("path", sorted(Path("configs/campaigns").glob("*.yaml")))
def test_the_shipped_campaigns_are_valid_and_search_what_matters(path: Path) -> None:
    searched = set(load_campaign(path).space.dimensions)
    assert searched >= {
        "optimizer.learning_rate", "optimizer.weight_decay", "loss.itm", "loss.box", "loss.spatial",
        "model.adapter_width", "model.dropout", "features.text_pooling", "features.image_pooling", "model.fusion",
        "recipe.stage1_epochs", "recipe.stage2_lr_scale",
    }  # fmt: skip

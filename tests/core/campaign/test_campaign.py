import shutil
from pathlib import Path
from typing import Any

import optuna
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from core.campaign.campaign import (
    Campaign,
    Limits,
    changed_keys,
    load_campaign,
    read_campaign,
    read_started,
    settings_hash,
)
from core.config import TrainConfig
from core.errors import UserError
from core.files.folders import CampaignFolder
from core.files.yaml_files import dump_plain
from core.sections import dotted_keys, dump_yaml


def write(folder: Path, **changes: Any) -> Path:
    (folder / "train.yaml").write_text("recipe: {epochs: 3}\n")
    content = {"name": "mine", "train": "train.yaml", "space": {"loss.itm": {"log": [0.1, 10.0]}}, **changes}
    path = folder / "campaign.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


def test_a_campaign_reads_its_baseline_from_the_named_file(tmp_path: Path) -> None:
    assert load_campaign(write(tmp_path)).base.recipe.epochs == 3


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"objectives": ["recall_mean", {"box_iou": "max"}, {"trainable_parameters": "min"}]},
        {"constraints": {"box_iou": {"at_least": "baseline - 0.01"}, "trainable_parameters": {"at_most": 1e6}}},
    ],
)
def test_what_is_resolved_stands_alone_and_reads_back_equal(tmp_path: Path, changes: dict[str, object]) -> None:
    campaign = load_campaign(write(tmp_path, **changes))
    resolved = tmp_path / "elsewhere.yaml"
    resolved.write_text(dump_yaml(campaign))
    (tmp_path / "train.yaml").unlink()
    assert load_campaign(resolved) == campaign
    assert changed_keys(load_campaign(resolved), campaign) == []


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"objective": "loss_itc"}, "objective: a loss cannot be the objective"),
        ({"objective": "accuracy"}, "objective: must be one of recall_mean"),
        ({"objectives": [{"box_iou": "max"}]}, "the first of objectives must be the name of a metric"),
        ({"objectives": ["recall_mean", {"loss_itc": "min"}]}, "loss_itc is not a figure of a trial"),
        ({"objectives": ["box_iou"]}, "objective: must be one of recall_mean"),
        ({"objectives": ["recall_mean", {"recall_mean": "min"}]}, "objectives name a figure twice"),
        ({"objectives": ["recall_mean"], "objective": "t2i_r1"}, "give either objective or objectives"),
        ({"constraints": {"box_iuo": {"at_least": 0.1}}}, "box_iuo cannot be constrained"),
        ({"constraints": {"box_iou": {"at_leats": 0.1}}}, "constraints.box_iou.at_leats is not a setting"),
        ({"name": "../evil"}, "name: must consist of at most 100 letters"),
        ({"limts": {"trials": 3}}, "limts is not a setting; did you mean limits?"),
        ({"limits": {"trial": 3}}, "limits.trial is not a setting; did you mean limits.trials?"),
        ({"limits": {"trials": 0}}, "limits.trials: Input should be greater than or equal to 1"),
        ({"limits": {"gpu_hours": 5}}, "limits.gpu_hours has no effect, since resources.gpu is 0"),
        ({"warm_start": "other"}, "warm_start: must be a list"),
        ({"warm_start": [3]}, "warm_start.0: must be the name of a file or folder"),
        ({"warm_start": ["~nosuchuser/x"]}, "warm_start.0: must be a path whose ~ refers to a user of this machine"),
        (
            {"sampler": {"kind": "cmaes"}, "objectives": ["recall_mean", {"trainable_parameters": "min"}]},
            "sampler.kind cmaes takes a single objective",
        ),
        ({"train": {"data": {"train_on": "all"}}}, "no building would be left to score trials by"),
        ({"train": "nowhere.yaml"}, "nowhere.yaml: there is no such file"),
        ({"space": {"loss.itm": {"log": [1.0, 0.1]}}}, "the lower bound 1.0 is not below the upper bound 0.1"),
        ({"space": {"loss.itm": {"log": [0.0, 0.1]}}}, "must be above 0"),
        ({"space": {"loss.itm": {"normal": [0.0, 0.1]}}}, "needs exactly one of log, uniform, int and choice"),
        ({"space": {"loss.itm": {"log": [0.1, 1.0], "of": True}}}, "of is not a setting; did you mean off?"),
        ({"space": {"loss.itmm": {"log": [0.1, 1.0]}}}, "did you mean loss.itm?"),
        ({"space": {"model.fusion": {"choice": ["concat"]}}}, "a choice of one value needs a when"),
        ({"space": {}}, "space: is empty; add a setting"),
        ({"space": None}, "space: must be a mapping of settings, not null"),
        ({"space": [1]}, "space: must be a mapping of settings, not a list"),
        ({"trials": 3}, "trials is not a setting; did you mean limits.trials?"),
        ({"kind": "tpe"}, "kind is not a setting; did you mean sampler.kind or pruner.kind?"),
        ({"sampler.seed": 3}, "sampler.seed is written as one key, but seed belongs in sampler"),
        ({"limits": {"trials": 10**30}}, "limits.trials: Input should be less than or equal to 1000000"),
        ({"limits": {"hours": 1e300}}, "limits.hours: Input should be less than or equal to 100000"),
        ({"limits": {"hours": "1:30"}}, "limits.hours: must be a number like 10"),
        ({"sampler": {"seed": 2**64}}, "sampler.seed: Input should be less than 4294967296"),
        ({"resources": {"cpu": 0}}, "resources.cpu: Input should be greater than or equal to 0.01"),
        ({"resources": {"gpu": 1.5}}, "resources.gpu: must be a share of one GPU (0.01 to 1) or a whole number of"),
        ({"resources": {"gpu": 1e-9}}, "resources.gpu: must be a share of one GPU"),
        ({"pruner": {"min_epochs": 4}}, "pruner.min_epochs 4 is more than recipe.epochs 3, so no trial is pruned"),
        ({"trial_timeout_s": 0}, "trial_timeout_s: Input should be greater than or equal to 1"),
        ({"wandb": {"project": "a/b"}}, "wandb.project: must be a name of 1 to 100 characters without"),
        ({"wandb": {"project": ""}}, "wandb.project: must be a name of 1 to 100 characters"),
        (
            {"study": {"url_variable": "postgresql://user:secret@host/db"}},
            "must be the name of an environment variable",
        ),
        ({"storage": "~nosuchuser/x"}, "storage: must be a path whose ~ refers to a user of this machine"),
        ({"name": ".."}, "name: must consist of at most 100 letters"),
        ({"name": "a" * 101}, "name: must consist of at most 100 letters"),
        ({"name": 2024}, "name: must be a string, in quotes if it looks like a number, not 2024"),
        ({"train": "."}, "is a folder, not a YAML file"),
        ({"train": "campaign.yaml"}, "campaign.yaml: is a campaign, not a training configuration"),
        ({"train": "train.yaml/x"}, "cannot be read (Not a directory)"),
        ({"train": 3}, "train: must be the name of a file, or a mapping of settings, not 3"),
        ({"train": [3]}, "train: must be the name of a file, or a mapping of settings"),
        ({"train": None}, "train: must be the name of a file, or a mapping of settings, not null"),
        ({"train": ""}, "train: must be the name of a file or folder (./ is"),
        ({"train": "~nosuchuser/x"}, "train: must be a path whose ~ refers to a user of this machine"),
        ({"train": {"loss": {"itmm": 1}}}, "train.loss.itmm is not a setting; did you mean train.loss.itm?"),
        ({"train": {"seed": 2**64}}, "train.seed: Input should be less than 4294967296"),
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


def test_no_password_is_repeated(tmp_path: Path) -> None:
    path = write(tmp_path, study={"url_variable": "postgresql://user:secret@host/db"})
    with pytest.raises(UserError) as caught:
        load_campaign(path)
    assert "secret" not in str(caught.value)


def test_a_baseline_without_dots_in_its_exponents_is_found_in_a_choice_of_rates(tmp_path: Path) -> None:
    path = write(tmp_path)
    path.write_text("name: a\ntrain: train.yaml\nspace: {optimizer.learning_rate: {choice: [1e-3, 1e-4]}}\n")
    assert load_campaign(path).space.dimensions["optimizer.learning_rate"].contains(1e-4)


def test_ranges_may_share_what_an_anchor_holds(tmp_path: Path) -> None:
    path = write(tmp_path)
    path.write_text("name: a\ntrain: train.yaml\nspace: {loss.itm: &r {log: [0.1, 9]}, loss.box: {<<: *r, off: yes}}\n")
    assert load_campaign(path).space.dimensions["loss.box"].contains(0)


def test_a_baseline_of_another_folder_keeps_its_own_relative_paths(tmp_path: Path) -> None:
    (tmp_path / "else").mkdir()
    path = write(tmp_path, train="else/../else/train.yaml")
    (tmp_path / "else" / "train.yaml").write_text("data: {train_annotations: a.json}")
    assert load_campaign(path).base.data.train_annotations == tmp_path / "else" / "a.json"


SCALARS = (
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(exclude_categories=["Cs"]))
    | st.sampled_from(["~x", "$x", "..", "/", "train.yaml", "concat", "recall_mean"])
)  # fmt: skip
WORDS = st.sampled_from(
    ["log", "uniform", "int", "choice", "when", "off", "in", "min", "max", "loss", "itm", *dotted_keys(TrainConfig)]
)
ANYTHING = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORDS, inner, max_size=3),
)
RANGES = st.dictionaries(
    st.sampled_from(["log", "uniform", "int", "choice", "when", "off"]),
    st.lists(SCALARS, max_size=3) | st.dictionaries(WORDS, st.dictionaries(WORDS, SCALARS, max_size=2)) | SCALARS,
    min_size=1,
    max_size=2,
)
PLACES = st.sampled_from([key for key in dotted_keys(Campaign) if not key.startswith("train.")] + ["train", "x.y"])


@given(st.dictionaries(PLACES, ANYTHING, max_size=2), st.dictionaries(WORDS, RANGES, max_size=3))
def test_any_value_anywhere_is_a_campaign_or_one_line(
    tmp_path_factory: pytest.TempPathFactory, values: dict[str, Any], space: dict[str, Any]
) -> None:
    folder = tmp_path_factory.getbasetemp()
    path = write(folder)
    content = {"name": "mine", "train": "train.yaml", "space": space}
    for key, value in values.items():
        section, _, name = key.partition(".")
        content[section] = {name: value} if name else value
    path.write_text(dump_plain(content))
    line = f"{path}: "
    try:
        campaign = load_campaign(path)
        study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
        campaign.base.with_overrides(campaign.space.suggest(study.ask(), campaign.base))
    except UserError as error:
        line = str(error)
    assert line.startswith(f"{path}: ")
    assert len(line.splitlines()) == 1


def test_changes_are_named_and_limits_do_not_count(tmp_path: Path) -> None:
    before = load_campaign(write(tmp_path))
    after = load_campaign(write(tmp_path, limits={"trials": 7}, sampler={"seed": 3}, objective="t2i_r1"))
    assert changed_keys(before, after) == ["objective", "sampler.seed"]


@pytest.mark.parametrize("path", sorted(Path("configs/campaigns").glob("*.yaml")))
def test_the_hash_of_its_settings_does_not_depend_on_the_location_of_the_checkout(path: Path, tmp_path: Path) -> None:
    shutil.copytree("configs", tmp_path / "configs")
    here, there = load_campaign(path), load_campaign(tmp_path / path)
    assert here.train != there.train
    assert settings_hash(here) == settings_hash(there)


def test_the_hash_of_its_settings_covers_all_but_limits_and_places(tmp_path: Path) -> None:
    before = settings_hash(load_campaign(write(tmp_path)))
    for same in ({"limits": {"trials": 7}}, {"storage": "./elsewhere"}, {"warm_start": ["../other"]}):
        assert settings_hash(load_campaign(write(tmp_path, **same))) == before
    for other in ({"sampler": {"seed": 3}}, {"objective": "t2i_r1"}, {"resources": {"cpu": 2}}):
        assert settings_hash(load_campaign(write(tmp_path, **other))) != before


def test_how_the_final_model_is_evaluated_is_no_setting_of_the_trials(tmp_path: Path) -> None:
    started = load_campaign(write(tmp_path))
    path = write(tmp_path)
    (tmp_path / "train.yaml").write_text("recipe: {epochs: 3}\nevaluation: {rerank_weight: 1.0}\n")
    assert settings_hash(load_campaign(path)) == settings_hash(started)


def test_a_campaign_contains_only_what_differs_from_its_base(tmp_path: Path) -> None:
    (tmp_path / "whole").mkdir()
    space = {"loss.itm": {"log": [0.1, 10.0]}, "model.dropout": {"uniform": [0.0, 0.5]}}
    write(tmp_path / "whole", limits={"trials": 7, "hours": 2.0}, sampler={"seed": 3}, space=space)
    path = tmp_path / "campaign.yaml"
    path.write_text(
        "base: whole/campaign.yaml\nname: other\nlimits: {trials: 9}\ntrain: {loss: {itm: 0.5}}\n"
        "space: {loss.itm: {choice: [0.5, 2.0]}}\n"
    )
    campaign, base = load_campaign(path), load_campaign(tmp_path / "whole" / "campaign.yaml")
    assert (campaign.name, campaign.limits.trials, campaign.limits.hours) == ("other", 9, 2.0)
    assert campaign.sampler == base.sampler
    assert campaign.train == base.train.with_overrides({"loss.itm": 0.5})
    assert campaign.space.root == {**space, "loss.itm": {"choice": [0.5, 2.0]}}


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
        "model.adapter_width", "model.dropout", "features.text", "features.image", "model.fusion",
        "recipe.stage1_epochs", "recipe.stage2_lr_scale",
    }  # fmt: skip


def test_the_campaign_of_a_folder_is_the_resolved_one(finished_campaign: CampaignFolder) -> None:
    campaign = read_campaign(finished_campaign)
    assert (campaign.name, campaign.objective, campaign.limits.trials) == ("small", "recall_mean", 5)
    assert campaign.train.recipe.epochs == 3
    assert campaign == load_campaign(finished_campaign.campaign)


@pytest.mark.parametrize("content", ["", "[]", "3", "name: small", "name: [a]\nobjective: recall_mean", "a: {b: "])
def test_a_damaged_file_is_one_line_that_names_it(tmp_path: Path, content: str) -> None:
    (tmp_path / "campaign.yaml").write_text(content)
    with pytest.raises(UserError, match=r"campaign\.yaml") as refused:
        read_campaign(CampaignFolder(tmp_path))
    assert len(str(refused.value).splitlines()) == 1


def test_a_file_of_a_version_with_other_settings_is_one_line_that_names_the_setting(
    finished_campaign: CampaignFolder, tmp_path: Path
) -> None:
    folder = CampaignFolder(tmp_path)
    folder.campaign.write_text(finished_campaign.campaign.read_text() + "patience: 3\n")
    with pytest.raises(UserError, match=r"campaign\.yaml: patience is not a setting") as refused:
        read_campaign(folder)
    assert len(str(refused.value).splitlines()) == 1


def test_a_folder_without_a_campaign_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="holds no campaign"):
        read_campaign(CampaignFolder(tmp_path))


def test_other_campaigns_are_named_relative_to_the_file(tmp_path: Path) -> None:
    assert load_campaign(write(tmp_path, warm_start=["../a", "b"])).warm_start == [
        tmp_path.parent / "a",
        tmp_path / "b",
    ]
    assert load_campaign(write(tmp_path)).warm_start == []


def test_limits_are_shown_in_words() -> None:
    assert str(Limits(trials=1_000_000)) == "1000000 trials"
    assert str(Limits(trials=5, hours=0.5, gpu_hours=20)) == "5 trials, 0.5 hours, 20 GPU-hours"


def test_the_campaign_of_a_folder_has_its_current_limits(finished_campaign: CampaignFolder, tmp_path: Path) -> None:
    folder = CampaignFolder(tmp_path)
    shutil.copy(finished_campaign.campaign, folder.campaign)
    folder.limits.write_text("trials: 8\nhours: 1.5\n")
    assert read_campaign(folder).limits == Limits(trials=8, hours=1.5)
    assert read_started(folder).limits == Limits(trials=5)
    folder.limits.write_text("trails: 8\n")
    with pytest.raises(UserError, match=r"limits\.yaml: trails is not a setting; did you mean trials?"):
        read_campaign(folder)

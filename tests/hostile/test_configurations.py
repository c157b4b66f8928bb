"""Training configurations and campaigns of which one thing is broken."""

from pathlib import Path

import pytest
import yaml

from core.config import TrainConfig
from tests.commands import CommandLine
from tests.conftest import CAMPAIGN, write_campaign
from tests.hostile.refusal import Change, assert_refused, write_config


def setting(section: str, **values: object) -> Change:
    return lambda content: content[section].update(values)


SETTINGS: dict[str, tuple[Change, str]] = {
    "a misspelt setting": (setting("loss", itmm=1), "loss.itmm is not a setting; did you mean loss.itm?"),
    "a misspelt section": (lambda c: c.update(optimiser={}), "optimiser is not a setting; did you mean optimizer?"),
    "a setting of another section": (setting("model", learning_rate=1), "model.learning_rate is not a setting"),
    "a section that is a list": (lambda c: c.update(model=[1]), "model"),
    "a section that is text": (lambda c: c.update(model="big"), "model"),
    "a section of nothing": (lambda c: c.update(recipe=None), "recipe"),
    "a number that is text": (setting("optimizer", learning_rate="fast"), "optimizer.learning_rate"),
    "a number that is NaN": (setting("optimizer", learning_rate=float("nan")), "optimizer.learning_rate"),
    "a number that is infinite": (setting("loss", box=float("inf")), "loss.box"),
    "a number that is true": (setting("loss", box=True), "loss.box"),
    "a number that is a list": (setting("loss", box=[1]), "loss.box"),
    "a negative weight": (setting("loss", itc=-1), "loss.itc"),
    "a fraction of an epoch": (setting("recipe", epochs=2.5), "recipe.epochs"),
    "no epochs": (setting("recipe", epochs=0), "recipe.epochs"),
    "a huge width": (setting("model", adapter_width=10**12), "model.adapter_width"),
    "an unknown choice": (setting("model", fusion="sum"), "model.fusion"),
    "an unknown device": (lambda c: c.update(device="tpu"), "device"),
    "a negative seed": (lambda c: c.update(seed=-1), "seed"),
    "a seed of 40 digits": (lambda c: c.update(seed=10**40), "seed"),
    "an unknown reading": (setting("features", image="tower.median"), "'tower.median' is no reading of images"),
    "a reading given twice": (setting("features", image="tower.cls+tower.cls"), "tower.cls is given twice"),
    "a layer of the projector": (setting("features", image="projector.mean@3"), "projector has no layers"),
    "an empty prompt": (setting("features", image_prompt=""), "features.image_prompt"),
    "more stage-1 epochs than epochs": (setting("recipe", stage1_epochs=9), "stage1_epochs 9 is more than epochs 2"),
    "nothing that trains retrieval": (setting("loss", itc=0, itm=0), "itc and itm are both 0"),
    "a path that is a number": (setting("data", train_annotations=3), "data.train_annotations"),
    "annotations that are a folder": (setting("data", train_annotations="/"), "/: "),
    "images that are a file": (
        lambda c: c["data"].update(image_root=c["data"]["train_annotations"]), "there is no such folder of images",
    ),
    "test data that are training data": (
        lambda c: c["data"].update(test_annotations=c["data"]["train_annotations"]), "holds the training annotations",
    ),
    "a backbone that is not there": (setting("features", backbone="./gone"), "gone"),
    "a backbone that is a file": (
        lambda c: c["features"].update(backbone=c["data"]["train_annotations"]), "train.json",
    ),
    "a store that is a file": (
        lambda c: c["features"].update(store=c["data"]["train_annotations"]), "is a file, not a folder",
    ),
    "too few buildings": (setting("data", validation_fraction=1.5), "data.validation_fraction"),
}  # fmt: skip


@pytest.mark.parametrize(("change", "expected"), SETTINGS.values(), ids=SETTINGS.keys())
def test_a_broken_setting(
    crossmodal: CommandLine, demo_config: TrainConfig, tmp_path: Path, change: Change, expected: str
) -> None:
    config = write_config(tmp_path, demo_config, change)
    assert_refused(crossmodal, tmp_path, expected, "train", "--config", config, "--output-dir", tmp_path / "run")


FILES: dict[str, tuple[bytes, str]] = {
    "a list": (b"- model\n", "train.yaml: "),
    "text": (b"hello\n", "train.yaml: "),
    "a tab": (b"model:\n\tdropout: 0.1\n", "train.yaml: "),
    "an open bracket": (b"model: {dropout: 0.1\n", "train.yaml: "),
    "a key given twice": (b"seed: 1\nseed: 2\n", "train.yaml: "),
    "an alias bomb": (b"a: &a [x, x]\nb: &b [*a, *a]\nc: [*b, *b]\n", "train.yaml: "),
    "a Python object": (b"model: !!python/object/apply:os.system ['true']\n", "train.yaml: "),
    "two documents": (b"seed: 1\n---\nseed: 2\n", "train.yaml: "),
    "bytes that are no text": (b"\xff\xfe\x00", "train.yaml: "),
    "a base that is not there": (b"base: gone.yaml\n", "gone.yaml"),
    "a base that is itself": (b"base: train.yaml\n", "train.yaml"),
    "a base that is a list": (b"base: [a, b]\n", "base"),
    "a campaign": (b"train: a.yaml\nspace: {}\n", "is a campaign, not a training configuration"),
    "JSON of annotations": (b'[{"image": "a.jpeg"}]', "train.yaml: "),
}


@pytest.mark.parametrize(("written", "expected"), FILES.values(), ids=FILES.keys())
def test_a_broken_configuration_file(crossmodal: CommandLine, tmp_path: Path, written: bytes, expected: str) -> None:
    config = tmp_path / "train.yaml"
    config.write_bytes(written)
    assert_refused(crossmodal, tmp_path, expected, "train", "--config", config, "--output-dir", tmp_path / "run")


def space(key: str, dimension: object) -> Change:
    return lambda content: content["space"].update({key: dimension})


def top(**values: object) -> Change:
    return lambda content: content.update(values)


CAMPAIGNS: dict[str, tuple[Change, str]] = {
    "no name": (lambda c: c.pop("name"), "name"),
    "a name that is a path": (top(name="../x"), "name"),
    "an empty name": (top(name=""), "name"),
    "no training configuration": (lambda c: c.pop("train"), "train"),
    "a training configuration that is not there": (top(train="gone.yaml"), "gone.yaml"),
    "an unknown limit": (top(limits={"trails": 5}), "limits.trails is not a setting; did you mean limits.trials?"),
    "no trials": (top(limits={"trials": 0}), "limits.trials"),
    "negative hours": (top(limits={"trials": 5, "hours": -1}), "limits.hours"),
    "an empty space": (top(space={}), "space"),
    "a space that is a list": (top(space=["loss.itm"]), "space"),
    "an unknown setting": (space("loss.itmm", {"log": [0.1, 1]}), "loss.itmm is not a setting; did you mean loss.itm?"),
    "a section as a setting": (space("loss", {"log": [0.1, 1]}), "loss"),
    "a dimension that is a number": (space("loss.itc", 3), "loss.itc"),
    "an unknown kind of dimension": (space("loss.itc", {"lg": [0.1, 1]}), "loss.itc"),
    "bounds in the wrong order": (space("loss.itc", {"log": [1, 0.1]}), "loss.itc"),
    "one bound": (space("loss.itc", {"log": [1]}), "loss.itc"),
    "equal bounds": (space("loss.itc", {"log": [1, 1]}), "loss.itc"),
    "a logarithm of 0": (space("loss.itc", {"log": [0, 1]}), "loss.itc"),
    "a bound that is NaN": (space("loss.itc", {"log": [float("nan"), 1]}), "loss.itc"),
    "bounds that the setting refuses": (space("model.dropout", {"uniform": [0, 2]}), "model.dropout"),
    "a choice of nothing": (space("model.fusion", {"choice": []}), "model.fusion"),
    "a choice that the setting refuses": (space("model.fusion", {"choice": ["sum"]}), "model.fusion"),
    "equal choices": (space("model.fusion", {"choice": ["concat", "concat"]}), "model.fusion"),
    "a condition on what is not searched": (
        space("loss.itc", {"log": [0.1, 1], "when": {"model.fusion": {"is": "concat"}}}), "loss.itc",
    ),
    "a condition on itself": (space("loss.itc", {"log": [0.1, 1], "when": {"loss.itc": {"min": 1}}}), "loss.itc"),
    "whole numbers between fractions": (space("recipe.stage1_epochs", {"int": [0.5, 2]}), "recipe.stage1_epochs"),
    "a combination that cannot be": (space("recipe.stage1_epochs", {"int": [0, 99]}), "stage1_epochs"),
    "an unknown sampler": (top(sampler={"kind": "annealing"}), "sampler.kind"),
    "an unknown pruner": (top(pruner={"kind": "median"}), "pruner.kind"),
    "an unknown objective": (top(objectives=["recall_mean", {"speed": "max"}]), "speed"),
    "a constraint on nothing": (top(constraints={"speed": {"at_least": 1}}), "speed"),
    "a constraint without a bound": (top(constraints={"box_iou": {}}), "box_iou"),
    "a constraint that is no formula": (top(constraints={"box_iou": {"at_least": "baseline - x"}}), "box_iou"),
    "no processors": (top(resources={"cpu": 0}), "resources.cpu"),
    "a negative GPU": (top(resources={"cpu": 1, "gpu": -1}), "resources.gpu"),
    "a study nowhere": (top(study="redis://nowhere"), "study"),
    "an unknown W&B mode": (top(wandb={"mode": "loud"}), "wandb.mode"),
    "a start from what is not there": (top(warm_start=["./gone"]), "gone"),
    "a training configuration itself": (
        lambda c: (c.clear(), c.update(seed=1, model={})), "is a training configuration, not a campaign",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("change", "expected"), CAMPAIGNS.values(), ids=CAMPAIGNS.keys())
def test_a_broken_campaign(crossmodal: CommandLine, demo: Path, tmp_path: Path, change: Change, expected: str) -> None:
    content = yaml.safe_load(CAMPAIGN.replace(" off:", " 'off':"))  # YAML reads off as false
    change(content)
    campaign = write_campaign(tmp_path, demo, yaml.safe_dump(content))
    assert_refused(crossmodal, tmp_path, expected, "search", campaign, "--output-dir", tmp_path / "small")

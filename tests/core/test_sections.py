"""Tests of core.sections: a file and its base. What single mistakes say is in test_config."""

from pathlib import Path

import pytest

from core.config import TrainConfig, load_config
from core.errors import UserError


def write_all(folder: Path, files: dict[str, str]) -> Path:
    """Files by their names; gives the first."""
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return folder / next(iter(files))


def test_a_file_says_only_what_differs_from_its_base(tmp_path: Path) -> None:
    files = {
        "a/run.yaml": "base: ../b/middle.yaml\nloss: {itm: 0.25}\ndata: {image_root: ./here}",
        "b/middle.yaml": "base: ../c/root.yaml\nloss: {itm: 0.5, box: 0.5}\nfeatures: {backbone: ./tiny}\nseed: 2",
        "c/root.yaml": "loss: {box: 0.75, giou: 0.75}\ndata: {train_annotations: train.json}\nseed: 1\ndevice: cpu",
    }
    config = load_config(write_all(tmp_path, files))
    assert (config.loss.itm, config.loss.box, config.loss.giou) == (0.25, 0.5, 0.75)
    assert (config.seed, config.device, config.optimizer) == (2, "cpu", TrainConfig().optimizer)
    assert config.data.image_root == tmp_path / "a" / "here"
    assert config.features.backbone == str(tmp_path / "b" / "tiny")
    assert config.data.train_annotations == tmp_path / "c" / "train.json"


def test_a_setting_of_the_base_can_be_taken_back(tmp_path: Path) -> None:
    base = "data: {test_annotations: test.json}"
    path = write_all(tmp_path, {"run.yaml": "base: root.yaml\ndata: {test_annotations: null}", "root.yaml": base})
    assert load_config(path).data.test_annotations is None


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"run.yaml": "base: root.yaml\nloss: {itmm: 1}", "root.yaml": ""}, "run.yaml: loss.itmm is not a setting"),
        ({"run.yaml": "base: root.yaml", "root.yaml": "loss: {itmm: 1}"}, "root.yaml: loss.itmm is not a setting"),
        ({"run.yaml": "base: root.yaml", "root.yaml": "name: a\ntrain: b\nspace: {}"}, "root.yaml: is a campaign"),
        (
            {"run.yaml": "base: root.yaml\nrecipe: {epochs: 2}", "root.yaml": "recipe: {stage1_epochs: 3}"},
            "run.yaml: recipe: stage1_epochs 3 is more than epochs 2",
        ),
        ({"run.yaml": "base: gone.yaml"}, "gone.yaml: there is no such file"),
        ({"run.yaml": "base: 3"}, "run.yaml: base: must be the name of a file, not 3"),
        ({"run.yaml": "base: [a.yaml]"}, "run.yaml: base: must be the name of a file, not a list"),
        ({"run.yaml": "base: ''"}, "run.yaml: base: must be the name of a file or folder (./ is"),
        ({"run.yaml": "base: run.yaml"}, "run.yaml: base: run.yaml leads back to this file; name another file"),
        (
            {"run.yaml": "base: b.yaml", "b.yaml": "base: c.yaml", "c.yaml": "base: ./run.yaml"},
            "c.yaml: base: ./run.yaml leads back to this file",
        ),
        ({"run.yaml": "base: root.yaml\nloss: 3", "root.yaml": ""}, "run.yaml: loss: must be a mapping of settings"),
    ],
)
def test_a_mistake_names_the_file_that_holds_it(tmp_path: Path, files: dict[str, str], message: str) -> None:
    path = write_all(tmp_path, files)
    with pytest.raises(UserError) as caught:
        load_config(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)

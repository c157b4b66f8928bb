import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from core.campaign.campaign import load_campaign
from core.config import load_config
from core.errors import UserError
from core.files.folders import CampaignFolder
from search.init import Data, inspect_data, write_configs
from tests.commands import CommandLine, run

HUB_ID = "owner/internvl"
BOXES = ("loss.box", "loss.giou", "loss.spatial")


def write_data(folder: Path, entries: list[dict[str, Any]]) -> Path:
    """A data set in GeoText's format, with an image for each entry."""
    (folder / "images").mkdir(parents=True)
    for entry in entries:
        Image.new("RGB", (8, 8)).save(folder / "images" / entry["image"])
    (folder / "train.json").write_text(json.dumps(entries))
    return folder


def captioned(number: int, caption: str) -> dict[str, Any]:
    return {"image_id": f"{number}", "image": f"{number}.png", "caption": caption}


def written(out: Path, folder: Path, *, backbone: str = HUB_ID, gpu: bool = False) -> Data:
    data = inspect_data(folder)
    write_configs(out, folder, data, backbone=backbone, gpu=gpu)
    return data


def test_captions_alone_get_neither_losses_nor_settings_of_boxes(tmp_path: Path) -> None:
    folder = write_data(tmp_path / "data", [captioned(number, f"picture {number}") for number in range(60)])
    data = written(tmp_path / "out", folder)
    assert (data.regions, data.has_groups, data.positives, data.test) == (0, False, "image", None)
    config = load_config(tmp_path / "out" / "train.yaml")
    assert (config.loss.box, config.loss.spatial, config.data.test_annotations) == (0, 0, None)
    assert config.optimizer.batch_size < data.training_images == 54
    assert config.features.backbone == HUB_ID
    campaign = load_campaign(tmp_path / "out" / "campaign.yaml")
    assert not set(BOXES) & set(campaign.space.dimensions)
    assert campaign.constraints.root == {}


def test_captions_of_many_images_count_as_matches(tmp_path: Path) -> None:
    folder = write_data(tmp_path / "data", [captioned(number, f"picture {number % 9}") for number in range(12)])
    data = written(tmp_path / "out", folder)
    assert (data.repeated, data.captions) == (6, 12)
    assert load_config(tmp_path / "out" / "train.yaml").loss.positives == "text"


def test_drawn_data_have_everything(demo: Path, tmp_path: Path) -> None:
    data = written(tmp_path / "out", demo, backbone=str(demo / "tiny-internvl"), gpu=True)
    assert (data.groups, data.images, data.test) == (12, 36, "test.json")
    config = load_config(tmp_path / "out" / "train.yaml")
    assert config.data.image_root == demo / "images"
    assert config.features.backbone == str(demo / "tiny-internvl")
    assert (config.features.image_size, config.features.store) == (112, tmp_path / "out" / "features")
    campaign = load_campaign(tmp_path / "out" / "campaign.yaml")
    assert set(BOXES) < set(campaign.space.dimensions)
    assert campaign.resources.gpu == 0.25
    for line in (tmp_path / "out" / "train.yaml").read_text().splitlines():
        assert len(line) <= 120


def test_one_box_an_image_has_no_relation_to_learn(tmp_path: Path) -> None:
    boxed = {"sentences": ["a dome"], "bboxes": [[0.1, 0.1, 0.5, 0.5]]}
    folder = write_data(tmp_path / "data", [captioned(number, f"picture {number}") | boxed for number in range(8)])
    data = written(tmp_path / "out", folder)
    assert (data.regions, data.related) == (8, 0)
    assert load_config(tmp_path / "out" / "train.yaml").loss.spatial == 0
    assert "loss.spatial" not in load_campaign(tmp_path / "out" / "campaign.yaml").space.dimensions


@pytest.mark.parametrize("name", ["2024", "no", "Ünï #1: a", "-", "with space"])
def test_any_name_of_a_folder_is_fit_for_both_files(tmp_path: Path, name: str) -> None:
    folder = write_data(tmp_path / name, [captioned(number, f"picture {number}") for number in range(4)])
    written(tmp_path / name / "out", folder)
    assert load_config(tmp_path / name / "out" / "train.yaml").data.image_root == folder / "images"
    load_campaign(tmp_path / name / "out" / "campaign.yaml")


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    folder = write_data(tmp_path / "data", [captioned(number, "a") for number in range(4)])
    written(tmp_path / "out", folder)
    mine = (tmp_path / "out" / "train.yaml").read_text() + "seed: 1\n"
    (tmp_path / "out" / "train.yaml").write_text(mine)
    with pytest.raises(UserError, match=r"holds train\.yaml already"):
        written(tmp_path / "out", folder)
    assert (tmp_path / "out" / "train.yaml").read_text() == mine
    (tmp_path / "theirs").mkdir()
    (tmp_path / "theirs" / "campaign.yaml").write_text("theirs")
    with pytest.raises(UserError, match="which crossmodal did not write"):
        written(tmp_path / "theirs", folder)
    assert not (tmp_path / "theirs" / "train.yaml").exists()


def test_mistakes_are_one_line(crossmodal: CommandLine, tmp_path: Path) -> None:
    empty = crossmodal("init", tmp_path / "out", "--data", tmp_path)
    assert (empty.code, empty.err.count("\n")) == (2, 1)
    assert "holds no train.json" in empty.err
    folder = write_data(tmp_path / "data", [captioned(number, "a") for number in range(4)])
    gone = crossmodal("init", tmp_path / "out", "--data", folder, "--backbone", "./gone")
    assert (gone.code, gone.err.count("\n")) == (2, 1)
    assert "gone: there is no such folder" in gone.err
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_a_campaign_runs_from_the_files(demo: Path, tmp_path: Path) -> None:
    told = run("init", "mine", "--data", demo, "--backbone", demo / "tiny-internvl", cwd=tmp_path)
    assert told.code == 0, told.err
    assert told.out.splitlines()[-1] == "  crossmodal search mine/campaign.yaml"
    searched = run("search", "mine/campaign.yaml", "--trials", 1, "--output-dir", "found", cwd=tmp_path)
    assert searched.code == 0, searched.err
    assert len(CampaignFolder(tmp_path / "found").trials()) == 1

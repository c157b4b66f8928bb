import json
import shutil
from pathlib import Path

import pytest

from core.files.json_files import read_json
from tests.commands import CommandLine


def test_synthetic_data_is_drawn_checked_and_marked_as_synthetic(crossmodal: CommandLine, tmp_path: Path) -> None:
    drawn = crossmodal("data", "synth", tmp_path / "d", "--buildings", 3, "--images-per-building", 2, "--seed", 1)
    assert drawn.code == 0
    assert "synthetic" in drawn.out
    checked = crossmodal("data", "check", tmp_path / "d")
    assert checked.code == 0
    assert "rejected" in checked.out
    assert (tmp_path / "d" / "tiny-internvl" / "model.safetensors").exists()


def test_check_counts_what_is_wrong_and_fails(crossmodal: CommandLine, demo: Path, tmp_path: Path) -> None:
    records = read_json(demo / "train.json")
    records[3]["image"] = "train/0000/gone.jpeg"
    (tmp_path / "train.json").write_text(json.dumps(records))
    outcome = crossmodal("data", "check", tmp_path / "train.json", "--image-root", demo / "images")
    assert outcome.code == 2
    assert "gone.jpeg" in outcome.out
    assert "1 entries were rejected" in outcome.err


def test_a_check_is_readable_in_forty_columns(
    crossmodal: CommandLine, demo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("core.terminal.console.console.width", 40)
    records = [{**record, "image_id": None} for record in read_json(demo / "train.json")]
    (tmp_path / "train.json").write_text(json.dumps(records))
    outcome = crossmodal("data", "check", tmp_path / "train.json", "--image-root", demo / "images")
    assert outcome.code == 0
    lines = outcome.out.splitlines()
    table = lines[lines.index(str(tmp_path / "train.json")) + 1 :]
    assert all(len(line) <= 40 and "…" not in line for line in table)
    assert any("captions" in line and "108" in line for line in table)
    words = " ".join(word for line in table for word in line.split() if word.isalpha() or word == "image_id")
    assert "absent image_id replaced by the path of the image" in words


def test_a_foreign_folder_in_place_of_the_tiny_backbone_is_kept(crossmodal: CommandLine, tmp_path: Path) -> None:
    drawn = ["data", "synth", tmp_path / "d", "--buildings", 3, "--images-per-building", 2]
    assert crossmodal(*drawn).code == 0
    shutil.rmtree(tmp_path / "d" / "tiny-internvl")
    for name in ("tiny-internvl", ".tiny-internvl.partial"):
        (tmp_path / "d" / name).mkdir()
        (tmp_path / "d" / name / "thesis.tex").write_text("mine")
    outcome = crossmodal(*drawn)
    assert outcome.code == 2
    assert "tiny-internvl: is no checkpoint of ours" in outcome.err
    shutil.rmtree(tmp_path / "d" / "tiny-internvl")
    assert crossmodal(*drawn).code == 0
    assert (tmp_path / "d" / ".tiny-internvl.partial" / "thesis.tex").read_text() == "mine"


def test_splits_that_share_buildings_and_images_are_refused(
    crossmodal: CommandLine, demo: Path, tmp_path: Path
) -> None:
    records = read_json(demo / "train.json")
    (tmp_path / "train.json").write_text(json.dumps(records))
    (tmp_path / "test.json").write_text(json.dumps(records[:3] + read_json(demo / "test.json")))
    (tmp_path / "more.json").write_text(json.dumps(records))
    arguments = ["data", "check", tmp_path, tmp_path / "train.json", "--image-root", demo / "images"]
    outcome = crossmodal(*arguments)
    assert outcome.code == 2
    assert outcome.out.count("distinct captions") == 3  # the training file, named twice, is checked once
    for line in (
        "buildings of test that are in train, too: 1 (0000)",
        "images of test that are in train, too: 1 (",
        "not compared with others, since the name does not say train, val or test: more.json",
        "only 12 buildings: one in 10 is held out for validation",
    ):
        assert line in outcome.out
    assert outcome.err.strip() == (
        "error: buildings shared by train and test: 1, images shared by train and test: 1; fix or remove them"
    )


def test_the_demo_has_no_overlap_and_a_contact_sheet(crossmodal: CommandLine, demo: Path, tmp_path: Path) -> None:
    sheet = tmp_path / "sheet.html"
    outcome = crossmodal("data", "check", demo, "--sheet", sheet)
    assert outcome.code == 0, outcome.err
    assert f"contact sheet: {sheet}" in outcome.out
    assert sheet.read_text().count("data:image/jpeg") == 48
    sheet.write_text("mine")
    refused = crossmodal("data", "check", demo, "--sheet", sheet)
    assert (refused.code, "distinct captions" in refused.out, sheet.read_text()) == (2, False, "mine")

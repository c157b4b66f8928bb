import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from core.files.json_files import read_json
from tests.commands import CommandLine
from tests.core.formats.sources import draw, jpeg, write
from tests.core.formats.test_archives import tar
from tests.core.formats.test_arrow import row, saved
from tests.core.formats.test_entities import entities_folder
from tests.core.formats.test_geotext import IMAGES, published


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


def test_import_says_what_it_does_counts_what_it_left_out_and_names_the_next_command(
    crossmodal: CommandLine, tmp_path: Path
) -> None:
    draw(tmp_path / "in", "a.jpg", "b.jpg")
    rows = [
        "image,caption,x1,y1,x2,y2,split",
        "a.jpg,a roof,0,0,20,20,train",
        "b.jpg,a pool,,,,,test",
        "c.jpg,x,,,,,test",
    ]
    (tmp_path / "in/all.csv").write_text("\n".join(rows))
    outcome = crossmodal("data", "import", tmp_path / "in/all.csv", tmp_path / "out")
    assert outcome.code == 0
    assert "all.csv: a table" in outcome.out
    assert "dropped: image that is missing: 1" in outcome.out
    assert "line 4: image that is missing (c.jpg)" in outcome.out
    assert f"next: crossmodal data check {tmp_path / 'out'}" in outcome.out
    assert crossmodal("data", "check", tmp_path / "out").code == 0
    again = crossmodal("data", "import", tmp_path / "in/all.csv", tmp_path / "out")
    assert (again.code, "is not empty; name another folder" in again.err) == (2, True)


DOCUMENT = (Path(__file__).parents[2] / "docs" / "data.md").read_text()
SECTIONS = {part.partition("\n")[0]: part for part in DOCUMENT.split("\n## ")}
DOCUMENTED = re.findall(r"^(?:\$ )?crossmodal (data import .+)$", DOCUMENT, re.MULTILINE)


def example(title: str) -> str:
    """The first block of code of a section."""
    return str(re.findall(r"```\w*\n(.*?)```", SECTIONS[title], re.DOTALL)[0])


def images_of(source: Path, title: str, images: str) -> None:
    """An example as a file, with the images that it names."""
    write(source, example(title))
    draw(Path(images), *re.findall(r"[\w/-]+\.(?:jpg|tif)", example(title)))


def flickr30k(source: Path) -> None:
    entities_folder(source.parent)
    write(source / "test.txt", "1000092795")
    write(source / "train.txt", "")
    draw(Path("flickr30k-images"), "1000092795.jpg")


def shards(source: Path) -> None:
    source.mkdir()
    tar(source / "test-00000.tar", {"000000000.jpg": jpeg(), "000000000.txt": b"one"})


SOURCES: dict[str, Callable[[Path], object]] = {
    "rsicd/dataset_rsicd.json": lambda source: images_of(source, "Karpathy files", "rsicd/RSICD_images"),
    "dataset_rsicd.json": lambda source: images_of(source, "Karpathy files", "RSICD_images"),
    "dataset_coco.json": lambda source: images_of(source, "Karpathy files", "coco"),
    "captions_train2017.json": lambda source: images_of(source, "COCO captions", "coco/train2017"),
    "rsicd_train.json": lambda source: images_of(source, "JSON lists (X-VLM, PIR)", "rsicd"),
    "all.jsonl": lambda source: images_of(source, "JSON Lines", "."),
    "captions.csv": lambda source: images_of(source, "CSV and TSV", "."),
    "results.csv": lambda source: (
        write(source, "image_name| comment_number| comment\na.jpg| 0| one\nb.jpg| 0| two\n"),
        draw(Path("flickr30k_images"), "a.jpg", "b.jpg"),
    ),
    "GeoText1652_Dataset": lambda source: draw(published(source), *IMAGES),
    "flickr30k_entities": flickr30k,
    "shards": shards,
    "saved": lambda source: (
        saved(source / "test", [row(1, "a.jpg", ["one"])]) and write(source / "dataset_dict.json", {"splits": ["test"]})
    ),
}


@pytest.mark.parametrize("command", DOCUMENTED)
def test_every_import_in_the_docs_runs_on_the_example_of_its_section(
    crossmodal: CommandLine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    monkeypatch.chdir(tmp_path)
    source, out = map(Path, command.split()[2:4])
    build = next(build for name, build in SOURCES.items() if source.as_posix().endswith(name))
    build(source)
    outcome = crossmodal(*command.split())
    assert outcome.code == 0, outcome.err
    assert list(out.glob("*.json"))
    assert "dropped" not in outcome.out


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


def test_a_check_and_an_import_as_json(crossmodal: CommandLine, demo: Path, tmp_path: Path) -> None:
    checked = crossmodal("data", "check", demo, "--json")
    assert checked.code == 0, checked.err
    content = json.loads(checked.out)
    by_split = {file["split"]: file for file in content["files"]}
    assert (by_split["train"]["images"], by_split["train"]["captions"]) == (36, 108)
    assert content["problems"] == []
    draw(tmp_path / "in", "a.jpg", "b.jpg")
    rows = ["image,caption,split", "a.jpg,a roof,train", "b.jpg,a pool,test", "c.jpg,x,test"]
    (tmp_path / "in" / "all.csv").write_text("\n".join(rows))
    imported = json.loads(crossmodal("data", "import", tmp_path / "in" / "all.csv", tmp_path / "out", "--json").out)
    assert imported["splits"]["train"]["captions"] == 1
    assert imported["dropped"] == {"image that is missing": 1}

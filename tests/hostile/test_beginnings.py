"""The commands at the beginning, `init`, `doctor` and `data check`, with broken data and campaign files."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from core.campaign.campaign import load_campaign
from core.errors import UserError
from core.files.folders import CampaignFolder
from search.doctor import Check, check_backbone, check_data, check_study
from tests.commands import CommandLine
from tests.conftest import write_campaign
from tests.hostile.refusal import assert_refused

Damage = Callable[[Path], object]


@pytest.fixture
def data(demo: Path, tmp_path: Path) -> Path:
    """A copy of the small data set, whose pictures are linked."""
    folder = tmp_path / "data"
    folder.mkdir()
    for name in ("train.json", "test.json"):
        shutil.copy(demo / name, folder)
    (folder / "images").symlink_to(demo / "images")
    return folder


def written(name: str, content: bytes) -> Damage:
    return lambda folder: (folder / name).write_bytes(content)


def kept(count: int) -> Damage:
    """The first training entries alone."""

    def damage(folder: Path) -> None:
        entries = json.loads((folder / "train.json").read_text())
        (folder / "train.json").write_text(json.dumps(entries[:count]))

    return damage


def a_folder_for_annotations(folder: Path) -> None:
    (folder / "train.json").unlink()
    (folder / "train.json").mkdir()


INIT: dict[str, tuple[Damage, list[str], str]] = {
    "data that are not there": (
        lambda folder: None, ["--data", "gone"], "gone: holds no train.json; write it by crossmodal data import",
    ),
    "data that are a file": (
        lambda folder: None, ["--data", "data/train.json"],
        "data/train.json: holds no train.json; write it by crossmodal data import",
    ),
    "data without training annotations": (
        lambda folder: (folder / "train.json").unlink(), [],
        "data: holds no train.json; write it by crossmodal data import",
    ),
    "training annotations that are a folder": (
        a_folder_for_annotations, [],
        "data/train.json: is a folder, not a JSON file",
    ),
    "broken training annotations": (written("train.json", b"[{"), [], "data/train.json: is not valid JSON ("),
    "empty training annotations": (
        written("train.json", b"[]"), [], "data/train.json: holds no entry; an empty data set cannot be used",
    ),
    "annotations of another format": (
        written("train.json", b'{"images": [{"filename": "a"}]}'), [],
        "data/train.json: is not a list of entries; this is a Karpathy file: crossmodal data",
    ),
    "data without pictures": (
        lambda folder: (folder / "images").unlink(), [],
        "data/images: there is no such folder of images; set data.image_root or --image-root",
    ),
    "a single building": (
        kept(1), [], "data: 1 buildings cannot be split into train and validation; the first part of an",
    ),
    "a configuration that is there": (
        lambda folder: (folder.parent / "out" / "train.yaml").write_text("mine"), [],
        "out: holds train.yaml, which crossmodal did not write; name another output folder,",
    ),
    "a place that is a file": (
        lambda folder: None, ["--out", "data/test.json"],
        "data/test.json: is a file, not a folder; name another output folder",
    ),
    "a backbone that is not there": (
        lambda folder: None, ["--backbone", "./gone"],
        "./gone: there is no such folder; name a checkpoint, or a hub id like owner/name",
    ),
    "a backbone of nothing": (lambda folder: None, ["--backbone", "empty"], "empty/config.json: there is no such file"),
    "a backbone whose settings are broken": (
        written("../broken/config.json", b"{"), ["--backbone", "broken"], "broken/config.json: is not valid JSON (",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("damage", "options", "expected"), INIT.values(), ids=INIT.keys())
def test_data_that_no_campaign_can_be_written_for(
    crossmodal: CommandLine,
    data: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    damage: Damage,
    options: list[str],
    expected: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("out", "empty", "broken"):
        (tmp_path / name).mkdir()
    damage(data)
    given = dict(zip(options[::2], options[1::2], strict=True))
    out, where = given.pop("--out", "out"), given.pop("--data", "data")
    rest = [part for option in given.items() for part in option]
    assert_refused(crossmodal, tmp_path, expected, "init", out, "--data", where, *rest)


CAMPAIGNS: dict[str, tuple[bytes, str]] = {
    "nothing": (b"", "name: is missing; add it"),
    "a list": (b"- a\n", "must be a mapping of settings, not a list"),
    "bytes": (b"\xff\xfe", "is not UTF-8 text; save it as UTF-8"),
    "half a file": (b"name: small\nspace: {loss.itc: {log: [0.1", "line 2: is not valid YAML ("),
    "an unknown setting": (b"name: small\ntrain: train.yaml\nspase: {}\n", "space: is missing; add it"),
    "no name": (b"train: train.yaml\nspace: {loss.itm: {log: [0.1, 1]}}\n", "name: is missing; add it"),
    "a name that is a path": (
        b"name: ../a\ntrain: train.yaml\nspace: {loss.itm: {log: [0.1, 1]}}\n",
        "name: must consist of at most 100 letters, digits, '.', '_' and '-', and start with",
    ),
    "a configuration that is not there": (
        b"name: a\ntrain: gone.yaml\nspace: {loss.itm: {log: [0.1, 1]}}\n", "there is no such file",
    ),
    "a file that names itself": (
        b"name: a\ntrain: campaign.yaml\nspace: {loss.itm: {log: [0.1, 1]}}\n",
        "is a campaign, not a training configuration; name the file in its train:",
    ),
    "an empty space": (
        b"name: a\ntrain: train.yaml\nspace: {}\n",
        "space: is empty; add a setting and its range, like loss.itm: {log: [0.1, 10]}",
    ),
    "a range upside down": (
        b"name: a\ntrain: train.yaml\nspace: {loss.itm: {log: [1, 0.1]}}\n",
        "space: loss.itm: the lower bound 1.0 is not below the upper bound 0.1",
    ),
    "a limit that is text": (
        b"name: a\ntrain: train.yaml\nlimits: {trials: many}\nspace: {loss.itm: {log: [0.1, 1]}}\n",
        "limits.trials: Input should be a valid integer, not 'many'",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("content", "expected"), CAMPAIGNS.values(), ids=CAMPAIGNS.keys())
def test_a_campaign_that_the_doctor_cannot_read(
    crossmodal: CommandLine, demo: Path, tmp_path: Path, content: bytes, expected: str
) -> None:
    path = write_campaign(tmp_path, demo)
    path.write_bytes(content)
    assert_refused(crossmodal, tmp_path, expected, "doctor", "--campaign", path)


def test_a_doctor_of_two_files(crossmodal: CommandLine, demo: Path, tmp_path: Path) -> None:
    path = write_campaign(tmp_path, demo)
    options = ["--campaign", path, "--config", tmp_path / "train.yaml"]
    assert_refused(crossmodal, tmp_path, "--config and --campaign are both given", "doctor", *options)


VALUES = st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.text(max_size=8) | st.just("/absent/\0")
FIELDS = st.sampled_from(["name", "storage", "study", "resources", "wandb", "limits", "space", "train", "sampler"])


@given(fields=st.dictionaries(FIELDS, st.recursive(VALUES, lambda inner: st.lists(inner, max_size=2), max_leaves=3)))
@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_campaign_gives_checks_or_one_line(demo: Path, tmp_path: Path, fields: dict[str, Any]) -> None:
    path = write_campaign(tmp_path, demo)
    own = {"name": "a", "train": "train.yaml", "space": {"loss.itm": {"log": [0.1, 1]}}}
    path.write_text(json.dumps({**own, **fields}))
    try:
        campaign = load_campaign(path)
    except UserError as error:
        assert str(error).isprintable()  # noqa: PT017
        return
    folder = CampaignFolder(tmp_path / "out")
    checks = [check_data(campaign.base), check_backbone(campaign.base), check_study(campaign, folder)]
    assert all(isinstance(check, Check) and check.found for check in checks)


def broken_picture(folder: Path) -> None:
    (folder / "images").unlink()
    entries = json.loads((folder / "test.json").read_text())
    for entry in entries:
        (folder / "images" / entry["image"]).parent.mkdir(parents=True, exist_ok=True)
        (folder / "images" / entry["image"]).write_bytes(b"mine")


def shared_buildings(folder: Path) -> None:
    shutil.copy(folder / "train.json", folder / "test.json")


CHECKED: dict[str, tuple[Damage, list[str], str]] = {
    "a file that is not there": (
        lambda folder: None, ["data/train.json", "gone.json"],
        "gone.json: holds no annotation file; name a GeoText-format JSON file or its folder",
    ),
    "a folder without annotations": (
        lambda folder: None, ["data", "data/images"],
        "data/images: holds no annotation file; name a GeoText-format JSON file or its folder",
    ),
    "one broken file of two": (written("test.json", b"[{"), ["data"], "data/test.json: is not valid JSON ("),
    "one empty file of two": (
        written("test.json", b"[]"), ["data"], "data/test.json: holds no entry; an empty data set cannot be used",
    ),
    "a file of another format": (
        written("test.json", b'{"images": [{"filename": "a"}]}'), ["data"],
        "data/test.json: is not a list of entries; this is a Karpathy file: crossmodal data",
    ),
    "an entry that is rejected": (
        written("test.json", b'[{"image_id": "1/a", "image": "gone.jpeg", "caption": "a"}]'), ["data"],
        "data: 1 entries were rejected; fix or remove them",
    ),
    "pictures that are text": (
        broken_picture, ["data/test.json"], "data/test.json: 30 entries were rejected; fix or remove them",
    ),
    "a test on the training data": (
        shared_buildings, ["data/train.json", "data/test.json"],
        "buildings shared by train and test: 12, images shared by train and test: 36; fix or",
    ),
    "a page of somebody else": (
        written("mine.html", b"mine"), ["data", "--sheet", "data/mine.html"],
        "data/mine.html: was not written by crossmodal, and is kept; name another file",
    ),
    "a page in a folder that is a file": (
        lambda folder: None, ["data", "--sheet", "data/test.json/a.html"],
        "data/test.json: there is no such folder; create it, or name another file",
    ),
    "images that are not there": (
        lambda folder: None, ["data", "--image-root", "gone"],
        "gone: there is no such folder of images; set data.image_root or --image-root",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("damage", "arguments", "expected"), CHECKED.values(), ids=CHECKED.keys())
def test_data_that_do_not_pass_the_check(
    crossmodal: CommandLine,
    data: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    damage: Damage,
    arguments: list[str],
    expected: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    damage(data)
    assert_refused(crossmodal, tmp_path, expected, "data", "check", *arguments)

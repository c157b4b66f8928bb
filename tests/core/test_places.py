from pathlib import Path

import pytest
from pydantic import BaseModel, ValidationError

from core.places import BackboneName, FilePath


class Places(BaseModel):
    file: FilePath = Path("x")
    backbone: BackboneName = "x"


def places(base: Path, **given: str) -> Places:
    return Places.model_validate(given, context={"base": base})


def test_a_path_starts_from_the_file_that_names_it(tmp_path: Path) -> None:
    assert places(tmp_path, file="a/../b").file == tmp_path / "b"
    assert places(tmp_path, file="/a").file == Path("/a")
    assert places(tmp_path, file="~/a").file == Path("~/a").expanduser()


def test_links_that_go_in_a_circle_are_a_path_like_any_other(tmp_path: Path) -> None:
    (tmp_path / "circle").symlink_to("circle")
    assert places(tmp_path, file="circle/x").file.is_absolute()


@pytest.mark.parametrize("name", ["tiny", "models/tiny", "./tiny", "my models/tiny one", "deep/er/tiny"])
def test_a_backbone_that_is_a_folder_is_that_folder(tmp_path: Path, name: str) -> None:
    (tmp_path / name).mkdir(parents=True)
    assert places(tmp_path, backbone=name).backbone == str(tmp_path / name)


@pytest.mark.parametrize("name", ["gpt2", "OpenGVLab/InternVL3-1B-hf", "a/b.c_d-e"])
def test_a_name_without_a_folder_is_a_hub_id(tmp_path: Path, name: str) -> None:
    (tmp_path / "gpt2").touch()
    assert places(tmp_path, backbone=name).backbone == name


@pytest.mark.parametrize("name", [r"C:\models\tiny", "my model", "a/b/c", "a/", "x" * 97, "https://u:p@host/x", "ü"])
def test_a_name_that_is_neither_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(ValidationError, match="must be a folder relative to this file, or a hub id like owner/name"):
        places(tmp_path, backbone=name)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("", "must be the name of a file or folder"),
        ("  ", "must be the name of a file or folder"),
        ("a\0b", "must be a path in UTF-8, on one line"),
        ("a\nb", "must be a path in UTF-8, on one line"),
        ("$HOME/x", "must be a path without environment variables"),
        ("${DATA}/x", "must be a path without environment variables"),
        ("~nosuchuser/x", "must be a path whose ~ refers to a user of this machine"),
        ("a/" + "x" * 256, "must be a path whose parts have at most 255 bytes"),
    ],
)
@pytest.mark.parametrize("kind", ["file", "backbone"])
def test_what_names_no_place_is_refused(tmp_path: Path, kind: str, name: str, message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        places(tmp_path, **{kind: name})

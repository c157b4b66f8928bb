import json
import tempfile
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.errors import UserError
from core.formats import arrow
from core.formats.grouping import Grouping
from tests.core.formats.sources import draw, import_to, jpeg, read_records, write

IMAGE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
FEATURES = {
    "picture": {"_type": "Image"},
    "caption": {"feature": {"dtype": "string", "_type": "Value"}, "_type": "List"},
    "scene": {"names": ["beach", "meadow"], "_type": "ClassLabel"},
}


def saved(folder: Path, rows: list[dict[str, Any]]) -> Path:
    """A split as `save_to_disk` of datasets writes it."""
    schema = pa.schema(
        [("picture", IMAGE), ("caption", pa.list_(pa.string())), ("scene", pa.int64())],
        metadata={"huggingface": json.dumps({"info": {"features": FEATURES}})},
    )
    folder.mkdir(parents=True)
    name = "data-00000-of-00001.arrow"
    with pa.OSFile(str(folder / name), "wb") as stream, pa.ipc.new_stream(stream, schema) as writer:
        for row in rows:  # a batch each
            writer.write_table(pa.Table.from_pylist([row], schema=schema))
    state = {"_data_files": [{"filename": name}], "_fingerprint": "0", "_format_columns": None, "_split": None}
    write(folder / "state.json", state)
    write(folder / "dataset_info.json", {"features": FEATURES})
    return folder


def row(shade: int, path: str | None, captions: list[str], scene: int = 0) -> dict[str, Any]:
    return {"picture": {"bytes": jpeg(shade), "path": path}, "caption": captions, "scene": scene}


def test_splits_of_a_folder_become_images_as_they_are(tmp_path: Path) -> None:
    saved(
        tmp_path / "set/train", [row(1, "a.jpg", ["one", "two"]), row(2, None, ["three"], 1), row(1, "a.jpg", ["four"])]
    )
    saved(tmp_path / "set/test", [row(3, "b.jpg", ["five"])])
    write(tmp_path / "set/dataset_dict.json", {"splits": ["train", "test"]})
    files, imported = import_to(tmp_path / "set", tmp_path / "out", grouping=Grouping.parse("column:scene"))
    assert [entry["caption"] for entry in files["train"]] == ["one", "two", "three", "four"]
    assert [entry["image_id"].split("/")[0] for entry in files["train"]] == ["beach", "beach", "meadow", "beach"]
    assert imported.splits["train"].images == 2  # equal bytes of one name are one image
    assert (tmp_path / "out/images" / files["test"][0]["image"]).read_bytes() == jpeg(3)
    assert files["train"][2]["image"].endswith(".jpg")


def test_an_image_of_which_only_the_path_is_stored_is_looked_for(tmp_path: Path) -> None:
    path = draw(tmp_path / "images", "a.jpg") / "a.jpg"
    saved(tmp_path / "set", [{"picture": {"bytes": None, "path": str(path)}, "caption": ["x"], "scene": 0}])
    files, _ = import_to(tmp_path / "set", tmp_path / "out", images=tmp_path / "images", test_fraction=0.0)
    assert files["train"] == [{"image_id": "a/a.jpg", "image": "a.jpg", "caption": "x"}]


@pytest.mark.parametrize(
    ("state", "message"),
    [
        ({}, "does not name the Arrow files beside it"),
        ({"_data_files": [{"filename": "../secret.arrow"}]}, "does not name the Arrow files beside it"),
        ({"_data_files": [{"filename": "gone.arrow"}]}, "gone.arrow: is missing"),
        ({"_indices_data_files": [{"filename": "i.arrow"}]}, "keeps the order of its rows in another file"),
    ],
)
def test_a_folder_whose_state_does_not_name_its_files_is_one_line(tmp_path: Path, state: Any, message: str) -> None:
    write(tmp_path / "state.json", state)
    with pytest.raises(UserError, match=message):
        read_records(arrow.read, tmp_path)


def test_a_table_without_captions_is_refused_with_its_columns(tmp_path: Path) -> None:
    table = pa.table({"image": pa.array([None], IMAGE), "label": [1]})
    with pa.OSFile(str(tmp_path / "a.arrow"), "wb") as stream, pa.ipc.new_stream(stream, table.schema) as writer:
        writer.write_table(table)
    write(tmp_path / "state.json", {"_data_files": [{"filename": "a.arrow"}]})
    with pytest.raises(UserError, match="has no column of captions; its columns are label, image"):
        read_records(arrow.read, tmp_path)


@settings(max_examples=30)
@given(st.integers(0, 2000), st.binary(min_size=1, max_size=8))
def test_a_damaged_file_is_records_or_one_line(place: int, damage: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        source = saved(Path(folder) / "set", [row(1, "a.jpg", ["one"])])
        path = source / "data-00000-of-00001.arrow"
        content = bytearray(path.read_bytes())
        start = place % len(content)
        content[start : start + len(damage)] = damage
        path.write_bytes(bytes(content))
        try:
            read_records(arrow.read, source)
        except UserError as error:
            assert str(error).isprintable()  # noqa: PT017

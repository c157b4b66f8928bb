import json
import tempfile
from pathlib import Path
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from core.formats import webdataset
from core.formats.grouping import Grouping
from tests.core.formats.sources import ANYTHING, import_to, jpeg, read_records, survives
from tests.core.formats.test_archives import tar


def test_samples_of_shards_become_images_as_they_are(tmp_path: Path) -> None:
    folder = tmp_path / "shards"
    folder.mkdir()
    about = {"captions": ["two", "three"], "sentences": ["this"], "bboxes": [[20, 10, 40, 20]], "key": "000001"}
    first = {
        "000000.json": b'{"caption": null, "sentences": ["p"], "bboxes": [[0, 0, 40, 20]]}',
        "000000.jpg": jpeg(0),
        "000000.txt": b"one\n",
        "000001.json": json.dumps(about).encode(),
        "000001.jpg": jpeg(1),
    }
    tar(folder / "train-000000.tar", first)
    tar(folder / "test-000000.tar", {"000000.txt": b"four\nfive\n", "000000.jpg": jpeg(2)})
    files, _ = import_to(folder, tmp_path / "out", layout="xyxy")
    assert [entry["caption"] for entry in files["train"]] == ["one", "two", "three"]
    assert files["train"][1]["bboxes"] == [[0.75, 0.75, 0.5, 0.5]]
    (tested,) = files["test"]
    assert (tested["image"], tested["caption"]) == ("test-000000/000000.jpg", ["four", "five"])
    assert (tmp_path / "out/images/test-000000/000000.jpg").read_bytes() == jpeg(2)


def test_a_shard_may_lie_in_a_folder_named_by_its_split_and_groups_by_key(tmp_path: Path) -> None:
    (tmp_path / "set/test").mkdir(parents=True)
    tar(tmp_path / "set/test/00000.tar", {"house/a.jpg": jpeg(), "house/a.txt": b"x"})
    files, _ = import_to(tmp_path / "set", tmp_path / "out", grouping=Grouping.parse("folder:1"))
    assert files["test"][0]["image_id"] == "house/00000/house/a.jpg"


def test_broken_samples_are_counted(tmp_path: Path) -> None:
    files = {"a.txt": b"x", "b.jpg": jpeg(), "c.jpg": jpeg(), "c.txt": b"\xff", "d.jpg": jpeg(), "d.json": b"{"}
    records, findings = read_records(webdataset.read, tar(tmp_path / "a.tar", files))
    assert records == []
    assert findings.dropped == {
        "sample without an image": 1, "record without a caption": 1, "sample whose text cannot be read": 2,
    }  # fmt: skip


def test_a_name_that_leads_out_of_the_folder_is_dropped(tmp_path: Path) -> None:
    source = tar(tmp_path / "a.tar", {"../../x.jpg": jpeg(), "../../x.txt": b"x", "b.jpg": jpeg(), "b.txt": b"y"})
    files, imported = import_to(source, tmp_path / "out", test_fraction=0.0)
    assert [entry["image"] for entry in files["train"]] == ["a/b.jpg"]
    assert imported.findings.dropped == {"image outside the folders of images": 1}


@settings(max_examples=40)
@given(
    st.dictionaries(
        st.sampled_from(["a.jpg", "a.txt", "a.json", "b/a.png", ".jpg", "c", "/d.jpg"]), st.binary(max_size=9)
    ),
    ANYTHING,
)
def test_any_tar_is_a_data_set_or_one_line(files: dict[str, bytes], about: Any) -> None:
    with tempfile.TemporaryDirectory() as folder:
        content = tar(Path(folder) / "a.tar", {**files, "e.jpg": jpeg(), "e.json": json.dumps(about).encode()})
        survives("a.tar", content.read_bytes())

import json
import os
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.data.annotations import AnnotatedImage, check_dataset, read_annotations
from core.data.entries import Entry, parse_entry
from core.errors import UserError


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data") / "images"
    (folder / "0839").mkdir(parents=True)
    (folder / "0839" / "a.png").touch()
    return folder


def record(**changes: Any) -> dict[str, Any]:
    fields = {"image_id": "0839/a.png", "image": "0839/a.png", "caption": "one"}
    return {**fields, "sentences": ["this"], "bboxes": [[0.5, 0.5, 0.2, 0.2]], **changes}


def parse(root: Path, **changes: Any) -> tuple[Entry, Counter[str]]:
    repaired: Counter[str] = Counter()
    return parse_entry(record(**changes), "train.json: entry 7", root, repaired), repaired


def refusal(root: Path, **changes: Any) -> str:
    with pytest.raises(UserError) as caught:
        parse(root, **changes)
    message = str(caught.value)
    assert message.startswith("train.json: entry 7")
    assert message.isprintable()
    assert len(message) < 600
    return message


@pytest.mark.parametrize(
    "box",
    [
        [320, 240, 100, 80],
        [30, 20, 100, 80],
        [0, 0, 640, 480],
        [-5, 20, 100, 80],
        [0.5, 0.5, 2, 3],
        [100, 0.5, 0.2, 0.2],
        [0.5, 240.0, 0.1, 0.1],
        [10**300, 1, 1, 1],
    ],
)
def test_a_box_in_pixels_is_reported_as_such(root: Path, box: list[float]) -> None:
    message = refusal(root, bboxes=[box])
    assert "bboxes[0]: " in message
    assert "looks like pixels; write [cx, cy, w, h] as fractions of width and height" in message


@pytest.mark.parametrize(
    "box", [None, [-100] * 4, [-1, -1, -1, -1], [0, 0, 0, 0], [-1.0, 0.5, -1.0, 0.5], float("nan")]
)
def test_an_absent_box_is_no_repair(root: Path, box: Any) -> None:
    parsed, repaired = parse(root, bboxes=[box])
    assert (parsed.regions, repaired) == ([], {})


@pytest.mark.parametrize(
    ("box", "repair"),
    [
        ([0.95, 0.5, 0.2, 0.2], "box clamped to the image"),
        ([0.5, 0.5, 1.2, 1.5], "box clamped to the image"),
        ([0.5, 0.1, 0.2, 0.2021], "box clamped to the image"),
        ([0.5, 0.5, 0, 0.2], "box without area dropped"),
        ([1.3, 0.5, 0.2, 0.2], "box without area dropped"),
        ([0.5, 0.5, -0.2, 0.2], "box with a negative width or height dropped"),
        ([0, 0.5, 0.2, 0.2], "box with its centre left of the image dropped"),
    ],
)
def test_a_repaired_box_is_counted(root: Path, box: list[float], repair: str) -> None:
    assert parse(root, bboxes=[box])[1] == {repair: 1}


@pytest.mark.parametrize("box", [[0.9, 0.5, 0.2002, 0.2], [0.5, 0.1, 0.2, 0.202], [0.9005, 0.9005, 0.2, 0.2]])
def test_a_box_beyond_the_edge_by_rounding_is_clamped_and_not_counted(root: Path, box: list[float]) -> None:
    parsed, repaired = parse(root, bboxes=[box])
    assert 0 <= min(parsed.regions[0].box) < max(parsed.regions[0].box) <= 1
    assert repaired == {}


NO_NUMBERS: list[Any] = [True, False, None, "0.5", [0.5], {}, float("nan"), float("inf"), 10**400, -(10**400)]


@pytest.mark.parametrize("value", NO_NUMBERS, ids=lambda value: str(value)[:9])
@pytest.mark.parametrize("place", range(4))
def test_what_is_no_finite_number_is_no_coordinate(root: Path, value: Any, place: int) -> None:
    box: list[Any] = [0.5, 0.5, 0.2, 0.2]
    box[place] = value
    assert "bboxes[0]: contains values that are not finite numbers" in refusal(root, bboxes=[box])


def test_an_integer_image_id_is_its_digits(root: Path) -> None:
    assert parse(root, image_id=42)[0].image_id == "42"
    assert parse(root, image_id=-(10**30))[0].image_id == "-1" + 30 * "0"


@pytest.mark.parametrize("image_id", [None, "", " ", float("nan")])
def test_an_absent_image_id_is_the_path_of_the_image_and_counted(root: Path, image_id: Any) -> None:
    parsed, repaired = parse(root, image_id=image_id, image="./0839/a.png")
    assert parsed.image_id == "./0839/a.png"
    assert repaired == {"absent image_id replaced by the path of the image": 1}


@pytest.mark.parametrize("image_id", [True, False, 1.5, float("inf"), [], {}, ["0839/a"]])
def test_another_image_id_is_refused(root: Path, image_id: Any) -> None:
    assert "image_id must be text or an integer, not " in refusal(root, image_id=image_id)


def test_an_empty_caption_of_a_list_is_dropped_and_counted(root: Path) -> None:
    parsed, repaired = parse(root, caption=["one", "", None, " \n", float("nan"), " two "])
    assert (parsed.captions, repaired) == (["one", "two"], {"empty caption dropped": 4})


WRONG = [
    ({"caption": ["", None]}, "has no caption"),
    ({"caption": 5}, "caption must be text, not a number"),
    ({"caption": {"raw": "one"}}, "caption must be text, not an object"),
    ({"caption": ["one", ["two"]]}, "caption must be text, not a list"),
    ({"caption": ["one", True]}, "caption must be text, not a boolean"),
    ({"caption": "half \ud83d of it"}, "caption holds \\ud83d, half of a surrogate pair"),
    ({"caption": ["one", "\udce9"]}, "caption holds \\udce9, half of a surrogate pair"),
    ({"sentences": ["\udfff"]}, "sentences[0] holds \\udfff, half of a surrogate pair"),
    ({"sentences": [5]}, "sentences[0] must be text, not a number"),
    ({"image_id": "\ud800"}, "image_id holds \\ud800, half of a surrogate pair"),
    ({"image": "\ud800.png"}, "image holds \\ud800, half of a surrogate pair"),
    ({"image": 5}, "image must be text, not a number"),
    ({"image": "a\0.png"}, "the image a\\x00.png has a name that no file can have"),
    ({"image": "x" * 300}, "File name too long"),
    ({"image": "x/" * 3000}, "File name too long"),
    ({"image": "0839"}, "the image 0839 is a folder"),
    ({"image": "."}, "the image . is a folder"),
    ({"image": "0839/a.png/b.png"}, "the image 0839/a.png/b.png is missing; paths start from"),
    ({"image": "line\nbreak.png"}, "the image line\\nbreak.png is missing"),
    ({"image": "../images/0839/a.png"}, "is outside "),
    ({"image": "0839/../0839/a.png"}, "is outside "),
    ({"image": "/dev/zero"}, "is outside "),
    ({"image": "//etc/passwd"}, "is outside "),
    ({"sentences": 0}, "must be lists"),
    ({"sentences": {}}, "must be lists"),
    ({"relations": "left"}, "must be lists"),
    ({"relations": [5]}, "relations[0]: '5' is not one of left, right"),
    ({"relations": [["left"] * 1000]}, "is not one of left, right"),
    ({"relations": ["l" * 1000]}, "is not one of left, right"),
]


@pytest.mark.parametrize(("change", "message"), WRONG, ids=range(len(WRONG)))
def test_a_wrong_field_is_one_short_line_that_names_it(root: Path, change: dict[str, Any], message: str) -> None:
    assert message in refusal(root, **change)


def test_an_image_is_named_by_its_path_as_written(root: Path, tmp_path: Path) -> None:
    """Links below the folder may lead elsewhere, and the folder itself may be one."""
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "b.png").touch()
    linked = tmp_path / "images"
    linked.symlink_to(root)
    (root / "link").symlink_to(elsewhere)
    (root / "0839" / "c.png").symlink_to(elsewhere / "b.png")
    for name in ("link/b.png", "0839/c.png", "0839/a.png", str(root / "link/b.png"), str(linked / "0839/a.png")):
        parsed = parse_entry(record(image=name), "record", linked, Counter())
        assert parsed.image.is_relative_to(linked)
        assert parsed.image.is_file()
    with pytest.raises(UserError, match="is outside "):
        parse_entry(record(image=str(elsewhere / "b.png")), "record", linked, Counter())


def test_a_pipe_is_not_waited_for(root: Path) -> None:
    os.mkfifo(root / "pipe.png")
    (root / "device.png").symlink_to("/dev/zero")
    assert "the image pipe.png is not a regular file" in refusal(root, image="pipe.png")
    assert "the image device.png is not a regular file" in refusal(root, image="device.png")


JSON_SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.sampled_from([10**400, -1, 0, 1])
    | st.floats()
    | st.text(st.characters(exclude_categories=()), max_size=8)
    | st.sampled_from(["0839/a.png", "..", "/", "left", "\ud800", "\0", "x" * 300])
)
JSON_VALUES = st.recursive(
    JSON_SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)
COORDINATES = st.one_of(st.floats(-0.2, 1.7), st.floats(), st.integers(-3, 700), st.booleans(), st.none())
BOXES = st.lists(st.lists(COORDINATES, min_size=4, max_size=4) | JSON_VALUES, max_size=3)
FIELDS = st.fixed_dictionaries(
    {},
    optional={
        "image_id": JSON_VALUES,
        "image": st.just("0839/a.png") | JSON_VALUES,
        "caption": st.lists(st.text(max_size=5), max_size=3) | JSON_VALUES,
        "sentences": st.lists(st.text(max_size=5) | JSON_VALUES, max_size=3) | JSON_VALUES,
        "bboxes": BOXES | JSON_VALUES,
        "relations": st.lists(st.sampled_from(["left", "inside", None]), max_size=3) | JSON_VALUES,
    },
)


def read_or_error(path: Path, root: Path) -> list[AnnotatedImage] | UserError:
    try:
        return read_annotations(path, root).images
    except UserError as error:
        return error


@given(st.lists(FIELDS.map(lambda fields: record(**fields)) | JSON_VALUES, max_size=4) | JSON_VALUES)
def test_any_json_gives_entries_or_one_line(root: Path, content: Any) -> None:
    path = root.parent / "train.json"
    path.write_text(json.dumps(content))
    read = read_or_error(path, root)
    if isinstance(read, UserError):
        assert str(read).startswith(str(path))
        assert str(read).isprintable()
        assert len(str(read)) < 1000
        return
    assert check_dataset(path, root).rejected.total() == len(read), "the image is an empty file"
    for each in read:
        assert each.captions
        assert all(text.encode() for text in (*each.captions, *(region.sentence for region in each.regions)))
        for x1, y1, x2, y2 in (region.box for region in each.regions):
            assert 0 <= x1 < x2 <= 1
            assert 0 <= y1 < y2 <= 1


@given(st.lists(FIELDS.map(lambda fields: record(**fields)) | JSON_VALUES, min_size=1, max_size=4))
def test_a_check_of_any_entries_runs_to_the_end(root: Path, content: Any) -> None:
    path = root.parent / "train.json"
    path.write_text(json.dumps(content))
    counts = check_dataset(path, root)
    assert counts.rejected.total() > 0, "the image is an empty file"
    assert all(message.isprintable() for message in counts.messages)

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from core.data.annotations import AnnotatedImage
from core.errors import UserError
from core.features.vector_files import VectorFile
from core.features.vector_import import import_vectors
from core.features.vectors import read_vector_set
from core.readings import Reading

IMAGES = [AnnotatedImage(Path(name), name, name, (f"text {name}",), (), has_picture=False) for name in "abc"]
TEXTS = [f"text {name}" for name in "abc"]
CLIP, TEXT = Reading("images", "vectors", "clip"), Reading("texts", "vectors", "clip")


def images(rows: Any, names: str = "abc", encoder: str = "clip") -> VectorFile:
    return VectorFile(Path("images.npz"), "images", list(names), {encoder: lambda: np.array(rows, dtype=np.float32)})


TEXT_FILE = VectorFile(Path("texts.npz"), "texts", TEXTS, {"clip": lambda: np.eye(3)})


def test_rows_are_found_by_name_whatever_their_order_and_file(tmp_path: Path) -> None:
    files = [images([[3, 3]], "c"), images([[2, 2], [1, 1]], "ba"), TEXT_FILE]
    report = import_vectors(tmp_path / "set", files, IMAGES)
    vectors = read_vector_set(tmp_path / "set")
    assert vectors.rows(CLIP, [Path("a"), Path("c"), Path("b")]).tolist() == [[1, 1], [3, 3], [2, 2]]
    assert vectors.rows(TEXT, ["text b"]).tolist() == [[0, 1, 0]]
    assert [(each.kind, each.name, each.count, each.width) for each in report.readings] == [
        ("images", "clip", 3, 2),
        ("texts", "clip", 3, 3),
    ]
    assert report.notes == {}


def test_equal_repetitions_and_superfluous_names_are_counted(tmp_path: Path) -> None:
    rows = [[1, 1], [1.001, 1], [2, 2], [3, 3], [4, 4], [5, 5]]
    report = import_vectors(
        tmp_path / "set", [images(rows, "aabcde"), images(rows[2:], "abcd", "cnn"), TEXT_FILE], IMAGES
    )
    assert report.notes == {
        "images dropped, since only some encoders have a vector of them": 1,
        "images that the annotations do not name": 1,
        "images whose vector of clip is given again": 1,
    }
    assert read_vector_set(tmp_path / "set").rows(CLIP, [Path("a")]).tolist() == [[1, 1]]


NAN, HUGE = float("nan"), [[1, 1], [2, 2], [1e39, 0]]
WRONG: list[tuple[list[VectorFile], str]] = [
    ([images([[1, 1]], "b")], r"images\.npz: clip: lacks vectors of 2 of 3 images: a, c; it names, for example, b"),
    ([images([[1, 1], [NAN, 2], [3, 3]])], r"1 images have NaN or infinity \(as float32\) in their vectors: b"),
    ([VectorFile(Path("i.npz"), "images", list("abc"), {"clip": lambda: np.array(HUGE)})], r"1 images have NaN or inf"),
    ([images([[1, 1], [2, 2], [3, 3], [1, 2]], "abca")], r"1 images have several different vectors: a; keep one of e"),
    ([images([[1, 1]] * 3)], r"clip: gives all 3 images the same vector"),
    ([images([[1, 1], [2, 2]], "ab"), images([[3, 3, 3]], "c")], r"images\.npz: clip is 3 wide, but 2 in images\.npz"),
    ([TEXT_FILE, VectorFile(Path("t.npz"), "texts", ["x"], {"e5": lambda: np.ones((1, 2))})], r"lacks vectors of 3 of"),
]  # fmt: skip


@pytest.mark.parametrize(("files", "message"), WRONG)
def test_wrong_vectors_are_one_line_and_leave_nothing(files: list[VectorFile], message: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=message):
        import_vectors(tmp_path / "set", files, IMAGES)
    assert not (tmp_path / "set").exists()


def test_a_set_is_replaced_as_a_whole_and_a_failure_leaves_the_old_one(tmp_path: Path) -> None:
    out = tmp_path / "set"
    import_vectors(out, [images([[1, 1], [2, 2], [3, 3]]), TEXT_FILE], IMAGES)
    before = {path.name for path in out.iterdir()}
    with pytest.raises(UserError, match="lacks vectors"):
        import_vectors(out, [images([[9, 9]], "a"), TEXT_FILE], IMAGES)
    assert {path.name for path in out.iterdir()} == before
    assert read_vector_set(out).rows(CLIP, [Path("a")]).tolist() == [[1, 1]]
    import_vectors(out, [images([[7, 7], [2, 2], [3, 3]]), TEXT_FILE], IMAGES)
    assert read_vector_set(out).rows(CLIP, [Path("a")]).tolist() == [[7, 7]]
    assert len(list(out.iterdir())) == len(before)


def test_files_of_others_are_refused_and_kept(tmp_path: Path) -> None:
    (tmp_path / "images.npz").write_text("mine")
    with pytest.raises(UserError, match=r"holds images\.npz, which crossmodal did not write"):
        import_vectors(tmp_path, [images([[1, 1], [2, 2], [3, 3]]), TEXT_FILE], IMAGES)
    assert [path.name for path in tmp_path.iterdir()] == ["images.npz"]

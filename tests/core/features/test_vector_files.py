import io
import json
import zipfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as parquet
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from core.errors import UserError
from core.features.vector_files import read_vector_file


def read_all(path: Path) -> list[Any]:
    """The file's vectors; each has as many rows as there are names."""
    opened = read_vector_file(path)
    tables = [load() for load in opened.load.values()]
    assert all(len(table) == len(opened.names) for table in tables)
    return tables


NAMES = ["a/1.jpg", "./a/2.jpg ", "b.jpg"]
READ = ["a/1.jpg", "a/2.jpg", "b.jpg"]
VECTORS = np.arange(6, dtype=np.float16).reshape(3, 2)


def npz(folder: Path, **content: Any) -> Path:
    np.savez(folder / "images.npz", **content)
    return folder / "images.npz"


def table(folder: Path, **columns: Any) -> Path:
    parquet.write_table(pa.table(columns), folder / "images.parquet")
    return folder / "images.parquet"


def npy(folder: Path, names: str | None, *, suffix: str = ".txt", array: Any = VECTORS) -> Path:
    np.save(folder / "clip.images.npy", array)
    if names is not None:
        (folder / f"clip.images{suffix}").write_text(names)
    return folder / "clip.images.npy"


def as_npz(folder: Path) -> Path:
    return npz(folder, image=np.array(NAMES), clip=VECTORS)


def as_bytes_in_npz(folder: Path) -> Path:
    return npz(folder, image=np.array(NAMES, dtype=bytes), clip=VECTORS.astype(np.float64))


def as_npy_with_lines(folder: Path) -> Path:
    return npy(folder, "\n".join(NAMES) + "\n")


def as_npy_with_json(folder: Path) -> Path:
    return npy(folder, json.dumps(NAMES), suffix=".json")


def as_parquet(folder: Path) -> Path:
    return table(folder, image=NAMES, clip=VECTORS.astype(np.float32).tolist(), number=[1, 2, 3])


def as_fixed_parquet(folder: Path) -> Path:
    values = pa.array(VECTORS.astype(np.float64).ravel())
    return table(folder, image=pa.array(NAMES).dictionary_encode(), clip=pa.FixedSizeListArray.from_arrays(values, 2))


@pytest.mark.parametrize(
    "make", [as_npz, as_bytes_in_npz, as_npy_with_lines, as_npy_with_json, as_parquet, as_fixed_parquet]
)
def test_each_format_gives_the_same_vectors(make: Callable[[Path], Path], tmp_path: Path) -> None:
    opened = read_vector_file(make(tmp_path))
    assert (opened.kind, opened.names) == ("images", READ)
    assert opened.load.keys() == {"clip"}
    assert opened.load["clip"]().tolist() == VECTORS.tolist()
    assert opened.ignored == (("number",) if make is as_parquet else ())


def pickled(folder: Path) -> Path:
    return npz(folder, image=np.array(NAMES, dtype=object), clip=VECTORS)


def pickled_vectors(folder: Path) -> Path:
    return npz(folder, image=np.array(NAMES), clip=np.array([[1], [2], None], dtype=object))


def pickled_npy(folder: Path) -> Path:
    return npy(folder, "\n".join(NAMES), array=np.array([[1.0], [2.0], None], dtype=object))


def cut(folder: Path) -> Path:
    path = as_npz(folder)
    path.write_bytes(path.read_bytes()[:-40])
    return path


def pointer(folder: Path) -> Path:
    (folder / "x.npz").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\n")
    return folder / "x.npz"


def renamed(folder: Path) -> Path:
    return npy(folder, "a\nb\nc").rename(folder / "clip.npy")


def uneven(folder: Path) -> Path:
    return table(folder, image=NAMES, clip=[[1.0, 2.0], [3.0], [4.0, 5.0]])


def absent_row(folder: Path) -> Path:
    return table(folder, image=NAMES, clip=[[1.0, 2.0], None, [4.0, 5.0]])


def absent_number(folder: Path) -> Path:
    return table(folder, image=NAMES, clip=[[1.0, 2.0], [None, 2.0], [4.0, 5.0]])


WRONG: list[tuple[Callable[[Path], Path], str]] = [
    (lambda folder: folder / "absent.npz", "there is no such file"),
    (lambda folder: folder, r"is a folder"),
    (pointer, "is a Git LFS pointer"),
    (cut, r"images\.npz: it cannot be read \(.*zip"),
    (pickled, r"image holds Python objects, which are not loaded; save strings as np\.array"),
    (pickled_vectors, r"clip holds Python objects"),
    (pickled_npy, r"it holds Python objects"),
    (renamed, r"does not say what its vectors are of; name it NAME\.images\.npy"),
    (lambda folder: npy(folder, None), r"clip\.images\.txt: there is no such file of names; write one, or clip"),
    (lambda folder: npy(folder, '{"a": 1}', suffix=".json"), r"clip\.images\.json: is not a list of strings"),
    (lambda folder: npy(folder, "a\nb"), r"clip\.images has 3 vectors of 2 names"),
    (lambda folder: npy(folder, "a\n\nc"), r"row 1 has no name"),
    (lambda folder: npz(folder, clip=VECTORS), r"does not name its rows .*an array or column image"),
    (lambda folder: npz(folder, image=np.array(NAMES), text=np.array(NAMES)), r"names both images and texts"),
    (lambda folder: npz(folder, image=np.array(NAMES)), r"holds no vectors beside the names"),
    (lambda folder: npz(folder, image=np.arange(3), clip=VECTORS), r"image is not a list of strings"),
    (lambda folder: npz(folder, image=np.array([], dtype=str), clip=VECTORS[:0]), r"holds no row"),
    (lambda folder: npz(folder, image=np.array(NAMES), clip=VECTORS[:2]), r"clip has 2 vectors of 3 names"),
    (lambda folder: npz(folder, image=np.array(NAMES), clip=VECTORS[0]), r"clip is 2; write one vector a row"),
    (lambda folder: npz(folder, image=np.array(NAMES), clip=VECTORS[:, :0]), r"clip is 3 × 0"),
    (lambda folder: npz(folder, image=np.array(NAMES), clip=VECTORS > 1), r"clip holds bool, not numbers"),
    (lambda folder: npz(folder, image=np.array(NAMES), clip=VECTORS + 1j), r"clip holds complex64, not numbers"),
    (lambda folder: npz(folder, image=np.array(NAMES), **{"my clip": VECTORS}), r"vectors cannot be named .*my clip"),
    (uneven, r"clip holds vectors of 2 different widths"),
    (absent_row, r"has no clip in 1 of 3 rows"),
    (absent_number, r"clip holds lists with missing numbers"),
    (lambda folder: table(folder, image=[1, 2, 3], clip=VECTORS.tolist()), r"column image does not hold a string"),
    (lambda folder: table(folder, image=["a", None, "c"], clip=VECTORS.tolist()), r"column image does not hold a"),
]  # fmt: skip


@pytest.mark.parametrize(("make", "message"), WRONG)
def test_what_is_wrong_with_a_file_is_one_line(make: Callable[[Path], Path], message: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=message) as caught:
        read_all(make(tmp_path))
    assert "\n" not in str(caught.value)


def archived(members: dict[str, bytes]) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for name, content in members.items():
            archive.writestr(f"{name}.npy", content)
    return stream.getvalue()


def saved(array: Any) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array, allow_pickle=True)
    return stream.getvalue()


ANY_ARRAY = arrays.arrays(
    st.one_of(
        arrays.scalar_dtypes(), arrays.unicode_string_dtypes(), arrays.byte_string_dtypes(), arrays.array_dtypes()
    ),
    arrays.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=3),
)
HEADER = st.text("{}()[]'\",: descrfotan_shapeFalseTrue0123456789<if|OVU-L", max_size=90)
MEMBER = st.one_of(
    ANY_ARRAY.map(saved),
    st.binary(max_size=40),
    HEADER.map(lambda text: b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text.encode()),
)
ARCHIVE = st.dictionaries(st.sampled_from(["image", "text", "clip", "x y"]), MEMBER, max_size=3).map(archived)
FILES = st.one_of(
    st.tuples(st.just("x.npz"), st.one_of(ARCHIVE, st.binary(max_size=60))),
    st.tuples(st.just("clip.texts.npy"), st.one_of(MEMBER, ARCHIVE)),
    st.tuples(st.just("x.parquet"), st.binary(max_size=60).map(lambda middle: b"PAR1" + middle + b"PAR1")),
)


@pytest.mark.filterwarnings("ignore")
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=150)
@given(FILES, st.binary(max_size=8), st.integers(0, 4000))
def test_any_bytes_are_vectors_or_one_line(tmp_path: Path, file: tuple[str, bytes], torn: bytes, where: int) -> None:
    name, content = file
    path = tmp_path / name
    path.write_bytes(content[:where] + torn + content[where + len(torn) :])
    (tmp_path / "clip.texts.txt").write_text("a\nb\nc")
    with suppress(UserError):
        read_all(path)

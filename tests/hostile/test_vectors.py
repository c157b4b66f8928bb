"""Files of vectors, and sets of vectors, of which one thing is broken."""

import json
import os
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as parquet
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from core.config import TrainConfig
from core.errors import UserError
from core.features.vectors import MANIFEST, read_vector_set
from core.files.sealed import write_sealed
from core.readings import parse_readings
from tests.commands import CommandLine
from tests.hostile.refusal import Change, assert_refused, write_config
from tests.vector_files import annotated, encode, imported, without_pictures

Make = Callable[[Path], list[Path]]
"""Makes files of vectors; images.npz and texts.npz, which are intact, lie in the folder already."""
NAMES = np.array(["a", "b"])
TWO = np.eye(2, dtype=np.float32)


def npz(**arrays: Any) -> Make:
    def make(folder: Path) -> list[Path]:
        np.savez(folder / "new.npz", **arrays)
        return [folder / "new.npz"]

    return make


def npy(array: Any, names: str | bytes | None, name: str = "clip.images.npy", beside: str = ".txt") -> Make:
    def make(folder: Path) -> list[Path]:
        np.save(folder / name, array)
        if names is not None:
            content = names if isinstance(names, bytes) else names.encode()
            (folder / name).with_suffix(beside).write_bytes(content)
        return [folder / name]

    return make


def table(**columns: Any) -> Make:
    def make(folder: Path) -> list[Path]:
        parquet.write_table(pa.table(columns), folder / "new.parquet")
        return [folder / "new.parquet"]

    return make


def content(name: str, written: bytes) -> Make:
    def make(folder: Path) -> list[Path]:
        (folder / name).write_bytes(written)
        return [folder / name]

    return make


def half(name: str) -> Make:
    def make(folder: Path) -> list[Path]:
        (folder / name).write_bytes((folder / name).read_bytes()[:-300])
        return [folder / "images.npz", folder / "texts.npz"]

    return make


def altered(name: str, change: Callable[[dict[str, Any]], object]) -> Make:
    """The intact files, of whose arrays one is changed."""

    def make(folder: Path) -> list[Path]:
        with np.load(folder / name) as archive:
            arrays = dict(archive)
        change(arrays)
        np.savez(folder / name, **arrays)
        return [folder / "images.npz", folder / "texts.npz"]

    return make


def a_bomb(array: str) -> Make:
    """The images, in whose archive an array is said to unpack to a terabyte."""

    def make(folder: Path) -> list[Path]:
        path = folder / "images.npz"
        with zipfile.ZipFile(path) as archive:
            members = {name: archive.read(name) for name in archive.namelist()}
        with zipfile.ZipFile(path, "w") as archive:
            for name, written in members.items():
                archive.writestr(name, written)
            archive.getinfo(f"{array}.npy").file_size = 2**40
        return [path, folder / "texts.npz"]

    return make


def as_array(change: Callable[[Path], object], *, objects: bool = False) -> Make:
    """The images' vectors as clip.images.npy beside their names, changed."""

    def make(folder: Path) -> list[Path]:
        with np.load(folder / "images.npz") as archive:
            names, vectors = archive["image"].tolist(), archive["clip"]
        path = folder / "clip.images.npy"
        np.save(path, vectors.astype(object) if objects else vectors)
        path.with_suffix(".txt").write_text("\n".join(names))
        change(path)
        return [path, folder / "texts.npz"]

    return make


def as_table(change: Callable[[list[Any]], object]) -> Make:
    """The images' vectors as a table, of whose rows some are changed."""

    def make(folder: Path) -> list[Path]:
        with np.load(folder / "images.npz") as archive:
            names, vectors = archive["image"].tolist(), archive["clip"].astype(float).tolist()
        change(vectors)
        parquet.write_table(pa.table({"image": names, "clip": vectors}), folder / "new.parquet")
        return [folder / "new.parquet", folder / "texts.npz"]

    return make


def a_link_to_itself(folder: Path) -> list[Path]:
    (folder / "new.npz").symlink_to(folder / "new.npz")
    return [folder / "new.npz"]


def a_link_to_a_folder(folder: Path) -> list[Path]:
    (folder / "new.npz").symlink_to(folder)
    return [folder / "new.npz"]


def a_pipe(folder: Path) -> list[Path]:
    os.mkfifo(folder / "new.npz")
    return [folder / "new.npz"]


def same_vector(arrays: dict[str, Any]) -> None:
    arrays["clip"][:] = 1


def not_finite(arrays: dict[str, Any]) -> None:
    arrays["clip"][3, 2] = np.nan


def too_large(arrays: dict[str, Any]) -> None:
    arrays["clip"] = arrays["clip"].astype(np.float64) * 1e300


def one_fewer(arrays: dict[str, Any]) -> None:
    arrays["clip"] = arrays["clip"][:-1]


def given_twice(arrays: dict[str, Any]) -> None:
    arrays["image"] = np.append(arrays["image"], arrays["image"][0])
    for name in ("cnn", "clip"):
        arrays[name] = np.concatenate([arrays[name], arrays[name][1:2]])


def pickled(arrays: dict[str, Any]) -> None:
    arrays["clip"] = arrays["clip"].astype(object)


FILES: dict[str, tuple[Make, str]] = {
    "a file that is not there": (lambda folder: [folder / "gone.npz"], "?"),
    "a folder": (lambda folder: [folder], "?"),
    "a pipe": (a_pipe, "?"),
    "a link to itself": (a_link_to_itself, "?"),
    "a link to a folder": (a_link_to_a_folder, "?"),
    "another kind of file": (content("new.pt", b"mine"), "?"),
    "an empty archive": (content("new.npz", b""), "?"),
    "text called an archive": (content("new.npz", b"mine"), "?"),
    "an array called an archive": (content("new.npz", b"\x93NUMPY\1\0v\0"), "?"),
    "a Git LFS pointer": (content("new.npz", b"version https://git-lfs.github.com/spec/v1\n"), "?"),
    "half an archive": (half("images.npz"), "?"),
    "an archive that unpacks to a terabyte of names": (a_bomb("image"), "?"),
    "an archive that unpacks to a terabyte of vectors": (a_bomb("clip"), "?"),
    "no names": (npz(clip=TWO), "?"),
    "no vectors": (npz(image=NAMES), "?"),
    "names of images and of texts": (npz(image=NAMES, text=NAMES, clip=TWO), "?"),
    "names that are numbers": (npz(image=np.arange(2), clip=TWO), "?"),
    "names in a table": (npz(image=NAMES[None], clip=TWO), "?"),
    "names that are pickled": (npz(image=np.array(["a", "b"], dtype=object), clip=TWO), "?"),
    "no rows": (npz(image=NAMES[:0], clip=TWO[:0]), "?"),
    "a name that is blank": (npz(image=np.array(["a", " "]), clip=TWO), "?"),
    "an encoder with a name of a path": (npz(image=NAMES, **{"../clip": TWO}), "?"),
    "an encoder with a long name": (npz(image=NAMES, **{"x" * 100: TWO}), "?"),
    "vectors that are pickled": (altered("images.npz", pickled), "?"),
    "vectors of text": (altered("images.npz", lambda a: a.update(clip=a["image"][:, None])), "?"),
    "vectors of complex numbers": (altered("images.npz", lambda a: a.update(clip=a["clip"] * 1j)), "?"),
    "vectors of three dimensions": (altered("images.npz", lambda a: a.update(clip=a["clip"][None])), "?"),
    "a single number": (altered("images.npz", lambda a: a.update(clip=np.float32(1))), "?"),
    "vectors of no width": (altered("images.npz", lambda a: a.update(clip=a["clip"][:, :0])), "?"),
    "fewer vectors than names": (altered("images.npz", one_fewer), "?"),
    "NaN": (altered("images.npz", not_finite), "?"),
    "numbers too large for float32": (altered("texts.npz", too_large), "?"),
    "the same vector everywhere": (altered("images.npz", same_vector), "?"),
    "two vectors of one image": (altered("images.npz", given_twice), "?"),
    "an image without a vector": (altered("images.npz", lambda a: a.update({k: v[1:] for k, v in a.items()})), "?"),
    "a text without a vector": (altered("texts.npz", lambda a: a.update({k: v[1:] for k, v in a.items()})), "?"),
    "names without folders": (
        altered("images.npz", lambda a: a.update(image=np.array([n.rpartition("/")[2] for n in a["image"]]))), "?",
    ),
    "an array that does not say of what": (npy(TWO, "a\nb\n", "clip.npy"), "?"),
    "an array without names": (npy(TWO, None), "?"),
    "an array with a name too many": (as_array(lambda path: path.with_suffix(".txt").write_text("a\nb\nc")), "?"),
    "an array with names of bytes": (npy(TWO, b"\xff\n\xfe\n"), "?"),
    "an array with names that are an object": (npy(TWO, '{"a": 1}', beside=".json"), "?"),
    "an array with names that are broken": (npy(TWO, '["a", ', beside=".json"), "?"),
    "an array of objects": (as_array(lambda path: None, objects=True), "?"),
    "an archive called an array": (as_array(lambda path: shutil.copy(path.with_name("images.npz"), path)), "?"),
    "half an array": (as_array(lambda path: path.write_bytes(path.read_bytes()[:900])), "?"),
    "text called an array": (as_array(lambda path: path.write_text("mine")), "?"),
    "text called a table": (content("new.parquet", b"mine"), "?"),
    "half a table": (content("new.parquet", b"PAR1" + b"\0" * 40 + b"PAR1"), "?"),
    "a table without names": (table(id=[1, 2], clip=[[1.0], [2.0]]), "?"),
    "a table without a name": (table(image=["a", None], clip=[[1.0], [2.0]]), "?"),
    "a table without vectors": (table(image=["a", "b"], clip=["x", "y"]), "?"),
    "a table with an absent vector": (as_table(lambda rows: rows.__setitem__(3, None)), "?"),
    "a table of several widths": (as_table(lambda rows: rows[3].append(1.0)), "?"),
    "a table with an absent number": (as_table(lambda rows: rows[3].__setitem__(2, None)), "?"),
}  # fmt: skip


@pytest.mark.parametrize(("make", "expected"), FILES.values(), ids=FILES.keys())
def test_a_broken_file_of_vectors(
    crossmodal: CommandLine, demo: Path, tmp_path: Path, make: Make, expected: str
) -> None:
    encode(demo, tmp_path / "encoded")
    files = make(tmp_path / "encoded")
    annotations = ["--train", demo / "train.json", "--test", demo / "test.json"]
    assert_refused(crossmodal, tmp_path, expected, "features", "import", tmp_path / "set", *files, *annotations)
    assert not (tmp_path / "set").exists()


def test_a_set_where_files_of_others_lie(crossmodal: CommandLine, demo: Path, tmp_path: Path) -> None:
    files = encode(demo, tmp_path / "encoded")
    expected = "holds images.npz, which crossmodal did not write; name another output folder"
    options = [*files, "--train", demo / "train.json"]
    assert_refused(crossmodal, tmp_path, expected, "features", "import", tmp_path / "encoded", *options)
    (tmp_path / "file").write_text("mine")
    assert_refused(crossmodal, tmp_path, "is a file, not a folder", "features", "import", tmp_path / "file", *options)


Damage = Callable[[Path], object]


def first(folder: Path, pattern: str) -> Path:
    return next(iter(sorted(folder.glob(pattern))))


def replaced(pattern: str, written: bytes) -> Damage:
    return lambda folder: first(folder, pattern).write_bytes(written)


def removed(pattern: str) -> Damage:
    return lambda folder: first(folder, pattern).unlink()


def an_archive_for_a_table(folder: Path) -> None:
    with first(folder, "images.cnn.*.npy").open("wb") as stream:
        np.savez(stream, clip=TWO)


def another_shape(folder: Path) -> None:
    np.save(first(folder, "images.cnn.*.npy"), TWO)


def objects_for_a_table(folder: Path) -> None:
    np.save(first(folder, "images.cnn.*.npy"), np.array([None, {}], dtype=object))


def nan_in_a_table(folder: Path) -> None:
    path = first(folder, "images.cnn.*.npy")
    np.save(path, np.full_like(np.load(path), np.nan))


def edited(folder: Path) -> None:
    path = folder / MANIFEST
    path.write_text(path.read_text().replace('"width": 16', '"width": 8'))


def one_name_fewer(folder: Path) -> None:
    path = first(folder, "images.*.json")
    path.write_text(json.dumps(json.loads(path.read_text())[1:]))


SETS: dict[str, tuple[Damage, str]] = {
    "no list": (removed(MANIFEST), "?"),
    "an empty list": (replaced(MANIFEST, b""), "?"),
    "half a list": (replaced(MANIFEST, b'{"images": {'), "?"),
    "a list of another kind": (lambda folder: write_sealed(folder / MANIFEST, {"counts": {}}), "?"),
    "a list that was edited": (
        edited, "?",
    ),
    "no names": (removed("images.*.json"), "?"),
    "names that are a number": (replaced("images.*.json", b"3"), "?"),
    "names that are numbers": (replaced("images.*.json", b"[1, 2]"), "?"),
    "names that are an object": (replaced("images.*.json", b"{}"), "?"),
    "names nested too deeply": (replaced("images.*.json", b"[" * 100_000), "?"),
    "a name fewer": (one_name_fewer, "?"),
    "no table": (removed("images.cnn.*.npy"), "?"),
    "an empty table": (replaced("images.cnn.*.npy", b""), "?"),
    "half a table": (replaced("images.cnn.*.npy", b"\x93NUMPY\1\0v\0{'descr'"), "?"),
    "the first bytes of an archive": (replaced("images.cnn.*.npy", b"PK\3\4" + b"\0" * 60), "?"),
    "an archive for a table": (an_archive_for_a_table, "?"),
    "a table of another shape": (another_shape, "?"),
    "a table of objects": (objects_for_a_table, "?"),
    "NaN in a table": (nan_in_a_table, "?"),
}  # fmt: skip


@pytest.mark.parametrize(("damage", "expected"), SETS.values(), ids=SETS.keys())
def test_a_broken_set_of_vectors(
    crossmodal: CommandLine, demo: Path, demo_config: TrainConfig, tmp_path: Path, damage: Damage, expected: str
) -> None:
    config = without_pictures(demo, tmp_path / "data", demo_config)
    damage(tmp_path / "data" / "set")
    path = write_config(tmp_path, config)
    outcome = crossmodal("features", "extract", "--config", path)
    shutil.rmtree(tmp_path / "store", ignore_errors=True)
    assert_refused(crossmodal, tmp_path / "data", expected, "features", "extract", "--config", path)
    assert outcome.code == 2


def setting(**features: Any) -> Change:
    return lambda content: content["features"].update(features)


SETTINGS: dict[str, tuple[Change, str]] = {
    "an unknown encoder": (setting(image="vectors.dino"), "?"),
    "an encoder of the other kind": (setting(text="vectors.cnn"), "?"),
    "an encoder without a name": (setting(image="vectors."), "?"),
    "an encoder of a layer": (setting(image="vectors.cnn@3"), "?"),
    "a folder of something else": (setting(vectors="/etc"), "?"),
    "a folder that is not there": (setting(vectors="/absent"), "?"),
    "no folder": (setting(vectors=None), "?"),
    "a file": (setting(vectors=__file__), "?"),
}


@pytest.mark.parametrize(("change", "expected"), SETTINGS.values(), ids=SETTINGS.keys())
def test_a_setting_that_does_not_fit_the_set(
    crossmodal: CommandLine, demo: Path, demo_config: TrainConfig, tmp_path: Path, change: Change, expected: str
) -> None:
    path = write_config(tmp_path, without_pictures(demo, tmp_path / "data", demo_config), change)
    assert_refused(crossmodal, tmp_path, expected, "features", "extract", "--config", path)


@pytest.fixture(scope="module")
def intact(demo: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return imported(demo, tmp_path_factory.mktemp("set"))


@given(number=st.integers(0, 9), start=st.integers(0, 300), written=st.binary(max_size=40), cut=st.booleans())
@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_damage_to_a_set_is_one_line_or_harmless(
    demo: Path, intact: Path, tmp_path: Path, number: int, start: int, written: bytes, cut: bool
) -> None:
    folder = tmp_path / "set"
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(intact, folder)
    files = sorted(path for path in folder.iterdir() if path.name != "identity.json")
    path = files[number % len(files)]
    before = path.read_bytes()
    path.write_bytes(before[:start] + written + (b"" if cut else before[start + len(written) :]))
    items = [image.path for image in annotated(demo)]
    try:
        found = read_vector_set(folder)
        for reading in parse_readings("images", "vectors.cnn+vectors.clip", prompt=""):
            assert found.rows(reading, items).shape == (len(items), found.width(reading))
    except UserError as error:
        assert str(error).isprintable()  # noqa: PT017

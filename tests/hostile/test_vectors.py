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
    "a file that is not there": (lambda folder: [folder / "gone.npz"], "there is no such file"),
    "a folder": (lambda folder: [folder], "is a folder"),
    "a pipe": (a_pipe, "is not a regular file"),
    "a link to itself": (a_link_to_itself, "cannot be reached ("),
    "a link to a folder": (a_link_to_a_folder, "is a folder"),
    "another kind of file": (content("new.pt", b"mine"), "is no file of vectors; these are .npz, .npy, .parquet"),
    "an empty archive": (content("new.npz", b""), "is empty"),
    "text called an archive": (content("new.npz", b"mine"), "is no file of NumPy; write it with np.savez or np.save"),
    "an array called an archive": (
        content("new.npz", b"\x93NUMPY\1\0v\0"), "is a single array; write it with np.savez, together with the names",
    ),
    "a Git LFS pointer": (
        content("new.npz", b"version https://git-lfs.github.com/spec/v1\n"),
        "is a Git LFS pointer, not the file itself; run git lfs pull",
    ),
    "half an archive": (half("images.npz"), "it cannot be read ("),
    "an archive that unpacks to a terabyte of names": (
        a_bomb("image"), "image unpacks to 1,024 GiB from 6,464 bytes; write it with np.savez, uncompressed",
    ),
    "an archive that unpacks to a terabyte of vectors": (
        a_bomb("clip"), "clip unpacks to 1,024 GiB from 1,184 bytes; write it with np.savez, uncompressed",
    ),
    "no names": (npz(clip=TWO), "does not name its rows (it holds ['clip']); an array or column image (the paths in"),
    "no vectors": (npz(image=NAMES), "holds no vectors beside the names"),
    "names of images and of texts": (
        npz(image=NAMES, text=NAMES, clip=TWO), "names both images and texts; write a file for each",
    ),
    "names that are numbers": (
        npz(image=np.arange(2), clip=TWO), "image is not a list of strings; save np.array(names) as image",
    ),
    "names in a table": (
        npz(image=NAMES[None], clip=TWO), "image is not a list of strings; save np.array(names) as image",
    ),
    "names that are pickled": (
        npz(image=np.array(["a", "b"], dtype=object), clip=TWO),
        "image holds Python objects, which are not loaded; save strings as np.array(names),",
    ),
    "no rows": (npz(image=NAMES[:0], clip=TWO[:0]), "holds no row"),
    "a name that is blank": (npz(image=np.array(["a", " "]), clip=TWO), "row 1 has no name"),
    "an encoder with a name of a path": (
        npz(image=NAMES, **{"../clip": TWO}),
        "vectors cannot be named ../clip; use letters, digits, - and _ (at most 64)",
    ),
    "an encoder with a long name": (
        npz(image=NAMES, **{"x" * 100: TWO}), "; use letters, digits, - and _ (at most 64)",
    ),
    "vectors that are pickled": (
        altered("images.npz", pickled),
        "clip holds Python objects, which are not loaded; save strings as np.array(names),",
    ),
    "vectors of text": (
        altered("images.npz", lambda a: a.update(clip=a["image"][:, None])), "clip holds <U24, not numbers",
    ),
    "vectors of complex numbers": (
        altered("images.npz", lambda a: a.update(clip=a["clip"] * 1j)), "clip holds complex64, not numbers",
    ),
    "vectors of three dimensions": (
        altered("images.npz", lambda a: a.update(clip=a["clip"][None])),
        "clip is 1 × 66 × 8; write one vector a row, N × width",
    ),
    "a single number": (
        altered("images.npz", lambda a: a.update(clip=np.float32(1))),
        "clip is a single number; write one vector a row, N × width",
    ),
    "vectors of no width": (
        altered("images.npz", lambda a: a.update(clip=a["clip"][:, :0])),
        "clip is 66 × 0; write one vector a row, N × width",
    ),
    "fewer vectors than names": (altered("images.npz", one_fewer), "clip has 65 vectors of 66 names"),
    "NaN": (altered("images.npz", not_finite), "clip: 1 images have NaN or infinity (as float32) in their vectors:"),
    "numbers too large for float32": (
        altered("texts.npz", too_large),
        "clip: 265 texts have NaN or infinity (as float32) in their vectors: The image shows",
    ),
    "the same vector everywhere": (altered("images.npz", same_vector), "clip: gives all 66 images the same vector"),
    "two vectors of one image": (
        altered("images.npz", given_twice),
        "cnn: 1 images have several different vectors: train/0000/image-00.jpeg; keep one of",
    ),
    "an image without a vector": (
        altered("images.npz", lambda a: a.update({k: v[1:] for k, v in a.items()})),
        "cnn: lacks vectors of 1 of 66 images: train/0000/image-00.jpeg; it names, for",
    ),
    "a text without a vector": (
        altered("texts.npz", lambda a: a.update({k: v[1:] for k, v in a.items()})),
        "clip: lacks vectors of 1 of 265 texts: The image shows an area of bare soil with a",
    ),
    "names without folders": (
        altered("images.npz", lambda a: a.update(image=np.array([n.rpartition("/")[2] for n in a["image"]]))),
        "cnn: lacks vectors of 66 of 66 images: train/0000/image-00.jpeg,",
    ),
    "an array that does not say of what": (
        npy(TWO, "a\nb\n", "clip.npy"),
        "does not say what its vectors are of; name it NAME.images.npy or NAME.texts.npy,",
    ),
    "an array without names": (
        npy(TWO, None), "there is no such file of names; write one, or clip.images.json, a JSON list",
    ),
    "an array with a name too many": (
        as_array(lambda path: path.with_suffix(".txt").write_text("a\nb\nc")),
        "clip: lacks vectors of 66 of 66 images: train/0000/image-00.jpeg,",
    ),
    "an array with names of bytes": (npy(TWO, b"\xff\n\xfe\n"), "is not UTF-8 text (byte 0)"),
    "an array with names that are an object": (npy(TWO, '{"a": 1}', beside=".json"), "is not a list of strings"),
    "an array with names that are broken": (npy(TWO, '["a", ', beside=".json"), "is not valid JSON ("),
    "an array of objects": (
        as_array(lambda path: None, objects=True),
        "it holds Python objects, which are not loaded; save strings as np.array(names), and",
    ),
    "an archive called an array": (
        as_array(lambda path: shutil.copy(path.with_name("images.npz"), path)), "is an archive; rename it to .npz",
    ),
    "half an array": (as_array(lambda path: path.write_bytes(path.read_bytes()[:900])), "it cannot be read ("),
    "text called an array": (
        as_array(lambda path: path.write_text("mine")), "is no file of NumPy; write it with np.savez or np.save",
    ),
    "text called a table": (content("new.parquet", b"mine"), "it cannot be read ("),
    "half a table": (content("new.parquet", b"PAR1" + b"\0" * 40 + b"PAR1"), "it cannot be read ("),
    "a table without names": (
        table(id=[1, 2], clip=[[1.0], [2.0]]),
        "does not name its rows (it holds ['id', 'clip']); an array or column image (the",
    ),
    "a table without a name": (
        table(image=["a", None], clip=[[1.0], [2.0]]), "column image does not hold a string in every row",
    ),
    "a table without vectors": (table(image=["a", "b"], clip=["x", "y"]), "holds no vectors beside the names"),
    "a table with an absent vector": (as_table(lambda rows: rows.__setitem__(3, None)), "has no clip in 1 of 66 rows"),
    "a table of several widths": (
        as_table(lambda rows: rows[3].append(1.0)), "clip holds vectors of 2 different widths",
    ),
    "a table with an absent number": (
        as_table(lambda rows: rows[3].__setitem__(2, None)), "clip holds lists with missing numbers",
    ),
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
    "no list": (
        removed(MANIFEST), "holds no vectors; set features.vectors to a folder that crossmodal features import",
    ),
    "an empty list": (
        replaced(MANIFEST, b""), "cannot be read as vectors (it is not what was written); run crossmodal features",
    ),
    "half a list": (
        replaced(MANIFEST, b'{"images": {'),
        "cannot be read as vectors (it is not what was written); run crossmodal features",
    ),
    "a list of another kind": (
        lambda folder: write_sealed(folder / MANIFEST, {"counts": {}}),
        "cannot be read as vectors (it lists no vectors); run crossmodal features import",
    ),
    "a list that was edited": (
        edited, "cannot be read as vectors (it is not what was written); run crossmodal features",
    ),
    "no names": (
        removed("images.*.json"), "cannot be read as vectors (it is missing); run crossmodal features import again",
    ),
    "names that are a number": (
        replaced("images.*.json", b"3"),
        "cannot be read as vectors (it is not what was written); run crossmodal features",
    ),
    "names that are numbers": (
        replaced("images.*.json", b"[1, 2]"),
        "cannot be read as vectors (it is not what was written); run crossmodal features",
    ),
    "names that are an object": (
        replaced("images.*.json", b"{}"),
        "cannot be read as vectors (it is not what was written); run crossmodal features",
    ),
    "names nested too deeply": (
        replaced("images.*.json", b"[" * 100_000),
        "cannot be read as vectors (it is not what was written); run crossmodal features",
    ),
    "a name fewer": (one_name_fewer, "cannot be read as vectors (it is not what was written); run crossmodal features"),
    "no table": (
        removed("images.cnn.*.npy"), "cannot be read as vectors (it is missing); run crossmodal features import again",
    ),
    "an empty table": (
        replaced("images.cnn.*.npy", b""),
        "cannot be read as vectors (it is not what was written); run crossmodal features",
    ),
    "half a table": (
        replaced("images.cnn.*.npy", b"\x93NUMPY\1\0v\0{'descr'"),
        "cannot be read as vectors (it is not what was written); run crossmodal features",
    ),
    "the first bytes of an archive": (
        replaced("images.cnn.*.npy", b"PK\3\4" + b"\0" * 60),
        "cannot be read as vectors (it is not what was written); run crossmodal features",
    ),
    "an archive for a table": (
        an_archive_for_a_table, "cannot be read as vectors (it is not what was written); run crossmodal features",
    ),
    "a table of another shape": (
        another_shape, "cannot be read as vectors (it is not what was written); run crossmodal features",
    ),
    "a table of objects": (
        objects_for_a_table, "cannot be read as vectors (it is not what was written); run crossmodal features",
    ),
    "NaN in a table": (
        nan_in_a_table, "cannot be read as vectors (it is not what was written); run crossmodal features",
    ),
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
    "an unknown encoder": (
        setting(image="vectors.dino"),
        "holds no vectors.dino of images; there are vectors.cnn, vectors.clip; correct",
    ),
    "an encoder of the other kind": (
        setting(text="vectors.cnn"),
        "holds no vectors.cnn of texts; there are vectors.clip; correct features.text, or",
    ),
    "an encoder without a name": (
        setting(image="vectors."),
        "features.image: 'vectors.' names no vectors; after vectors. come letters, digits, -",
    ),
    "an encoder of a layer": (
        setting(image="vectors.cnn@3"),
        "features.image: 'vectors.cnn@3' names no vectors; after vectors. come letters,",
    ),
    "a folder of something else": (
        setting(vectors="/etc"),
        "/etc: holds no vectors; set features.vectors to a folder that crossmodal features",
    ),
    "a folder that is not there": (
        setting(vectors="/absent"),
        "/absent: holds no vectors; set features.vectors to a folder that crossmodal",
    ),
    "no folder": (
        setting(vectors=None),
        "features: vectors.cnn needs features.vectors, a folder that crossmodal features",
    ),
    "a file": (
        setting(vectors=__file__),
        "holds no vectors; set features.vectors to a folder that crossmodal features import",
    ),
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

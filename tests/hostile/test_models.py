"""Models of which one thing is broken, and what they are asked with."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from core import ImageIndex, RetrievalModel, load_model
from core.errors import UserError
from core.inference.exported import CARD, SETTINGS, WEIGHTS, read_export, write_export
from core.inference.loading import read_model
from tests.commands import CommandLine
from tests.hostile.refusal import assert_refused

Damage = Callable[[Path], object]
LFS_POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n"


@pytest.fixture(scope="module")
def intact(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An exported model."""
    path, folder = trained / "checkpoint_best.pth", tmp_path_factory.mktemp("exported") / "model"
    write_export(folder, read_model(path), "# A card\n", source=path)
    return folder


@pytest.fixture
def exported(intact: Path, tmp_path: Path) -> Path:
    shutil.copytree(intact, tmp_path / "model")
    return tmp_path / "model"


def removed(name: str) -> Damage:
    return lambda folder: (folder / name).unlink()


def written(name: str, content: bytes) -> Damage:
    return lambda folder: (folder / name).write_bytes(content)


def torn(name: str, kept: int) -> Damage:
    return lambda folder: (folder / name).write_bytes((folder / name).read_bytes()[:kept])


def setting(change: Callable[[dict[str, Any]], object]) -> Damage:
    def damage(folder: Path) -> None:
        content = json.loads((folder / SETTINGS).read_text())
        change(content)
        (folder / SETTINGS).write_text(json.dumps(content))

    return damage


def weights(change: Callable[[dict[str, Any]], object]) -> Damage:
    def damage(folder: Path) -> None:
        content = load_file(folder / WEIGHTS)
        change(content)
        save_file({name: value.contiguous() for name, value in content.items()}, folder / WEIGHTS)

    return damage


def each(change: Callable[[Any], Any]) -> Damage:
    return weights(lambda content: content.update({name: change(value) for name, value in content.items()}))


def a_folder(name: str) -> Damage:
    def damage(folder: Path) -> None:
        (folder / name).unlink()
        (folder / name).mkdir()

    return damage


def a_checkpoint_called_weights(folder: Path) -> None:
    torch.save({"weights": {}}, folder / WEIGHTS)


def first(content: dict[str, Any]) -> str:
    return str(next(iter(content)))


EXPORTS: dict[str, tuple[Damage, str]] = {
    "no settings": (removed(SETTINGS), "holds no trained model; name a checkpoint or the folder of a run"),
    "no weights": (removed(WEIGHTS), "holds no trained model; name a checkpoint or the folder of a run"),
    "a card alone": (
        lambda folder: (removed(SETTINGS)(folder), removed(WEIGHTS)(folder)),
        "holds no trained model; name a checkpoint or the folder of a run",
    ),
    "settings of nothing": (written(SETTINGS, b""), "is empty"),
    "half of the settings": (torn(SETTINGS, 200), "is not valid JSON ("),
    "settings that are a list": (
        written(SETTINGS, b"[]"), "holds no exported model of crossmodal-search; run crossmodal export",
    ),
    "settings that are a number": (
        written(SETTINGS, b"3"), "holds no exported model of crossmodal-search; run crossmodal export",
    ),
    "settings of bytes": (written(SETTINGS, b"\xff\xfe\0"), "is UTF-16 text, not UTF-8; save it as UTF-8"),
    "settings nested too deeply": (written(SETTINGS, b"[" * 100_000), "is nested too deeply to be read"),
    "settings of another model": (
        written(SETTINGS, b'{"model_type": "internvl_chat"}'),
        "holds no exported model of crossmodal-search; run crossmodal export",
    ),
    "settings that are a folder": (
        a_folder(SETTINGS), "holds no trained model; name a checkpoint or the folder of a run",
    ),
    "settings of our kind alone": (
        written(SETTINGS, b'{"model_type": "crossmodal-search", "format": 1}'),
        "is damaged, or not a checkpoint written by crossmodal",
    ),
    "another version": (
        setting(lambda content: content.update(format=2)), "was exported by another version; update crossmodal-search",
    ),
    "no version": (
        setting(lambda content: content.pop("format")), "was exported by another version; update crossmodal-search",
    ),
    "no configuration": (
        setting(lambda content: content.pop("config")), "is damaged, or not a checkpoint written by crossmodal",
    ),
    "a configuration with an unknown setting": (
        setting(lambda content: content["config"].update(colour=1)),
        "colour is not a setting; valid names are model, loss, optimizer, recipe, data,",
    ),
    "a configuration of another width": (
        setting(lambda content: content["config"]["model"].update(embed_dim=64)),
        "the checkpoint does not fit the configured model: it holds",
    ),
    "a configuration of a huge width": (
        setting(lambda content: content["config"]["model"].update(embed_dim=2**40)),
        "model.embed_dim: Input should be less than or equal to 16384, not 1099511627776",
    ),
    "a history that is text": (
        setting(lambda content: content.update(history="long")),
        "is damaged, or not a checkpoint written by crossmodal",
    ),
    "no history": (
        setting(lambda content: content.update(history=[])), "is damaged, or not a checkpoint written by crossmodal",
    ),
    "an epoch that is text": (
        setting(lambda content: content.update(epoch="last")), "is damaged, or not a checkpoint written by crossmodal",
    ),
    "an epoch that was not trained": (
        setting(lambda content: content.update(epoch=900)), "is damaged, or not a checkpoint written by crossmodal",
    ),
    "re-ranking that is negative": (
        setting(lambda content: content.update(reranking={"depth": -1, "weight": -1.0})),
        "is damaged, or not a checkpoint written by crossmodal",
    ),
    "verdicts that are a list": (
        setting(lambda content: content.update(verdicts=[])),
        "does not say whether boxes are grounded; export it again",
    ),
    "a field of nobody's": (
        setting(lambda content: content.update(colour=1)), "is damaged, or not a checkpoint written by crossmodal",
    ),
    "weights of nothing": (written(WEIGHTS, b""), "cannot be read as weights ("),
    "half of the weights": (torn(WEIGHTS, 5000), "cannot be read as weights ("),
    "a header longer than the file": (written(WEIGHTS, b"\xff" * 8 + b"{}"), "cannot be read as weights ("),
    "a header that is no JSON": (written(WEIGHTS, b"\4\0\0\0\0\0\0\0mine"), "cannot be read as weights ("),
    "weights that are text": (written(WEIGHTS, b"my weights, as text"), "cannot be read as weights ("),
    "weights that are a Git LFS pointer": (
        written(WEIGHTS, LFS_POINTER), "is a Git LFS pointer, not the file itself; run git lfs pull",
    ),
    "weights that are a checkpoint": (a_checkpoint_called_weights, "cannot be read as weights ("),
    "weights that are a folder": (
        a_folder(WEIGHTS), "holds no trained model; name a checkpoint or the folder of a run",
    ),
    "no weight": (
        weights(lambda content: content.clear()), "the checkpoint does not fit the configured model: it has no",
    ),
    "a weight fewer": (
        weights(lambda content: content.pop(first(content))),
        "the checkpoint does not fit the configured model: it has no box_head.bias; train,",
    ),
    "a weight more": (
        weights(lambda content: content.update(colour=torch.zeros(2))),
        "the checkpoint does not fit the configured model: it holds colour, which the model",
    ),
    "weights of float16": (
        each(lambda value: value.half()), "the checkpoint does not fit the configured model: it holds",
    ),
    "weights of whole numbers": (
        each(lambda value: value.long()), "the checkpoint does not fit the configured model: it holds",
    ),
    "weights without dimensions": (
        each(lambda value: value.sum()),
        "the checkpoint does not fit the configured model: it holds vision_adapter.0.weight",
    ),
    "weights of one dimension": (
        each(lambda value: value.flatten()),
        "the checkpoint does not fit the configured model: it holds vision_adapter.0.weight",
    ),
    "weights of twice the width": (
        each(lambda value: torch.cat([value, value], dim=-1) if value.dim() else value),
        "the checkpoint does not fit the configured model: it holds",
    ),
    "weights of no rows": (
        each(lambda value: value[:0] if value.dim() else value),
        "the checkpoint does not fit the configured model: it holds vision_adapter.0.weight",
    ),
    "NaN for a weight": (
        each(lambda value: value * float("nan")),
        "holds weights that are not finite; use an earlier checkpoint of the run",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("damage", "expected"), EXPORTS.values(), ids=EXPORTS.keys())
def test_a_broken_export(
    crossmodal: CommandLine, exported: Path, demo: Path, tmp_path: Path, damage: Damage, expected: str
) -> None:
    damage(exported)
    images = demo / "images" / "test"
    assert_refused(crossmodal, tmp_path, expected, "retrieve", exported, "a pool", "--images", images)
    assert_refused(crossmodal, tmp_path, expected, "export", exported, "--output-dir", tmp_path / "out")
    measured = ["--annotations", demo / "test.json", "--images", demo / "images", "--output-dir", tmp_path / "out"]
    assert_refused(crossmodal, tmp_path, expected, "evaluate", exported, *measured)


Place = Callable[[Path, Path], Path]
"""Makes what is no model, from the folder of the demo data and an own one."""


def made(name: str, content: bytes | None) -> Place:
    def make(demo: Path, folder: Path) -> Path:
        if content is None:
            (folder / name).mkdir()
        else:
            (folder / name).write_bytes(content)
        return folder / name

    return make


def a_link_to_itself(demo: Path, folder: Path) -> Path:
    (folder / "loop").symlink_to(folder / "loop")
    return folder / "loop"


MODELS: dict[str, tuple[Place, str]] = {
    "nothing": (
        lambda demo, folder: folder / "gone",
        "there is no such model; name a checkpoint or the folder of a run",
    ),
    "an empty folder": (made("empty", None), "holds no trained model; name a checkpoint or the folder of a run"),
    "the data": (lambda demo, folder: demo, "holds no trained model; name a checkpoint or the folder of a run"),
    "a backbone": (
        lambda demo, folder: demo / "tiny-internvl",
        "holds no exported model of crossmodal-search; run crossmodal export",
    ),
    "annotations": (lambda demo, folder: demo / "train.json", "is damaged, or not a checkpoint written by crossmodal"),
    "a picture": (
        lambda demo, folder: next((demo / "images").rglob("*.jpeg")),
        "is damaged, or not a checkpoint written by crossmodal",
    ),
    "an empty checkpoint": (made("model.pth", b""), "is damaged, or not a checkpoint written by crossmodal"),
    "weights without settings": (made("model.safetensors", b"mine"), "there is no such file"),
    "a Git LFS pointer": (made("model.pth", LFS_POINTER), "is damaged, or not a checkpoint written by crossmodal"),
    "a link to itself": (a_link_to_itself, "there is no such model; name a checkpoint or the folder of a run"),
    "a name that is too long": (
        lambda demo, folder: folder / ("x" * 300),
        "File name too long; fix that and run the same command again",
    ),
    "a null byte": (
        lambda demo, folder: folder / "a\0b",
        "there is no such model; name a checkpoint or the folder of a run",
    ),
}


@pytest.mark.parametrize(("make", "expected"), MODELS.values(), ids=MODELS.keys())
def test_what_is_no_model(crossmodal: CommandLine, demo: Path, tmp_path: Path, make: Place, expected: str) -> None:
    model = make(demo, tmp_path)
    assert_refused(crossmodal, tmp_path, expected, "retrieve", model, "a pool", "--images", demo / "images")
    assert_refused(crossmodal, tmp_path, expected, "serve", model, "--index", demo / "images", "--port", 0)


@pytest.fixture
def around(demo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of files that are not what is asked for, in which commands are run."""
    (tmp_path / "empty").mkdir()
    (tmp_path / "documents").mkdir()
    (tmp_path / "documents" / "thesis.tex").write_text("mine")
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "a.jpg").write_text("mine")
    (tmp_path / "broken" / "b.png").touch()
    (tmp_path / "bytes.txt").write_bytes(b"\xff\xfe\0\x81")
    (tmp_path / "blank.txt").write_text(" \n\n")
    (tmp_path / "null.txt").write_bytes(b"a pool\0\n")
    (tmp_path / "mine.html").write_text("mine")
    (tmp_path / "metrics.json").write_text("mine")
    (tmp_path / "README.md").write_text("mine")
    (tmp_path / "broken.json").write_text("[{")
    (tmp_path / "lines.txt").write_text("a pool\n")
    (tmp_path / "test.json").write_bytes((demo / "test.json").read_bytes())
    (tmp_path / "picture.jpeg").write_bytes(next((demo / "images" / "test").rglob("*.jpeg")).read_bytes())
    monkeypatch.chdir(tmp_path)
    return tmp_path


QUESTIONS: dict[str, tuple[list[object], str]] = {
    "nothing": (["retrieve", "MODEL"], "a TEXT goes with --images, and --image with --texts; give one of these pairs"),
    "no folder": (
        ["retrieve", "MODEL", "a pool"], "a TEXT goes with --images, and --image with --texts; give one of these pairs",
    ),
    "a folder that is not there": (
        ["retrieve", "MODEL", "a pool", "--images", "gone"], "gone: there is no such folder of pictures",
    ),
    "a folder that is a file": (
        ["retrieve", "MODEL", "a pool", "--images", "picture.jpeg"],
        "picture.jpeg: there is no such folder of pictures",
    ),
    "an empty folder": (
        ["retrieve", "MODEL", "a pool", "--images", "empty"],
        "empty: holds no pictures; name a folder with image files",
    ),
    "a folder of documents": (
        ["retrieve", "MODEL", "a pool", "--images", "documents"],
        "documents: holds no pictures; name a folder with image files",
    ),
    "a folder of broken pictures": (
        ["retrieve", "MODEL", "a pool", "--images", "broken"],
        "broken: holds no picture that can be read; the first: broken/a.jpg: cannot be read",
    ),
    "an empty text": (["retrieve", "MODEL", "", "--images", "PICTURES"], "a text is blank, so it has no token"),
    "a blank text": (["retrieve", "MODEL", "  ", "--images", "PICTURES"], "a text is blank, so it has no token"),
    "half a surrogate pair": (
        ["retrieve", "MODEL", "a pool \udcff", "--images", "PICTURES"],
        "a pool \\udcff holds half of a surrogate pair, which is no text; write it as UTF-8",
    ),
    "a picture that is not there": (
        ["retrieve", "MODEL", "--image", "gone.png", "--texts", "lines.txt"], "gone.png: the image is missing",
    ),
    "a picture that is a folder": (
        ["retrieve", "MODEL", "--image", "empty", "--texts", "lines.txt"], "empty: the image is a folder",
    ),
    "a picture that is text": (
        ["retrieve", "MODEL", "--image", "broken/a.jpg", "--texts", "lines.txt"],
        "broken/a.jpg: cannot be read as an image (it is of no format or layout that Pillow",
    ),
    "texts that are not there": (
        ["retrieve", "MODEL", "--image", "picture.jpeg", "--texts", "gone.txt"], "gone.txt: there is no such file",
    ),
    "texts that are a folder": (
        ["retrieve", "MODEL", "--image", "picture.jpeg", "--texts", "empty"], "empty: cannot be read (",
    ),
    "texts of bytes": (
        ["retrieve", "MODEL", "--image", "picture.jpeg", "--texts", "bytes.txt"],
        "bytes.txt: is not UTF-8 text (byte 0); save it as UTF-8",
    ),
    "texts that are a picture": (
        ["retrieve", "MODEL", "--image", "picture.jpeg", "--texts", "picture.jpeg"],
        "picture.jpeg: is not UTF-8 text (byte 0); save it as UTF-8",
    ),
    "texts that are blank": (
        ["retrieve", "MODEL", "--image", "picture.jpeg", "--texts", "blank.txt"],
        "blank.txt: holds no text; write one text on each line",
    ),
    "texts that are a device": (
        ["retrieve", "MODEL", "--image", "picture.jpeg", "--texts", "/dev/null"],
        "/dev/null: holds no text; write one text on each line",
    ),
    "texts below a file": (
        ["retrieve", "MODEL", "--image", "picture.jpeg", "--texts", "mine.html/a.txt"],
        "mine.html/a.txt: cannot be read (",
    ),
    "a page of another name": (
        ["retrieve", "MODEL", "a", "--images", "PICTURES", "--html", "page.txt"],
        "page.txt: is not the name of a page; let it end in .html",
    ),
    "a page of somebody else": (
        ["retrieve", "MODEL", "a", "--images", "PICTURES", "--html", "mine.html"],
        "mine.html: was not written by crossmodal, and is kept; name another file",
    ),
    "a page below a file": (
        ["retrieve", "MODEL", "a", "--images", "PICTURES", "--html", "blank.txt/a.html"],
        "blank.txt: there is no such folder; create it, or name another file",
    ),
    "a backbone that is not there": (
        ["retrieve", "MODEL", "a", "--images", "PICTURES", "--backbone", "/absent"],
        "its backbone /absent is not there; say where it is: --backbone, or backbone= in",
    ),
    "a backbone that is a file": (
        ["retrieve", "MODEL", "a", "--images", "PICTURES", "--backbone", "./mine.html"],
        "./mine.html: is a file, not the folder of a backbone; name its folder or hub id",
    ),
    "a backbone that is an empty folder": (
        ["retrieve", "MODEL", "a", "--images", "PICTURES", "--backbone", "empty"],
        "holds no config.json, so it is no InternVL checkpoint",
    ),
    "a cache that is a file": (
        ["retrieve", "MODEL", "a", "--images", "PICTURES", "--cache-dir", "mine.html"],
        "mine.html: is a file, not a folder; name another --cache-dir",
    ),
    "annotations that are not there": (
        ["evaluate", "MODEL", "--annotations", "gone.json", "--images", "PICTURES", "--output-dir", "out"],
        "there is no such file",
    ),
    "annotations that are broken": (
        ["evaluate", "MODEL", "--annotations", "broken.json", "--images", "PICTURES", "--output-dir", "out"],
        "is not valid JSON (",
    ),
    "annotations that are a folder": (
        ["evaluate", "MODEL", "--annotations", "empty", "--images", "PICTURES", "--output-dir", "out"],
        "is a folder, not a JSON file",
    ),
    "images of other annotations": (
        ["evaluate", "MODEL", "--annotations", "test.json", "--images", "empty", "--output-dir", "out"],
        "entry 0 (0012/image-00.jpeg): the image test/0012/image-00.jpeg is missing; paths",
    ),
    "images that are not there": (
        ["evaluate", "MODEL", "--annotations", "test.json", "--images", "gone", "--output-dir", "out"],
        "there is no such folder of images; set data.image_root or --image-root",
    ),
    "figures of somebody else": (
        ["evaluate", "MODEL", "--annotations", "test.json", "--images", "PICTURES", "--output-dir", "."],
        ".: holds metrics.json, which crossmodal did not write; name another output folder,",
    ),
    "figures in a file": (
        ["evaluate", "MODEL", "--annotations", "test.json", "--images", "PICTURES", "--output-dir", "mine.html"],
        "mine.html: is a file, not a folder; name another output folder",
    ),
    "an export over a file of somebody else": (
        ["export", "MODEL", "--output-dir", "."],
        ".: holds README.md, which crossmodal did not write; name another output folder, or",
    ),
    "an export into a file": (
        ["export", "MODEL", "--output-dir", "mine.html"],
        "mine.html: is a file, not a folder; name another output folder",
    ),
    "an export to a name that is none": (
        ["export", "MODEL", "--output-dir", "out", "--push", "my model"],
        "my model: is not the name of a repository; write it as owner/name",
    ),
    "a served folder that is not there": (
        ["serve", "MODEL", "--index", "gone", "--port", 0], "gone: there is no such folder of pictures",
    ),
    "a served folder that is a file": (
        ["serve", "MODEL", "--index", "mine.html", "--port", 0], "mine.html: there is no such folder of pictures",
    ),
    "a served folder of documents": (
        ["serve", "MODEL", "--index", "documents", "--port", 0],
        "documents: holds no pictures; name a folder with image files",
    ),
    "a served folder of broken pictures": (
        ["serve", "MODEL", "--index", "broken", "--port", 0],
        "broken: holds no picture that can be read; the first: broken/a.jpg: cannot be read",
    ),
    "served texts of bytes": (
        ["serve", "MODEL", "--index", "PICTURES", "--texts", "bytes.txt", "--port", 0],
        "bytes.txt: is not UTF-8 text (byte 0); save it as UTF-8",
    ),
    "served texts that are blank": (
        ["serve", "MODEL", "--index", "PICTURES", "--texts", "blank.txt", "--port", 0],
        "blank.txt: holds no text; write one text on each line",
    ),
    "a host of nobody's": (
        ["serve", "MODEL", "--index", "PICTURES", "--host", "192.0.2.1", "--port", 0],
        "192.0.2.1:0: cannot be listened on (",
    ),
    "a host that is no name": (
        ["serve", "MODEL", "--index", "PICTURES", "--host", "a..b", "--port", 0], "a..b:0: cannot be listened on (",
    ),
    "a host that is an address of the web": (
        ["serve", "MODEL", "--index", "PICTURES", "--host", "http://127.0.0.1", "--port", 0],
        "http://127.0.0.1:0: cannot be listened on (",
    ),
    "a host of nothing": (
        ["serve", "MODEL", "--index", "PICTURES", "--host", "", "--port", 0],
        "--host: names no address; write 127.0.0.1, or 0.0.0.0 for every address",
    ),
    "a host that is too long": (
        ["serve", "MODEL", "--index", "PICTURES", "--host", "x" * 300, "--port", 0], ":0: cannot be listened on (",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("arguments", "expected"), QUESTIONS.values(), ids=QUESTIONS.keys())
def test_a_question_that_cannot_be_answered(
    crossmodal: CommandLine, intact: Path, demo: Path, around: Path, arguments: list[object], expected: str
) -> None:
    known: dict[object, object] = {"MODEL": intact, "PICTURES": demo / "images" / "test"}
    assert_refused(crossmodal, around, expected, *(known.get(argument, argument) for argument in arguments))


def test_a_final_model_with_a_card_of_bytes(crossmodal: CommandLine, trained: Path, tmp_path: Path) -> None:
    shutil.copytree(trained, tmp_path / "final")
    (tmp_path / "final" / "model_card.md").write_bytes(b"\xff\xfe")
    expected = "model_card.md: is not UTF-8 text"
    assert_refused(crossmodal, tmp_path, expected, "export", tmp_path / "final", "--output-dir", tmp_path / "out")


def test_more_answers_than_pictures_are_all_pictures(crossmodal: CommandLine, intact: Path, demo: Path) -> None:
    pictures = demo / "images" / "test"
    outcome = crossmodal("retrieve", intact, "a pool", "--images", pictures, "--top", 10**15, "--json")
    assert outcome.code == 0, outcome.err
    assert len(json.loads(outcome.out)["answers"]) == len(list(pictures.rglob("*.jpeg")))


@given(
    settings_file=st.booleans(),
    start=st.integers(0, 4000),
    content=st.binary(min_size=1, max_size=60),
    cut=st.booleans(),
)
@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_damage_to_an_export_is_one_line_or_harmless(
    intact: Path, tmp_path: Path, settings_file: bool, start: int, content: bytes, cut: bool
) -> None:
    folder = tmp_path / "model"
    folder.mkdir(exist_ok=True)
    for name in (SETTINGS, WEIGHTS, CARD):
        shutil.copy(intact / name, folder)
    path = folder / (SETTINGS if settings_file else WEIGHTS)
    before = path.read_bytes()
    path.write_bytes(before[:start] + content + (b"" if cut else before[start + len(content) :]))
    try:
        found = read_export(folder).checkpoint
        RetrievalModel(found)
    except UserError as error:
        assert str(error).isprintable()  # noqa: PT017
    else:
        assert all(value.isfinite().all() for value in found.weights.values())


@pytest.fixture(scope="module")
def indexed(intact: Path, demo: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[RetrievalModel, Path]:
    """A model, and the cache of its pictures."""
    model, cache = load_model(intact), tmp_path_factory.mktemp("index")
    ImageIndex.open(model, demo / "images" / "test", cache=cache)
    return model, cache


def cached(change: Callable[[dict[str, Any]], object]) -> Damage:
    """Change what is cached, but not the digests of it."""

    def damage(path: Path) -> None:
        content = load_file(path)
        with safe_open(path, framework="pt") as before:
            metadata = before.metadata()
        change(content)
        save_file({name: value.contiguous() for name, value in content.items()}, path, metadata)

    return damage


def flipped_byte(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-5] ^= 0x11
    path.write_bytes(content)


def half_a_file(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:500])


CACHES: dict[str, Damage] = {
    "a single number for digests": cached(lambda content: content.update(digests=torch.tensor(3))),
    "fewer embeddings": cached(lambda content: content.update(embedded=content["embedded"][:1].clone())),
    "embeddings of another width": cached(lambda content: content.update(embedded=content["embedded"][:, :3])),
    "NaN": cached(lambda content: content.update(embedded=content["embedded"] * float("nan"))),
    "no embeddings": cached(lambda content: content.pop("embedded")),
    "other embeddings": cached(lambda content: content.update(embedded=content["embedded"].flip(0))),
    "weights of another program": lambda path: save_file({"weight": torch.zeros(3)}, path),
    "a flipped byte": flipped_byte,
    "half a file": half_a_file,
    "nothing": lambda path: path.write_bytes(b""),
    "text": lambda path: path.write_text("mine"),
}


@pytest.mark.parametrize("damage", CACHES.values(), ids=CACHES.keys())
def test_a_damaged_cache_is_rebuilt(
    indexed: tuple[RetrievalModel, Path], demo: Path, tmp_path: Path, damage: Damage
) -> None:
    model, cache = indexed
    shutil.copytree(cache, tmp_path / "cache")
    (path,) = (tmp_path / "cache").rglob("shard_*.safetensors")
    intact = ImageIndex.open(model, demo / "images" / "test", cache=cache)
    damage(path)
    again = ImageIndex.open(model, demo / "images" / "test", cache=tmp_path / "cache")
    rows = torch.arange(len(intact))
    expected, found = (index.view(rows, model.device).embedded for index in (intact, again))
    assert torch.allclose(found, expected, atol=1e-6)
    assert load_file(path).keys() == load_file(next(cache.rglob("shard_*.safetensors"))).keys()

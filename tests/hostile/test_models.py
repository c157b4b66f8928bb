"""Models of which one thing is broken, and what they are asked with."""

import json
import shutil
from collections.abc import Callable, Iterator
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


@pytest.fixture(autouse=True)
def _cache(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    """One folder for all of these tests, as one user has it."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.getbasetemp() / "user-cache"))


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
    "no settings": (removed(SETTINGS), "?"),
    "no weights": (removed(WEIGHTS), "?"),
    "a card alone": (lambda folder: (removed(SETTINGS)(folder), removed(WEIGHTS)(folder)), "?"),
    "settings of nothing": (written(SETTINGS, b""), "?"),
    "half of the settings": (torn(SETTINGS, 200), "?"),
    "settings that are a list": (written(SETTINGS, b"[]"), "?"),
    "settings that are a number": (written(SETTINGS, b"3"), "?"),
    "settings of bytes": (written(SETTINGS, b"\xff\xfe\0"), "?"),
    "settings nested too deeply": (written(SETTINGS, b"[" * 100_000), "?"),
    "settings of another model": (written(SETTINGS, b'{"model_type": "internvl_chat"}'), "?"),
    "settings that are a folder": (a_folder(SETTINGS), "?"),
    "settings of our kind alone": (written(SETTINGS, b'{"model_type": "crossmodal-search", "format": 1}'), "?"),
    "another version": (setting(lambda content: content.update(format=2)), "?"),
    "no version": (setting(lambda content: content.pop("format")), "?"),
    "no configuration": (setting(lambda content: content.pop("config")), "?"),
    "a configuration with an unknown setting": (setting(lambda content: content["config"].update(colour=1)), "?"),
    "a configuration of another width": (setting(lambda content: content["config"]["model"].update(embed_dim=64)), "?"),
    "a configuration of a huge width": (
        setting(lambda content: content["config"]["model"].update(embed_dim=2**40)), "?",
    ),
    "a history that is text": (setting(lambda content: content.update(history="long")), "?"),
    "no history": (setting(lambda content: content.update(history=[])), "?"),
    "an epoch that is text": (setting(lambda content: content.update(epoch="last")), "?"),
    "an epoch that was not trained": (setting(lambda content: content.update(epoch=900)), "?"),
    "re-ranking that is negative": (
        setting(lambda content: content.update(reranking={"depth": -1, "weight": -1.0})), "?",
    ),
    "verdicts that are a list": (setting(lambda content: content.update(verdicts=[])), "?"),
    "a field of nobody's": (setting(lambda content: content.update(colour=1)), "?"),
    "weights of nothing": (written(WEIGHTS, b""), "?"),
    "half of the weights": (torn(WEIGHTS, 5000), "?"),
    "a header longer than the file": (written(WEIGHTS, b"\xff" * 8 + b"{}"), "?"),
    "a header that is no JSON": (written(WEIGHTS, b"\4\0\0\0\0\0\0\0mine"), "?"),
    "weights that are text": (written(WEIGHTS, b"my weights, as text"), "?"),
    "weights that are a Git LFS pointer": (written(WEIGHTS, LFS_POINTER), "?"),
    "weights that are a checkpoint": (a_checkpoint_called_weights, "?"),
    "weights that are a folder": (a_folder(WEIGHTS), "?"),
    "no weight": (weights(lambda content: content.clear()), "?"),
    "a weight fewer": (weights(lambda content: content.pop(first(content))), "?"),
    "a weight more": (weights(lambda content: content.update(colour=torch.zeros(2))), "?"),
    "weights of float16": (each(lambda value: value.half()), "?"),
    "weights of whole numbers": (each(lambda value: value.long()), "?"),
    "weights without dimensions": (each(lambda value: value.sum()), "?"),
    "weights of one dimension": (each(lambda value: value.flatten()), "?"),
    "weights of twice the width": (each(lambda value: torch.cat([value, value], dim=-1) if value.dim() else value), "?"),
    "weights of no rows": (each(lambda value: value[:0] if value.dim() else value), "?"),
    "NaN for a weight": (each(lambda value: value * float("nan")), "?"),
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
    "nothing": (lambda demo, folder: folder / "gone", "?"),
    "an empty folder": (made("empty", None), "?"),
    "the data": (lambda demo, folder: demo, "?"),
    "a backbone": (lambda demo, folder: demo / "tiny-internvl", "?"),
    "annotations": (lambda demo, folder: demo / "train.json", "?"),
    "a picture": (lambda demo, folder: next((demo / "images").rglob("*.jpeg")), "?"),
    "an empty checkpoint": (made("model.pth", b""), "?"),
    "weights without settings": (made("model.safetensors", b"mine"), "?"),
    "a Git LFS pointer": (made("model.pth", LFS_POINTER), "?"),
    "a link to itself": (a_link_to_itself, "?"),
    "a name that is too long": (lambda demo, folder: folder / ("x" * 300), "?"),
    "a null byte": (lambda demo, folder: folder / "a\0b", "?"),
}


@pytest.mark.parametrize(("make", "expected"), MODELS.values(), ids=MODELS.keys())
def test_what_is_no_model(crossmodal: CommandLine, demo: Path, tmp_path: Path, make: Place, expected: str) -> None:
    model = make(demo, tmp_path)
    assert_refused(crossmodal, tmp_path, expected, "retrieve", model, "a pool", "--images", demo / "images")
    assert_refused(crossmodal, tmp_path, expected, "serve", model, "--index", demo / "images", "--port", 0)


@pytest.fixture
def around(demo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
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
    "nothing": (["retrieve", "MODEL"], "?"),
    "no folder": (["retrieve", "MODEL", "a pool"], "?"),
    "a folder that is not there": (["retrieve", "MODEL", "a pool", "--images", "gone"], "?"),
    "a folder that is a file": (["retrieve", "MODEL", "a pool", "--images", "picture.jpeg"], "?"),
    "an empty folder": (["retrieve", "MODEL", "a pool", "--images", "empty"], "?"),
    "a folder of documents": (["retrieve", "MODEL", "a pool", "--images", "documents"], "?"),
    "a folder of broken pictures": (["retrieve", "MODEL", "a pool", "--images", "broken"], "?"),
    "an empty text": (["retrieve", "MODEL", "", "--images", "PICTURES"], "?"),
    "a blank text": (["retrieve", "MODEL", "  ", "--images", "PICTURES"], "?"),
    "half a surrogate pair": (["retrieve", "MODEL", "a pool \udcff", "--images", "PICTURES"], "?"),
    "a picture that is not there": (["retrieve", "MODEL", "--image", "gone.png", "--texts", "lines.txt"], "?"),
    "a picture that is a folder": (["retrieve", "MODEL", "--image", "empty", "--texts", "lines.txt"], "?"),
    "a picture that is text": (["retrieve", "MODEL", "--image", "broken/a.jpg", "--texts", "lines.txt"], "?"),
    "texts that are not there": (["retrieve", "MODEL", "--image", "picture.jpeg", "--texts", "gone.txt"], "?"),
    "texts that are a folder": (["retrieve", "MODEL", "--image", "picture.jpeg", "--texts", "empty"], "?"),
    "texts of bytes": (["retrieve", "MODEL", "--image", "picture.jpeg", "--texts", "bytes.txt"], "?"),
    "texts that are a picture": (["retrieve", "MODEL", "--image", "picture.jpeg", "--texts", "picture.jpeg"], "?"),
    "texts that are blank": (["retrieve", "MODEL", "--image", "picture.jpeg", "--texts", "blank.txt"], "?"),
    "texts that are a device": (["retrieve", "MODEL", "--image", "picture.jpeg", "--texts", "/dev/null"], "?"),
    "texts below a file": (["retrieve", "MODEL", "--image", "picture.jpeg", "--texts", "mine.html/a.txt"], "?"),
    "a page of another name": (["retrieve", "MODEL", "a", "--images", "PICTURES", "--html", "page.txt"], "?"),
    "a page of somebody else": (["retrieve", "MODEL", "a", "--images", "PICTURES", "--html", "mine.html"], "?"),
    "a page below a file": (["retrieve", "MODEL", "a", "--images", "PICTURES", "--html", "blank.txt/a.html"], "?"),
    "a backbone that is not there": (
        ["retrieve", "MODEL", "a", "--images", "PICTURES", "--backbone", "/absent"], "?",
    ),
    "a backbone that is a file": (
        ["retrieve", "MODEL", "a", "--images", "PICTURES", "--backbone", "./mine.html"], "?",
    ),
    "a backbone that is an empty folder": (
        ["retrieve", "MODEL", "a", "--images", "PICTURES", "--backbone", "empty"], "?",
    ),
    "a cache that is a file": (["retrieve", "MODEL", "a", "--images", "PICTURES", "--cache-dir", "mine.html"], "?"),
    "annotations that are not there": (
        ["evaluate", "MODEL", "--annotations", "gone.json", "--images", "PICTURES", "--output-dir", "out"], "?",
    ),
    "annotations that are broken": (
        ["evaluate", "MODEL", "--annotations", "broken.json", "--images", "PICTURES", "--output-dir", "out"], "?",
    ),
    "annotations that are a folder": (
        ["evaluate", "MODEL", "--annotations", "empty", "--images", "PICTURES", "--output-dir", "out"], "?",
    ),
    "images of other annotations": (
        ["evaluate", "MODEL", "--annotations", "test.json", "--images", "empty", "--output-dir", "out"], "?",
    ),
    "images that are not there": (
        ["evaluate", "MODEL", "--annotations", "test.json", "--images", "gone", "--output-dir", "out"], "?",
    ),
    "figures of somebody else": (
        ["evaluate", "MODEL", "--annotations", "test.json", "--images", "PICTURES", "--output-dir", "."], "?",
    ),
    "figures in a file": (
        ["evaluate", "MODEL", "--annotations", "test.json", "--images", "PICTURES", "--output-dir", "mine.html"], "?",
    ),
    "an export over a file of somebody else": (["export", "MODEL", "--output-dir", "."], "?"),
    "an export into a file": (["export", "MODEL", "--output-dir", "mine.html"], "?"),
    "an export to a name that is none": (["export", "MODEL", "--output-dir", "out", "--push", "my model"], "?"),
    "a served folder that is not there": (["serve", "MODEL", "--index", "gone", "--port", 0], "?"),
    "a served folder that is a file": (["serve", "MODEL", "--index", "mine.html", "--port", 0], "?"),
    "a served folder of documents": (["serve", "MODEL", "--index", "documents", "--port", 0], "?"),
    "a served folder of broken pictures": (["serve", "MODEL", "--index", "broken", "--port", 0], "?"),
    "served texts of bytes": (["serve", "MODEL", "--index", "PICTURES", "--texts", "bytes.txt", "--port", 0], "?"),
    "served texts that are blank": (["serve", "MODEL", "--index", "PICTURES", "--texts", "blank.txt", "--port", 0], "?"),
    "a host of nobody's": (["serve", "MODEL", "--index", "PICTURES", "--host", "192.0.2.1", "--port", 0], "?"),
    "a host that is no name": (["serve", "MODEL", "--index", "PICTURES", "--host", "a..b", "--port", 0], "?"),
    "a host that is an address of the web": (
        ["serve", "MODEL", "--index", "PICTURES", "--host", "http://127.0.0.1", "--port", 0], "?",
    ),
    "a host of nothing": (["serve", "MODEL", "--index", "PICTURES", "--host", "", "--port", 0], "?"),
    "a host that is too long": (["serve", "MODEL", "--index", "PICTURES", "--host", "x" * 300, "--port", 0], "?"),
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

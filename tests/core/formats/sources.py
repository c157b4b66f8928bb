"""Tiny sources in the structure of the published ones, with real JPEGs, and what importing them gives."""

import io
import json
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from hypothesis import strategies as st
from PIL import Image

from core.errors import UserError
from core.files.json_files import read_json
from core.formats.conversion import Choices
from core.formats.importing import Imported, Options, prepare
from core.formats.records import Findings, Record

WIDTH, HEIGHT = 40, 20


def jpeg(shade: int = 0) -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", (WIDTH, HEIGHT), (shade, 90, 30)).save(stream, "JPEG")
    return stream.getvalue()


def draw(folder: Path, *names: str) -> Path:
    """Real images of these names below a folder."""
    for shade, name in enumerate(names):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(jpeg(shade))
    return folder


def write(path: Path, content: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def read_records(
    read: Callable[[Path, str, Findings], Iterator[Record]], path: Path, split: str = "train"
) -> tuple[list[Record], Findings]:
    findings = Findings()
    return list(read(path, split, findings)), findings


def import_to(source: Path, out: Path, **options: Any) -> tuple[dict[str, list[dict[str, Any]]], Imported]:
    """Entries of each file written, and what was counted."""
    own = {name: options.pop(name) for name in ("format", "images", "copy") if name in options}
    imported = prepare(source, out, Options(**own, choices=Choices(**options))).run()
    return {path.stem: read_json(path) for path in out.glob("*.json")}, imported


WORDS = st.sampled_from(
    [
        "images", "annotations", "image", "caption", "captions", "image_id", "id", "file_name", "filename", "filepath",
        "split", "sentences", "raw", "tokens", "bboxes", "bbox", "relations", "test", "a.jpg", "../a.jpg", "/a.jpg",
        "left", "[1, 2, 3, 4]", "[", "", " ", "\0", "\ud800",
    ]
)  # fmt: skip
SCALARS = st.none() | st.booleans() | st.integers(-2, 50) | st.floats(width=16) | WORDS | st.text(max_size=3)
ANYTHING = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(WORDS, inner, max_size=5), max_leaves=20
)


def survives(name: str, content: str | bytes, **options: Any) -> None:
    """An import of a file, whatever it contains, gives a data set or one line."""
    with tempfile.TemporaryDirectory() as folder:
        source = draw(Path(folder) / "source", "a.jpg") / name
        source.parent.mkdir(parents=True, exist_ok=True)
        source.write_bytes(content if isinstance(content, bytes) else content.encode(errors="surrogatepass"))
        out = Path(folder) / "out"
        try:
            import_to(source, out, test_fraction=0.0, **options)
        except UserError as error:
            assert str(error).isprintable()  # noqa: PT017
            assert sorted(path.name for path in Path(folder).iterdir()) == ["source"]
        else:
            assert any(out.glob("*.json"))

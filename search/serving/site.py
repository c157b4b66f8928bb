"""What the page of `crossmodal serve` is asked: a model with its pictures and texts, one question at a time.

Answers name pictures by their rows in the index, never by a path. Knows nothing of HTTP.
"""

import io
from collections.abc import Sequence
from pathlib import Path
from threading import BoundedSemaphore, Lock
from typing import TYPE_CHECKING, Any

from PIL import Image

from core.data.images import open_image
from core.errors import UserError

if TYPE_CHECKING:
    from core.inference.image_index import ImageIndex
    from core.inference.retrieval_model import Match, RetrievalModel
    from core.inference.text_index import TextIndex

LONGEST_QUERY = 1000
"""Characters of a sentence; the backbone reads fewer."""
MOST_ANSWERS = 100
MOST_UPLOADED_BYTES = 20 * 2**20
MOST_UPLOADED_PIXELS = 50_000_000
MOST_SHOWN_SIDE = 1024
"""Pixels of the longer side of a picture as it is sent."""
JPEG_QUALITY = 85
PICTURES_AT_ONCE = 4


class Site:
    """A model, the pictures that sentences are searched in, and texts for pictures, if there are any."""

    def __init__(
        self, model: "RetrievalModel", pictures: "ImageIndex", texts: "TextIndex | None", *, title: str, folder: Path
    ) -> None:
        """
        Args:
            title: of the model.
            folder: of the pictures, which their names start from.
        """
        self._model = model
        self._pictures = pictures
        self._texts = texts
        self._title = title
        self._folder = folder
        self._rows = {path: row for row, path in enumerate(pictures.paths)}
        self._asking = Lock()  # the model answers one question after the other
        self._opening = BoundedSemaphore(PICTURES_AT_ONCE)

    def about(self) -> dict[str, Any]:
        """What the page says of the model, and the limits of what it may be asked."""
        return {
            "title": self._title,
            "pictures": len(self._pictures),
            "texts": None if self._texts is None else len(self._texts),
            "notes": list(self._model.notes()),
            "longest_query": LONGEST_QUERY,
            "most_bytes": MOST_UPLOADED_BYTES,
        }

    def search_pictures(self, sentence: str, top: int) -> list[dict[str, Any]]:
        """The pictures that a sentence describes, best first.

        Raises:
            UserError: the sentence is empty or too long, or another number of answers is asked for.
        """
        sentence = " ".join(sentence.split())
        if not sentence:
            raise UserError("there is no sentence to search for")
        if len(sentence) > LONGEST_QUERY:
            raise UserError(f"a sentence of {len(sentence):,} characters is too long", how=f"at most {LONGEST_QUERY:,}")
        if not 1 <= top <= MOST_ANSWERS:
            raise UserError(f"{top} answers are asked for", how=f"ask for 1 to {MOST_ANSWERS}")
        with self._asking:
            found = self._model.search(sentence, self._pictures, top)
        return [
            {"picture": self._rows[match.path], "name": str(match.path.relative_to(self._folder)), **_facts(match)}
            for match in found
            if match.path is not None
        ]

    def search_texts(self, uploaded: Path, top: int = 10) -> list[dict[str, Any]]:
        """The texts that describe an uploaded picture, best first.

        Raises:
            UserError: the site has no texts, or the file is not a picture of a size that is taken; its path is not
                named.
        """
        if self._texts is None:
            raise UserError("there are no texts to find", how="start crossmodal serve with --texts FILE")
        picture = _opened(uploaded)
        with self._asking:
            found = self._model.search(picture, self._texts, top)
        return [{"text": match.text, **_facts(match)} for match in found]

    def show_picture(self, row: int) -> bytes:
        """A picture of the index as an upright JPEG of moderate size.

        Raises:
            UserError: there is no such row, or the file cannot be read any more; its path is not named.
        """
        if not 0 <= row < len(self._pictures):
            raise UserError("there is no such picture")
        with self._opening:
            picture = _without_path(self._pictures.paths[row])
            picture.thumbnail((MOST_SHOWN_SIDE, MOST_SHOWN_SIDE))
            stream = io.BytesIO()
            picture.save(stream, "JPEG", quality=JPEG_QUALITY)
        return stream.getvalue()


def _facts(match: "Match") -> dict[str, Any]:
    box: Sequence[float] | None = match.box
    return {
        "score": match.score,
        "match": match.match,
        "box": None if box is None else list(box),
        "relation": match.relation,
    }


def _opened(uploaded: Path) -> Image.Image:
    """An uploaded picture; its size is known before it is decoded."""
    try:
        with Image.open(uploaded) as picture:
            pixels = picture.width * picture.height
    except Exception:  # of Pillow's parsers, on what is no picture: `open_image` says what it is
        pixels = 0
    if pixels > MOST_UPLOADED_PIXELS:
        millions = f"{pixels / 1e6:,.0f} million pixels"
        raise UserError(f"a picture of {millions} is too large", how=f"at most {MOST_UPLOADED_PIXELS / 1e6:,.0f}")
    return _without_path(uploaded)


def _without_path(path: Path) -> Image.Image:
    try:
        return open_image(path)[0]
    except UserError as error:
        raise UserError(f"the picture {error.what.removeprefix('the image ')}") from None

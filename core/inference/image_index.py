"""A folder of pictures, embedded once: what is new or changed since is encoded, and an interruption loses little.

Nothing is written into the folder. Embeddings lie in a cache, by the model and the content of each picture.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from core.data.images import file_problem, open_image
from core.errors import UserError
from core.files.digests import file_digests
from core.files.folders import cache_folder
from core.inference.identity import model_identity
from core.inference.nearest import Gallery, Nearest
from core.inference.vector_cache import VectorCache
from core.model.views import ImageView

if TYPE_CHECKING:
    from core.inference.retrieval_model import RetrievalModel

OnProgress = Callable[[int, int], None]
"""Called with the number of pictures that are done, and of all."""

EMBEDDED, GRID = "embedded", "grid"
SHARD = 256
"""Pictures that are written together: the most that a crash loses."""


class ImageIndex:
    """Embeddings of the pictures of a folder, to be searched with texts."""

    def __init__(self, paths: Sequence[Path], digests: Sequence[str], cache: VectorCache, problems: list[str]) -> None:
        self.paths = list(paths)
        """Of the pictures, in the order of their names."""
        self.problems = problems
        """One line for each picture that was skipped, since it cannot be read."""
        self._digests = list(digests)
        self._cache = cache
        self._embedded = cache.gather(EMBEDDED, self._digests) if self.paths else torch.zeros(0, 1)
        self._gallery = Gallery(self._embedded.numpy())

    @classmethod
    def open(
        cls,
        model: "RetrievalModel",
        folder: Path | str,
        *,
        cache: Path | None = None,
        on_progress: OnProgress = lambda done, total: None,
    ) -> "ImageIndex":
        """Embed the pictures in a folder and its sub-folders, or only those that are not known yet.

        Pictures that cannot be read are skipped, see `problems`.

        Args:
            cache: folder to keep embeddings in; by default one of the user's.
        Raises:
            UserError: there is no such folder, there is no picture in it, or the backbone cannot be loaded.
        """
        folder, cache = Path(folder).expanduser(), cache or cache_folder() / "index"
        listed = list(pictures_in(folder))
        if not listed:
            raise UserError("holds no pictures", where=folder, how="name a folder with image files")
        problems = [f"{path}: {problem}" for path in listed if (problem := _problem(path))]
        unreadable = {line.partition(": ")[0] for line in problems}
        paths = [path for path in listed if str(path) not in unreadable]
        digests = _digests(paths, folder, cache)
        known = VectorCache(cache / model_identity(model, cache / "digests"))
        done = len(listed) - len(paths)
        for failed, encoded in _encode_missing(model, known, paths, digests):
            problems += failed
            on_progress(done + encoded, len(listed))
        kept = [(path, digest) for path, digest in zip(paths, digests, strict=True) if digest in known]
        on_progress(len(listed), len(listed))
        return cls([path for path, _ in kept], [digest for _, digest in kept], known, problems)

    def __len__(self) -> int:
        return len(self.paths)

    def search(self, vectors: NDArray[np.float32], top: int) -> Nearest:
        """Similarities [Q, k] and rows [Q, k] of the nearest pictures of each vector [Q, D], best first."""
        return self._gallery.nearest(vectors, top)

    def view(self, rows: Tensor, device: torch.device) -> ImageView:
        """The pictures at these rows as the heads see them."""
        digests = [self._digests[row] for row in rows.tolist()]
        attends = self._cache.holds(GRID, digests)
        grid = self._cache.gather(GRID, digests).to(device) if attends else None
        return ImageView(self._embedded[rows].to(device), grid)


def pictures_in(folder: Path) -> Iterator[Path]:
    """Files in a folder and its sub-folders whose names end like those of pictures, in order; hidden ones are not.

    Raises:
        UserError: there is no such folder.
    """
    if not folder.is_dir():
        raise UserError("there is no such folder of pictures", where=folder, how="name a folder with image files")
    Image.init()
    suffixes = {suffix for suffix, kind in Image.registered_extensions().items() if kind in Image.OPEN}
    for root, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(files):
            if not name.startswith(".") and Path(name).suffix.lower() in suffixes:
                yield Path(root) / name


def _problem(path: Path) -> str | None:
    """Why a file cannot be opened at all."""
    problem = file_problem(path)
    return problem or (None if os.access(path, os.R_OK) else "may not be read")


def _digests(paths: Sequence[Path], folder: Path, cache: Path) -> list[str]:
    try:
        return file_digests(list(paths), cache / "digests", name=str(folder.resolve()))
    except OSError as error:
        raise UserError(f"cannot be read ({error.strerror})", where=error.filename, how="run it again") from None


def _encode_missing(
    model: "RetrievalModel", known: VectorCache, paths: Sequence[Path], digests: Sequence[str]
) -> Iterator[tuple[list[str], int]]:
    """Encode what is not known; yields the problems of each batch, and the number of pictures that are done so far."""
    missing: dict[str, Path] = {}
    for path, digest in zip(paths, digests, strict=True):
        if digest not in known:
            missing.setdefault(digest, path)
    done = len(paths) - len(missing)
    yield [], done
    if not missing:
        return
    waiting: list[tuple[str, ImageView]] = []
    try:
        for batch, images, problems in _opened(list(missing.items()), model.encoder.batch):
            if images:
                waiting += _rows(batch, model.view_features(*model.encoder.encode_opened(images)))
            done += len(images) + len(problems)
            if len(waiting) >= SHARD:
                _keep(known, waiting)
                waiting = []
            yield problems, done
    finally:  # also when it is interrupted
        _keep(known, waiting)


def _opened(missing: Sequence[tuple[str, Path]], size: int) -> Iterator[tuple[list[str], list[Image.Image], list[str]]]:
    """Digests and pictures of one batch after the other, decoded while the one before is encoded, and the problems."""

    def open_batch(start: int) -> tuple[list[str], list[Image.Image], list[str]]:
        digests, images, problems = [], [], []
        for digest, path in missing[start : start + size]:
            try:
                images.append(open_image(path)[0])
                digests.append(digest)
            except UserError as error:
                problems.append(str(error))
        return digests, images, problems

    with ThreadPoolExecutor(1) as pool:
        ahead = pool.submit(open_batch, 0)
        for start in range(size, len(missing) + size, size):
            batch, ahead = ahead.result(), pool.submit(open_batch, start)
            yield batch


def _rows(digests: Sequence[str], view: ImageView) -> list[tuple[str, ImageView]]:
    return [(digest, view.rows(slice(row, row + 1))) for row, digest in enumerate(digests)]


def _keep(known: VectorCache, rows: Sequence[tuple[str, ImageView]]) -> None:
    if not rows:
        return
    views = [view for _, view in rows]
    tensors = {EMBEDDED: torch.cat([view.embedded for view in views])}
    grids = [view.grid for view in views if isinstance(view.grid, Tensor)]
    if grids:
        tensors[GRID] = torch.cat(grids)
    known.add([digest for digest, _ in rows], tensors)

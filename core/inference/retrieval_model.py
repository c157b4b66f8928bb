"""A trained model with its frozen backbone: pictures and texts in, embeddings, boxes and matches out.

Built from a checkpoint alone (`core.inference.loading`): neither features nor training data are read. The backbone is
loaded when it is first needed.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from PIL.Image import Image
from torch import Tensor

from core.config import Device
from core.data.geometry import RELATIONS
from core.device import choose_device
from core.errors import UserError
from core.evaluation.ranking import Order
from core.evaluation.reranking import settled_order
from core.inference import searching
from core.inference.encoding import Encoder, require_list, require_texts
from core.inference.identity import require_given_backbone
from core.inference.image_index import ImageIndex
from core.inference.text_index import TextIndex
from core.model.checkpoints import Checkpoint, restore_model, widths_of
from core.model.model import CrossModalModel, require_finite
from core.model.views import ImageView, TextView
from core.records import Corners

if TYPE_CHECKING:
    from core.features.store import Widths

Picture = Path | str | Image
"""A picture file, or a picture that is open already."""


@dataclass(frozen=True, slots=True)
class Match:
    """One answer to a query: a picture or a text."""

    path: Path | None
    """Picture that answers a text; None for a text that answers a picture."""
    text: str | None
    """Text that answers a picture."""
    score: float
    """Cosine similarity. Candidates that the matching head re-ranked may be in another order."""
    box: Corners | None
    """Where in the picture the text is, x1 y1 x2 y2 as fractions; None if the model was not trained on boxes."""
    relation: str | None
    """Predicted position of what the text describes; None if the model cannot tell."""
    match: float | None = None
    """Probability of a match by the matching head; None where nothing was re-ranked."""


@dataclass(frozen=True, slots=True)
class Grounding:
    """Where a sentence is in a picture."""

    box: Corners | None
    """x1 y1 x2 y2 as fractions of the picture; None if the model was not trained on boxes."""
    relation: str | None
    """Position relative to another region of the picture; None if the model cannot tell."""
    notes: tuple[str, ...] = ()
    """Why one of them is None, or how little it is worth."""


class RetrievalModel:
    """A trained model, ready for pictures and texts; see `core.inference.loading.load_model`."""

    def __init__(
        self,
        checkpoint: Checkpoint,
        *,
        name: str = "the model",
        backbone: str | None = None,
        device: Device = "auto",
        verdicts: Mapping[str, str] | None = None,
    ) -> None:
        """Restore the model from its weights.

        Args:
            name: in messages.
            backbone: folder or hub id of the frozen backbone; by default the one that it was trained with.
            verdicts: of box_iou and relation_accuracy, where they were measured: grounded or not grounded.
        Raises:
            UserError: the weights do not fit the configuration, or the device is not available.
        """
        self.name = name
        self.checkpoint = checkpoint
        self.config = checkpoint.config
        if backbone is not None:
            place = str(Path(backbone).expanduser().resolve()) if Path(backbone).expanduser().is_dir() else backbone
            self.config = self.config.with_overrides({"features.backbone": place})
        self.device = choose_device(device)
        self.model = _restored(checkpoint, name).to(self.device)
        self.verdicts = dict(verdicts or {})
        self._encoder: Encoder | None = None
        self._loading = Lock()

    @property
    def encoder(self) -> Encoder:
        """The frozen backbone, loaded when it is first needed.

        Raises:
            UserError: it cannot be loaded, is not the one that the model was trained on, or the model reads vectors
                that another program computes.
        """
        with self._loading:
            if self._encoder is None:
                require_given_backbone(self)
                self._encoder = Encoder.load(self.config, self.device, self.name)
            return self._encoder

    @property
    def widths(self) -> "Widths":
        """Of the features that the model reads."""
        return widths_of(self.checkpoint)

    @property
    def order(self) -> Order | None:
        """How candidates are re-ranked, as configured or as chosen on validation; None if they are not."""
        order = settled_order(self.checkpoint, self.config.evaluation)
        return order if order.depth and order.weight else None

    @property
    def attends(self) -> bool:
        """Whether the heads look at the grid of a picture."""
        return self.model.fusion == "attention"

    def embed_images(self, images: Sequence[Picture]) -> NDArray[np.float32]:
        """Embeddings [N, D] of pictures, unit norm.

        Raises:
            UserError: a picture cannot be read, or the backbone cannot be loaded.
        """
        return _numpy(self.view_images(images).embedded)

    def embed_texts(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Embeddings [N, D] of texts, unit norm.

        Raises:
            UserError: a text is empty, or the backbone cannot be loaded.
        """
        return _numpy(self.view_texts(texts).embedded)

    @torch.no_grad()
    def embed_image_vectors(self, vectors: ArrayLike, grid: ArrayLike | None = None) -> NDArray[np.float32]:
        """Embeddings [N, D] of pictures from their pooled features, the readings side by side.

        Args:
            vectors: [N, width].
            grid: [N, P, grid width], for a model with `image_pooling: attention`.
        Raises:
            UserError: they have another shape than the model reads, or are not finite.
        """
        cells = None if grid is None else self._rows(grid, self.widths.grid or (0, 0), "grid")
        if cells is None and self.model.image_pooling is not None:
            raise UserError("pools the grid of a picture, which is not given", where=self.name, how="pass grid=")
        features = self._rows(vectors, (self.widths.images,), "image vectors")
        return _numpy(require_finite(self.model.embed_images(features, cells), "embeddings"))

    @torch.no_grad()
    def embed_text_vectors(self, vectors: ArrayLike) -> NDArray[np.float32]:
        """Embeddings [N, D] of texts from their pooled features [N, width], the readings side by side.

        Raises:
            UserError: they have another shape than the model reads, or are not finite.
        """
        features = self._rows(vectors, (self.widths.texts,), "text vectors")
        return _numpy(require_finite(self.model.embed_texts(features), "embeddings"))

    def search(self, query: Picture, index: "ImageIndex | TextIndex", top: int = 10) -> list[Match]:
        """The best answers to a query, best first; re-ranked by the matching head if the checkpoint says so.

        Args:
            query: a text for an index of pictures; a picture, open or by its path, for an index of texts.
        Raises:
            UserError: the index is empty, or the query cannot be read or does not suit it.
        """
        if isinstance(index, TextIndex):
            found = searching.search_texts(self, query, index, top)
            return [Match(None, index.texts[each.row], *self._details(each)) for each in found]
        if not isinstance(query, str):
            raise UserError("an index of pictures is asked with a text", how="pass a str, or a TextIndex")
        found = searching.search_images(self, query, index, top)
        return [Match(index.paths[each.row], None, *self._details(each)) for each in found]

    @torch.no_grad()
    def ground(self, image: Picture, sentence: str, reference: str | None = None) -> Grounding:
        """Where a sentence is in a picture, and how it lies to another region.

        Args:
            reference: sentence of the other region; a model with `fusion: attention` needs it for the relation.
        Raises:
            UserError: the picture cannot be read, or the sentence is empty.
        """
        texts = self.view_texts([sentence] if reference is None else [sentence, reference])
        first, last = slice(0, 1), slice(len(texts.embedded) - 1, None)
        boxes, logits = self.model.ground(self.view_images([image]), texts.rows(first), texts.rows(last))
        box, relation = self.answers(boxes, logits, related=reference is not None)[0]
        return Grounding(box, relation, self.notes(related=reference is not None))

    def answers(
        self, boxes: Tensor, relations: Tensor, *, related: bool = False
    ) -> list[tuple[Corners | None, str | None]]:
        """Boxes [N, 4] and relation logits [N, 6] as plain values, None for what the model was not trained on.

        Args:
            related: whether the sentence of another region was given.
        """
        boxed, tells = self.learned("box"), self.learned("spatial") and (related or not self.attends)
        shown = require_finite(boxes, "boxes").clamp(0, 1).tolist()
        best = relations.argmax(dim=1).tolist()
        corners: list[Corners] = [(box[0], box[1], box[2], box[3]) for box in shown]
        return [
            (box if boxed else None, RELATIONS[relation] if tells else None)
            for box, relation in zip(corners, best, strict=True)
        ]

    def notes(self, *, related: bool = False) -> tuple[str, ...]:
        """What a user must know of the boxes and relations of this model; nothing if they are sound.

        Args:
            related: whether the sentence of another region is given.
        """
        notes = []
        for loss, name, metric in (("box", "boxes", "box_iou"), ("spatial", "relations", "relation_accuracy")):
            if not self.learned(loss):
                notes.append(f"no {name}: the model was not trained on them")
            elif loss == "spatial" and self.attends and not related:
                notes.append("no relations: this model needs the sentence of another region for them")
            elif self.verdicts.get(metric) == "not grounded":
                notes.append(f"{name} are not grounded: measured, they are no better than without the picture")
        return tuple(notes)

    def view_images(self, images: Sequence[Picture]) -> ImageView:
        """Pictures as the heads see them, on the model's device."""
        require_list(images, "pictures")
        return self.view_features(*self.encoder.encode_images(images))

    @torch.no_grad()
    def view_features(self, features: Tensor, grid: Tensor | None) -> ImageView:
        """Pictures as the heads see them, from their features."""
        embedded = require_finite(self.model.embed_images(features, grid), "embeddings")
        return ImageView(embedded.float(), grid if self.attends else None)

    @torch.no_grad()
    def view_texts(self, texts: Sequence[str]) -> TextView:
        """Texts as the heads see them, on the model's device."""
        require_texts(texts)
        features = self.encoder.encode_texts(texts)
        embedded = require_finite(self.model.embed_texts(features), "embeddings")
        return TextView(embedded.float(), features if self.attends else None)

    def _details(self, found: "searching.Found") -> tuple[float, Corners | None, str | None, float | None]:
        return found.score, found.box, found.relation, found.match

    def learned(self, loss: str) -> bool:
        """Whether a loss was above 0 in an epoch that led to these weights."""
        epochs = self.checkpoint.history[: self.checkpoint.epoch + 1]
        return getattr(self.config.loss, loss) > 0 and any(getattr(epoch, f"loss_{loss}") for epoch in epochs)

    def _rows(self, table: ArrayLike, shape: tuple[int, ...], name: str) -> Tensor:
        rows = torch.as_tensor(np.asarray(table, dtype=np.float32)).to(self.device)
        if tuple(rows.shape[1:]) != shape:
            expected = " × ".join(map(str, ("N", *shape)))
            raise UserError(f"reads {name} of {expected}, not {' × '.join(map(str, rows.shape))}", where=self.name)
        if not rows.isfinite().all():
            raise UserError(f"the {name} hold NaN or infinity", where=self.name)
        return rows


def _restored(checkpoint: Checkpoint, name: str) -> CrossModalModel:
    try:
        return restore_model(checkpoint)
    except UserError as error:
        raise UserError(error.what, where=name, how="train, export or download it again") from None


def _numpy(embedded: Tensor) -> NDArray[np.float32]:
    numbers: NDArray[np.float32] = embedded.float().cpu().numpy()
    return numbers

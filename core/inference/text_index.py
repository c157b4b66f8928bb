"""Texts that answer pictures, embedded once."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from core.inference.nearest import Gallery, Nearest
from core.model.views import TextView

if TYPE_CHECKING:
    from core.inference.retrieval_model import RetrievalModel


class TextIndex:
    """Embeddings of texts, to be searched with pictures."""

    def __init__(self, texts: Sequence[str], view: TextView) -> None:
        self.texts = list(texts)
        self._view = view
        self._gallery = Gallery(view.embedded.cpu().numpy())

    @classmethod
    def of(cls, model: "RetrievalModel", texts: Sequence[str]) -> "TextIndex":
        """Embed texts; equal ones are one answer.

        Raises:
            UserError: there is none, one is empty, or the backbone cannot be loaded.
        """
        distinct = list(dict.fromkeys(texts)) if not isinstance(texts, str) else texts
        return cls(list(distinct), model.view_texts(distinct))

    def __len__(self) -> int:
        return len(self.texts)

    def search(self, vectors: NDArray[np.float32], top: int) -> Nearest:
        """Similarities [Q, k] and rows [Q, k] of the nearest texts of each vector [Q, D], best first."""
        return self._gallery.nearest(vectors, top)

    def view(self, rows: Tensor, device: torch.device) -> TextView:
        """The texts at these rows as the heads see them."""
        return self._view.rows(rows.to(device))

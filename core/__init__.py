"""The public face: `load_model`, and what it works with; imported when it is first used, so that torch is not."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from core.inference.image_index import ImageIndex
    from core.inference.loading import load_model
    from core.inference.retrieval_model import Grounding, Match, RetrievalModel
    from core.inference.text_index import TextIndex

__version__ = "0.1.0"
__all__ = ["Grounding", "ImageIndex", "Match", "RetrievalModel", "TextIndex", "__version__", "load_model"]

_MODULES = {
    "Grounding": "retrieval_model",
    "ImageIndex": "image_index",
    "Match": "retrieval_model",
    "RetrievalModel": "retrieval_model",
    "TextIndex": "text_index",
    "load_model": "loading",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"core.inference.{_MODULES[name]}"), name)

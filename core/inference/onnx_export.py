"""The adapters as ONNX: pooled features in, embeddings out, for any number of rows; compared when they are written."""

import contextlib
import io
import logging
import warnings
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from core.errors import UserError
from core.files.ownership import claim_folder, scratch_folder
from core.inference.retrieval_model import RetrievalModel

IMAGES, TEXTS = "image_adapter.onnx", "text_adapter.onnx"
NEEDED = ("onnx", "onnxruntime", "onnxscript")
TOLERANCE = 1e-5
"""Largest difference of an entry of an embedding, of unit norm."""
COMPARED = (1, 7)
"""Numbers of rows that are compared; the adapters are traced with another one."""
TRACED = 3


class _Adapter(nn.Module):
    """One of the two ways through the model, as a module of its own."""

    def __init__(self, model: nn.Module, embed: Callable[..., Tensor]) -> None:
        super().__init__()
        self.model = model
        self._embed = embed

    def forward(self, *features: Tensor) -> Tensor:
        return self._embed(*features)


def require_onnx() -> None:
    """Check that what writes and compares ONNX is installed.

    Raises:
        UserError: it is not.
    """
    if missing := [name for name in NEEDED if find_spec(name) is None]:
        raise UserError(f"--onnx needs {missing[0]}", how="pip install 'crossmodal-search[onnx]'")


def write_onnx(model: RetrievalModel, folder: Path) -> dict[str, float]:
    """Write both adapters; returns the largest difference to the model by the name of the file.

    Inputs are `features` [N, width], not normalised, and `grid` [N, P, grid width] for a model with `image_pooling:
    attention`; the output is `embeddings` [N, D], unit norm.

    Raises:
        UserError: a package is missing, a foreign file has one of the names, or the outputs differ.
    """
    require_onnx()
    claim_folder(folder, (IMAGES, TEXTS))
    module, widths = model.model.eval().cpu(), model.widths
    images: dict[str, tuple[int, ...]] = {"features": (widths.images,)}
    if module.image_pooling is not None and widths.grid is not None:
        images["grid"] = widths.grid
    adapters: Mapping[str, tuple[_Adapter, Mapping[str, tuple[int, ...]]]] = {
        IMAGES: (_Adapter(module, module.embed_images), images),
        TEXTS: (_Adapter(module, module.embed_texts), {"features": (widths.texts,)}),
    }
    differences = {}
    with scratch_folder(folder) as scratch:
        for name, (adapter, shapes) in adapters.items():
            _trace(adapter, shapes, scratch / name)
            differences[name] = _difference(adapter, shapes, scratch / name)
            if not differences[name] <= TOLERANCE:
                raise UserError(f"{name} differs by {differences[name]:.1e} from the model", where=folder)
        for name in adapters:
            (scratch / name).replace(folder / name)
    model.model.to(model.device)
    return differences


def _trace(adapter: _Adapter, shapes: Mapping[str, tuple[int, ...]], path: Path) -> None:
    rows = torch.export.Dim("rows", min=1)
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):  # the exporter reports its steps
        warnings.simplefilter("ignore")
        torch.onnx.export(
            adapter,
            _random(shapes, TRACED),
            path,
            dynamo=True,
            external_data=False,
            input_names=list(shapes),
            output_names=["embeddings"],
            dynamic_shapes=(tuple({0: rows} for _ in shapes),),  # of one variadic argument
            verbose=False,
        )


def _difference(adapter: _Adapter, shapes: Mapping[str, tuple[int, ...]], path: Path) -> float:
    """Largest difference of the outputs on random features, as onnxruntime computes them."""
    import onnxruntime  # an extra

    session: Any = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    largest = 0.0
    for count in COMPARED:
        features = _random(shapes, count)
        (found,) = session.run(None, {name: part.numpy() for name, part in zip(shapes, features, strict=True)})
        with torch.no_grad():
            largest = max(largest, float((adapter(*features) - torch.from_numpy(found)).abs().max()))
    return largest


def _random(shapes: Mapping[str, tuple[int, ...]], rows: int) -> tuple[Tensor, ...]:
    generator = torch.Generator().manual_seed(rows)
    return tuple(torch.randn(rows, *shape, generator=generator) for shape in shapes.values())

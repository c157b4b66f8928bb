from pathlib import Path

import numpy as np
import pytest

from core import RetrievalModel
from core.errors import UserError
from core.features.opening import open_features
from core.inference import onnx_export
from core.inference.onnx_export import IMAGES, TEXTS, TOLERANCE, require_onnx, write_onnx


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of the exporter's own parts
@pytest.mark.parametrize("kind", ["model", "attending_model"])
def test_the_adapters_give_the_same_embeddings(kind: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    model: RetrievalModel = request.getfixturevalue(kind)
    differences = write_onnx(model, tmp_path)
    assert differences.keys() == {IMAGES, TEXTS}
    assert max(differences.values()) <= TOLERANCE
    split = open_features(model.config).validation
    images, texts = split.images[:].numpy(), split.texts[:].numpy()
    grid = None if split.grid is None else split.grid[:].float().numpy()
    given = {"features": images} if grid is None else {"features": images, "grid": grid}
    (embedded,) = onnxruntime.InferenceSession(tmp_path / IMAGES).run(["embeddings"], given)
    assert embedded == pytest.approx(model.embed_image_vectors(images, grid), abs=TOLERANCE)
    (embedded,) = onnxruntime.InferenceSession(tmp_path / TEXTS).run(["embeddings"], {"features": texts})
    assert np.abs(embedded - model.embed_text_vectors(texts)).max() <= TOLERANCE


def test_without_the_extra_there_is_one_clear_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnx_export, "NEEDED", ("no_such_package",))
    with pytest.raises(UserError, match=r"--onnx needs no_such_package; pip install 'crossmodal-search\[onnx\]'"):
        require_onnx()

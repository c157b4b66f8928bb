import numpy as np
import pytest

from core import RetrievalModel, TextIndex


@pytest.mark.parametrize("kind", ["model", "attending_model"])
def test_texts_are_found_by_their_own_vectors(kind: str, request: pytest.FixtureRequest) -> None:
    model: RetrievalModel = request.getfixturevalue(kind)
    texts = ["a red dome", "a blue pool", "two green halls"]
    index = TextIndex.of(model, [*texts, "a blue pool"])
    assert index.texts == texts
    scores, rows = index.search(model.embed_texts(texts), top=2)
    assert rows[:, 0].tolist() == [0, 1, 2]
    assert scores[:, 0] == pytest.approx(1, abs=1e-5)
    assert (scores[:, 0] >= scores[:, 1]).all()
    assert index.search(np.zeros((1, 32), dtype=np.float32), top=9)[1].shape == (1, 3)

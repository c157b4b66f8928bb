"""The order of the answers is that of the evaluation, with and without heads that attend to the grid."""

from pathlib import Path

import pytest
import torch

from core import ImageIndex, RetrievalModel, TextIndex
from core.evaluation.scorecard import MeasuredSet, measure_alone
from core.features.inputs import read_inputs
from core.features.opening import open_features


@pytest.mark.parametrize("kind", ["model", "attending_model"])
def test_answers_are_right_as_often_as_the_recall_of_the_evaluation_says(
    kind: str, request: pytest.FixtureRequest, pictures: Path, tmp_path: Path
) -> None:
    model: RetrievalModel = request.getfixturevalue(kind)
    features = open_features(model.config, with_test=True)
    images = read_inputs(model.config).images["test"]
    assert features.test is not None
    tested = MeasuredSet(features.test, "test", features.fingerprint, 0)
    card = measure_alone(model.checkpoint, model.model, tested, name="test").scorecard
    recall = card.find("image", reranked=True).metrics

    index = ImageIndex.open(model, pictures, cache=tmp_path)
    hits = dict.fromkeys((1, 5), 0)
    asked = [(caption, image.path) for image in images for caption in image.captions]
    for caption, path in asked:
        best = [match.path for match in model.search(caption, index, top=5)]
        for k in hits:
            hits[k] += path in best[:k]
    assert hits[1] / len(asked) == pytest.approx(recall["t2i_r1"], abs=1e-9)
    assert hits[5] / len(asked) == pytest.approx(recall["t2i_r5"], abs=1e-9)
    assert hits[5] > hits[1]

    texts = TextIndex.of(model, [caption for caption, _ in asked])
    right = 0
    for image in images:
        (best_text,) = model.search(image.path, texts, top=1)
        right += best_text.text in image.captions
    assert right / len(images) == pytest.approx(recall["i2t_r1"], abs=1e-9)


def test_only_the_best_are_reranked_and_the_others_follow_by_similarity(
    model: RetrievalModel, index: ImageIndex
) -> None:
    found = model.search("a red dome on sand", index, top=20)
    assert [match.match is not None for match in found] == [True] * 8 + [False] * 12
    scores = torch.tensor([match.score for match in found])
    assert scores[:8].min() >= scores[8:].max()
    assert (scores[8:].diff() <= 0).all()
    assert all(match.box is not None for match in found)


def test_a_text_is_found_with_its_box_in_the_picture(model: RetrievalModel, index: ImageIndex) -> None:
    texts = TextIndex.of(model, ["a red dome", "a blue pool", "a red dome"])
    assert len(texts) == 2
    found = model.search(index.paths[0], texts)
    assert {match.text for match in found} == {"a red dome", "a blue pool"}
    for match in found:
        assert match.path is None
        assert match.box == pytest.approx(model.ground(index.paths[0], str(match.text)).box, abs=1e-4)

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from core import ImageIndex, RetrievalModel, TextIndex
from core.config import TrainConfig
from core.data.geometry import RELATIONS
from core.errors import UserError
from core.evaluation.embedding import embed_split
from core.features.opening import open_features
from core.features.store import Features
from core.model.checkpoints import restore_model
from core.sections import parse


@pytest.fixture(scope="module")
def stored(model: RetrievalModel) -> Features:
    return open_features(model.config, with_test=True)


def test_embeddings_are_those_of_the_evaluation(model: RetrievalModel, stored: Features, demo: Path) -> None:
    from core.features.inputs import read_inputs

    images = read_inputs(model.config).images["test"]
    assert stored.test is not None
    embedded = embed_split(restore_model(model.checkpoint), stored.test)
    ours = model.embed_images([image.path for image in images])
    texts = model.embed_texts([caption for image in images for caption in image.captions])
    assert ours == pytest.approx(embedded.images.embedded.numpy(), abs=1e-5)
    assert texts == pytest.approx(embedded.captions.embedded.numpy(), abs=1e-5)
    assert ours.dtype == np.float32
    assert ours.shape == (len(images), 32)
    assert np.linalg.norm(ours, axis=1) == pytest.approx(1, abs=1e-5)


def test_an_open_picture_is_the_same_as_its_file(model: RetrievalModel, pictures: Path) -> None:
    path = next(pictures.rglob("*.jpeg"))
    with Image.open(path) as image:
        embedded = model.embed_images([path, str(path), image, image.convert("RGBA")])
    assert embedded == pytest.approx(embedded[[0, 0, 0, 0]], abs=1e-6)


@pytest.mark.parametrize("kind", ["model", "attending_model"])
def test_pooled_features_are_embedded_without_the_backbone(kind: str, request: pytest.FixtureRequest) -> None:
    model: RetrievalModel = request.getfixturevalue(kind)
    features = open_features(model.config)
    split, rows = features.validation, slice(0, 3)
    embedded = embed_split(restore_model(model.checkpoint), split)
    grid = None if split.grid is None else split.grid[rows].numpy()
    assert model.embed_image_vectors(split.images[rows].numpy(), grid) == pytest.approx(
        embedded.images.embedded[rows].numpy(), abs=1e-6
    )
    with pytest.raises(UserError, match=r"reads text vectors of N × \d+, not 2 × 3"):
        model.embed_text_vectors(np.zeros((2, 3)))
    with pytest.raises(UserError, match="hold NaN or infinity"):
        model.embed_text_vectors(np.full((2, model.widths.texts), np.nan))


def test_a_sentence_is_grounded_in_a_picture(model: RetrievalModel, pictures: Path) -> None:
    found = model.ground(next(pictures.rglob("*.jpeg")), "a red dome")
    assert found.box is not None
    x1, y1, x2, y2 = found.box
    assert 0 <= x1 < x2 <= 1
    assert 0 <= y1 < y2 <= 1
    assert found.relation in RELATIONS
    assert found.notes == ()


def test_what_a_model_did_not_learn_is_not_answered(model: RetrievalModel, pictures: Path) -> None:
    config = model.checkpoint.config.with_overrides({"loss.box": 0, "loss.spatial": 0})
    blind = RetrievalModel(replace(model.checkpoint, config=config))
    found = blind.ground(next(pictures.rglob("*.jpeg")), "a red dome")
    assert (found.box, found.relation) == (None, None)
    assert found.notes == (
        "no boxes: the model was not trained on them",
        "no relations: the model was not trained on them",
    )
    without = [replace(epoch, loss_box=0.0) for epoch in model.checkpoint.history]  # as without any box in the data
    assert RetrievalModel(replace(model.checkpoint, history=without)).notes()[0].startswith("no boxes")


def test_a_query_that_does_not_suit_is_one_clear_line(
    model: RetrievalModel, index: ImageIndex, pictures: Path, tmp_path: Path
) -> None:
    texts = TextIndex.of(model, ["a pool"])
    for ask, problem in (
        (lambda: model.search(pictures, index), "an index of pictures is asked with a text"),
        (lambda: model.search(tmp_path / "no.jpeg", texts), "the image is missing"),
        (lambda: model.search("", index), "has no token"),
        (lambda: model.search("a pool", index, top=0), "0 answers are asked for"),
        (lambda: model.embed_texts("a pool"), "a list of texts is needed, not one of them"),
        (lambda: model.embed_images([]), "there are no pictures"),
    ):
        with pytest.raises(UserError, match=problem):
            ask()


def test_a_model_of_foreign_vectors_says_what_to_call(model: RetrievalModel, monkeypatch: pytest.MonkeyPatch) -> None:
    from core.readings import Reading, Readings

    foreign = Readings((Reading("images", "vectors", "clip"),), (Reading("texts", "vectors", "clip"),), None)
    monkeypatch.setattr(TrainConfig, "readings", property(lambda self: foreign))
    with pytest.raises(UserError, match=r"reads vectors\.clip, .*; pass them to embed_image_vectors and"):
        RetrievalModel(model.checkpoint).embed_texts(["a pool"])


def test_how_candidates_are_reranked_is_what_evaluation_does(model: RetrievalModel) -> None:
    def order(**changes: float | None) -> object:
        content = model.checkpoint.config.model_dump(mode="json")
        content["evaluation"] |= changes
        config = parse(TrainConfig, content, where="test")
        return RetrievalModel(replace(model.checkpoint, config=config)).order

    assert order() == (8, 0.5)
    assert order(k_test=0) is order(rerank_weight=0.0) is order(rerank_weight=None) is None

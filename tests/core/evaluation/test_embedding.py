import dataclasses

import pytest
import torch
from torch import Tensor

from core.config import ModelConfig, TrainConfig
from core.evaluation import embedding
from core.evaluation.embedding import SelectedRows, embed_split, embed_texts, image_features, pair_blocks
from core.evaluation.ranking import RankingRule
from core.evaluation.regions import measure_regions
from core.evaluation.retrieval import measure_retrieval, validate
from core.features.store import Features, FeatureSplit, Widths
from core.model.model import CrossModalModel, build_model
from core.model.views import ImageView, TextView
from core.sections import Scalar
from tests.conftest import planted_split
from tests.core.evaluation.attending import CELLS, WIDTH, Attending, with_grid


class Pooling(CrossModalModel):
    """Embeds the mean of a grid's cells in the place of the image's features."""

    def __init__(self) -> None:
        super().__init__(Widths(WIDTH, 20), ModelConfig(adapter_width=4, embed_dim=4, dropout=0.0, fusion="concat"))

    def embed_images(self, features: Tensor, grid: Tensor | None = None) -> Tensor:
        assert grid is not None
        return super().embed_images(grid.float().mean(dim=1))


@pytest.fixture
def split() -> FeatureSplit:
    return planted_split(10, seed=3)


def test_rows_stay_in_their_table() -> None:
    table = torch.arange(12.0).view(6, 2)
    selected = SelectedRows(table, torch.tensor([4, 0, 0, 5]))
    assert (len(selected), list(selected.shape)) == (4, [4, 2])
    assert torch.equal(selected[1:4], table[[0, 0, 5]])
    assert torch.equal(selected.to(torch.device("cpu"))[torch.tensor([3, 0])], table[[5, 4]])


def test_heads_that_see_embeddings_alone_are_given_nothing_else(split: FeatureSplit) -> None:
    model = CrossModalModel(Widths(16, 20), ModelConfig(adapter_width=4, embed_dim=4)).eval()
    embedded = embed_split(model, split)
    assert embedded.images.grid is None
    assert embedded.captions.features is embedded.sentences.features is None
    assert torch.equal(embedded.captions.embedded, embed_texts(model, split)[split.caption_text])


def test_heads_that_attend_see_the_grid_and_the_raw_text_of_each_row(split: FeatureSplit) -> None:
    gridded, _ = with_grid(dataclasses.replace(split, caption_text=split.caption_text.flip(0)))
    model = CrossModalModel(Widths(16, 20), ModelConfig(adapter_width=4, embed_dim=4))
    model.fusion = "attention"
    embedded = embed_split(model, dataclasses.replace(gridded, grid=None))
    rows = torch.tensor([7, 1])
    seen = embedded.captions.rows(rows)
    assert torch.equal(seen.features[:], split.texts[gridded.caption_text[rows]])  # type: ignore[index]
    assert torch.equal(embedded.sentences.rows(slice(2, 4)).features[:], split.texts[2:4])  # type: ignore[index]


def test_a_model_that_pools_the_grid_embeds_it_block_by_block(
    split: FeatureSplit, monkeypatch: pytest.MonkeyPatch
) -> None:
    gridded, watched = with_grid(split)
    model = Pooling()
    whole = embed_split(model, gridded).images.embedded
    assert watched.most == len(split.images)
    watched.most = 0
    monkeypatch.setattr(embedding, "EMBEDDING_BYTES", 4 * (16 + CELLS * WIDTH) * 7)
    torch.testing.assert_close(embed_split(model, gridded).images.embedded, whole)
    assert watched.most == 7
    assert len(image_features(gridded, slice(0, 3))) == 2


def test_a_block_of_pairs_counts_the_grid_that_is_gathered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedding, "PAIR_BYTES", 40_000)
    images, texts = ImageView(torch.zeros(9, 10)), TextView(torch.zeros(9, 10))
    assert next(pair_blocks(1000, images, texts)) == slice(0, 40_000 // (4 * 8 * 10))
    seen = ImageView(torch.zeros(9, 10), torch.zeros(9, 5, 30).half()), TextView(torch.zeros(9, 10), torch.zeros(9, 50))
    assert next(pair_blocks(1000, *seen)) == slice(0, 40_000 // (4 * (8 * 10 + 5 * 30 + 50)))


def test_a_model_with_dropout_is_measured_as_it_will_be_used(
    grid_features: Features, small_config: TrainConfig
) -> None:
    attending: dict[str, Scalar] = {
        "model.fusion": "attention",
        "model.image_pooling": "attention",
        "model.dropout": 0.5,
    }
    model = build_model(small_config.with_overrides(attending), grid_features)
    split, rule = grid_features.validation, RankingRule(9)
    used = embed_split(model.eval(), split)
    boxes, ranks = measure_regions(model, used), measure_retrieval(model, used, rule, split_name="validation")
    figures = validate(model, split)
    model.train()
    assert measure_regions(model, used).metrics == boxes.metrics
    reranked = measure_retrieval(model, used, rule, split_name="validation")
    assert reranked["building"].evaluation == ranks["building"].evaluation
    assert validate(model, split) == figures
    assert all(module.training for module in model.modules())


def test_embedding_leaves_the_training_mode_as_it_was(split: FeatureSplit) -> None:
    gridded, _ = with_grid(split)
    model = Attending().train()
    embed_split(model, dataclasses.replace(gridded, grid=None))
    assert model.training

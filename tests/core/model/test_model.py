from pathlib import Path
from typing import get_args

import pytest
import torch
from torch.nn import functional

from core.config import Contrastive, Fusion, GridPooling, ModelConfig, Normalization, TrainConfig, load_config
from core.errors import UserError
from core.features.store import Features, Widths
from core.model.model import CrossModalModel, build_model, parameter_counts
from core.model.views import ImageView, TextView


def reference_model() -> CrossModalModel:
    config = load_config(Path("configs/internvl3_bbox.yaml")).model
    return CrossModalModel(Widths(1024, 896), config)


def test_the_reference_configuration_has_629773_parameters() -> None:
    counts = parameter_counts(reference_model())
    assert counts == {
        "log_temperature": 1,
        "vision_adapter": 262_400,
        "text_adapter": 229_632,
        "vision_projector": 65_792,
        "text_projector": 65_792,
        "match_head": 1_026,
        "box_head": 2_052,
        "relation_head": 3_078,
    }
    assert sum(counts.values()) == 629_773


def test_with_grounding_and_pooling_of_full_size_grids_a_model_has_fewer_than_one_and_a_half_million() -> None:
    widths = Widths(1024, 896, (64, 1024))
    counts = parameter_counts(CrossModalModel(widths, ModelConfig(fusion="attention")))
    assert counts == {
        "log_temperature": 1,
        "vision_adapter": 262_400,
        "text_adapter": 229_632,
        "vision_projector": 65_792,
        "text_projector": 65_792,
        "grounding": 712_349,
    }
    pooled = parameter_counts(CrossModalModel(widths, ModelConfig(fusion="attention", image_pooling="attention")))
    assert pooled["image_pooling"] == 4 * 1024 + 4 * 18 + 1024 * 64 + 64
    assert pooled["vision_adapter"] - counts["vision_adapter"] == 4 * 64 * 256
    assert sum(counts.values()) < sum(pooled.values()) < 1_500_000


def test_the_bias_of_the_sigmoid_loss_exists_with_that_loss_alone() -> None:
    config = ModelConfig(adapter_width=4, embed_dim=4)
    counts = parameter_counts(CrossModalModel(Widths(4, 4), config, contrastive="sigmoid"))
    assert counts["contrastive_bias"] == 1
    assert "contrastive_bias" not in parameter_counts(CrossModalModel(Widths(4, 4), config))


def test_features_without_a_grid_are_refused_in_one_line(planted_features: Features, small_config: TrainConfig) -> None:
    for key in ("model.fusion", "model.image_pooling"):
        with pytest.raises(UserError, match="these features have no grid; extract them") as caught:
            build_model(small_config.with_overrides({key: "attention"}), planted_features)
        assert "\n" not in str(caught.value)


def test_the_statistics_of_the_grid_reach_heads_and_pooling(grid_features: Features, small_config: TrainConfig) -> None:
    config = small_config.with_overrides({"model.fusion": "attention", "model.image_pooling": "attention"})
    weights = build_model(config, grid_features).state_dict()
    mean, std = grid_features.statistics.grid_mean, grid_features.statistics.grid_std
    assert mean is not None
    assert std is not None
    for part in ("grounding", "image_pooling"):
        assert torch.equal(weights[f"{part}.attention.norm.mean"], mean)
        assert torch.equal(weights[f"{part}.attention.norm.std"], std)


def test_adapting_every_token_and_taking_one_equals_pooling_first() -> None:
    model = reference_model().eval()
    tokens = torch.randn(2, 9, 1024)
    every_token = model.vision_projector(model.vision_adapter(tokens))[:, 0, :]
    torch.testing.assert_close(functional.normalize(every_token, dim=-1), model.embed_images(tokens[:, 0, :]))


@pytest.mark.parametrize("fusion", get_args(Fusion))
@pytest.mark.parametrize("normalization", get_args(Normalization))
@pytest.mark.parametrize(("image_pooling", "contrastive"), [("none", "infonce"), ("attention", "sigmoid")])
def test_every_choice_gives_unit_embeddings_and_valid_boxes(
    fusion: Fusion, normalization: Normalization, image_pooling: GridPooling, contrastive: Contrastive
) -> None:
    torch.manual_seed(0)
    config = ModelConfig(
        adapter_width=8, embed_dim=6, dropout=0.0, fusion=fusion, image_pooling=image_pooling, temperature=0.05
    )
    widths = Widths(12, 10, (9, 7))
    model = CrossModalModel(widths, config, normalization=normalization, contrastive=contrastive)
    grid, features = torch.randn(5, 9, 7).half(), torch.randn(5, 10)
    image, text = model.embed_images(torch.randn(5, 12), grid), model.embed_texts(features)
    torch.testing.assert_close(image.norm(dim=1), torch.ones(5))
    torch.testing.assert_close(text.norm(dim=1), torch.ones(5))
    pair = ImageView(image, grid), TextView(text, features)
    boxes, relations = model.ground(*pair, TextView(text, features.flip(0)))
    assert (boxes >= 0).all()
    assert (boxes <= 1).all()
    assert (boxes[:, :2] <= boxes[:, 2:]).all()
    logits = model.match(*pair)
    assert logits.shape == (5, 2)
    torch.testing.assert_close(model.match_odds(*pair), logits[:, 1] - logits[:, 0])
    assert relations.shape == (5, 6)


def test_what_is_embedded_as_zeros_stays_so_and_its_gradient_is_a_number() -> None:
    model = CrossModalModel(Widths(4, 4), ModelConfig(adapter_width=8, embed_dim=6, dropout=0.0, fusion="concat"))
    torch.nn.init.zeros_(model.vision_projector.weight)
    torch.nn.init.zeros_(model.vision_projector.bias)
    embedded = model.embed_images(torch.randn(2, 4))
    assert torch.equal(embedded, torch.zeros(2, 6))
    embedded.sum().backward()
    assert model.vision_projector.weight.grad is not None
    assert model.vision_projector.weight.grad.isfinite().all()


@pytest.mark.parametrize("probability", [0.0, 0.5])
def test_dropout_follows_the_global_seed_in_training_and_does_nothing_in_evaluation(probability: float) -> None:
    config = ModelConfig(adapter_width=32, embed_dim=6, dropout=probability)
    model, features = CrossModalModel(Widths(4, 4), config), torch.randn(9, 4)

    def embed(seed: int) -> torch.Tensor:
        torch.manual_seed(seed)
        return model.embed_images(features)

    assert torch.equal(embed(1), embed(1))
    assert torch.equal(embed(1), embed(2)) is (probability == 0)
    model.eval()
    assert torch.equal(embed(1), embed(2))


def test_a_concat_head_scores_pairs_additively_and_an_interaction_head_does_not() -> None:
    torch.manual_seed(0)
    gaps = {}
    for fusion in ("concat", "interaction"):
        model = CrossModalModel(Widths(4, 4), ModelConfig(adapter_width=8, embed_dim=6, dropout=0.0, fusion=fusion))
        image, text = model.embed_images(torch.randn(2, 4)), model.embed_texts(torch.randn(2, 4))
        matched = model.match(ImageView(image), TextView(text)).sum(dim=0)
        swapped = model.match(ImageView(image), TextView(text.flip(0))).sum(dim=0)
        gaps[fusion] = float((matched - swapped).abs().max().detach())
    assert gaps["concat"] < 1e-5
    assert gaps["interaction"] > 1e-2


def test_equal_seeds_give_equal_weights_and_leave_the_global_generator_alone(planted_features: Features) -> None:
    config = load_config(Path("configs/internvl3_bbox.yaml"))
    before = torch.get_rng_state()
    first, second, other = (
        build_model(config.with_overrides({"seed": seed}), planted_features).state_dict() for seed in (1, 1, 2)
    )
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert not torch.equal(first["box_head.weight"], other["box_head.weight"])


def test_standardisation_uses_the_training_statistics_and_survives_a_constant_dimension() -> None:
    config = ModelConfig(adapter_width=4, embed_dim=4, dropout=0.0, fusion="concat")
    model = CrossModalModel(Widths(3, 3), config, normalization="standardize")
    model.vision_norm.use_statistics(torch.tensor([1.0, 2.0, 3.0]), torch.tensor([2.0, 0.5, 0.0]))
    normalised = model.vision_norm(torch.tensor([[3.0, 1.0, 3.0]]))
    assert normalised.tolist() == [[1.0, -2.0, 0.0]]

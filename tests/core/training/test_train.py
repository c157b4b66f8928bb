import dataclasses
import math

import pytest
import torch

from core.config import EvaluationConfig, TrainConfig, config_hash
from core.errors import DivergedError, UserError
from core.evaluation.scorecard import measure
from core.features.stacked import stack_splits
from core.features.store import Features
from core.model.checkpoints import Checkpoint
from core.records import EpochMetrics
from core.training.runs import split_stages
from core.training.train import train
from tests.conftest import without_regions


def figures(history: list[EpochMetrics]) -> list[dict[str, object]]:
    """Everything but the times."""
    return [
        {key: value for key, value in metrics.to_json().items() if not key.endswith("seconds")} for metrics in history
    ]


def assert_same_weights(a: Checkpoint, b: Checkpoint) -> None:
    assert all(torch.equal(a.weights[name], b.weights[name]) for name in a.weights)


def test_training_learns_what_is_there_to_learn(planted_features: Features, small_config: TrainConfig) -> None:
    result = train(small_config.with_overrides({"recipe.epochs": 12}), planted_features)
    chance = 3 / 36
    assert result.history[-1].t2i_r1 > 4 * chance
    assert result.history[-1].loss_itc < result.history[0].loss_itc


def test_the_same_configuration_gives_the_same_figures_twice(
    planted_features: Features, small_config: TrainConfig
) -> None:
    first, second = train(small_config, planted_features), train(small_config, planted_features)
    assert figures(first.history) == figures(second.history)
    assert_same_weights(first.last, second.last)


def test_another_seed_gives_other_figures(planted_features: Features, small_config: TrainConfig) -> None:
    other = train(small_config.with_overrides({"seed": 1}), planted_features)
    assert figures(other.history) != figures(train(small_config, planted_features).history)


@pytest.mark.parametrize("interrupted_after", [0, 1, 2])
def test_an_interrupted_run_continues_bit_equal(
    planted_features: Features, small_config: TrainConfig, interrupted_after: int
) -> None:
    config = small_config.with_overrides({"recipe.stage1_epochs": 2, "recipe.stage2_lr_scale": 0.5})
    whole = train(config, planted_features)
    kept: list[Checkpoint] = []

    def stop(metrics: EpochMetrics, checkpoint: Checkpoint) -> None:
        kept.append(checkpoint)
        if metrics.epoch == interrupted_after:
            raise SystemExit

    with pytest.raises(SystemExit):
        train(config, planted_features, stop)
    continued = train(config, planted_features, resume_from=kept[-1])
    assert figures(continued.history) == figures(whole.history)
    assert_same_weights(continued.last, whole.last)
    assert_same_weights(continued.best, whole.best)


def test_two_stages_by_hand_equal_a_two_stage_run(planted_features: Features, small_config: TrainConfig) -> None:
    config = small_config.with_overrides({"recipe.stage1_epochs": 2, "recipe.stage2_lr_scale": 0.5})
    stage1, stage2 = split_stages(config)
    aligned = train(stage1, planted_features)
    by_hand = train(stage2, planted_features, start_from=aligned.last)
    assert_same_weights(by_hand.last, train(config, planted_features).last)


def test_the_alignment_stage_leaves_box_and_relation_alone(
    planted_features: Features, small_config: TrainConfig
) -> None:
    history = train(small_config.with_overrides({"recipe.stage1_epochs": 2}), planted_features).history
    assert [metrics.stage for metrics in history] == [1, 1, 2, 2]
    assert [metrics.loss_box is None for metrics in history] == [True, True, False, False]


def test_the_receipt_contains_what_was_used(planted_features: Features, small_config: TrainConfig) -> None:
    config = small_config.with_overrides({"recipe.stage1_epochs": 1, "recipe.stage2_lr_scale": 0.5, "loss.box": 0.0})
    receipt = train(config, planted_features).receipt
    assert receipt.config_hash == config_hash(config)
    assert receipt.fingerprint == "planted"
    rates = [(group["stage"], group["learning_rate"], group["weight_decay"]) for group in receipt.optimizer_groups]
    assert rates == [(1, 0.01, 0.01), (1, 0.01, 0.0), (2, 0.005, 0.01), (2, 0.005, 0.0)]
    assert receipt.loss_weights == {"itc": 1.0, "itm": 1.0, "box": 0.0, "spatial": 0.1}
    assert receipt.epochs == 4


def test_a_loss_that_is_no_number_is_an_error(planted_features: Features, small_config: TrainConfig) -> None:
    broken = dataclasses.replace(planted_features.train, images=planted_features.train.images[:] * math.nan)
    with pytest.raises(DivergedError, match="not finite in epoch 0"):
        train(small_config, dataclasses.replace(planted_features, train=broken))


def test_outputs_that_run_away_under_a_finite_loss_are_an_error(
    planted_features: Features, small_config: TrainConfig
) -> None:
    """Stage 1 does not compute the loss of relations, but they are validated."""
    config = small_config.with_overrides({"recipe.stage1_epochs": 2})
    last = train(config, planted_features).last
    generator = torch.Generator().manual_seed(0)
    huge = torch.randn(last.weights["relation_head.weight"].shape, generator=generator).sign() * 3e38
    broken = dataclasses.replace(last, weights=last.weights | {"relation_head.weight": huge})
    with pytest.raises(DivergedError, match="relations of the model are not finite"):
        train(config, planted_features, start_from=broken)


def test_weights_that_explode_are_an_error(planted_features: Features, small_config: TrainConfig) -> None:
    explosive = {"optimizer.learning_rate": 1.0, "optimizer.weight_decay": 10.0, "optimizer.batch_size": 2}
    with pytest.raises(DivergedError, match=r"finite.*lower optimizer\.learning_rate"):
        train(small_config.with_overrides(explosive), planted_features)


@pytest.mark.parametrize("part", ["vision_", "match_head", "relation_head"])
def test_finite_weights_with_outputs_that_are_not_finite_are_reported_in_evaluation(
    planted_features: Features, small_config: TrainConfig, part: str
) -> None:
    last = train(small_config.with_overrides({"recipe.epochs": 1}), planted_features).last
    generator = torch.Generator().manual_seed(0)
    huge = {
        name: torch.randn(value.shape, generator=generator).sign() * 3e38 if name.startswith(part) else value
        for name, value in last.weights.items()
    }
    with pytest.raises(DivergedError, match=r"of the model are not finite"):
        measure(
            dataclasses.replace(last, weights=huge), planted_features, name="a.pth", settings=EvaluationConfig(k_test=8)
        )


def test_trained_on_all_means_on_both_splits_and_keeps_the_last_epoch(
    planted_features: Features, small_config: TrainConfig
) -> None:
    result = train(small_config.with_overrides({"data.train_on": "all"}), planted_features)
    both = stack_splits(planted_features.train, planted_features.validation)
    by_hand = train(small_config, dataclasses.replace(planted_features, train=both))
    assert_same_weights(result.last, by_hand.last)
    assert_same_weights(result.best, by_hand.last)
    assert result.best.epoch == 3
    assert not torch.equal(
        result.last.weights["match_head.bias"], train(small_config, planted_features).last.weights["match_head.bias"]
    )


def test_the_largest_seed_trains(planted_features: Features, small_config: TrainConfig) -> None:
    config = small_config.with_overrides({"seed": 2**32 - 1, "recipe.epochs": 1})
    assert len(train(config, planted_features).history) == 1


def test_weights_of_another_precision_or_name_are_refused(
    planted_features: Features, small_config: TrainConfig
) -> None:
    last = train(small_config.with_overrides({"recipe.epochs": 1}), planted_features).last
    halved = {name: value.half() for name, value in last.weights.items()}
    with pytest.raises(UserError, match=r"holds log_temperature as \[\] torch.float16, not \[\] torch.float32"):
        train(small_config, planted_features, start_from=dataclasses.replace(last, weights=halved))
    extra = last.weights | {"x" * 500: torch.zeros(1)}
    with pytest.raises(UserError, match=r"holds x{60}, which"):
        train(small_config, planted_features, start_from=dataclasses.replace(last, weights=extra))


def test_steps_without_regions_are_counted(planted_features: Features, small_config: TrainConfig) -> None:
    split = planted_features.train
    names = ("sentence_text", "sentence_image", "boxes", "relations", "first_region")
    one = dataclasses.replace(split, **{name: getattr(split, name)[1:2] for name in names})
    one = dataclasses.replace(one, first_region=torch.zeros(1, dtype=torch.long))
    history = train(small_config, dataclasses.replace(planted_features, train=one)).history
    assert history[0].steps_without_regions == len(split.caption_text) // 24 - 1
    assert history[0].loss_box is not None


def test_losses_of_regions_leave_themselves_out_where_there_are_none(
    planted_features: Features, small_config: TrainConfig
) -> None:
    bare = without_regions(planted_features.train)
    history = train(small_config, dataclasses.replace(planted_features, train=bare)).history
    assert (history[0].loss_box, history[0].loss_spatial, history[0].steps_without_regions) == (None, None, 0)
    unrelated = dataclasses.replace(
        planted_features.train, relations=torch.full_like(planted_features.train.relations, -1)
    )
    history = train(small_config, dataclasses.replace(planted_features, train=unrelated)).history
    assert history[0].loss_box is not None
    assert history[0].loss_spatial is None


def test_a_checkpoint_of_other_features_or_shape_is_refused(
    planted_features: Features, small_config: TrainConfig
) -> None:
    last = train(small_config, planted_features).last
    with pytest.raises(UserError, match="was trained on features planted, not on others"):
        train(small_config, dataclasses.replace(planted_features, fingerprint="others"), start_from=last)
    with pytest.raises(UserError, match="does not fit the configured model"):
        train(small_config.with_overrides({"model.adapter_width": 8}), planted_features, start_from=last)

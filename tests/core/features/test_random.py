from core.config import TrainConfig
from core.features.random import SplitShape, random_features
from core.features.store import Widths
from core.training.train import train


def test_training_runs_on_features_of_the_shape_that_was_asked(small_config: TrainConfig) -> None:
    shape = SplitShape(images=60, groups=20, captions=180, texts=250, regions=90)
    features = random_features(shape, shape, Widths(12, 10))
    assert (features.vision_dim, features.text_dim) == (12, 10)
    assert (len(features.train.images), len(features.train.texts)) == (60, 250)
    assert (len(features.train.caption_text), len(features.train.boxes)) == (180, 90)
    (metrics,) = train(small_config.with_overrides({"recipe.epochs": 1}), features).history
    assert metrics.gallery_images == 60
    assert metrics.loss_box is not None


def test_a_split_may_have_no_regions(small_config: TrainConfig) -> None:
    shape = SplitShape(images=30, groups=10, captions=60, texts=60, regions=0)
    features = random_features(shape, shape, Widths(12, 10))
    (metrics,) = train(small_config.with_overrides({"recipe.epochs": 1}), features).history
    assert metrics.box_iou is None

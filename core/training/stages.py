"""The stages of a recipe, and a run within one of them: what all its epochs share."""

from dataclasses import dataclass

import torch

from core.config import TrainConfig
from core.features.store import Features
from core.model.checkpoints import Checkpoint
from core.model.model import CrossModalModel
from core.records import ALIGN, JOINT
from core.training.batches import steps_per_epoch
from core.training.optimizer import build_optimizer, restore_optimizer, scheduled_rate
from core.training.step import TrainStep, build_step


@dataclass(frozen=True, slots=True)
class Stage:
    """Consecutive epochs with the same losses and the same optimizer."""

    number: int
    """1 aligns (ITC + ITM), 2 is joint (all four losses)."""
    first_epoch: int
    epochs: int
    """Number of epochs."""
    learning_rate: float
    """Peak learning rate."""

    def epochs_after(self, last: Checkpoint | None) -> range:
        """Epochs of this stage that remain after checkpoint `last`; all of them if it is None."""
        first = self.first_epoch if last is None else max(self.first_epoch, last.epoch + 1)
        return range(first, self.first_epoch + self.epochs)


@dataclass(frozen=True, slots=True)
class Run:
    """A training run within one of its stages."""

    config: TrainConfig
    features: Features
    """Features, with the training and validation splits on the model's device."""
    model: CrossModalModel
    optimizer: torch.optim.AdamW
    step: TrainStep
    stage: Stage

    @property
    def with_regions(self) -> bool:
        """Whether the steps train box or relation losses: there are weights, and boxes, for them."""
        weighted = self.config.loss.box > 0 or self.config.loss.spatial > 0
        return self.stage.number == JOINT and weighted and self.has_boxes

    @property
    def has_boxes(self) -> bool:
        """Whether the training split has regions."""
        return len(self.features.train.boxes) > 0

    @property
    def has_relations(self) -> bool:
        """Whether a region of the training split has a relation."""
        return bool((self.features.train.relations >= 0).any())

    @property
    def steps_per_epoch(self) -> int:
        """Number of optimisation steps in an epoch."""
        return steps_per_epoch(self.features.train, self.config.optimizer.batch_size)

    def seed_of(self, epoch: int) -> int:
        """Seed of an epoch; depends on its position in the stage, so that a stage run separately has the same seeds."""
        return epoch_seed(self.config.seed, self.stage.number, epoch - self.stage.first_epoch)

    def learning_rate(self, epoch: int, step: int) -> float:
        """Learning rate of a step (from 0) of an epoch (counted across stages)."""
        steps, stage = self.steps_per_epoch, self.stage
        step_of_stage = (epoch - stage.first_epoch) * steps + step
        warmup_ratio = self.config.optimizer.warmup_ratio
        return scheduled_rate(stage.learning_rate, step_of_stage, stage.epochs * steps, warmup_ratio)


def epoch_seed(seed: int, stage: int, epoch_of_stage: int) -> int:
    """Distinct seed for every epoch; below 2**64, since `seed` is below 2**32.

    Args:
        stage: 1 or 2.
        epoch_of_stage: from 0, below 100,003.
    """
    return (seed * 2 + stage - 1) * 100_003 + epoch_of_stage


def stages_of(config: TrainConfig) -> list[Stage]:
    """The stages of a recipe, in order; stages without epochs are omitted."""
    recipe, rate = config.recipe, config.optimizer.learning_rate
    joint_rate = rate * recipe.stage2_lr_scale if recipe.stage1_epochs else rate
    stages = [
        Stage(ALIGN, 0, recipe.stage1_epochs, rate),
        Stage(JOINT, recipe.stage1_epochs, recipe.epochs - recipe.stage1_epochs, joint_rate),
    ]
    return [stage for stage in stages if stage.epochs]


def begin_stage(
    config: TrainConfig, features: Features, model: CrossModalModel, stage: Stage, last: Checkpoint | None
) -> Run:
    """Start a stage with a new optimizer, or continue it with the optimizer state of `last` if that is from this stage.

    Raises:
        UserError: the optimizer state of `last` does not fit the model.
    """
    optimizer = build_optimizer(model, stage.learning_rate, config.optimizer.weight_decay)
    if last is not None and last.optimizer is not None and stage.first_epoch <= last.epoch:
        restore_optimizer(optimizer, last.optimizer)
    return Run(config, features, model, optimizer, build_step(model, optimizer, config), stage)

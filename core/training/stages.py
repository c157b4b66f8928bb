"""The stages of a recipe, and a run within one of them: everything that its epochs share."""

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
    """A stretch of epochs under one objective and one optimizer."""

    number: int
    """1 aligns (ITC + ITM), 2 is joint (all four losses)."""
    first_epoch: int
    epochs: int
    learning_rate: float

    def epochs_after(self, last: Checkpoint | None) -> range:
        """Its epochs that a run which got as far as `last` has not done yet."""
        first = self.first_epoch if last is None else max(self.first_epoch, last.epoch + 1)
        return range(first, self.first_epoch + self.epochs)


@dataclass(frozen=True, slots=True)
class Run:
    """A training run within one of its stages."""

    config: TrainConfig
    features: Features
    """Training and validation split on the model's device."""
    model: CrossModalModel
    optimizer: torch.optim.AdamW
    step: TrainStep
    stage: Stage

    @property
    def with_regions(self) -> bool:
        """Whether its steps learn from boxes or relations."""
        return self.stage.number == JOINT and (self.config.loss.box > 0 or self.config.loss.spatial > 0)

    @property
    def steps_per_epoch(self) -> int:
        return steps_per_epoch(self.features.train, self.config.optimizer.batch_size)

    def seed_of(self, epoch: int) -> int:
        """Depends on the epoch's place in its stage, so that a stage run by hand draws the same."""
        return epoch_seed(self.config.seed, self.stage.number, epoch - self.stage.first_epoch)

    def learning_rate(self, epoch: int, step: int) -> float:
        """Of a step of an epoch."""
        steps, stage = self.steps_per_epoch, self.stage
        step_of_stage = (epoch - stage.first_epoch) * steps + step
        warmup_ratio = self.config.optimizer.warmup_ratio
        return scheduled_rate(stage.learning_rate, step_of_stage, stage.epochs * steps, warmup_ratio)


def epoch_seed(seed: int, stage: int, epoch_of_stage: int) -> int:
    """A seed of its own for every epoch; fits 64 bits, since a seed has 32."""
    return (seed * 2 + stage - 1) * 100_003 + epoch_of_stage


def stages_of(config: TrainConfig) -> list[Stage]:
    """The stages of a recipe, in order; a stage without epochs is left out."""
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
    """Enter a stage with an optimizer of its own, or with that of `last` where it lies within this stage.

    Raises:
        UserError: the optimizer state of `last` does not fit the model.
    """
    optimizer = build_optimizer(model, stage.learning_rate, config.optimizer.weight_decay)
    if last is not None and last.optimizer is not None and stage.first_epoch <= last.epoch:
        restore_optimizer(optimizer, last.optimizer)
    return Run(config, features, model, optimizer, build_step(model, optimizer, config), stage)

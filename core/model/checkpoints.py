"""Checkpoints: weights, configuration, fingerprint and epoch in one file that runs no code when it is read."""

import io
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from core.config import TrainConfig, parse
from core.errors import UserError
from core.features.store import Features
from core.files.atomic import write_atomically
from core.model.model import CrossModalModel, build_model
from core.records import EpochMetrics, Receipt, best_epoch

ZIP_MAGIC = b"PK\x03\x04"
FINGERPRINT_LENGTH = 64
"""At most."""
NAME_SHOWN = 60
"""Characters of a foreign name that a message repeats."""
PROBLEM_SHOWN = 200
"""Characters of what is wrong with a configuration."""


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A run after a whole epoch: enough to continue it exactly, with the best epoch so far beside it."""

    config: TrainConfig
    fingerprint: str
    """Of the features that it was trained on."""
    epoch: int
    """Last finished one, from 0."""
    weights: dict[str, Tensor]
    optimizer: dict[str, Any] | None
    """State of AdamW; None in a checkpoint that is only for use, not for continuing."""
    best_weights: dict[str, Tensor]
    history: list[EpochMetrics]
    """All epochs so far."""
    receipt: Receipt

    @property
    def best_epoch(self) -> int:
        """Of the stage reached, by the configuration's objective."""
        return best_epoch(self.history, self.config.objective).epoch

    def best(self) -> "Checkpoint":
        """The best epoch's weights, for use."""
        return replace(self, epoch=self.best_epoch, weights=self.best_weights, optimizer=None)


def save_checkpoint(path: Path, checkpoint: Checkpoint) -> None:
    """Write atomically."""
    content = {
        "config": checkpoint.config.model_dump(mode="json"),
        "fingerprint": checkpoint.fingerprint,
        "epoch": checkpoint.epoch,
        "weights": checkpoint.weights,
        "optimizer": checkpoint.optimizer,
        "best_weights": checkpoint.best_weights,
        "history": [metrics.to_json() for metrics in checkpoint.history],
        "receipt": checkpoint.receipt.to_json(),
    }
    stream = io.BytesIO()
    torch.save(content, stream)
    write_atomically(path, stream.getvalue())


def load_checkpoint(path: Path, *, fingerprint: str | None = None) -> Checkpoint:
    """Read a checkpoint onto the CPU.

    Args:
        fingerprint: of the features at hand; None accepts any.
    Raises:
        UserError: there is no such file, it is damaged or no checkpoint of ours, or it belongs to other features.
    """
    try:
        return parse_checkpoint(path.read_bytes(), where=path, fingerprint=fingerprint)
    except FileNotFoundError:
        raise UserError("there is no such checkpoint", where=path) from None


def parse_checkpoint(data: bytes, *, where: object, fingerprint: str | None = None) -> Checkpoint:
    """`load_checkpoint` of what was read from `where`."""
    try:
        if not data.startswith(ZIP_MAGIC):
            raise ValueError("torch would try its old formats on it")
        content = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
        checkpoint = _read(content, where)
    except UserError:
        raise
    except Exception:  # torch raises whatever damaged bytes lead it to
        raise UserError("is damaged, or no checkpoint written by crossmodal", where=where) from None
    if fingerprint is not None:
        require_same_features(checkpoint, fingerprint, where)
    return checkpoint


def require_same_features(checkpoint: Checkpoint, fingerprint: str, where: object) -> None:
    """Raises UserError if a checkpoint belongs to other features than those of this fingerprint."""
    if checkpoint.fingerprint != fingerprint:
        raise UserError(
            f"was trained on features {checkpoint.fingerprint}, not on {fingerprint}",
            where=where,
            how="use the same backbone, data and feature settings",
        )


def restore_model(checkpoint: Checkpoint, features: Features) -> CrossModalModel:
    """The model of a checkpoint, in evaluation mode, on the CPU.

    Raises:
        UserError: the checkpoint belongs to other features.
    """
    model = build_model(checkpoint.config, features)
    load_weights(model, checkpoint, features)
    return model.eval()


def load_weights(model: CrossModalModel, checkpoint: Checkpoint, features: Features) -> None:
    """Give a model the weights of a checkpoint.

    Raises:
        UserError: the checkpoint belongs to other features, or to a model of other parameters.
    """
    if checkpoint.fingerprint != features.fingerprint:
        raise UserError(
            f"the checkpoint was trained on features {checkpoint.fingerprint}, not on {features.fingerprint}",
            how="use the same backbone, data and feature settings",
        )
    wanted = model.state_dict()
    problems = [f"has no {name}" for name in wanted if name not in checkpoint.weights]
    for name, value in checkpoint.weights.items():
        if name not in wanted:
            problems.append(f"holds {name[:NAME_SHOWN]}, which that does not have")
        elif (value.shape, value.dtype) != (wanted[name].shape, wanted[name].dtype):
            stored, expected = (f"{list(tensor.shape)} {tensor.dtype}" for tensor in (value, wanted[name]))
            problems.append(f"holds {name} as {stored}, not {expected}")
    if problems:
        raise UserError(f"the checkpoint does not fit the configured model: it {problems[0]}")
    model.load_state_dict(checkpoint.weights)


def _read(content: Any, where: object) -> Checkpoint:
    """Every field of its type, and the fields of one run; otherwise any exception, or a UserError that says more."""
    match content:
        case {
            "config": {**config},
            "fingerprint": str(fingerprint),
            "epoch": int(epoch),
            "weights": {**weights},
            "optimizer": None | {"state": dict()} as optimizer,
            "best_weights": {**best_weights},
            "history": [*history],
            "receipt": dict(),
            **others,
        } if not others:
            checkpoint = Checkpoint(
                config=_config(config, where),
                fingerprint=fingerprint,
                epoch=epoch,
                weights=_tensors(weights),
                optimizer=optimizer,
                best_weights=_tensors(best_weights),
                history=[EpochMetrics.from_json(metrics) for metrics in history],
                receipt=Receipt.from_json(content["receipt"]),
            )
        case _:
            raise ValueError("other fields, or of other types")
    _require_one_run(checkpoint)
    if not all(value.isfinite().all() for value in (*checkpoint.weights.values(), *checkpoint.best_weights.values())):
        raise UserError("holds weights that are not finite", where=where, how="use an earlier checkpoint of the run")
    return checkpoint


def _config(content: dict[Any, Any], where: object) -> TrainConfig:
    try:
        return parse(TrainConfig, content, where=where)
    except UserError as error:  # it repeats keys and values, here those of any file
        raise UserError(" ".join(error.what.split())[:PROBLEM_SHOWN], where=where) from None


def _tensors(weights: dict[Any, Any]) -> dict[str, Tensor]:
    for name, value in weights.items():
        if not isinstance(name, str) or not isinstance(value, Tensor) or value.layout != torch.strided:
            raise TypeError("a weight is no tensor with a name")
    return weights


def _require_one_run(checkpoint: Checkpoint) -> None:
    """What everything that reads a checkpoint relies on; ValueError if its fields contradict each other."""
    epochs = [metrics.epoch for metrics in checkpoint.history]
    last, groups = len(epochs) - 1, checkpoint.receipt.optimizer_groups
    weights, best = (
        {name: value.shape for name, value in tensors.items()}
        for tensors in (checkpoint.weights, checkpoint.best_weights)
    )
    sound = (
        epochs == list(range(len(epochs)))
        and type(checkpoint.epoch) is int  # True is one, too, for isinstance
        and (checkpoint.epoch == last if checkpoint.optimizer else checkpoint.epoch in epochs)
        and checkpoint.fingerprint.isprintable()
        and len(checkpoint.fingerprint) <= FINGERPRINT_LENGTH
        and last < checkpoint.config.recipe.epochs
        and weights == best
        and all(group.keys() == {"stage", "learning_rate", "weight_decay"} for group in groups)
    )
    if not sound:
        raise ValueError("the fields contradict each other")

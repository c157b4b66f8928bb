"""What the driver sends to a worker through Ray: one trial to train, as plain data."""

import dataclasses
from dataclasses import dataclass
from functools import cache
from typing import Any

from pydantic import ConfigDict, TypeAdapter

from core.config import TrainConfig


@dataclass(frozen=True, slots=True)
class TrialTask:
    """One trial to train."""

    __pydantic_config__ = ConfigDict(extra="forbid")

    number: int
    config: TrainConfig
    fingerprint: str
    """Fingerprint of the features that it reads."""
    storage: str
    """Root of the checkpoint storage."""
    resume_from: str | None
    """Checkpoint in the storage to continue from."""
    threads: int
    gpu: float
    """Share of one GPU, which also caps its share of the memory, or a whole number of GPUs."""
    checkpoint_every_s: float
    """Minimum seconds between reported checkpoints; the last epoch always reports one."""

    def to_plain(self) -> dict[str, Any]:
        """As plain data, which Ray treats as the configuration of one of its trials."""
        fields = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        return {**fields, "config": self.config.model_dump(mode="json")}


def run_in_worker(payload: dict[str, Any]) -> None:
    """Runs on a worker; the driver, which passes it on, need not import torch for it."""
    from search.session.trainable import run_trial

    run_trial(payload)


def read_task(content: dict[str, Any]) -> TrialTask:
    """Raise ValueError if the content does not come from `to_plain`."""
    task: TrialTask = _reader().validate_python(content)
    return task


@cache
def _reader() -> TypeAdapter[TrialTask]:
    return TypeAdapter(TrialTask)

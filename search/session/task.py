"""What the driver hands a worker: one trial to train. Ray carries it as plain data."""

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
    """Of the features that it reads."""
    storage: str
    """Where checkpoints lie."""
    resume_from: str | None
    """One of them, to continue from."""
    threads: int
    gpu: float
    """Share of one GPU, which also caps its share of the memory, or a whole number of GPUs."""
    checkpoint_every_s: float
    """Checkpoints travel at most this often, and at the trial's end."""

    def to_plain(self) -> dict[str, Any]:
        """As plain data, which Ray takes for the configuration of one of its own trials."""
        fields = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        return {**fields, "config": self.config.model_dump(mode="json")}


def read_task(content: dict[str, Any]) -> TrialTask:
    """Raises ValueError where the content is not what `to_plain` gave."""
    task: TrialTask = _reader().validate_python(content)
    return task


@cache
def _reader() -> TypeAdapter[TrialTask]:
    return TypeAdapter(TrialTask)

"""The configuration of a search campaign: what is searched, how, on what, and until when."""

import re
from pathlib import Path
from typing import Annotated, Any, Literal, Self, get_args

from pydantic import AfterValidator, Field, ValidationInfo, field_validator, model_validator

from core.config import (
    FilePath,
    Integer,
    Number,
    Objective,
    Section,
    TrainConfig,
    config_hash,
    load_config,
    load_yaml,
    parse,
)
from core.errors import UserError
from search.space import Space


class Limits(Section):
    """When a campaign has had enough; the only part that may change after it started."""

    trials: Integer = Field(default=100, ge=1)
    """Trials that ended: complete, pruned or failed."""
    hours: Number | None = Field(default=None, gt=0)
    """Wall time of all sessions together; None for no limit."""
    gpu_hours: Number | None = Field(default=None, gt=0)
    """Time of all trials together × their share of a GPU. No trial starts that, lasting as long as the others did,
    would go beyond."""


class Sampler(Section):
    """How Optuna proposes trials."""

    kind: Literal["tpe", "random"] = "tpe"
    """Tree-structured Parzen estimator, or uniform draws."""
    seed: Integer = Field(default=0, ge=0)
    """Seeds the proposals."""
    startup_trials: Integer = Field(default=10, ge=1)
    """Random trials before the estimator takes over."""


class Pruner(Section):
    """When a trial is given up early."""

    kind: Literal["asha", "none"] = "asha"
    """Asynchronous successive halving, or never."""
    min_epochs: Integer = Field(default=1, ge=1)
    """Epochs that every trial may run."""
    reduction_factor: Integer = Field(default=3, ge=2)
    """One trial in so many goes on at each rung."""
    bootstrap: Integer = Field(default=4, ge=0)
    """Trials that must have reached a rung before any is given up there."""


class Resources(Section):
    """What one trial occupies."""

    cpu: Number = Field(default=1.0, gt=0)
    """Processor cores; also its threads."""
    gpu: Number = Field(default=0.0, ge=0)
    """GPUs; a fraction also caps its share of the memory."""


class Tracking(Section):
    """Weights & Biases."""

    project: str = "crossmodal-search"
    """Where the runs appear."""
    mode: Literal["auto", "online", "offline", "disabled"] = "auto"
    """auto follows WANDB_MODE, else is online where there is a key, else offline."""


def _safe_name(name: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", name):
        raise ValueError("a name is made of letters, digits, '.', '_' and '-'")
    return name


class StudyConfig(Section):
    """Where the study is kept."""

    url_variable: str | None = None
    """Environment variable that holds a database URL (postgresql://…), so that no password reaches a file; by default
    the study is a journal file in the campaign's folder."""


def _absolute_storage(place: str, info: ValidationInfo) -> str:
    """A URI stays as it is; a folder becomes absolute like every path of a file."""
    if not place.strip():
        raise ValueError("names no place; leave it out, or name a folder or s3://…")
    base = (info.context or {}).get("base")
    return place if "://" in place or base is None else str((base / Path(place).expanduser()).resolve())


StoragePlace = Annotated[str, AfterValidator(_absolute_storage)]


class Campaign(Section):
    """One search campaign."""

    name: Annotated[str, AfterValidator(_safe_name)]
    """Of its folder, its study and its group in W&B."""
    train: TrainConfig | FilePath
    """The baseline: trial 0, and every value that is not searched. A file, or the settings themselves."""
    objective: str = "recall_mean"
    """The metric to raise: best epoch of the last stage, validation split."""
    limits: Limits = Limits()
    sampler: Sampler = Sampler()
    pruner: Pruner = Pruner()
    space: Space
    resources: Resources = Resources()
    wandb: Tracking = Tracking()
    storage: StoragePlace | None = None
    """Where workers leave checkpoints: a folder that every node sees, or s3://…; by default the campaign's folder."""
    study: StudyConfig = StudyConfig()
    checkpoint_every_s: Number = Field(default=10.0, ge=0)
    """Checkpoints travel from workers at most this often, and at a trial's end."""
    trial_timeout_s: Number = Field(default=3600.0, gt=0)
    """A trial that reports nothing for so long hangs: its worker is killed and it fails."""
    max_failed_trials: Integer = Field(default=5, ge=1)
    """So many failures in a row stop the campaign."""

    @model_validator(mode="after")
    def _gpu_hours_need_a_gpu(self) -> Self:
        if self.limits.gpu_hours is not None and not self.resources.gpu:
            raise ValueError("limits.gpu_hours limits nothing, since resources.gpu is 0")
        return self

    @field_validator("objective")
    @classmethod
    def _is_a_metric(cls, objective: str) -> str:
        if "loss" in objective:
            raise ValueError("a loss cannot be the objective, since searched loss weights would lower it for nothing")
        if objective not in get_args(Objective):
            raise ValueError(f"the objective must be one of {', '.join(get_args(Objective))}")
        return objective

    @model_validator(mode="after")
    def _one_objective(self) -> Self:
        if isinstance(self.train, TrainConfig) and self.train.objective not in ("recall_mean", self.objective):
            raise ValueError(f"objective is {self.objective}, but train.objective is {self.train.objective}")
        return self

    @property
    def base(self) -> TrainConfig:
        """The baseline, scored by the campaign's objective; `load_campaign` has put settings in the place of a file."""
        assert isinstance(self.train, TrainConfig)
        same = self.train.objective == self.objective
        return self.train if same else self.train.with_overrides({"objective": self.objective})

    def with_limits(self, *, trials: int | None, hours: float | None) -> Self:
        """A copy with the limits that are given."""
        content = self.model_dump(mode="json", by_alias=True)
        content["limits"] |= {key: value for key, value in (("trials", trials), ("hours", hours)) if value is not None}
        return parse(type(self), content, where="limits")


def load_campaign(path: Path) -> Campaign:
    """Read a campaign and its baseline, and check the whole space against it.

    Raises:
        UserError: names the file, the key and what is wrong.
    """
    base = path.resolve().parent
    content = load_yaml(path)
    if isinstance(content, dict) and isinstance(content.get("train"), str):
        content["train"] = load_config((base / content["train"]).resolve()).model_dump(mode="json")
    campaign = parse(Campaign, content, where=path, base=base)
    try:
        campaign.space.check(campaign.base)
    except UserError as error:
        raise UserError(str(error), where=path) from None
    return campaign


def settings_hash(campaign: Campaign) -> str:
    """Of all that may not change after the campaign started: everything but its limits."""
    return config_hash(campaign, exclude={"limits"}, exclude_defaults=True)


def changed_keys(started: Campaign, now: Campaign) -> list[str]:
    """Settings other than the limits that differ, as dotted paths."""
    before, after = (campaign.model_dump(mode="json", by_alias=True, exclude={"limits"}) for campaign in (started, now))
    return sorted(_differences(before, after, ""))


def _differences(before: Any, after: Any, path: str) -> list[str]:
    if isinstance(before, dict) and isinstance(after, dict):
        keys = dict.fromkeys([*before, *after])
        return [d for key in keys for d in _differences(before.get(key), after.get(key), f"{path}.{key}".lstrip("."))]
    return [] if before == after else [path]

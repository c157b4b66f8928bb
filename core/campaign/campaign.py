"""The configuration of a search campaign: what is searched, how, on what, and until when."""

import re
from pathlib import Path
from typing import Annotated, Any, Literal, Self, get_args

from pydantic import AfterValidator, BeforeValidator, Field, ValidationInfo, field_validator, model_validator

from core.campaign.space import Space
from core.config import (
    Integer,
    Number,
    Objective,
    Section,
    Seed,
    TrainConfig,
    hash_of,
    load_config,
    load_section,
    parse,
)
from core.errors import UserError
from core.files.folders import CampaignFolder
from core.files.yaml_files import load_yaml
from core.places import PLACES, absolute_path, require_place


class Limits(Section):
    """When a campaign has had enough; the only part that may change after it started."""

    trials: Integer = Field(default=100, ge=1, le=1_000_000)
    """Trials that ended: complete, pruned or failed."""
    hours: Number | None = Field(default=None, gt=0, le=1e5)
    """Wall time of all sessions together; None for no limit."""
    gpu_hours: Number | None = Field(default=None, gt=0, le=1e8)
    """Time of all trials together × their share of a GPU. No trial starts that, lasting as long as the others did,
    would go beyond."""


class Sampler(Section):
    """How Optuna proposes trials."""

    kind: Literal["tpe", "random"] = "tpe"
    """Tree-structured Parzen estimator, or uniform draws."""
    seed: Seed = 0
    """Seeds the proposals."""
    startup_trials: Integer = Field(default=10, ge=1, le=1_000_000)
    """Random trials before the estimator takes over."""


class Pruner(Section):
    """When a trial is given up early."""

    kind: Literal["asha", "none"] = "asha"
    """Asynchronous successive halving, or never."""
    min_epochs: Integer = Field(default=1, ge=1, le=100_000)
    """Epochs that every trial may run."""
    reduction_factor: Integer = Field(default=3, ge=2, le=1000)
    """One trial in so many goes on at each rung."""
    bootstrap: Integer = Field(default=4, ge=0, le=1_000_000)
    """Trials that must have reached a rung before any is given up there."""


def _share_or_whole(gpu: float) -> float:
    if 0 < gpu < 0.01 or (gpu > 1 and gpu != int(gpu)):
        raise ValueError("a share of one GPU (0.01 to 1) or a whole number of them is needed")
    return gpu


class Resources(Section):
    """What one trial occupies."""

    cpu: Number = Field(default=1.0, ge=0.01, le=10_000)
    """Processor cores; also its threads."""
    gpu: Annotated[Number, AfterValidator(_share_or_whole)] = Field(default=0.0, ge=0, le=1000)
    """GPUs: a whole number, or a share of one (at least 0.01) that also caps its share of the memory."""


def _project_name(name: str) -> str:
    if not 1 <= len(name) <= 100 or re.search(r"[/\\#?,%:]", name) or not name.isprintable():
        raise ValueError("a name of 1 to 100 characters without / \\ # ? , % : is needed")
    return name


class Tracking(Section):
    """Weights & Biases."""

    project: Annotated[str, AfterValidator(_project_name)] = "crossmodal-search"
    """Where the runs appear."""
    mode: Literal["auto", "online", "offline", "disabled"] = "auto"
    """auto follows WANDB_MODE, else is online where there is a key, else offline."""


def _safe_name(name: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}", name):
        raise ValueError(
            "a name is made of letters, digits, '.', '_' and '-', begins with one of the first two, and "
            "is at most 100 long"
        )
    return name


def _variable_name(name: str) -> str:
    if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]{0,99}", name):
        raise ValueError("the name of an environment variable is needed (letters, digits and _)")
    return name


class StudyConfig(Section):
    """Where the study is kept."""

    url_variable: Annotated[str, AfterValidator(_variable_name)] | None = None
    """Environment variable that holds a database URL (postgresql://…), so that no password reaches a file; by default
    the study is a journal file in the campaign's folder."""


def _absolute_storage(place: str, info: ValidationInfo) -> str:
    """A URI stays as it is; a folder becomes absolute like every path of a file."""
    return place if "://" in place else str(absolute_path(Path(place), info))


StoragePlace = Annotated[str, BeforeValidator(require_place), AfterValidator(_absolute_storage)]


def _read_baseline(train: object, info: ValidationInfo) -> object:
    """A file in the place of the settings; its relative paths start from its own folder."""
    if isinstance(require_place(train), str):
        base = (info.context or {}).get("base") or Path()
        return load_config(base / Path(str(train)).expanduser())
    if not isinstance(train, dict | TrainConfig):
        raise ValueError("the name of a file, or a mapping of settings is needed")
    return train


class Campaign(Section):
    """One search campaign."""

    name: Annotated[str, AfterValidator(_safe_name)]
    """Of its folder, its study and its group in W&B."""
    train: Annotated[TrainConfig, BeforeValidator(_read_baseline)]
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
    checkpoint_every_s: Number = Field(default=10.0, ge=0, le=1e6)
    """Checkpoints travel from workers at most this often, and at a trial's end."""
    trial_timeout_s: Number = Field(default=3600.0, ge=1, le=1e7)
    """A trial that reports nothing for so long hangs: its worker is killed and it fails."""
    max_failed_trials: Integer = Field(default=5, ge=1, le=1_000_000)
    """So many failures in a row stop the campaign."""

    @model_validator(mode="after")
    def _gpu_hours_need_a_gpu(self) -> Self:
        if self.limits.gpu_hours is not None and not self.resources.gpu:
            raise ValueError("limits.gpu_hours limits nothing, since resources.gpu is 0")
        return self

    @model_validator(mode="after")
    def _pruner_can_prune(self) -> Self:
        epochs, first = self.train.recipe.epochs, self.pruner.min_epochs
        if self.pruner.kind == "asha" and first > epochs and "recipe.epochs" not in self.space.dimensions:
            raise ValueError(f"pruner.min_epochs {first} is more than recipe.epochs {epochs}, so none is pruned")
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
        if self.train.objective not in ("recall_mean", self.objective):
            raise ValueError(f"objective is {self.objective}, but train.objective is {self.train.objective}")
        return self

    @property
    def base(self) -> TrainConfig:
        """The baseline, scored by the campaign's objective."""
        same = self.train.objective == self.objective
        return self.train if same else self.train.with_overrides({"objective": self.objective})

    def with_limits(self, *, trials: int | None, hours: float | None) -> Self:
        """A copy with the limits that are given."""
        content = self.model_dump(mode="json", by_alias=True)
        content["limits"] |= {key: value for key, value in (("trials", trials), ("hours", hours)) if value is not None}
        return parse(type(self), content, where="the command line")


def load_campaign(path: Path) -> Campaign:
    """Read a campaign and its baseline, and check the whole space against it.

    Raises:
        UserError: names the file, the key and what is wrong.
    """
    campaign = load_section(Campaign, path)
    try:
        campaign.space.check(campaign.base)
    except UserError as error:
        raise UserError(str(error), where=path) from None
    return campaign


def read_campaign(folder: CampaignFolder) -> Campaign:
    """The campaign of a folder, as resolved when it started; its space was checked then.

    Raises:
        UserError: the folder holds none, or its file is damaged or of a version with other settings.
    """
    if not folder.campaign.exists():
        raise UserError("holds no campaign", where=folder.root, how="name the folder that crossmodal search wrote")
    return parse(Campaign, load_yaml(folder.campaign), where=folder.campaign)


def settings_hash(campaign: Campaign) -> str:
    """Of all that may not change after the campaign started, wherever it lies: everything but its limits and places.

    It stays when a later version adds a setting with a default.
    """
    content = campaign.model_dump(
        mode="json",
        by_alias=True,
        exclude={"limits": True, "storage": True, "train": PLACES},
        exclude_defaults=True,
    )
    return hash_of(content)


def changed_keys(started: Campaign, now: Campaign) -> list[str]:
    """Settings other than the limits that differ, as dotted paths."""
    before, after = (campaign.model_dump(mode="json", by_alias=True, exclude={"limits"}) for campaign in (started, now))
    return sorted(_differences(before, after, ""))


def _differences(before: Any, after: Any, path: str) -> list[str]:
    if isinstance(before, dict) and isinstance(after, dict):
        keys = dict.fromkeys([*before, *after])
        return [d for key in keys for d in _differences(before.get(key), after.get(key), f"{path}.{key}".lstrip("."))]
    return [] if before == after else [path]

"""The configuration of a search campaign: what is searched, how, on what, and until when."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Self, get_args

from pydantic import AfterValidator, BeforeValidator, Field, ValidationInfo, field_validator, model_validator

from core.campaign.constraints import Constraints
from core.campaign.goals import Goal, Goals, mark_front
from core.campaign.space import Space
from core.campaign.trials import TrialRecord
from core.config import Objective, Seed, TrainConfig, load_config
from core.errors import UserError
from core.files.folders import CampaignFolder
from core.files.yaml_files import load_yaml
from core.places import PLACES, FilePath, absolute_path, require_place
from core.sections import Integer, Number, Section, hash_of, load_section, parse

SamplerKind = Literal["tpe", "random", "gp", "cmaes", "qmc"]


class Limits(Section):
    """When a campaign ends; the only settings that may change after it started."""

    trials: Integer = Field(default=100, ge=1, le=1_000_000)
    """Number of ended trials: complete, pruned or failed."""
    hours: Number | None = Field(default=None, gt=0, le=1e5)
    """Wall time of all sessions together; None is no limit."""
    gpu_hours: Number | None = Field(default=None, gt=0, le=1e8)
    """Time of all trials together × their share of a GPU. A trial is not started if the limit would be exceeded
    by the time it has lasted as long as earlier trials."""

    def __str__(self) -> str:
        hours = "" if self.hours is None else f", {self.hours:g} hours"
        return f"{self.trials} trials{hours}" + ("" if self.gpu_hours is None else f", {self.gpu_hours:g} GPU-hours")


class Sampler(Section):
    """How Optuna proposes trials."""

    kind: SamplerKind = "tpe"
    """Tree-structured Parzen estimator, uniform draws, a Gaussian process, CMA-ES, or a Sobol sequence. The last three
    need `pip install 'crossmodal-search[samplers]'`. Settings that not every trial has (`when`, `off`) are drawn by the
    Parzen estimator beside gp and cmaes, as are choices beside cmaes, and at random beside qmc."""
    seed: Seed = 0
    """Seed of the proposals."""
    startup_trials: Integer = Field(default=10, ge=1, le=1_000_000)
    """Random trials before tpe, gp or cmaes takes over."""


class Pruner(Section):
    """When a trial is stopped early."""

    kind: Literal["asha", "none"] = "asha"
    """Asynchronous successive halving, or never."""
    min_epochs: Integer = Field(default=1, ge=1, le=100_000)
    """Epochs before a trial can be pruned."""
    reduction_factor: Integer = Field(default=3, ge=2, le=1000)
    """At each rung, one in this many trials continues."""
    bootstrap: Integer = Field(default=4, ge=0, le=1_000_000)
    """Number of trials that must have reached a rung before any is pruned there."""


def _share_or_whole(gpu: float) -> float:
    if 0 < gpu < 0.01 or (gpu > 1 and gpu != int(gpu)):
        raise ValueError("must be a share of one GPU (0.01 to 1) or a whole number of GPUs")
    return gpu


class Resources(Section):
    """Resources of one trial."""

    cpu: Number = Field(default=1.0, ge=0.01, le=10_000)
    """Processor cores; rounded down also the number of threads."""
    gpu: Annotated[Number, AfterValidator(_share_or_whole)] = Field(default=0.0, ge=0, le=1000)
    """GPUs: a whole number, or a share of one (at least 0.01), which also limits its share of the memory."""

    @property
    def threads(self) -> int:
        """Threads of one trial; they change the last digits of its figures."""
        return max(1, int(self.cpu))


def _project_name(name: str) -> str:
    if not 1 <= len(name) <= 100 or re.search(r"[/\\#?,%:]", name) or not name.isprintable():
        raise ValueError("must be a name of 1 to 100 characters without / \\ # ? , % :")
    return name


class Tracking(Section):
    """Weights & Biases."""

    project: Annotated[str, AfterValidator(_project_name)] = "crossmodal-search"
    """Project of the runs."""
    mode: Literal["auto", "online", "offline", "disabled"] = "auto"
    """auto follows WANDB_MODE if set, else is online with an API key and offline without."""
    artifacts: bool = False
    """Upload the checkpoint of each complete trial and of the final model."""


def _safe_name(name: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}", name):
        raise ValueError(
            "must consist of at most 100 letters, digits, '.', '_' and '-', and start with a letter or a digit"
        )
    return name


def _variable_name(name: str) -> str:
    if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]{0,99}", name):
        raise ValueError("must be the name of an environment variable (letters, digits and _)")
    return name


class StudyConfig(Section):
    """Where the study is stored."""

    url_variable: Annotated[str, AfterValidator(_variable_name)] | None = None
    """Environment variable with a database URL (postgresql://…), so that no password is written to a file; by default
    the study is a journal file in the campaign's folder."""


def _absolute_storage(storage: str, info: ValidationInfo) -> str:
    """Make a folder absolute; a URI is left unchanged."""
    return storage if "://" in storage else str(absolute_path(Path(storage), info))


StoragePlace = Annotated[str, BeforeValidator(require_place), AfterValidator(_absolute_storage)]


def _read_baseline(train: object, info: ValidationInfo) -> object:
    """Read the settings from a file if one is named; its paths are relative to its own folder."""
    if isinstance(require_place(train), str):
        base = (info.context or {}).get("base") or Path()
        return load_config(base / Path(str(train)).expanduser())
    if not isinstance(train, dict | TrainConfig):
        raise ValueError("must be the name of a file, or a mapping of settings")
    return train


class Campaign(Section):
    """One search campaign."""

    name: Annotated[str, AfterValidator(_safe_name)]
    """Name of the campaign's folder, study and W&B group."""
    train: Annotated[TrainConfig, BeforeValidator(_read_baseline)]
    """The baseline: trial 0, and the value of everything that is not searched. A file, or the settings themselves."""
    objective: str = "recall_mean"
    """Metric to maximise: at the best epoch of the last stage, on the validation split."""
    objectives: Goals = ()
    """Instead of `objective`: several figures, like [recall_mean, {box_iou: max}, {trainable_parameters: min}]. The
    first one, a metric to maximise, chooses the best epoch and the best trial, and prunes."""
    constraints: Constraints = Constraints({})
    """What a trial must reach besides, at its best epoch, to be the best: figure → at_least or at_most, a number or
    relative to the baseline."""
    limits: Limits = Limits()
    sampler: Sampler = Sampler()
    pruner: Pruner = Pruner()
    space: Space
    warm_start: list[FilePath] = []
    """Folders of other campaigns. Their complete trials that could be this campaign's own are history for the sampler;
    of the others, the best settings are tried first."""
    resources: Resources = Resources()
    wandb: Tracking = Tracking()
    storage: StoragePlace | None = None
    """Where workers write checkpoints: a folder shared by all nodes, or s3://…; by default the campaign's folder."""
    study: StudyConfig = StudyConfig()
    checkpoint_every_s: Number = Field(default=10.0, ge=0, le=1e6)
    """Minimum seconds between checkpoints of a trial; one is always written at its end."""
    trial_timeout_s: Number = Field(default=3600.0, ge=1, le=1e7)
    """Seconds without a report after which a trial counts as hung: its worker is killed and the trial fails."""
    max_failed_trials: Integer = Field(default=5, ge=1, le=1_000_000)
    """Number of consecutive failures that stops the campaign."""

    @model_validator(mode="after")
    def _gpu_hours_need_a_gpu(self) -> Self:
        if self.limits.gpu_hours is not None and not self.resources.gpu:
            raise ValueError("limits.gpu_hours has no effect, since resources.gpu is 0")
        return self

    @classmethod
    def refuse_other_kind(cls, content: object, path: Path) -> None:
        if isinstance(content, dict) and "train" not in content and content.keys() & TrainConfig.model_fields.keys():
            raise UserError(
                "is a training configuration, not a campaign", where=path, how="name it in the train: of a campaign"
            )

    @model_validator(mode="after")
    def _cmaes_has_one_objective(self) -> Self:
        if self.sampler.kind == "cmaes" and len(self.goals) > 1:
            raise ValueError("sampler.kind cmaes takes a single objective; choose tpe, gp, qmc or random")
        return self

    @model_validator(mode="after")
    def _holds_buildings_out(self) -> Self:
        if self.train.data.train_on == "all":
            raise ValueError("train.data.train_on is all, so no building would be left to score trials by")
        return self

    @model_validator(mode="after")
    def _pruner_can_prune(self) -> Self:
        epochs, first = self.train.recipe.epochs, self.pruner.min_epochs
        if self.pruner.kind == "asha" and first > epochs and "recipe.epochs" not in self.space.dimensions:
            raise ValueError(f"pruner.min_epochs {first} is more than recipe.epochs {epochs}, so no trial is pruned")
        return self

    @model_validator(mode="before")
    @classmethod
    def _first_of_objectives(cls, content: Any) -> Any:
        """The first of several objectives is `objective`."""
        given = content.get("objectives") if isinstance(content, dict) else None
        if not given or not isinstance(given, list | tuple):
            return content
        first = given[0]["figure"] if isinstance(given[0], dict) and "figure" in given[0] else given[0]
        if not isinstance(first, str):
            raise ValueError("the first of objectives must be the name of a metric, which is maximised")
        if content.get("objective", first) != first:
            raise ValueError("give either objective or objectives")
        return {**content, "objective": first}

    @model_validator(mode="after")
    def _distinct_objectives(self) -> Self:
        if len({goal.figure for goal in self.objectives}) < len(self.objectives):
            raise ValueError("objectives name a figure twice")
        return self

    @field_validator("objective")
    @classmethod
    def _is_a_metric(cls, objective: str) -> str:
        if "loss" in objective:
            raise ValueError("a loss cannot be the objective, since searched loss weights would lower it for no gain")
        if objective not in get_args(Objective):
            raise ValueError(f"must be one of {', '.join(get_args(Objective))}")
        return objective

    @model_validator(mode="after")
    def _one_objective(self) -> Self:
        if self.train.objective not in ("recall_mean", self.objective):
            raise ValueError(f"objective is {self.objective}, but train.objective is {self.train.objective}")
        return self

    @property
    def goals(self) -> Goals:
        """What is optimised, the objective first."""
        return self.objectives or (Goal(figure=self.objective, direction="max"),)

    def judge(self, trials: Sequence[TrialRecord]) -> list[TrialRecord]:
        """The same trials, with the constraints that each breaks, and marked if no other one beats it."""
        return mark_front(self.constraints.judge(trials), self.goals)

    @property
    def base(self) -> TrainConfig:
        """The baseline, scored by the campaign's objective."""
        same = self.train.objective == self.objective
        return self.train if same else self.train.with_overrides({"objective": self.objective})

    def with_limits(self, *, trials: int | None, hours: float | None, gpu_hours: float | None = None) -> Self:
        """A validated copy with the limits that are not None.

        Args:
            trials: number of ended trials.
            hours: wall time.
            gpu_hours: of all trials together.
        Raises:
            UserError: a limit is out of range, or GPU-hours are limited without a GPU.
        """
        content = self.model_dump(mode="json", by_alias=True)
        given = {"trials": trials, "hours": hours, "gpu_hours": gpu_hours}
        content["limits"] |= {key: value for key, value in given.items() if value is not None}
        return parse(type(self), content, where="the command line")


def load_campaign(path: Path) -> Campaign:
    """Read a campaign and its baseline, and check the search space against it.

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
    """The campaign of a folder, as resolved when it started, under its current limits.

    Raises:
        UserError: as `read_started`, or the file of limits is damaged.
    """
    started = read_started(folder)
    return started.with_limits(**read_limits(folder).model_dump()) if folder.limits.exists() else started


def read_limits(folder: CampaignFolder) -> Limits:
    """What `crossmodal limits` set.

    Raises:
        UserError: it set none, or the file is damaged.
    """
    return parse(Limits, load_yaml(folder.limits), where=folder.limits)


def read_started(folder: CampaignFolder) -> Campaign:
    """The campaign of a folder, with the limits that the last search asked for; its space was checked then.

    Raises:
        UserError: the folder has none, or its file is damaged or was written by a version with other settings.
    """
    if not folder.campaign.exists():
        raise UserError("holds no campaign", where=folder.root, how="name the folder that crossmodal search wrote")
    return parse(Campaign, load_yaml(folder.campaign), where=folder.campaign)


def settings_hash(campaign: Campaign) -> str:
    """Hash of the settings that its trials depend on: all except limits, locations and evaluation.

    Sixteen hexadecimal digits; unchanged when a later version adds a setting with a default.
    """
    content = campaign.model_dump(
        mode="json",
        by_alias=True,
        exclude={"limits": True, "storage": True, "warm_start": True, "train": {**PLACES, "evaluation": True}},
        exclude_defaults=True,
    )
    return hash_of(content)


def changed_keys(started: Campaign, now: Campaign) -> list[str]:
    """Dotted paths of the settings that differ, limits excepted, in alphabetical order."""
    before, after = (campaign.model_dump(mode="json", by_alias=True, exclude={"limits"}) for campaign in (started, now))
    return sorted(_differences(before, after, ""))


def _differences(before: Any, after: Any, path: str) -> list[str]:
    if isinstance(before, dict) and isinstance(after, dict):
        keys = dict.fromkeys([*before, *after])
        return [d for key in keys for d in _differences(before.get(key), after.get(key), f"{path}.{key}".lstrip("."))]
    return [] if before == after else [path]

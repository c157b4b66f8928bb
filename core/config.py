"""The configuration of one training run: frozen pydantic models, read from YAML, every mistake named.

A YAML file holds only what differs from the defaults below. Modules never see these models; `build_*`
functions unpack them into plain numbers. Whoever adds a field adds a docstring under it.
"""

import difflib
import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeVar

import yaml
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    Strict,
    ValidationError,
    ValidationInfo,
    model_validator,
)

from core.errors import UserError

Scalar = str | int | float | bool
Fusion = Literal["concat", "interaction"]
ImagePooling = Literal["cls", "mean"]
TextPooling = Literal["first", "mean", "last"]
Normalization = Literal["none", "standardize", "layernorm"]
Positives = Literal["image", "building"]
Objective = Literal["recall_mean", "t2i_r1", "t2i_r5", "t2i_r10", "i2t_r1", "i2t_r5", "i2t_r10"]


def _refuse_boolean(value: object) -> object:
    if isinstance(value, bool):
        raise ValueError("a number is needed, not true or false")
    return value


def _absolute_path(path: Path, info: ValidationInfo) -> Path:
    """Relative paths in a file are relative to that file: workers run in other folders."""
    base = (info.context or {}).get("base")
    return (base / path.expanduser()).resolve() if base is not None else path


def _absolute_backbone(name: str, info: ValidationInfo) -> str:
    """`./x`, `../x`, `/x` and `~/x` are folders; anything else is a hub id."""
    if not name.startswith((".", "/", "~")):
        return name
    return str(_absolute_path(Path(name), info))


Integer = Annotated[int, Strict()]
Number = Annotated[float, BeforeValidator(_refuse_boolean)]
FilePath = Annotated[Path, AfterValidator(_absolute_path)]
BackboneName = Annotated[str, AfterValidator(_absolute_backbone)]


class Section(BaseModel):
    """Base of everything people write: frozen, unknown keys refused."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, allow_inf_nan=False, use_attribute_docstrings=True, validate_default=True
    )


class ModelConfig(Section):
    """The trainable part on top of the frozen backbone."""

    adapter_width: Integer = Field(default=256, ge=1, le=16384)
    """Output width of the two adapters."""
    embed_dim: Integer = Field(default=256, ge=1, le=16384)
    """Width of the joint embedding."""
    dropout: Number = Field(default=0.1, ge=0.0, lt=1.0)
    """Dropout after the adapters' ReLU."""
    fusion: Fusion = "interaction"
    """What the heads see: [v; t] or [v; t; v⊙t; |v−t|]. The first cannot model matching (docs/methodology.md)."""
    temperature: Number = Field(default=0.07, gt=0.0, le=1.0)
    """Start value of the learned contrastive temperature."""


class LossConfig(Section):
    """Weights of the four losses; 0 switches a loss off. Only ratios to `itc` matter."""

    itc: Number = Field(default=1.0, ge=0.0)
    """Image-text contrastive."""
    itm: Number = Field(default=1.0, ge=0.0)
    """Image-text matching, with hard negatives."""
    box: Number = Field(default=0.1, ge=0.0)
    """Box regression of a region sentence."""
    spatial: Number = Field(default=0.1, ge=0.0)
    """Spatial relation of a region to the first region of its image."""
    giou: Number = Field(default=0.0, ge=0.0)
    """Weight of 1 − GIoU inside the box loss, beside L1."""
    positives: Positives = "building"
    """Which pairs of a batch count as matching: the same image, or any image of the same building."""

    @model_validator(mode="after")
    def _something_to_learn(self) -> Self:
        if self.itc == 0 and self.itm == 0:
            raise ValueError("itc and itm are both 0, so nothing would train retrieval")
        return self


class OptimizerConfig(Section):
    """AdamW with a linear schedule."""

    learning_rate: Number = Field(default=1e-3, gt=0.0, le=1.0)
    """Peak learning rate."""
    weight_decay: Number = Field(default=0.01, ge=0.0)
    """Decoupled weight decay."""
    warmup_ratio: Number = Field(default=0.1, ge=0.0, lt=1.0)
    """Share of a stage's steps in which the rate rises linearly from 0."""
    batch_size: Integer = Field(default=512, ge=2)
    """Image-caption pairs a step; also the number of contrastive candidates."""
    cuda_graph: bool = True
    """On a GPU record the step once and replay it; false runs it operation by operation."""


class RecipeConfig(Section):
    """How long to train and where the stages split."""

    epochs: Integer = Field(default=8, ge=1)
    """Passes over the training captions, both stages together."""
    stage1_epochs: Integer = Field(default=0, ge=0)
    """Epochs of alignment (ITC + ITM) before the joint stage; 0 is single-stage."""
    stage2_lr_scale: Number = Field(default=1.0, gt=0.0, le=10.0)
    """Learning rate of the joint stage over that of the first; only used when stage1_epochs > 0."""

    @model_validator(mode="after")
    def _stages_fit(self) -> Self:
        if self.stage1_epochs > self.epochs:
            raise ValueError(f"stage1_epochs {self.stage1_epochs} is more than epochs {self.epochs}")
        return self


class DataConfig(Section):
    """Annotations in GeoText-1652 format and the pictures they name."""

    train_annotations: FilePath = Path("train.json")
    """Training annotations; a validation split by building is held out of them."""
    test_annotations: FilePath | None = None
    """Test annotations, read only by `retrain` and `train --evaluate`."""
    image_root: FilePath = Path("images")
    """Folder that the `image` paths of the annotations start from."""
    validation_fraction: Number = Field(default=0.1, gt=0.0, lt=1.0)
    """Share of the training buildings held out for validation."""
    split_seed: Integer = 0
    """Which buildings are held out."""


class FeaturesConfig(Section):
    """What the frozen backbone computes, once, and which of it a run reads."""

    backbone: BackboneName = "OpenGVLab/InternVL3-1B-hf"
    """Hub id, or a folder (beginning with ./, ../ or /) in transformers format."""
    store: FilePath = Path("output/features")
    """Folder of feature stores; each lies in a sub-folder named by its fingerprint."""
    image_size: Integer = Field(default=448, ge=28, le=4032)
    """Pixels of the squared picture; what exceeds a multiple of the patch size is not seen (384 = 27 × 14 + 6)."""
    max_tokens: Integer = Field(default=128, ge=2, le=32768)
    """Longer texts are cut."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Arithmetic of the frozen backbone; features are stored as float32."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where the backbone and the adapters run."""
    micro_batch: Integer = Field(default=32, ge=1)
    """Pictures or texts in one pass of the backbone; halved when memory runs out."""
    image_pooling: ImagePooling = "mean"
    """One vector a picture: the CLS token, or the mean of the patch tokens."""
    text_pooling: TextPooling = "last"
    """One vector a text: its first, mean or last valid token."""
    normalization: Normalization = "standardize"
    """Before the adapters: nothing, per-dimension standardisation by the training split, or LayerNorm."""
    allow_degenerate: bool = False
    """Accept a pooling that gives many different inputs the same vector."""
    source: Literal["cached", "live"] = "cached"
    """Read the features from the store, or run the backbone in the training loop."""


class EvaluationConfig(Section):
    """How `train --evaluate` measures."""

    k_test: Integer = Field(default=256, ge=0)
    """Best candidates re-ranked by the matching head, clipped to the gallery; 0 for none."""


class TrainConfig(Section):
    """Everything one training run depends on."""

    model: ModelConfig = ModelConfig()
    loss: LossConfig = LossConfig()
    optimizer: OptimizerConfig = OptimizerConfig()
    recipe: RecipeConfig = RecipeConfig()
    data: DataConfig = DataConfig()
    features: FeaturesConfig = FeaturesConfig()
    evaluation: EvaluationConfig = EvaluationConfig()
    objective: Objective = "recall_mean"
    """The validation metric that decides which epoch of the last stage a run is scored by and keeps."""
    seed: Integer = Field(default=0, ge=0)
    """Seeds weights, batches, dropout and hard negatives."""

    @model_validator(mode="before")
    @classmethod
    def _validate_missing_sections(cls, content: Any) -> Any:
        """A section that is left out is read like an empty one: its default paths become absolute, too."""
        sections: dict[str, Any] = {
            name: {} for name, field in cls.model_fields.items() if isinstance(field.default, Section)
        }
        return sections | content if isinstance(content, dict) else content

    def with_overrides(self, overrides: Mapping[str, Scalar]) -> "TrainConfig":
        """A copy with dotted paths set, e.g. {'loss.itm': 0.5}, validated again.

        Raises:
            UserError: a path is not a setting, or a value does not fit it.
        """
        content = self.model_dump(mode="json")
        for path, value in overrides.items():
            _set_dotted(content, path, value)
        return parse(TrainConfig, content, where="overrides")


SectionT = TypeVar("SectionT", bound=Section)


def parse(kind: type[SectionT], content: object, *, where: object, base: Path | None = None) -> SectionT:
    """Validate plain YAML content as a section.

    Args:
        where: named in errors, usually the file.
        base: folder that relative paths start from; None leaves them as they are.
    Raises:
        UserError: names the place, the key and, for an unknown key, the nearest valid one.
    """
    if not isinstance(content, dict):
        raise UserError("must be a mapping of settings", where=where)
    try:
        return kind.model_validate(content, context={"base": base})
    except ValidationError as error:
        raise UserError(_first_problem(kind, error), where=where) from None


def load_config(path: Path) -> TrainConfig:
    """Read a training configuration; relative paths in it start from its folder.

    Raises:
        UserError: names the file, the key and the nearest valid key.
    """
    return parse(TrainConfig, load_yaml(path), where=path, base=path.resolve().parent)


def load_yaml(path: Path) -> Any:
    """Read a YAML file; an empty one is an empty mapping."""
    try:
        content = yaml.load(path.read_text(encoding="utf-8"), Loader=_Loader)
    except FileNotFoundError:
        raise UserError("there is no such file", where=path) from None
    except IsADirectoryError:
        raise UserError("is a folder, not a YAML file", where=path) from None
    except UnicodeDecodeError:
        raise UserError("is not UTF-8 text", where=path) from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        place = f"line {mark.line + 1}: " if mark else ""
        problem = getattr(error, "problem", None) or "cannot be parsed"
        raise UserError(f"{place}is not valid YAML ({problem})", where=path) from None
    return {} if content is None else content


def dump_yaml(section: Section) -> str:
    """The section as YAML, every value written out."""
    return yaml.safe_dump(section.model_dump(mode="json", by_alias=True), sort_keys=False, allow_unicode=True)


def config_hash(config: Section, *, exclude: set[str] | None = None, exclude_defaults: bool = False) -> str:
    """Sixteen hexadecimal digits that are equal exactly when all settings are.

    Args:
        exclude: top-level settings that do not count.
        exclude_defaults: the hash stays when a later version adds a setting with a default.
    """
    content = config.model_dump(mode="json", by_alias=True, exclude=exclude, exclude_defaults=exclude_defaults)
    canonical = json.dumps(content, sort_keys=True)
    return hashlib.sha256(canonical.encode()).hexdigest()[:16]


def dotted_keys(kind: type[BaseModel], prefix: str = "") -> Iterator[str]:
    """Every setting of a section as a dotted path, e.g. 'loss.itm'."""
    for name, field in kind.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from dotted_keys(field.annotation, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}"


def unknown_key(path: str, kind: type[BaseModel]) -> str:
    """The line that says a key is no setting and names the nearest one."""
    keys = list(dotted_keys(kind))
    keys += sorted({key.split(".")[0] for key in keys if "." in key})
    by_last_word = [key for key in keys if key.split(".")[-1] == path.split(".")[-1]]
    nearest = by_last_word or difflib.get_close_matches(path, keys, n=1, cutoff=0.4)
    return f"{path} is not a setting" + (f"; did you mean {nearest[0]}?" if nearest else "")


def _set_dotted(content: dict[str, Any], path: str, value: Scalar) -> None:
    *sections, name = path.split(".")
    target = content
    for section in sections:
        target = target.get(section, {}) if isinstance(target, dict) else {}
    if not isinstance(target, dict) or name not in target or isinstance(target[name], dict):
        raise UserError(unknown_key(path, TrainConfig))
    target[name] = value


def _first_problem(kind: type[BaseModel], error: ValidationError) -> str:
    problem = error.errors(include_url=False)[0]
    path = ".".join(str(part) for part in problem["loc"])
    if problem["type"] == "extra_forbidden":
        return unknown_key(path, kind)
    message = problem["msg"].removeprefix("Value error, ")
    if isinstance(problem["input"], Scalar | None):
        message = f"{message}, not {problem['input']!r}"
    return f"{path}: {message}" if path else message


class _Loader(yaml.SafeLoader):
    """Without two surprises of PyYAML: a repeated key keeps only the last value, and `off` and `on` are booleans."""

    yaml_implicit_resolvers = {
        first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:bool"]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if key in seen:
                raise yaml.constructor.ConstructorError(None, None, f"{key} is given twice", key_node.start_mark)
            seen.add(key)
        return super().construct_mapping(node, deep=deep)


_Loader.add_implicit_resolver("tag:yaml.org,2002:bool", re.compile("^(?:true|false|True|False)$"), list("tfTF"))

"""The configuration of one training run: frozen pydantic models, read from YAML, every mistake named.

A YAML file holds only what differs from the defaults below, or from the file that its `base` names. Modules never see
these models; `build_*` functions unpack them into plain numbers. Whoever adds a field adds a docstring under it.
"""

import hashlib
import json
import reprlib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, Strict, ValidationError, model_validator

from core.errors import UserError
from core.files.yaml_files import dump_plain, load_yaml
from core.places import PLACES, BackboneName, FilePath, require_place
from core.similar_names import similar_names

Scalar = str | int | float | bool
Fusion = Literal["concat", "interaction", "attention"]
GridPooling = Literal["none", "attention"]
ImagePooling = Literal["cls", "mean"]
TextPooling = Literal["first", "mean", "last"]
Normalization = Literal["none", "standardize", "layernorm"]
Positives = Literal["image", "building", "text"]
Contrastive = Literal["infonce", "sigmoid"]
QueryBank = Literal["none", "train_captions"]
Device = Literal["auto", "cpu", "cuda"]
Objective = Literal["recall_mean", "t2i_r1", "t2i_r5", "t2i_r10", "i2t_r1", "i2t_r5", "i2t_r10"]


def _require_number(value: object) -> object:
    if isinstance(value, bool):
        raise ValueError("a number is needed, not true or false")
    if isinstance(value, str):
        raise ValueError("a number is needed, like 10, 0.5 or 1e-4")
    return value


Integer = Annotated[int, Strict()]
Number = Annotated[float, BeforeValidator(_require_number)]
Weight = Annotated[Number, Field(ge=0.0, le=1e6)]
Seed = Annotated[Integer, Field(ge=0, lt=2**32)]
"""Numpy takes 32 bits; an epoch's seed, about 200,000 times as large (`core.training.stages`), fits torch's 64."""


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
    """What the heads see: [v; t], [v; t; v⊙t; |v−t|], or the text and the grid of the image, by cross-attention. The
    first cannot model matching (docs/methodology.md)."""
    image_pooling: GridPooling = "none"
    """Whether learned queries over the grid join the image's readings."""
    temperature: Number = Field(default=0.07, ge=0.001, le=1.0)
    """Start value of the learned contrastive temperature, in the range to which training clips it."""

    @property
    def uses_grid(self) -> bool:
        """Whether the model looks at the patch grid of an image."""
        return self.fusion == "attention" or self.image_pooling == "attention"


class LossConfig(Section):
    """Weights of the four losses; 0 switches a loss off. Only ratios to `itc` matter."""

    itc: Weight = 1.0
    """Image-text contrastive."""
    itm: Weight = 1.0
    """Image-text matching, with hard negatives."""
    box: Weight = 0.1
    """Box regression of a region sentence."""
    spatial: Weight = 0.1
    """Spatial relation of a region to the first region of its image."""
    giou: Weight = 0.0
    """Weight of 1 − GIoU inside the box loss, beside L1."""
    positives: Positives = "building"
    """Which pairs of a batch count as matching: the same image, any image of the same building, or the same image and
    any with an equal caption."""
    contrastive: Contrastive = "infonce"
    """Contrastive loss over a softmax of the batch, or over a sigmoid of each pair (SigLIP, 2303.15343)."""

    @model_validator(mode="after")
    def _something_to_learn(self) -> Self:
        if max(self.itc, self.itm) < 1e-6:
            raise ValueError("itc and itm are both 0 or next to it, so nothing would train retrieval")
        return self


class OptimizerConfig(Section):
    """AdamW with a linear schedule."""

    learning_rate: Number = Field(default=1e-3, ge=1e-12, le=1.0)
    """Peak learning rate."""
    weight_decay: Number = Field(default=0.01, ge=0.0, le=10.0)
    """Decoupled weight decay: each step takes rate × weight_decay off every weight."""
    warmup_ratio: Number = Field(default=0.1, ge=0.0, lt=1.0)
    """Share of a stage's steps in which the rate rises linearly from 0."""
    batch_size: Integer = Field(default=512, ge=2, le=65536)
    """Image-caption pairs a step; also the number of contrastive candidates."""
    cuda_graph: bool = True
    """On a GPU record the step once and replay it; false runs it operation by operation."""


class RecipeConfig(Section):
    """How long to train and where the stages split."""

    epochs: Integer = Field(default=8, ge=1, le=100_000)
    """Passes over the training captions, both stages together; more would draw the seeds of another run."""
    stage1_epochs: Integer = Field(default=0, ge=0, le=100_000)
    """Epochs of alignment (ITC + ITM) before the joint stage; 0 is single-stage."""
    stage2_lr_scale: Number = Field(default=1.0, ge=1e-6, le=10.0)
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
    split_seed: Seed = 0
    """Which buildings are held out."""


class FeaturesConfig(Section):
    """What the frozen backbone computes, once, and which of it a run reads."""

    backbone: BackboneName = "OpenGVLab/InternVL3-1B-hf"
    """A folder in transformers format, or a hub id. A name that is a folder, seen from the file, is that folder; one
    that begins with `.`, `/` or `~` is never a hub id."""
    store: FilePath = Path("output/features")
    """Folder of feature stores; each lies in a sub-folder named by its fingerprint."""
    image_size: Integer = Field(default=448, ge=28, le=4032)
    """Pixels of the squared picture; what exceeds a multiple of the patch size is not seen (384 = 27 × 14 + 6)."""
    max_tokens: Integer = Field(default=128, ge=2, le=32768)
    """Longer texts are cut."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Arithmetic of the frozen backbone; features are stored as float32."""
    micro_batch: Integer = Field(default=32, ge=1, le=65536)
    """Pictures or texts in one pass of the backbone; halved when memory runs out."""
    image_pooling: ImagePooling = "mean"
    """One vector a picture: the CLS token, or the mean of the patch tokens."""
    text_pooling: TextPooling = "last"
    """One vector a text: its first, mean or last valid token."""
    grid: Integer = Field(default=8, ge=1, le=64)
    """Rows and columns of the patch grid, average-pooled; extracted only for models that look at it."""
    normalization: Normalization = "standardize"
    """Before the adapters: nothing, per-dimension standardisation by the training split, or LayerNorm."""
    allow_degenerate: bool = False
    """Accept a pooling that gives many different inputs the same vector."""
    source: Literal["cached", "live"] = "cached"
    """Read the features from the store, or run the backbone in the training loop."""


class EvaluationConfig(Section):
    """How `train --evaluate` measures."""

    k_test: Integer = Field(default=256, ge=0, le=10_000_000)
    """Best candidates re-ranked by the matching head, clipped to the gallery; 0 for none."""
    rerank_weight: Number = Field(default=1.0, ge=0.0, le=1000.0)
    """Candidates are re-ranked by similarity / temperature + this weight × the matching head's log-odds."""
    query_bank: QueryBank = "none"
    """Whether text queries are also measured with QB-Norm (2112.12777), which normalises their similarities by how
    strongly captions of the training split activate each image of the gallery."""


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
    device: Device = "auto"
    """Where the backbone and the adapters run; auto is the GPU where there is one."""
    seed: Seed = 0
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


ModelT = TypeVar("ModelT", bound=BaseModel)
BASE = "base"
"""Key of a file that holds what this one does not say."""


def parse(kind: type[ModelT], content: object, *, where: object, base: Path | None = None) -> ModelT:
    """Validate plain YAML content as a section.

    Args:
        where: named in errors, usually the file.
        base: folder that relative paths start from; None leaves them as they are.
    Raises:
        UserError: names the place, the key and, for an unknown key, the nearest valid one.
    """
    if not isinstance(content, dict):
        raise UserError(f"must be a mapping of settings, not {shown(content)}", where=where)
    try:
        return kind.model_validate(content, context={"base": base})
    except ValidationError as error:
        raise UserError(_first_problem(kind, error), where=where) from None
    except UserError as error:  # in another file that this one names
        raise UserError(str(error), where=where) from None


def load_config(path: Path) -> TrainConfig:
    """Read a training configuration; relative paths in it start from its folder.

    Raises:
        UserError: names the file, the key and the nearest valid key.
    """
    return load_section(TrainConfig, path)


def load_section(kind: type[ModelT], path: Path, *, above: tuple[Path, ...] = ()) -> ModelT:
    """Read a file as a section. Its key `base` names another file, seen from it, that holds all it does not say.

    A base is whole and valid by itself; relative paths start from the folder of the file in which they stand.

    Args:
        above: files that this one is a base of.
    Raises:
        UserError: names the file that holds the mistake, after those that it is a base of.
    """
    content = load_yaml(path)
    if kind is TrainConfig and isinstance(content, dict) and {"train", "space"} <= content.keys():
        raise UserError("is a campaign, not a training configuration", where=path, how="name the file in its train")
    if isinstance(content, dict) and BASE in content:
        own = {key: value for key, value in content.items() if key != BASE}
        below = _load_base(kind, content[BASE], path, above)
        content = _merged(kind, below.model_dump(mode="json", by_alias=True), own)
    return parse(kind, content, where=path, base=path.resolve().parent)


def _load_base(kind: type[ModelT], name: object, path: Path, above: tuple[Path, ...]) -> ModelT:
    above = (*above, path.resolve())
    try:
        if not isinstance(require_place(name), str):
            raise UserError(f"must be the name of a file, not {shown(name)}")
        base = above[-1].parent / Path(str(name)).expanduser()
        if base.resolve() in above:
            raise UserError(f"{name} has this file as its own base", how="name another file")
        return load_section(kind, base, above=above)
    except (ValueError, UserError) as error:
        raise UserError(f"{BASE}: {error}", where=path) from None


def _merged(kind: type[BaseModel], below: dict[str, Any], own: dict[str, Any]) -> dict[str, Any]:
    """What a file says, over its base; sections setting by setting, anything else as a whole."""
    merged = below | own
    for name, field in kind.model_fields.items():
        section, changes = field.annotation, own.get(name)
        if isinstance(section, type) and issubclass(section, BaseModel) and isinstance(changes, dict):
            merged[name] = _merged(section, below[name], changes)
    return merged


def dump_yaml(section: Section) -> str:
    """The section as YAML, every value written out."""
    return dump_plain(section.model_dump(mode="json", by_alias=True))


def config_hash(config: TrainConfig) -> str:
    """Sixteen hexadecimal digits that are equal exactly when all settings are, wherever data and backbone lie."""
    return hash_of(config.model_dump(mode="json", exclude=PLACES))


def hash_of(content: object) -> str:
    """Sixteen hexadecimal digits of plain data."""
    canonical = json.dumps(content, sort_keys=True)
    return hashlib.sha256(canonical.encode()).hexdigest()[:16]


def dotted_keys(kind: type[BaseModel], prefix: str = "") -> Iterator[str]:
    """Every setting of a section as a dotted path, e.g. 'loss.itm'."""
    for name, field in kind.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, Section):
            yield from dotted_keys(field.annotation, f"{prefix}{name}.")
        else:
            yield f"{prefix}{field.alias or name}"


def accepts(path: str, value: object) -> bool:
    """Whether a setting of TrainConfig may have this value, whatever the others are."""
    place = tuple(path.split("."))
    content = value
    for name in reversed(place):
        content = {name: content}
    try:
        TrainConfig.model_validate(content)
    except ValidationError as error:
        return all(problem["loc"] != place for problem in error.errors())
    return True


def unknown_key(path: str, kind: type[BaseModel], sections: Iterable[str] = ()) -> str:
    """The line that says a key is no setting, and names a similar one, or those that stand in its place.

    Args:
        sections: that may be meant, too.
    """
    settings = list(dotted_keys(kind))
    if inside := [key for key in settings if key.startswith(f"{path}.")]:
        return f"{path} is not a setting but a section; its settings are {', '.join(inside)}"
    problem = f"{path if path.strip().isprintable() and 0 < len(path.strip()) <= 80 else shown(path)} is not a setting"
    if near := similar_names(path[:80], settings, sections):
        return f"{problem}; did you mean {' or '.join(near)}?"
    section = path.rpartition(".")[0]
    beside = [key for key in settings if section and key.startswith(f"{section}.")]
    return f"{problem}; known are {', '.join(beside or dict.fromkeys(key.split('.')[0] for key in settings))}"


def _set_dotted(content: dict[str, Any], path: str, value: Scalar) -> None:
    *sections, name = path.split(".")
    target = content
    for section in sections:
        target = target.get(section, {}) if isinstance(target, dict) else {}
    if not isinstance(target, dict) or name not in target or isinstance(target[name], dict):
        raise UserError(unknown_key(path, TrainConfig))
    target[name] = value


_MESSAGES = {
    "missing": "is missing; write it",
    "model_type": "must be a mapping of settings",
    "dict_type": "must be a mapping of settings",
    "list_type": "must be a list",
    "path_type": "must be the name of a file or folder, in quotes where it looks like a number",
    "string_type": "must be a text, in quotes where it looks like a number",
}
"""In the place of pydantic's own."""


def _first_problem(kind: type[BaseModel], error: ValidationError) -> str:
    problem = error.errors(include_url=False)[0]
    path = ".".join(str(part) for part in problem["loc"])
    if problem["type"] == "extra_forbidden":
        return _unknown_in_file(path, kind)
    message = _MESSAGES.get(problem["type"], problem["msg"].removeprefix("Value error, "))
    if isinstance(problem["input"], Scalar | None) or problem["type"].endswith("_type"):
        message = f"{message}, not {shown(problem['input'])}"
    return f"{path}: {message}" if path else message


def _unknown_in_file(path: str, kind: type[BaseModel]) -> str:
    settings = list(dotted_keys(kind))
    if path in settings:
        *sections, name = path.split(".")
        nested = "".join(f"{section}: {{" for section in sections) + f"{name}: …" + "}" * len(sections)
        return f"{path} is one key here, but {name} stands inside of {'.'.join(sections)}: write {nested}"
    return unknown_key(path, kind, {key[: key.rindex(".")] for key in settings if "." in key})


def shown(value: object) -> str:
    """A value as an error tells it: short, on one line, and without the password that a URL may hold."""
    if value is None:
        return "null"
    if isinstance(value, dict | list):
        return "a mapping" if isinstance(value, dict) else "a list"
    return "the URL given" if isinstance(value, str) and "://" in value else _SHORT.repr(value)


_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxother = 60

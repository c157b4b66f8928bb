"""The configuration of one training run: frozen pydantic models, read from YAML with precise error messages.

A YAML file holds only what differs from the defaults below, or from the file named by its `base`. `build_*` functions
unpack these models into plain numbers for the modules. Every field has a docstring under it.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, Field, ValidationError, model_validator

from core.errors import UserError
from core.places import PLACES, BackboneName, FilePath
from core.readings import Reading, Readings, grid_reading, parse_readings
from core.sections import Integer, Number, Scalar, Section, hash_of, load_section, parse, unknown_key

Fusion = Literal["concat", "interaction", "attention"]
GridPooling = Literal["none", "attention"]
Normalization = Literal["none", "standardize", "layernorm"]
Positives = Literal["image", "building", "text"]
Contrastive = Literal["infonce", "sigmoid"]
QueryBank = Literal["none", "train_captions"]
TrainOn = Literal["training", "all"]
Device = Literal["auto", "cpu", "cuda"]
Objective = Literal["recall_mean", "t2i_r1", "t2i_r5", "t2i_r10", "i2t_r1", "i2t_r5", "i2t_r10"]


Weight = Annotated[Number, Field(ge=0.0, le=1e6)]
Seed = Annotated[Integer, Field(ge=0, lt=2**32)]
"""NumPy takes 32 bits; an epoch's seed, about 200,000 times as large (`core.training.stages`), fits torch's 64."""


def _image_readings(names: str) -> str:
    parse_readings("images", names, prompt="")
    return names


def _text_readings(names: str) -> str:
    parse_readings("texts", names, prompt="")
    return names


ImageReadings = Annotated[str, AfterValidator(_image_readings)]
TextReadings = Annotated[str, AfterValidator(_text_readings)]
Prompt = Annotated[str, Field(min_length=1, max_length=2000)]


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
    """Initial value of the learned contrastive temperature; training clips it to the same range."""

    @property
    def uses_grid(self) -> bool:
        """Whether the model looks at the patch grid of an image."""
        return self.fusion == "attention" or self.image_pooling == "attention"


class LossConfig(Section):
    """Weights of the four losses; 0 disables a loss. Only their ratios matter."""

    itc: Weight = 1.0
    """Image-text contrastive."""
    itm: Weight = 1.0
    """Image-text matching, with hard negatives."""
    box: Weight = 0.1
    """Regression of the box that a region's sentence describes."""
    spatial: Weight = 0.1
    """Spatial relation of a region to the first region of its image."""
    giou: Weight = 0.0
    """Weight of 1 − GIoU within the box loss, added to L1."""
    positives: Positives = "building"
    """Which pairs of a batch count as matching: the same image, any image of the same building, or the same image and
    any with an equal caption."""
    contrastive: Contrastive = "infonce"
    """Contrastive loss over a softmax of the batch, or over a sigmoid of each pair (SigLIP, 2303.15343)."""

    @model_validator(mode="after")
    def _something_to_learn(self) -> Self:
        if max(self.itc, self.itm) < 1e-6:
            raise ValueError("itc and itm are both 0 or nearly 0, so nothing would train retrieval")
        return self


class OptimizerConfig(Section):
    """AdamW with a linear schedule."""

    learning_rate: Number = Field(default=1e-3, ge=1e-12, le=1.0)
    """Peak learning rate."""
    weight_decay: Number = Field(default=0.01, ge=0.0, le=10.0)
    """Decoupled weight decay: each step multiplies the weights by 1 − rate × weight_decay."""
    warmup_ratio: Number = Field(default=0.1, ge=0.0, lt=1.0)
    """Fraction of a stage's steps during which the rate rises linearly from 0."""
    batch_size: Integer = Field(default=512, ge=2, le=65536)
    """Image-caption pairs per step; also the number of contrastive candidates."""
    cuda_graph: bool = True
    """On a GPU, record the step as a CUDA graph and replay it; false runs it operation by operation."""


class RecipeConfig(Section):
    """Number of epochs, and how they are divided into stages."""

    epochs: Integer = Field(default=8, ge=1, le=100_000)
    """Passes over the training captions, both stages together; with more, epochs would reuse seeds of other runs."""
    stage1_epochs: Integer = Field(default=0, ge=0, le=100_000)
    """Epochs of alignment (ITC + ITM) before the joint stage; 0 is single-stage."""
    stage2_lr_scale: Number = Field(default=1.0, ge=1e-6, le=10.0)
    """Ratio of the joint stage's learning rate to that of the first stage; only used if stage1_epochs > 0."""

    @model_validator(mode="after")
    def _stages_fit(self) -> Self:
        if self.stage1_epochs > self.epochs:
            raise ValueError(f"stage1_epochs {self.stage1_epochs} is more than epochs {self.epochs}")
        return self


class DataConfig(Section):
    """Annotations in GeoText-1652 format, and their images."""

    train_annotations: FilePath = Path("train.json")
    """Training annotations, of which a validation split by building is held out."""
    test_annotations: FilePath | None = None
    """Test annotations, read only by `retrain` and `train --evaluate`."""
    image_root: FilePath | None = Path("images")
    """Folder that the `image` paths of the annotations start from. None: there are no pictures, and `image` is
    the name that vectors of the image have."""
    validation_fraction: Number = Field(default=0.1, gt=0.0, lt=1.0)
    """Fraction of the training buildings held out for validation."""
    split_seed: Seed = 0
    """Seed of the choice of buildings to hold out."""
    train_on: TrainOn = "training"
    """Buildings to train on: those that are not held out, or all. With all, nothing is left to choose an epoch by: the
    last one is kept, and what is measured on the validation split is no evidence."""


class FeaturesConfig(Section):
    """What the frozen backbone or other encoders compute once, and which of it a run reads."""

    backbone: BackboneName | None = "OpenGVLab/InternVL3-1B-hf"
    """A folder in transformers format, or a hub id. A name that is a folder relative to the file means that folder; one
    that starts with `.`, `/` or `~` is never a hub id. None: all readings are vectors."""
    vectors: FilePath | None = None
    """Folder of vectors of other encoders, written by `crossmodal features import`."""
    store: FilePath = Path("output/features")
    """Folder of feature stores; each is a sub-folder named by its fingerprint."""
    image_size: Integer = Field(default=448, ge=28, le=4032)
    """Side of the resized square image in pixels; the remainder beyond a multiple of the patch size is ignored
    (384 = 27 × 14 + 6)."""
    max_tokens: Integer = Field(default=128, ge=2, le=32768)
    """Tokens per text; longer texts are truncated."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Precision of the frozen backbone; features are stored as float32."""
    micro_batch: Integer = Field(default=32, ge=1, le=65536)
    """Images or texts per pass of the backbone; halved when memory runs out."""
    image: ImageReadings = "tower.mean"
    """Readings of an image, joined with +: tower.cls, tower.mean, projector.mean, lm.image_mean, lm.prompt, one of
    another layer as in tower.mean@-6, or one of other encoders as in vectors.clip."""
    text: TextReadings = "lm.last"
    """Readings of a text, joined with +: lm.last, lm.mean, lm.first, lm.prompt, one of another layer as in lm.mean@12,
    or one of other encoders as in vectors.clip."""
    image_prompt: Prompt = "Summary above image in one word:"
    """Asked below an image by lm readings (E5-V, 2407.12580)."""
    text_prompt: Prompt = "Summary above sentence in one word:"
    """Asked below a text by lm.prompt."""
    grid: Integer = Field(default=8, ge=1, le=64)
    """Rows and columns of the patch grid, average-pooled; extracted only for models that look at it."""
    normalization: Normalization = "standardize"
    """Applied before the adapters: nothing, standardisation per dimension by the training split, or LayerNorm."""
    allow_degenerate: bool = False
    """Accept a reading that gives many different inputs the same vector."""
    source: Literal["cached", "live"] = "cached"
    """Read features from the store, or run the backbone in the training loop."""

    @model_validator(mode="after")
    def _readings_have_a_source(self) -> Self:
        for reading in (*self.image_readings, *self.text_readings):
            if reading.is_vector and self.vectors is None:
                raise ValueError(
                    f"{reading.name} needs features.vectors, a folder that crossmodal features import wrote"
                )
            if reading.is_vector and self.source == "live":
                raise ValueError(f"{reading.name} cannot be computed live; set features.source: cached")
            if not reading.is_vector and self.backbone is None:
                raise ValueError(f"{reading.name} is read of the backbone, but features.backbone is null")
        return self

    @property
    def encoders(self) -> str:
        """What computes the features, in words."""
        backbone = [] if self.backbone is None else [f"the frozen backbone {Path(self.backbone).name}"]
        return " and ".join([*backbone, *([] if self.vectors is None else [f"the set of vectors {self.vectors.name}"])])

    @property
    def image_readings(self) -> tuple[Reading, ...]:
        return parse_readings("images", self.image, prompt=self.image_prompt)

    @property
    def text_readings(self) -> tuple[Reading, ...]:
        return parse_readings("texts", self.text, prompt=self.text_prompt)


class EvaluationConfig(Section):
    """Settings of `train --evaluate`."""

    k_test: Integer = Field(default=256, ge=0, le=10_000_000)
    """Most candidates that the matching head re-ranks, clipped to the gallery size; 0 disables re-ranking."""
    rerank_weight: Number | None = Field(default=None, ge=0.0, le=1000.0)
    """Candidates are re-ranked by similarity / temperature + this weight × the matching head's log-odds. None: the
    weight, 0 included, and the number of candidates, up to k_test, are those chosen on the validation split."""
    query_bank: QueryBank = "none"
    """Whether text queries are also measured with QB-Norm (2112.12777), which normalises their similarities by how
    strongly captions of the training split activate each image of the gallery."""
    unique_texts: bool = False
    """Whether equal captions count as one text of the gallery, relevant to all images that they stand under."""


class TrainConfig(Section):
    """Everything that a training run depends on."""

    model: ModelConfig = ModelConfig()
    loss: LossConfig = LossConfig()
    optimizer: OptimizerConfig = OptimizerConfig()
    recipe: RecipeConfig = RecipeConfig()
    data: DataConfig = DataConfig()
    features: FeaturesConfig = FeaturesConfig()
    evaluation: EvaluationConfig = EvaluationConfig()
    objective: Objective = "recall_mean"
    """Validation metric by which the best epoch of the last stage is chosen; its value there is the run's score."""
    device: Device = "auto"
    """Device of the backbone and the adapters; auto uses the GPU if there is one."""
    seed: Seed = 0
    """Seeds weights, batches, dropout and hard negatives."""

    @classmethod
    def refuse_other_kind(cls, content: object, path: Path) -> None:
        if isinstance(content, dict) and {"train", "space"} <= content.keys():
            raise UserError(
                "is a campaign, not a training configuration", where=path, how="name the file in its train:"
            )

    @model_validator(mode="before")
    @classmethod
    def _validate_missing_sections(cls, content: Any) -> Any:
        """Validate an omitted section like an empty one, so that its default paths become absolute."""
        sections: dict[str, Any] = {
            name: {} for name, field in cls.model_fields.items() if isinstance(field.default, Section)
        }
        return sections | content if isinstance(content, dict) else content

    @model_validator(mode="after")
    def _pictures_exist(self) -> Self:
        if self.model.uses_grid and self.features.backbone is None:
            raise ValueError("model looks at the grid of the backbone, but features.backbone is null")
        of_backbone = [reading.name for reading in self.features.image_readings if not reading.is_vector]
        if self.data.image_root is None and (of_backbone or self.model.uses_grid):
            what = of_backbone[0] if of_backbone else "the grid of the backbone"
            raise ValueError(f"{what} is read of pictures, but data.image_root is null; use vectors.NAME alone")
        return self

    @property
    def readings(self) -> Readings:
        """What the model reads of the backbone and of vectors."""
        grid = grid_reading(self.features.grid) if self.model.uses_grid else None
        return Readings(self.features.image_readings, self.features.text_readings, grid)

    def with_overrides(self, overrides: Mapping[str, Scalar]) -> "TrainConfig":
        """Return a validated copy with other values at dotted paths, e.g. {'loss.itm': 0.5}.

        Raises:
            UserError: a path is not a setting, or a value is invalid.
        """
        content = self.model_dump(mode="json")
        for path, value in overrides.items():
            _set_dotted(content, path, value)
        return parse(TrainConfig, content, where="overrides")


def load_config(path: Path) -> TrainConfig:
    """Read a training configuration; its paths are relative to its folder.

    Raises:
        UserError: names the file, the key and, for an unknown key, a similar valid one.
    """
    return load_section(TrainConfig, path)


def config_hash(config: TrainConfig) -> str:
    """Hash of all settings except the locations of data, features and backbone: sixteen hexadecimal digits."""
    content = config.model_dump(mode="json", exclude=PLACES)
    if config.data.train_on == "training":  # so that runs from before this setting keep their hash
        del content["data"]["train_on"]
    if not config.evaluation.unique_texts:
        del content["evaluation"]["unique_texts"]
    return hash_of(content)


def accepts(path: str, value: object) -> bool:
    """Whether a value is valid for a setting of TrainConfig, regardless of the other settings."""
    names = tuple(path.split("."))
    content = value
    for name in reversed(names):
        content = {name: content}
    try:
        TrainConfig.model_validate(content)
    except ValidationError as error:
        return all(problem["loc"] != names for problem in error.errors())
    return True


def _set_dotted(content: dict[str, Any], path: str, value: Scalar) -> None:
    *sections, name = path.split(".")
    target = content
    for section in sections:
        target = target.get(section, {}) if isinstance(target, dict) else {}
    if not isinstance(target, dict) or name not in target or isinstance(target[name], dict):
        raise UserError(unknown_key(path, TrainConfig))
    target[name] = value

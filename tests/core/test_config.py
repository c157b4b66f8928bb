import ast
import inspect
import math
import shutil
import textwrap
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from core import places
from core.config import TrainConfig, accepts, config_hash, load_config
from core.errors import UserError
from core.files.yaml_files import dump_plain
from core.sections import dotted_keys, dump_yaml, hash_of


def write(folder: Path, text: str) -> Path:
    path = folder / "run.yaml"
    path.write_text(text)
    return path


def test_an_empty_file_is_the_defaults_with_absolute_paths(tmp_path: Path) -> None:
    config = load_config(write(tmp_path, ""))
    assert config.data.train_annotations == tmp_path / "train.json"
    assert config.model == TrainConfig().model


def test_relative_paths_start_from_the_file(tmp_path: Path) -> None:
    config = load_config(write(tmp_path, "features: {backbone: ./tiny, store: ../store}"))
    assert config.features.backbone == str(tmp_path / "tiny")
    assert config.features.store == tmp_path.parent / "store"


def test_a_hub_id_stays_a_hub_id(tmp_path: Path) -> None:
    assert load_config(write(tmp_path, "features: {backbone: OpenGVLab/InternVL3-1B-hf}")).features.backbone == (
        "OpenGVLab/InternVL3-1B-hf"
    )


def test_a_rate_that_yaml_reads_as_a_string_is_a_number(tmp_path: Path) -> None:
    assert load_config(write(tmp_path, "optimizer: {learning_rate: 1e-4}")).optimizer.learning_rate == 1e-4


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("loss: {itmm: 1.0}", "loss.itmm is not a setting; did you mean loss.itm?"),
        ("los: {itm: 1.0}", "los is not a setting; did you mean loss?"),
        ("learning_rate: 0.1", "learning_rate is not a setting; did you mean optimizer.learning_rate?"),
        ("model: {dropout: 1.5}", "model.dropout: Input should be less than 1, not 1.5"),
        ("optimizer: {batch_size: 8.0}", "optimizer.batch_size: Input should be a valid integer, not 8.0"),
        ("optimizer: {batch_size: true}", "optimizer.batch_size: Input should be a valid integer, not True"),
        ("loss: {itm: true}", "loss.itm: must be a number, not True"),
        ("optimizer: {learning_rate: .nan}", "optimizer.learning_rate: Input should be a finite number"),
        ("recipe: {epochs: 2, stage1_epochs: 3}", "recipe: stage1_epochs 3 is more than epochs 2"),
        ("loss: {itc: 0, itm: 0}", "loss: itc and itm are both 0"),
        ("model: {fusion: sum}", "model.fusion: Input should be 'concat', 'interaction' or 'attention', not 'sum'"),
        ("seed: 1\nseed: 2", "line 2: is not valid YAML (seed is given twice)"),
        ("seed: [1", "is not valid YAML"),
        ("- 1", "must be a mapping of settings, not a list"),
        ("word", "must be a mapping of settings, not 'word'"),
        ("loss:", "loss: must be a mapping of settings, not null"),
        ("loss: 3", "loss: must be a mapping of settings, not 3"),
        ("loss: [3]", "loss: must be a mapping of settings, not a list"),
        ("lerning_rate_typo: 1", "is not a setting; did you mean optimizer.learning_rate?"),
        ("zzz: 1", "zzz is not a setting; valid names are model, loss, optimizer"),
        ("Loss: {itm: 1}", "Loss is not a setting; did you mean loss?"),
        ("batch-size: 4", "did you mean optimizer.batch_size?"),
        ("model: {epochs: 3}", "model.epochs is not a setting; did you mean recipe.epochs?"),
        (
            "optimizer: {lr: 1}",
            "optimizer.lr is not a setting; valid names are optimizer.learning_rate, optimizer.weight",
        ),
        ("features: {device: cpu}", "features.device is not a setting; did you mean device?"),
        ("loss.itm: 0.5", "loss.itm is written as one key, but itm belongs in loss: write loss: {itm: …}"),
        ("k" * 500 + ": 3", "kkk' is not a setting"),
        ("optimizer: {weight_decay: '0.1'}", "must be a number like 10, 0.5 or 1e-4, not '0.1'"),
        ("optimizer: {weight_decay: 1:30}", "must be a number like 10, 0.5 or 1e-4, not '1:30'"),
        ("recipe: {epochs: 010}", "recipe.epochs: Input should be a valid integer, not '010'"),
        ("data: {image_root: 3}", "data.image_root: must be the name of a file or folder, in quotes"),
        ("data: {image_root: [a]}", "data.image_root: must be the name of a file or folder"),
        ("data: {image_root: ''}", "data.image_root: must be the name of a file or folder (./ is"),
        ("data: {image_root: ~nosuchuser/x}", "must be a path whose ~ refers to a user of this machine"),
        ("features: {backbone: 12e5}", "features.backbone: must be a string, in quotes if it looks like a number"),
        ("features: {backbone: https://user:secret@host}", "or a hub id like owner/name, not the URL given"),
        ("name: a\ntrain: b.yaml\nspace: {}", "is a campaign, not a training configuration"),
        ("seed: 18446744073709551616", "seed: Input should be less than 4294967296"),
        ("data: {split_seed: 4294967296}", "data.split_seed: Input should be less than 4294967296"),
        ("loss: {itm: 1e300}", "loss.itm: Input should be less than or equal to 1000000, not 1e+300"),
        ("loss: {giou: 1e308}", "loss.giou: Input should be less than or equal to"),
        ("loss: {itc: 1e-300, itm: 0}", "loss: itc and itm are both 0 or nearly 0"),
        ("model: {temperature: 1e-300}", "model.temperature: Input should be greater than or equal to 0.001"),
        ("optimizer: {weight_decay: 1e30}", "optimizer.weight_decay: Input should be less than or equal to 10,"),
        ("optimizer: {batch_size: 99999999}", "optimizer.batch_size: Input should be less than or equal to"),
        (
            "features: {text: vectors.clip}",
            "features: vectors.clip needs features.vectors, a folder that crossmodal feat",
        ),
        ("features: {backbone: null}", "features: tower.mean is read of the backbone, but features.backbone is null"),
        (
            "features: {vectors: v, image: vectors.a.b}",
            "features.image: 'vectors.a.b' names no vectors; after vectors.",
        ),
        ("features: {vectors: v, image: vectors.a, source: live}", "features: vectors.a cannot be computed live; set"),
        ("data: {image_root: null}", "tower.mean is read of pictures, but data.image_root is null; use vectors.NAME"),
        (
            "features: {vectors: v, image: vectors.a, text: vectors.a, backbone: null}\nmodel: {fusion: attention}",
            "model looks at the grid of the backbone, but features.backbone is null",
        ),
        (
            "features: {vectors: v, image: vectors.a}\nmodel: {fusion: attention}\ndata: {image_root: null}",
            "the grid of the backbone is read of pictures, but data.image_root is null",
        ),
        ("recipe: {epochs: " + "9" * 40 + "}", "recipe.epochs: Input should be less than or equal to 100000"),
    ],
)
def test_a_mistake_names_file_key_and_remedy(tmp_path: Path, text: str, message: str) -> None:
    path = write(tmp_path, text)
    with pytest.raises(UserError) as caught:
        load_config(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"nowhere\.yaml: there is no such file"):
        load_config(tmp_path / "nowhere.yaml")


def test_what_is_written_out_reads_back_equal(tmp_path: Path) -> None:
    config = load_config(write(tmp_path, "seed: 3\nloss: {itm: 0.25}"))
    copy = tmp_path / "elsewhere.yaml"
    copy.write_text(dump_yaml(config))
    assert load_config(copy) == config
    assert config_hash(load_config(copy)) == config_hash(config)


def test_any_changed_setting_changes_the_hash() -> None:
    base = TrainConfig()
    assert len({config_hash(base.with_overrides({"seed": seed})) for seed in range(3)}) == 3


def test_runs_from_before_a_setting_keep_their_hash() -> None:
    content = TrainConfig().model_dump(mode="json", exclude=places.PLACES)
    assert content["data"].pop("train_on") == "training"
    assert content["evaluation"].pop("unique_texts") is False
    assert config_hash(TrainConfig()) == hash_of(content)
    assert config_hash(TrainConfig().with_overrides({"data.train_on": "all"})) != hash_of(content)


@pytest.mark.parametrize("folder", ["", "demo"])
def test_the_hash_does_not_depend_on_the_location_of_the_checkout(folder: str, tmp_path: Path) -> None:
    copied = Path(shutil.copytree("configs", tmp_path / "configs"))
    for path in Path("configs", folder).glob("*.yaml"):
        here, there = load_config(path), load_config(copied / folder / path.name)
        assert here.data.image_root != there.data.image_root
        assert config_hash(here) == config_hash(there)


@pytest.mark.parametrize("path", ["loss.itmm", "loss", "loss.itm.x", "nothing"])
def test_an_override_of_no_setting_is_refused(path: str) -> None:
    with pytest.raises(UserError, match=r"is not a setting"):
        TrainConfig().with_overrides({path: 1.0})


@pytest.mark.parametrize("key", [key for key in dotted_keys(TrainConfig) if not key.startswith("data.")])
def test_every_number_has_bounds(key: str) -> None:
    for absurd in (10**40, -(10**40), 1e300, -1e300, math.inf, math.nan):
        assert not accepts(key, absurd)


def test_a_value_is_accepted_whatever_the_other_settings_are() -> None:
    assert accepts("recipe.stage1_epochs", 99)
    assert not accepts("recipe.stage1_epochs", -1)
    assert accepts("loss.positives", "image")
    assert not accepts("loss.positives", "region")


def test_the_greatest_seed_trains_its_last_epoch_with_a_seed_that_torch_takes() -> None:
    import torch

    from core.training.stages import epoch_seed

    config = TrainConfig().with_overrides({"seed": 2**32 - 1, "recipe.epochs": 100_000})
    torch.Generator().manual_seed(epoch_seed(config.seed, 2, config.recipe.epochs - 1))


def test_an_override_is_validated() -> None:
    with pytest.raises(UserError, match=r"model\.dropout"):
        TrainConfig().with_overrides({"model.dropout": 2.0})


def undescribed(kind: type[BaseModel]) -> Iterator[str]:
    """Settings of a section and of those within it that no docstring follows."""
    (definition,) = ast.parse(textwrap.dedent(inspect.getsource(kind))).body
    assert isinstance(definition, ast.ClassDef)
    for statement, after in pairwise([*definition.body, ast.Pass()]):
        if not (isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name)):
            continue
        name = statement.target.id
        annotation = kind.model_fields[name].annotation
        if isinstance(annotation, type) and issubclass(annotation, BaseModel):
            yield from undescribed(annotation)
        elif not (isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant)):
            yield f"{kind.__name__}.{name}"


def test_every_setting_has_a_description() -> None:
    assert not list(undescribed(TrainConfig))
    assert "recipe.stage1_epochs" in set(dotted_keys(TrainConfig))


@pytest.mark.parametrize("path", sorted(Path("configs").glob("*.yaml")) + sorted(Path("configs/demo").glob("*.yaml")))
def test_the_shipped_configurations_are_valid(path: Path) -> None:
    assert load_config(path).data.train_annotations.is_absolute()


def test_the_methodology_is_in_the_reference_configurations() -> None:
    single = load_config(Path("configs/internvl3_bbox.yaml"))
    assert (single.loss.itc, single.loss.itm, single.loss.box, single.loss.spatial) == (1.0, 1.0, 0.1, 0.1)
    assert (single.optimizer.learning_rate, single.optimizer.weight_decay, single.optimizer.batch_size) == (
        1e-4,
        0.01,
        4,
    )
    two = load_config(Path("configs/two_stage.yaml"))
    assert (two.recipe.stage1_epochs, two.recipe.epochs) == (3, 8)


def test_the_stages_by_hand_are_the_stages_of_the_two_stage_run() -> None:
    from core.training.runs import split_stages

    for folder in (Path("configs"), Path("configs/demo")):
        by_hand = tuple(load_config(folder / f"internvl3_stage{number}.yaml") for number in (1, 2))
        stages = split_stages(load_config(folder / "two_stage.yaml"))
        assert by_hand[0].with_overrides({"recipe.stage2_lr_scale": 0.5}) == stages[0]
        assert by_hand[1] == stages[1]


SCALARS = (
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(exclude_categories=["Cs"]))
    | st.sampled_from(["~x", "$x", "..", "/", "1e4", "010", "a/b", "concat"])
)  # fmt: skip
ANYTHING = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("itcm.l"), inner, max_size=3)
)
PLACES = [*dotted_keys(TrainConfig), "model", "data", "nothing", "loss.nothing", "loss.itm.x", ""]


@given(st.dictionaries(st.sampled_from(PLACES), ANYTHING, max_size=3), st.booleans())
def test_any_value_anywhere_is_a_configuration_or_one_line(
    tmp_path_factory: pytest.TempPathFactory, values: dict[str, object], nested: bool
) -> None:
    content: dict[str, object] = {}
    for key, value in values.items():
        section, _, name = key.partition(".")
        content |= {section: {name: value}} if nested and name else {key: value}
    path = tmp_path_factory.getbasetemp() / "anything.yaml"
    path.write_text(dump_plain(content))
    line = f"{path}: "
    try:
        config = load_config(path)
        path.write_text(dump_yaml(config))
        assert load_config(path) == config
    except UserError as error:
        line = str(error)
    assert line.startswith(f"{path}: ")
    assert len(line.splitlines()) == 1
    assert len(line) < len(str(path)) + 500

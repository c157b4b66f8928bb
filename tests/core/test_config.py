from pathlib import Path

import pytest

from core.config import TrainConfig, config_hash, dotted_keys, dump_yaml, load_config, load_yaml
from core.errors import UserError


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
        ("loss: {itm: true}", "loss.itm: a number is needed, not true or false, not True"),
        ("optimizer: {learning_rate: .nan}", "optimizer.learning_rate: Input should be a finite number"),
        ("recipe: {epochs: 2, stage1_epochs: 3}", "recipe: stage1_epochs 3 is more than epochs 2"),
        ("loss: {itc: 0, itm: 0}", "loss: itc and itm are both 0"),
        ("model: {fusion: sum}", "model.fusion: Input should be 'concat' or 'interaction', not 'sum'"),
        ("seed: 1\nseed: 2", "line 2: is not valid YAML (seed is given twice)"),
        ("seed: [1", "is not valid YAML"),
        ("- 1", "must be a mapping of settings"),
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


@pytest.mark.parametrize("path", ["loss.itmm", "loss", "loss.itm.x", "nothing"])
def test_an_override_of_no_setting_is_refused(path: str) -> None:
    with pytest.raises(UserError, match=r"is not a setting"):
        TrainConfig().with_overrides({path: 1.0})


def test_an_override_is_validated() -> None:
    with pytest.raises(UserError, match=r"model\.dropout"):
        TrainConfig().with_overrides({"model.dropout": 2.0})


def test_every_setting_has_a_description() -> None:
    def described(kind: type) -> bool:
        return all(
            described(field.annotation) if hasattr(field.annotation, "model_fields") else field.description
            for field in kind.model_fields.values()
        )

    assert described(TrainConfig)
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
    from core.runs import split_stages

    for folder in (Path("configs"), Path("configs/demo")):
        by_hand = tuple(load_config(folder / f"internvl3_stage{number}.yaml") for number in (1, 2))
        stages = split_stages(load_config(folder / "two_stage.yaml"))
        assert by_hand[0].with_overrides({"recipe.stage2_lr_scale": 0.5}) == stages[0]
        assert by_hand[1] == stages[1]


def test_an_empty_yaml_is_an_empty_mapping(tmp_path: Path) -> None:
    assert load_yaml(write(tmp_path, "# nothing\n")) == {}

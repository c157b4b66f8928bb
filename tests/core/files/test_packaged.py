from pathlib import Path

import pytest

from core.campaign.campaign import load_campaign
from core.config import load_config
from core.errors import UserError
from core.files.packaged import CONFIGS, find_file, is_installed

DEMO = Path("configs/demo/two_stage.yaml")


@pytest.fixture(autouse=True)
def empty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_installed_configurations_are_there() -> None:
    assert {"campaigns/demo.yaml", "demo/two_stage.yaml", "two_stage.yaml"} <= {
        str(path.relative_to(CONFIGS)) for path in CONFIGS.rglob("*.yaml")
    }


@pytest.mark.parametrize("name", ["configs/demo/two_stage.yaml", "configs/campaigns/../demo/two_stage.yaml"])
def test_a_name_that_the_working_folder_lacks_is_the_installed_file(empty: Path, name: str) -> None:
    for path in (Path(name), empty / name):
        assert find_file(path) == CONFIGS / "demo" / "two_stage.yaml"
        assert is_installed(path)


def test_a_file_of_the_working_folder_comes_first(empty: Path) -> None:
    (empty / DEMO).parent.mkdir(parents=True)
    (empty / DEMO).write_text("seed: 7")
    assert load_config(DEMO).seed == 7
    assert load_config(Path("configs/campaigns/../demo/two_stage.yaml")).seed == 7
    assert not is_installed(DEMO)


@pytest.mark.parametrize(
    "name", ["demo/two_stage.yaml", "configs/demo/none.yaml", "configs", "../configs/two_stage.yaml"]
)
def test_any_other_name_stays_what_it_is(name: str) -> None:
    assert find_file(Path(name)) == Path(name)
    assert not is_installed(Path(name))
    with pytest.raises(UserError, match="there is no such file"):
        load_config(Path(name))


def test_paths_of_an_installed_configuration_lead_to_the_working_folder(empty: Path) -> None:
    config = load_config(DEMO)
    assert config.data.train_annotations == empty / "output" / "demo-data" / "train.json"
    assert config.features.backbone == str(empty / "output" / "demo-data" / "tiny-internvl")


def test_an_installed_campaign_finds_its_installed_baseline() -> None:
    assert load_campaign(Path("configs/campaigns/demo.yaml")).train == load_config(DEMO)

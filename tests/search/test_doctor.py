import json
from pathlib import Path
from typing import get_args

import pytest
from huggingface_hub import constants

from core.campaign.campaign import load_campaign
from core.config import TrainConfig
from core.files.folders import CampaignFolder
from core.sections import dump_yaml
from search.doctor import (
    Subject,
    Verdict,
    check_backbone,
    check_data,
    check_extras,
    check_folder,
    check_gpu,
    check_ray,
    check_study,
    check_vectors,
    check_wandb,
)
from tests.commands import CommandLine, free_port
from tests.conftest import CAMPAIGN, write_campaign
from tests.vector_files import without_pictures


@pytest.fixture(autouse=True)
def _offline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, nobody: str) -> None:
    """No key and no hub, as far as this machine has any."""
    for name in ("WANDB_API_KEY", "WANDB_MODE", "WANDB_DISABLED"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    monkeypatch.setenv("WANDB_BASE_URL", nobody)
    monkeypatch.setattr(constants, "ENDPOINT", nobody)


def test_a_campaign_that_can_run_has_no_problem(crossmodal: CommandLine, demo: Path, tmp_path: Path) -> None:
    campaign = write_campaign(tmp_path, demo)
    outcome = crossmodal("doctor", "--campaign", campaign, "--output-dir", tmp_path / "out", "--json")
    assert outcome.code == 0, outcome.out
    checks = {check.pop("check"): check for check in json.loads(outcome.out)}
    assert {"python", "packages", "gpu", "memory", "ray", "wandb", "backbone", "data", "features", "study"} < set(
        checks
    )
    assert all(set(check) == {"verdict", "found", "advice"} for check in checks.values())
    assert {check["verdict"] for check in checks.values()} <= {*get_args(Verdict)} - {"problem"}
    assert str(demo / "tiny-internvl") in checks["backbone"]["found"]
    assert len(outcome.err.splitlines()) == len(checks)
    assert not (tmp_path / "out").exists()


def test_a_problem_is_an_exit_code_and_a_line(
    crossmodal: CommandLine, demo_config: TrainConfig, tmp_path: Path
) -> None:
    config = tmp_path / "train.yaml"
    config.write_text(dump_yaml(demo_config.with_overrides({"data.image_root": str(tmp_path / "gone")})))
    outcome = crossmodal("doctor", "--config", config)
    assert (outcome.code, outcome.err) == (1, "")
    (line,) = [line for line in outcome.out.splitlines() if line.startswith("problem")]
    assert line == f"problem  data: there is no {tmp_path / 'gone'}; check data in the configuration"


def test_a_campaign_names_its_configuration_itself(crossmodal: CommandLine, demo: Path, tmp_path: Path) -> None:
    campaign = write_campaign(tmp_path, demo)
    outcome = crossmodal("doctor", "--campaign", campaign, "--config", tmp_path / "train.yaml")
    assert outcome.code == 2
    assert "are both given" in outcome.err


def test_every_extra_of_the_project_is_checked() -> None:
    import tomllib

    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
    checked = {check.check.removeprefix("extra ") for check in check_extras()}
    assert checked == set(project["optional-dependencies"]) - {"dev"}


def test_wandb_is_offline_without_a_key_and_says_how_to_change_that() -> None:
    check = check_wandb("auto")
    assert check.verdict == "note"
    assert check.found.startswith("offline (no API key")
    assert "wandb login" in check.advice
    assert check_wandb("online").verdict == "problem"
    assert check_wandb("disabled").found == "disabled"


def test_wandb_with_a_key_needs_its_server(monkeypatch: pytest.MonkeyPatch, server: str) -> None:
    monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
    unreachable = check_wandb("auto")
    assert (unreachable.verdict, "does not answer" in unreachable.found) == ("note", True)
    monkeypatch.setenv("WANDB_BASE_URL", server)
    assert check_wandb("auto").verdict == "ok"


def test_a_backbone_of_the_hub_is_looked_for_in_the_cache(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, server: str, demo: Path
) -> None:
    named = TrainConfig().with_overrides({"features.backbone": "nobody/nothing"})
    missing = check_backbone(named)
    assert missing.verdict == "problem"
    assert "features.backbone" in missing.advice
    assert check_backbone(None).verdict in ("note", "ok")
    monkeypatch.setattr(constants, "ENDPOINT", server)
    assert check_backbone(named).advice == "it is downloaded when it is first needed"
    broken = TrainConfig().with_overrides({"features.backbone": str(tmp_path)})
    assert check_backbone(broken).verdict == "problem"
    whole = TrainConfig().with_overrides({"features.backbone": str(demo / "tiny-internvl")})
    assert check_backbone(whole).verdict == "ok"


def test_annotations_are_looked_for(demo_config: TrainConfig, tmp_path: Path) -> None:
    assert check_data(demo_config).verdict == "ok"
    gone = demo_config.with_overrides({"data.test_annotations": str(tmp_path / "test.json")})
    assert check_data(gone).found == f"there is no {tmp_path / 'test.json'}"


def test_a_folder_is_tried_and_left_as_it_was(tmp_path: Path) -> None:
    assert check_folder("output", tmp_path / "a" / "b").verdict in ("ok", "note")
    assert not list(tmp_path.iterdir())
    (tmp_path / "file").touch()
    assert check_folder("output", tmp_path / "file" / "b").verdict == "problem"


def test_a_study_needs_locks_or_a_database_that_answers(
    monkeypatch: pytest.MonkeyPatch, demo: Path, tmp_path: Path
) -> None:
    journal = load_campaign(write_campaign(tmp_path / "a", demo))
    assert check_study(journal, CampaignFolder(tmp_path / "out")).verdict == "ok"
    (tmp_path / "file").touch()
    assert check_study(journal, CampaignFolder(tmp_path / "file" / "out")).verdict == "problem"
    content = f"{CAMPAIGN}study: {{url_variable: STUDY_URL}}\n"
    database, folder = load_campaign(write_campaign(tmp_path / "b", demo, content)), CampaignFolder(tmp_path / "out")
    monkeypatch.delenv("STUDY_URL", raising=False)
    assert "STUDY_URL is not set" in check_study(database, folder).found
    monkeypatch.setenv("STUDY_URL", "sqlite://")
    assert check_study(database, folder).found == "sqlite behind STUDY_URL answers"
    monkeypatch.setenv("STUDY_URL", f"postgresql://user:secret@127.0.0.1:{free_port()}/study")
    refused = check_study(database, folder)
    assert refused.verdict == "problem"
    assert "secret" not in refused.found + refused.advice


def test_a_gpu_that_is_asked_for_must_be_there(demo: Path, tmp_path: Path) -> None:
    import torch

    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    campaign = load_campaign(write_campaign(tmp_path, demo, f"{CAMPAIGN}resources: {{gpu: 1}}\n"))
    assert check_gpu(Subject(campaign.base, campaign)).verdict == "problem"
    assert check_gpu(Subject(campaign.base, campaign, address="10.0.0.1:6379")).verdict == "note"
    assert check_gpu(Subject()).verdict == "note"


def test_ray_is_not_started_unless_asked_and_an_address_must_answer() -> None:
    assert check_ray(Subject()).found == "not started"
    refused = check_ray(Subject(address=f"127.0.0.1:{free_port()}"))
    assert refused.verdict == "problem"
    assert "no Ray cluster answers" in refused.found


@pytest.mark.slow
def test_ray_starts_here_and_says_how_many_trials_fit(demo: Path, tmp_path: Path) -> None:
    campaign = load_campaign(write_campaign(tmp_path, demo))
    check = check_ray(Subject(campaign.base, campaign, start_ray=True))
    assert check.verdict == "ok"
    assert check.found.startswith("nodes: 1, ")
    assert "trials at once" in check.found


def test_vectors_must_be_there_and_hold_the_readings(demo: Path, demo_config: TrainConfig, tmp_path: Path) -> None:
    config = without_pictures(demo, tmp_path, demo_config)
    assert check_vectors(config, None).verdict == "ok"
    assert check_backbone(config).verdict == "ok"
    lacking = check_vectors(config.with_overrides({"features.image": "vectors.dino"}), None)
    assert (lacking.verdict, "holds no vectors.dino of images" in lacking.found) == ("problem", True)

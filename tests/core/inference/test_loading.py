import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors.torch import load_file, save_file

from core import RetrievalModel, load_model
from core.errors import UserError
from core.files.folders import CampaignFolder
from core.files.json_files import write_json
from core.inference.loading import find_model, read_model


def test_a_run_a_two_stage_run_a_final_model_and_a_file_are_found(trained: Path, tmp_path: Path) -> None:
    checkpoint = trained / "checkpoint_best.pth"
    for place in ("run", "two/stage2", "campaign/final", "searched/final/stage2"):
        (tmp_path / place).mkdir(parents=True)
        shutil.copy(checkpoint, tmp_path / place)
    for place, found in (
        ("run", "run"), ("two", "two/stage2"), ("campaign", "campaign/final"), ("searched", "searched/final/stage2"),
        ("searched/final", "searched/final/stage2"), ("run/checkpoint_best.pth", "run"),
    ):  # fmt: skip
        assert find_model(tmp_path / place) == tmp_path / found / "checkpoint_best.pth"


def test_what_holds_no_model_is_one_clear_line(demo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(UserError, match=r"there is no such model; name a checkpoint or the folder of a run"):
        find_model(tmp_path / "nothing")
    with pytest.raises(UserError, match=r"holds no trained model"):
        find_model(tmp_path)
    with pytest.raises(UserError, match=r"holds no exported model of crossmodal-search"):
        load_model(demo / "tiny-internvl")
    CampaignFolder(tmp_path).campaign.write_text("name: small")
    with pytest.raises(UserError, match=r"has no final model yet; run crossmodal retrain"):
        find_model(tmp_path)


def test_the_verdict_on_boxes_comes_with_a_final_model(trained: Path, tmp_path: Path) -> None:
    shutil.copy(trained / "checkpoint_best.pth", tmp_path)
    assert read_model(tmp_path / "checkpoint_best.pth").verdicts == {}
    write_json(tmp_path / "metrics.json", {"grounding": {"box_iou": {"verdict": "not grounded"}}})
    assert (
        "boxes are not grounded: measured, they are no better than without the picture" in load_model(tmp_path).notes()
    )


def test_neither_features_nor_data_are_needed(trained: Path, demo: Path, model: RetrievalModel, tmp_path: Path) -> None:
    """Only the checkpoint and the backbone lie there, both in another place than for training."""
    shutil.copy(trained / "checkpoint_best.pth", tmp_path)
    shutil.copytree(demo / "tiny-internvl", tmp_path / "backbone")
    elsewhere = load_model(tmp_path, backbone=tmp_path / "backbone")
    assert elsewhere.config.features.backbone == str(tmp_path / "backbone")
    assert np.array_equal(elsewhere.embed_texts(["a pool"]), model.embed_texts(["a pool"]))


def test_another_backbone_of_the_same_widths_is_refused(trained: Path, demo: Path, tmp_path: Path) -> None:
    shutil.copytree(demo / "tiny-internvl", tmp_path / "other")
    weights = load_file(tmp_path / "other" / "model.safetensors")
    save_file({name: value * 2 for name, value in weights.items()}, tmp_path / "other" / "model.safetensors")
    with pytest.raises(UserError, match=r"was trained on another backbone than .*/other, whose files differ; name"):
        load_model(trained, backbone=tmp_path / "other").embed_texts(["a pool"])


def test_a_backbone_that_is_not_there_is_one_clear_line(trained: Path, tmp_path: Path) -> None:
    lost = load_model(trained)
    lost.config = lost.config.with_overrides({"features.backbone": str(tmp_path / "gone")})
    with pytest.raises(UserError, match=r"its backbone .*/gone is not there; say where it is: --backbone"):
        lost.embed_texts(["a pool"])


def test_importing_core_stays_free_of_torch() -> None:
    code = "import sys, core; print('torch' in sys.modules); from core import load_model; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "True"]

"""Fixtures of campaigns; they read the small demo data, since planted features on disk are too unrealistic."""

import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from core.campaign.campaign import Campaign
from core.config import TrainConfig
from core.sections import parse
from tests.commands import free_port

SPACE: dict[str, Any] = {
    "optimizer.learning_rate": {"log": [1e-4, 1e-1]},
    "loss.itm": {"log": [0.1, 10.0], "off": True},
    "model.adapter_width": {"choice": [8, 256]},
    "model.dropout": {"uniform": [0.0, 0.5]},
    "recipe.stage1_epochs": {"int": [0, 2]},
    "recipe.stage2_lr_scale": {"log": [0.05, 1.0], "when": {"recipe.stage1_epochs": {"min": 1}}},
}


@pytest.fixture
def base(tmp_path: Path) -> TrainConfig:
    return parse(TrainConfig, {}, where="test", base=tmp_path).with_overrides({"recipe.epochs": 3})


@pytest.fixture
def campaign_of(base: TrainConfig) -> Callable[..., Campaign]:
    def build(**changes: Any) -> Campaign:
        content = {"name": "test", "train": base.model_dump(mode="json"), "space": SPACE, "limits": {"trials": 4}}
        return Campaign.model_validate({**content, "wandb": {"mode": "disabled"}, **changes})

    return build


@pytest.fixture
def folder_of(tmp_path: Path) -> Path:
    return tmp_path / "campaign"


@pytest.fixture
def server() -> Iterator[str]:
    """The address of something that takes connections."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"


@pytest.fixture
def nobody() -> str:
    """An address that nothing listens on."""
    return f"http://127.0.0.1:{free_port()}"

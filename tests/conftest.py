"""Fixtures: planted features for training tests, and a small real data set with a tiny real InternVL."""

import os
import shutil
import signal
from collections.abc import Callable, Iterator
from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch
from filelock import FileLock
from hypothesis import settings
from torch import Tensor

from core.config import TrainConfig
from core.features.store import Features, FeatureSplit, Statistics
from core.files.folders import CampaignFolder
from core.model.attention import cell_centres
from core.readings import Readings, grid_reading, parse_readings
from core.records import EpochMetrics
from core.sections import dump_yaml, parse
from tests.commands import CommandLine, free_port, run

if TYPE_CHECKING:
    from ray.cluster_utils import Cluster

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as in the background of a shell, and then in all children, too
    signal.signal(signal.SIGINT, signal.default_int_handler)
settings.register_profile("patient", deadline=None)  # time is never asserted
settings.load_profile("patient")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Slow tests first, so that none runs alone at the end."""
    items.sort(key=lambda item: item.get_closest_marker("slow") is None)


@pytest.fixture(scope="session", autouse=True)
def _cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keeps the developer's own cache out of the tests, and the tests out of it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(common_folder(tmp_path_factory) / "cache"))
        yield


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """Two threads only slow down work on tiny tensors."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def readings(image: str = "tower.mean", text: str = "lm.last", grid: int | None = None) -> Readings:
    """By their names, with short prompts."""
    images = parse_readings("images", image, prompt="What is it?")
    texts = parse_readings("texts", text, prompt="In one word:")
    return Readings(images, texts, None if grid is None else grid_reading(grid))


EVERY_READING = readings(
    "tower.cls+tower.mean+tower.mean@1+projector.mean+lm.image_mean+lm.prompt",
    "lm.first+lm.mean+lm.last+lm.mean@1+lm.prompt",
    grid=4,
).all


def planted_split(groups: int, seed: int, *, views: int = 3, width: int = 16, side: int = 0) -> FeatureSplit:
    """Images and captions that share a hidden code of their building, so that there is something to learn.

    Args:
        side: of a grid that shows the code where the image's region lies; 0 for none.
    """
    generator = torch.Generator().manual_seed(seed)
    mixing = torch.Generator().manual_seed(99)
    to_image, to_text = torch.randn(8, width, generator=mixing), torch.randn(8, width + 4, generator=mixing)
    images = groups * views
    group_of = torch.arange(groups).repeat_interleave(views)
    code = torch.randn(groups, 8, generator=generator)[group_of]
    texts = code @ to_text + 0.3 * torch.randn(images, width + 4, generator=generator)
    boxes = torch.rand(images, 4, generator=generator) * 0.5
    boxes[:, 2:] += boxes[:, :2]
    return FeatureSplit(
        images=code @ to_image + 0.3 * torch.randn(images, width, generator=generator),
        groups=group_of,
        texts=texts,
        caption_text=torch.arange(images),
        caption_image=torch.arange(images),
        sentence_text=torch.arange(images),
        sentence_image=torch.arange(images),
        boxes=boxes,
        relations=torch.arange(images) % 7 - 1,
        first_region=torch.arange(images),
        grid=planted_grid(code, boxes, side, generator) if side else None,
    )


def epoch_metrics(**figures: Any) -> EpochMetrics:
    """Metrics of an epoch, 0 where they are not given."""
    return EpochMetrics(**{**{field.name: 0 for field in fields(EpochMetrics)}, "stage": 2, **figures})


def without_regions(split: FeatureSplit) -> FeatureSplit:
    """The same images and captions without any region."""
    nothing = torch.zeros(0, dtype=torch.long)
    return replace(
        split,
        sentence_text=nothing,
        sentence_image=nothing,
        first_region=nothing,
        boxes=split.boxes[:0],
        relations=nothing,
    )


def planted_grid(codes: Tensor, boxes: Tensor, side: int, generator: torch.Generator) -> Tensor:
    """Noise, and in the cells whose centres lie in an image's box its code: [N, 8], [N, 4] → [N, side², 12] float16."""
    to_cell = torch.randn(8, 12, generator=torch.Generator().manual_seed(98))
    centres = cell_centres(side * side)
    inside = ((centres > boxes[:, None, :2]) & (centres < boxes[:, None, 2:])).all(dim=2)  # [N, side²]
    noise = torch.randn(len(codes), side * side, 12, generator=generator)
    return (noise + 2 * inside[..., None] * (codes @ to_cell)[:, None]).half()


@pytest.fixture
def planted_features() -> Features:
    """40 training and 12 validation buildings; both splits are drawn the same way."""
    train = planted_split(40, seed=0)
    images, texts = train.images[:], train.texts[:]
    statistics = Statistics(images.mean(0), images.std(0), texts.mean(0), texts.std(0))
    return Features("planted", train, planted_split(12, seed=1), statistics, test=planted_split(12, seed=2))


@pytest.fixture
def grid_features() -> Features:
    """The same with grids of 5 × 5 cells."""
    train = planted_split(40, seed=0, side=5)
    assert isinstance(train.grid, Tensor)
    cells = train.grid.float().flatten(0, 1)
    tables = (train.images[:], train.texts[:], cells)
    statistics = Statistics(*(number for table in tables for number in (table.mean(0), table.std(0))))
    validation, test = planted_split(12, seed=1, side=5), planted_split(12, seed=2, side=5)
    return Features("planted", train, validation, statistics, test=test)


@pytest.fixture
def small_config(tmp_path: Path) -> TrainConfig:
    """Fits the planted features; learns within a second."""
    return parse(TrainConfig, {}, where="test", base=tmp_path).with_overrides(
        {
            "model.adapter_width": 32,
            "model.embed_dim": 16,
            "optimizer.batch_size": 24,
            "features.grid": 5,
            "optimizer.learning_rate": 0.01,
            "recipe.epochs": 4,
            "device": "cpu",
        }
    )


def common_folder(factory: pytest.TempPathFactory) -> Path:
    """The folder that contains the temporary folders of all test processes."""
    root = factory.getbasetemp()
    return root.parent if "PYTEST_XDIST_WORKER" in os.environ else root


def made_once(factory: pytest.TempPathFactory, name: str, make: Callable[[Path], None]) -> Path:
    """A folder that one test process creates while the others wait, and that all only read."""
    root = common_folder(factory)
    folder = root / name
    with FileLock(root / f"{name}.lock"):
        if not (root / f"{name}.made").exists():
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
            make(folder)
            (root / f"{name}.made").touch()
    return folder


@pytest.fixture(scope="session")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small synthetic data set with its tiny InternVL, created by the code that users run."""
    from search.data_cli import synth

    def make(folder: Path) -> None:
        synth(folder / "data", buildings=12, images_per_building=3, seed=0)

    return made_once(tmp_path_factory, "demo", make) / "data"


def stored_beside(demo: Path) -> dict[str, str | int | float]:
    """Settings of the small data set, with features next to the data, so that they are extracted once."""
    return {
        "data.train_annotations": str(demo / "train.json"),
        "data.test_annotations": str(demo / "test.json"),
        "data.image_root": str(demo / "images"),
        "data.validation_fraction": 0.25,
        "features.backbone": str(demo / "tiny-internvl"),
        "features.store": str(demo / "features"),
        "features.image_size": 112,
    }


@pytest.fixture
def demo_config(demo: Path, tmp_path: Path) -> TrainConfig:
    """Reads the small data set; features go to a fresh store."""
    return TrainConfig().with_overrides(
        {
            **stored_beside(demo),
            "features.store": str(tmp_path / "store"),
            "device": "cpu",
            "optimizer.batch_size": 16,
            "recipe.epochs": 2,
        }
    )


def train_on_demo(folder: Path, demo: Path, changes: dict[str, str | int | float]) -> None:
    """A run on the small data set."""
    from core.features.opening import open_features
    from core.files.folders import RunFolder
    from core.training.runs import hold_run
    from core.training.runs import run as train_in

    config = TrainConfig().with_overrides(
        {
            **stored_beside(demo),
            "features.grid": 4,
            "device": "cpu",
            "model.adapter_width": 64,
            "model.embed_dim": 32,
            "optimizer.batch_size": 16,
            "recipe.epochs": 6,
            **changes,
        }
    )
    with hold_run(folder):
        train_in(config, open_features(config), RunFolder(folder))


@pytest.fixture(scope="session")
def trained(demo: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a run whose heads see embeddings alone, and re-rank 8 candidates; to be read only."""
    changes: dict[str, str | int | float] = {"evaluation.rerank_weight": 0.5, "evaluation.k_test": 8}
    return made_once(tmp_path_factory, "trained", lambda folder: train_on_demo(folder, demo, changes))


@pytest.fixture(scope="session")
def attending(demo: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a run whose heads and pooling attend to the grid; to be read only."""
    changes: dict[str, str | int | float] = {
        "model.fusion": "attention", "model.image_pooling": "attention", "evaluation.rerank_weight": 0.5,
        "evaluation.k_test": 8, "loss.spatial": 0,
    }  # fmt: skip
    return made_once(tmp_path_factory, "attending", lambda folder: train_on_demo(folder, demo, changes))


@pytest.fixture
def crossmodal(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> CommandLine:
    """The command line, called inside this process."""
    return CommandLine(monkeypatch, capsys)


CAMPAIGN = """
name: small
train: train.yaml
limits: {trials: 5}
pruner: {kind: none}
space:
  optimizer.learning_rate: {log: [1.0e-4, 1.0e-2]}
  loss.itm: {log: [0.1, 10.0], off: true}
  recipe.stage1_epochs: {int: [0, 2]}
  recipe.stage2_lr_scale: {log: [0.05, 1.0], when: {recipe.stage1_epochs: {min: 1}}}
"""


ONE_AT_A_TIME = f"resources: {{cpu: {0.1 + (os.cpu_count() or 1) / 2}}}\n"
"""One worker, where a test has no use for several: each costs seconds to start."""


def write_campaign(folder: Path, demo: Path, content: str = CAMPAIGN, *, epochs: int = 3) -> Path:
    """A campaign on the small data set, with one trial at a time unless `content` gives other resources."""
    config = TrainConfig().with_overrides(
        {
            **stored_beside(demo),
            "device": "cpu",
            "model.adapter_width": 32,
            "model.embed_dim": 32,
            "optimizer.batch_size": 16,
            "recipe.epochs": epochs,
            "recipe.stage1_epochs": 1,
        }
    )
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "train.yaml").write_text(dump_yaml(config))
    path = folder / "campaign.yaml"
    path.write_text(content if "resources:" in content else content + ONE_AT_A_TIME)
    return path


@pytest.fixture(scope="session")
def finished_campaign(demo: Path, tmp_path_factory: pytest.TempPathFactory) -> CampaignFolder:
    """Five trials by real Ray workers, to be read only."""

    def make(work: Path) -> None:
        outcome = run("search", write_campaign(work, demo), "--output-dir", work / "small", cwd=work)
        assert outcome.code == 0, outcome.err

    return CampaignFolder(made_once(tmp_path_factory, "campaign", make) / "small")


@pytest.fixture
def cluster() -> "Iterator[Cluster]":
    """A head without CPUs and a node with a fake GPU."""
    from ray.cluster_utils import Cluster  # Ray is slow to import, and few tests need it

    # Its own port: if another Ray has the default one, Ray leaves the socket of its attempt open.
    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "dashboard_port": free_port()})
    made.add_node(num_cpus=1, num_gpus=1)
    made.wait_for_nodes()
    yield made
    made.shutdown()

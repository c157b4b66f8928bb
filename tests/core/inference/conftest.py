"""Models of the demo data, loaded once, and its test pictures, indexed once."""

from pathlib import Path

import pytest

from core import ImageIndex, RetrievalModel, load_model


@pytest.fixture(scope="session")
def model(trained: Path) -> RetrievalModel:
    return load_model(trained)


@pytest.fixture(scope="session")
def attending_model(attending: Path) -> RetrievalModel:
    return load_model(attending)


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the pictures of `pictures` are known already."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="session")
def pictures(demo: Path) -> Path:
    return demo / "images" / "test"


@pytest.fixture(scope="session")
def index(model: RetrievalModel, pictures: Path, cache: Path) -> ImageIndex:
    return ImageIndex.open(model, pictures, cache=cache)

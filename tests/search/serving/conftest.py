"""A site of the small data set, and a server of it."""

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from core import ImageIndex, load_model
from core.inference.retrieval_model import RetrievalModel
from core.inference.text_index import TextIndex
from search.serving.app import create_app
from search.serving.server import address_of, listen, server_of
from search.serving.site import Site
from tests.commands import LAST_RESORT_S, wait_until

TEXTS = ["a red round dome on gravel", "a green field", "two white cars beside a road"]


@pytest.fixture(scope="session")
def model(trained: Path) -> RetrievalModel:
    return load_model(trained)


@pytest.fixture(scope="session")
def index(model: RetrievalModel, demo: Path, tmp_path_factory: pytest.TempPathFactory) -> ImageIndex:
    return ImageIndex.open(model, demo / "images" / "test", cache=tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="session")
def site(model: RetrievalModel, index: ImageIndex, demo: Path) -> Site:
    return Site(model, index, TextIndex.of(model, TEXTS), title="demo", folder=demo / "images" / "test")


@pytest.fixture(scope="session")
def wordless(model: RetrievalModel, index: ImageIndex, demo: Path) -> Site:
    """Without texts."""
    return Site(model, index, None, title="demo", folder=demo / "images" / "test")


def served(site: Site) -> Iterator[str]:
    with listen("127.0.0.1", 0) as listening:
        server = server_of(create_app(site))
        thread = threading.Thread(target=server.run, args=([listening],))
        thread.start()
        wait_until(lambda: server.started)
        yield address_of(listening, "127.0.0.1")
        server.should_exit = True
        thread.join(LAST_RESORT_S)


@pytest.fixture(scope="session")
def address(site: Site) -> Iterator[str]:
    """Of a running server, with a / at its end."""
    yield from served(site)


@pytest.fixture(scope="session")
def wordless_address(wordless: Site) -> Iterator[str]:
    yield from served(wordless)

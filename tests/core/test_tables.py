import io

import pytest
from rich.console import Console

from core.config import TrainConfig
from core.features import Features
from core.records import Scorecard
from core.scorecard import measure
from core.tables import scorecard_tables
from core.training import train


@pytest.fixture
def card(planted_features: Features, small_config: TrainConfig) -> Scorecard:
    return measure(train(small_config, planted_features).best, planted_features, name="a", rerank=5).scorecard


def test_the_tables_say_what_was_measured_on_what(card: Scorecard) -> None:
    console = Console(file=io.StringIO(), width=80)
    for table in scorecard_tables(card):
        console.print(table)
    text = console.file.getvalue()  # type: ignore[attr-defined]
    for expected in (
        "test split, relevance by building: 36 images, 36 texts, 12 buildings",
        "relevance by geotext-official",
        "5 re-ranked",
        "text only",
        "trainable parameters",
    ):
        assert expected in text
    r1 = card.find("building", reranked=False).metrics["t2i_r1"]
    assert f"{r1:.1%}" in text

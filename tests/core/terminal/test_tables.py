import io
from dataclasses import replace

import pytest
from rich.console import Console

from core.config import EvaluationConfig, TrainConfig
from core.evaluation.scorecard import measure
from core.features.store import Features
from core.records import Grounding, Interval, Scorecard
from core.terminal.console import as_lines, is_too_wide
from core.terminal.tables import answers_table, scorecard_tables
from core.training.train import train

SETTINGS = EvaluationConfig(k_test=5, rerank_weight=0.5, query_bank="train_captions")


@pytest.fixture
def card(planted_features: Features, small_config: TrainConfig) -> Scorecard:
    return measure(train(small_config, planted_features).best, planted_features, name="a", settings=SETTINGS).scorecard


def test_the_tables_say_what_was_measured_on_what(card: Scorecard) -> None:
    console = Console(file=io.StringIO(), width=80)
    for table in scorecard_tables(card):
        console.print(table)
    text = " ".join(console.file.getvalue().split())  # type: ignore[attr-defined]
    for expected in (
        "test split, relevance by building: 36 images, 36 texts, 12 buildings",
        "relevance by geotext-official",
        "relevance by building; t2i with a query bank (train_captions): 36 images",
        "5 re-ranked",
        "(weight 0.5)",
        "text only",
        "shuffled",
        "mean box",
        "majority",
        "verdict",
        "grounded",
        "trainable parameters",
    ):
        assert expected in text
    r1 = card.find("building", reranked=False).metrics["t2i_r1"]
    assert f"{r1:.1%}" in text


def test_a_weight_of_0_is_told_as_no_re_ranking(card: Scorecard) -> None:
    off = [replace(each, rerank_weight=0.0) if each.rerank else each for each in card.evaluations]
    text = "\n".join(printed(replace(card, evaluations=off), 80))
    assert "none re-ranked (weight 0)" in text
    assert "5 re-ranked" not in text


def test_the_tables_fit_80_columns(card: Scorecard) -> None:
    console = Console(file=io.StringIO(), width=80)
    for table in scorecard_tables(card):
        assert not is_too_wide(table, console), table.title


def test_the_verdict_stands_below_the_metrics_it_is_on(card: Scorecard) -> None:
    differences = Interval(0.1, 0.02, 0.2), Interval(0.3, 0.25, 0.35)
    judged = {
        "box_iou": Grounding.judge(*differences),
        "relation_accuracy": Grounding.judge(Interval(0.0, -0.01, 0.01), differences[1]),
    }
    lines = printed(replace(card, grounding=judged), 200)
    rows = [line for line in lines if line.startswith("metric verdict")]
    assert rows == [
        "metric verdict, model grounded, text only +0.020, shuffled +0.250",
        "metric verdict, model not grounded, text only -0.010, shuffled +0.250",
    ]
    place = lines.index(rows[0])
    assert lines[place - 1].startswith("metric box_acc50")
    assert lines[place + 1].startswith("metric relation_accuracy")


def test_regions_that_were_not_judged_have_no_verdict(card: Scorecard) -> None:
    text = "\n".join(printed(replace(card, grounding={}), 80))
    assert "verdict" not in text
    assert "Grounded" not in text


def printed(card: Scorecard, width: int) -> list[str]:
    console = Console(file=io.StringIO(), width=width)
    return [line for table in scorecard_tables(card) for line in as_lines(table, console.width)]


@pytest.mark.parametrize("width", [1, 20, 40])
def test_a_narrow_terminal_gets_every_cell(card: Scorecard, width: int) -> None:
    console = Console(file=io.StringIO(), width=width)
    tables = list(scorecard_tables(card))
    assert all(is_too_wide(table, console) for table in tables)
    lines = printed(card, width)
    for table in tables:
        cells = [str(cell) for column in table.columns for cell in column.cells]
        assert all(any(cell in line for line in lines) for cell in cells)
    assert not any("…" in line for line in lines)


def test_what_went_before_a_run_is_part_of_its_cost(card: Scorecard) -> None:
    assert "of these before" not in "\n".join(printed(card, 80))
    second = replace(
        card, efficiency=replace(card.efficiency, training_epochs=7, earlier_epochs=3, earlier_seconds=2.5)
    )
    text = "\n".join(printed(second, 80))
    assert "training: 7 epochs" in text
    assert "of these before: 3 epochs, 2.5 s" in text


def test_where_every_image_is_a_building_there_is_one_table(card: Scorecard) -> None:
    own = [replace(each, groups=each.queries_image) for each in card.evaluations if each.query_bank == "none"]
    lines = printed(replace(card, evaluations=own), 200)
    assert [line for line in lines if "relevance by" in line] == [
        "test split, relevance by building: 36 images, 36 texts, 36 buildings"
    ]
    assert "Every image is a building of its own, so that protocols cannot differ." in lines


def test_a_column_of_answers_that_is_empty_everywhere_is_left_out() -> None:
    box = (0.1, 0.2, 0.3, 0.4)
    full = answers_table("2 pictures", [("[a].png", 0.5, 0.25, box, "left"), ("b.png", 0.25, None, box, "left")])
    assert [str(column.header) for column in full.columns] == [
        "", "answer", "similarity", "match", "box x1 y1 x2 y2", "relation",
    ]  # fmt: skip
    assert list(as_lines(full, 200))[1:] == [
        "1, answer [a].png, similarity 0.500, match 25.0%, box x1 y1 x2 y2 0.10 0.20 0.30 0.40, relation left",
        "2, answer b.png, similarity 0.250, box x1 y1 x2 y2 0.10 0.20 0.30 0.40, relation left",
    ]
    bare = answers_table("1 text", [("a dome", 0.5, None, None, None)])
    assert [str(column.header) for column in bare.columns] == ["", "answer", "similarity"]

import json
import math
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from analysis.leaderboard import rank, to_csv, to_geotext, to_json, to_latex, to_markdown, training_data
from analysis.trials import COLUMNS
from core.errors import UserError
from core.records import RETRIEVAL_KEYS, Evaluation


def trials(*rows: dict[str, Any]) -> pd.DataFrame:
    filled = [
        {
            "number": number,
            "state": "complete",
            "reason": None,
            "origin": number,
            "broken": "",
            "recall_mean": 0.1,
            **dict.fromkeys(RETRIEVAL_KEYS, 0.1),
            "best_epoch": 2,
            "seconds": 1.5,
            "gallery_images": 20,
            "gallery_texts": 60,
            **row,
        }
        for number, row in enumerate(rows)
    ]
    return pd.DataFrame(filled)


def test_the_best_is_first_and_gains_count_from_the_baseline() -> None:
    table = rank(trials({"recall_mean": 0.3}, {"recall_mean": 0.5}, {"recall_mean": 0.2}))
    assert table["number"].tolist() == [1, 0, 2]
    assert table["rank"].tolist() == [1, 2, 3]
    assert table["gain_over_baseline"].tolist() == pytest.approx([0.2, 0.0, -0.1])


def test_ties_share_a_rank() -> None:
    table = rank(trials({"recall_mean": 0.5}, {"recall_mean": 0.5}, {"recall_mean": 0.2}))
    assert table["rank"].tolist() == [1, 1, 3]
    assert table["number"].tolist() == [0, 1, 2]


def test_a_trial_that_breaks_a_constraint_is_listed_without_a_rank() -> None:
    table = rank(trials({"recall_mean": 0.3}, {"recall_mean": 0.6, "broken": "box_iou"}, {"recall_mean": 0.4}))
    assert table["number"].tolist() == [2, 0, 1]
    assert table["rank"].tolist()[:2] == [1, 2]
    assert pd.isna(table["rank"].iloc[2])


def test_failed_trials_are_left_out_and_pruned_ones_take_part() -> None:
    table = rank(trials({}, {"state": "failed", "recall_mean": math.nan}, {"state": "pruned"}, {"state": "running"}))
    assert table["number"].tolist() == [0, 2]


def test_gains_count_from_the_retry_of_a_baseline_that_died() -> None:
    died = {"state": "failed", "recall_mean": math.nan}
    table = rank(trials(died, {"recall_mean": 0.4, "origin": 0}, {"recall_mean": 0.6}))
    assert table["gain_over_baseline"].tolist() == pytest.approx([0.2, 0.0])


@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
def test_ranking_is_a_permutation_in_falling_order(values: list[float]) -> None:
    table = rank(trials(*({"recall_mean": value} for value in values)))
    assert table["recall_mean"].tolist() == sorted(values, reverse=True)
    assert sorted(table["number"]) == list(range(len(values)))


def test_an_unknown_metric_names_the_nearest() -> None:
    with pytest.raises(UserError, match="recal_mean is not a metric of the leaderboard; did you mean recall_mean"):
        rank(trials({}), by="recal_mean")


@pytest.mark.parametrize("by", ["", "seconds", "number", "param:optimizer.learning_rate", "x" * 5000])
def test_a_word_that_is_near_to_no_metric_gets_the_list(by: str) -> None:
    with pytest.raises(UserError, match=r"choose one of t2i_r1, .*, relation_accuracy$") as refused:
        rank(trials({}), by=by)
    assert len(str(refused.value)) < 300


def test_nothing_finished_is_reported() -> None:
    with pytest.raises(UserError, match=r"no trial has finished yet \(1 running or waiting\)"):
        rank(trials({"state": "running", "recall_mean": math.nan}))
    with pytest.raises(UserError, match="no trial has finished yet; let the campaign continue"):
        rank(pd.DataFrame([], columns=COLUMNS))


def test_if_all_trials_failed_the_reasons_are_grouped() -> None:
    reasons = ["no GPU", "disk\nfull", "no GPU", "stale"]
    with pytest.raises(UserError) as refused:
        rank(trials(*({"state": "failed", "recall_mean": math.nan, "reason": reason} for reason in reasons)))
    assert "no trial has finished: 3 failed (2 × no GPU; 1 × disk full)" in str(refused.value)


@pytest.mark.parametrize(("by", "missing"), [("box_iou", "no boxes"), ("relation_accuracy", "no relations")])
def test_a_metric_without_data_is_reported(by: str, missing: str) -> None:
    table = trials({by: math.nan}, {by: None, "state": "pruned"}, {by: math.nan, "state": "running"})
    with pytest.raises(UserError, match=f"none of the 2 ended trials has {by}, since .* {missing}"):
        rank(table, by=by)


def test_files_keep_fractions_and_print_percent() -> None:
    table = rank(trials({"recall_mean": 0.25}, {"recall_mean": 0.5, "t2i_r1": 0.125}))
    assert "0.125" in to_csv(table)
    assert json.loads(to_json(table))[0]["t2i_r1"] == 0.125
    markdown = to_markdown(table)
    assert "20 images and 60 texts, relevance by building" in markdown
    assert "| 1 | 1 | complete | 50.0 | +25.0 | 12.5 |" in markdown


def test_latex_is_bold_where_best_and_escapes_names() -> None:
    latex = to_latex(rank(trials({"recall_mean": 0.25}, {"recall_mean": 0.5})))
    assert r"\textbf{50.0}" in latex
    assert r"\textbf{25.0}" not in latex
    assert r"recall\_mean" in latex


def evaluation(**changes: Any) -> Evaluation:
    metrics = {name: (index + 1) / 10 for index, name in enumerate(RETRIEVAL_KEYS)}
    fields = {"split": "test", "protocol": "building", "rerank": 0, "queries_text": 9, "queries_image": 3, "groups": 2}
    return Evaluation(**{**fields, "metrics": metrics, **changes})


def test_the_official_entry_names_text_queries_txt() -> None:
    entry = json.loads(
        to_geotext(evaluation(), identifier="Ours", training_data="train.json", backbone="b", date="2026-01-02")
    )
    assert entry["id"] == "ours"
    assert entry["metrics"] == {
        "txt_r1": 10.0,
        "txt_r5": 20.0,
        "txt_r10": 30.0,
        "img_r1": 40.0,
        "img_r5": 50.0,
        "img_r10": 60.0,
    }
    assert entry["verified"] is False
    assert entry["training_data"] == "train.json"
    assert "3 images, 9 texts, 2 buildings" in entry["notes"]
    assert "query bank" not in entry["notes"]


def test_the_official_entry_tells_of_a_query_bank() -> None:
    banked = evaluation(query_bank="train_captions")
    entry = json.loads(to_geotext(banked, identifier="a", training_data="t", backbone="b", date="2026-01-02"))
    assert "query bank: train_captions" in entry["notes"]


def test_training_data_are_named_by_their_file_unless_they_are_drawn(tmp_path: Path) -> None:
    assert training_data(tmp_path / "train.json") == "train.json"
    (tmp_path / "synthetic.json").touch()
    assert training_data(tmp_path / "train.json") == "synthetic"


@pytest.mark.parametrize("changes", [{"split": "validation"}, {"protocol": "image"}])
def test_other_figures_do_not_go_to_the_official_leaderboard(changes: dict[str, str]) -> None:
    with pytest.raises(UserError, match="do not belong on the leaderboard"):
        to_geotext(evaluation(**changes), identifier="a", training_data="t", backbone="b", date="2026-01-02")

import math
from typing import Any

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from analysis.leaderboard import caption, rank
from analysis.trials import COLUMNS
from core.errors import UserError
from core.records import RETRIEVAL_KEYS


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
            "box_iou": None,
            "relation_accuracy": None,
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


def test_the_caption_tells_what_was_measured() -> None:
    table = rank(trials({}, {"recall_mean": 0.5}))
    assert caption(table).startswith(
        "Validation split, 20 images and 60 texts, relevance by building; recall in percent"
    )
    counted = caption(table.assign(gallery_groups=[7, 7]), "box_iou")
    assert "20 images and 60 texts, 7 buildings, relevance by building; recall in percent, gain in box_iou" in counted
    assert "every image is a building of its own" in caption(table.assign(gallery_groups=[20, 20]))

"""Leaderboards of campaign folders: what is confirmed, what can be compared, and what belongs to the final model."""

import json
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from analysis.boards import read_boards, read_final
from analysis.confirmation import load_confirmation
from analysis.leaderboard import OUTSIDE, WITHIN
from core.errors import UserError
from core.files.json_files import write_json
from core.records import Efficiency, Evaluation, Interval, Scorecard
from tests.analysis.campaigns import confirm, metrics, searched

EFFICIENCY = Efficiency(10, 90, 5, 12.0, 100.0, 1.0, 1.0, 1.0, 1.0, "cpu", earlier_epochs=2, earlier_seconds=3.0)


def evaluation(protocol: str, *, groups: int = 2, rerank: int = 0) -> Evaluation:
    return Evaluation("test", protocol, rerank, 9, 3, groups, {"t2i_r1": 0.25}, {"t2i_r1": Interval(0.25, 0.125, 0.5)})


def card(*evaluations: Evaluation, **regions: float) -> Scorecard:
    split = "validation" if regions else None
    return Scorecard("final.pth", "f", "h", 1, list(evaluations), split, regions, [], EFFICIENCY)


def test_confirmed_trials_stand_first_with_means_over_their_seeds(tmp_path: Path) -> None:
    folder = searched(tmp_path, [metrics(0.3), metrics(0.95), metrics(0.6), metrics(0.7)])
    confirm(folder, {0: 0.3, 2: 0.6, 3: 0.62})
    (board,) = read_boards([folder])
    table = board.trials.set_index("number")
    assert board.trials["number"].tolist()[-1] == 1  # the highest value, but of one seed
    assert table["rank"].to_dict() == {2: 1, 3: 1, 0: 3, 1: 4}
    assert table["seeds"].to_dict() == {0: 4, 1: 1, 2: 4, 3: 4}
    for each in load_confirmation(folder):
        row = table.loc[each.trial]
        assert (row["recall_mean"], row["searched"]) == (each.mean.value, each.searched)
        assert (row["recall_mean_low"], row["recall_mean_high"]) == (each.mean.low, each.mean.high)
        assert row["gain_over_baseline"] == each.gain.value
        assert row["gain_low"] == each.gain.low or (each.trial == 0 and pd.isna(row["gain_low"]))
        assert row["t2i_r5_low"] < row["t2i_r5"] == each.figures["t2i_r5"].value < row["t2i_r5_high"]
    assert table.loc[[1], "recall_mean_low"].isna().all()
    assert table.loc[1, "recall_mean"] == 0.95
    assert any("3 confirmed trials stand first, with means over 4 seeds" in note for note in board.notes)


def test_gains_stand_beside_their_noise(tmp_path: Path) -> None:
    folder = searched(tmp_path, [metrics(0.4), metrics(0.9), metrics(0.41), metrics(0.4), metrics(0.5)])
    (before,) = read_boards([folder])
    assert before.trials["gain_noise"].isna().all()
    assert any("a gain may be luck" in note for note in before.notes)
    confirm(folder, {0: 0.4, 3: 0.4, 4: 0.7})
    noise = read_boards([folder])[0].trials.set_index("number")["gain_noise"].to_dict()
    assert pd.isna(noise.pop(0))
    assert noise == {1: OUTSIDE, 2: WITHIN, 3: WITHIN, 4: OUTSIDE}


def test_campaigns_of_the_same_data_and_objective_share_a_table(tmp_path: Path) -> None:
    first = searched(tmp_path / "a", [metrics(0.2), metrics(0.6)], name="a")
    second = searched(tmp_path / "b", [metrics(0.5), metrics(0.6)], name="b")
    (board,) = read_boards([first, second, first])
    rows = board.trials[["rank", "campaign", "number"]].to_numpy().tolist()
    assert rows == [[1, "a", 1], [1, "b", 1], [3, "b", 0], [4, "a", 0]]
    assert board.trials["gain_over_baseline"].tolist() == pytest.approx([0.4, 0.1, 0.0, 0.0])


def test_confirmed_trials_of_two_campaigns_are_told_apart_together(tmp_path: Path) -> None:
    first = searched(tmp_path / "a", [metrics(0.2), metrics(0.6)], name="a")
    second = searched(tmp_path / "b", [metrics(0.5), metrics(0.6)], name="b")
    confirm(first, {0: 0.2, 1: 0.6})
    confirm(second, {0: 0.4, 1: 0.9})
    (board,) = read_boards([first, second])
    rows = board.trials[["rank", "campaign", "number"]].to_numpy().tolist()
    assert rows == [[1, "b", 1], [2, "a", 1], [3, "b", 0], [4, "a", 0]]
    (alone,) = read_boards([second])
    assert alone.trials["rank"].tolist() == [1, 2]
    both = board.trials[board.trials["campaign"] == "b"]
    assert both["gain_over_baseline"].tolist() == alone.trials["gain_over_baseline"].tolist()


@pytest.mark.parametrize("other", [{"data": "another"}, {"objective": "t2i_r1"}])
def test_campaigns_that_cannot_be_compared_have_a_table_each(tmp_path: Path, other: dict[str, str]) -> None:
    first = searched(tmp_path / "a", [metrics(0.2)], name="a")
    second = searched(tmp_path / "b", [metrics(0.5, t2i_r1=0.1)], name="b", **other)
    boards = read_boards([first, second])
    assert [list(board.campaigns) for board in boards] == [["a"], ["b"]]
    assert [board.trials["rank"].tolist() for board in boards] == [[1], [1]]
    assert all("have a table of their own" in board.notes[-1] for board in boards)
    assert [board.metric for board in boards] == ["recall_mean", other.get("objective", "recall_mean")]
    assert [board.metric for board in read_boards([first, second], "i2t_r5")] == ["i2t_r5", "i2t_r5"]


def test_campaigns_of_one_name_are_told_apart_by_their_folders(tmp_path: Path) -> None:
    folders = [searched(tmp_path / place, [metrics(0.2)]) for place in ("a/x", "a/y", "b/y")]
    for chosen, names in ((folders[:2], ["x", "y"]), (folders[1:], [str(tmp_path / "a/y"), str(tmp_path / "b/y")])):
        (board,) = read_boards(chosen)
        assert list(board.campaigns) == names


def test_a_campaign_without_a_score_is_named(tmp_path: Path) -> None:
    folders = [searched(tmp_path / "a", [metrics(0.2)]), searched(tmp_path / "b", [None])]
    with pytest.raises(UserError, match=rf"{tmp_path / 'b'}: no trial has finished yet \(1 running or waiting\)"):
        read_boards(folders)


def test_single_and_two_stage_trials_are_marked(tmp_path: Path) -> None:
    """Of eight epochs the trials align in none, one and two."""
    folder = searched(tmp_path, [metrics(0.2), metrics(0.3), metrics(0.4)])
    assert read_boards([folder])[0].trials.set_index("number")["stages"].to_dict() == {0: 1, 1: 2, 2: 2}


def test_a_trial_that_breaks_a_constraint_is_marked_and_never_ranked(tmp_path: Path) -> None:
    best = [metrics(0.2, box_iou=0.5), metrics(0.9, box_iou=0.1), metrics(0.4, box_iou=0.5)]
    folder = searched(tmp_path, best, constraints={"box_iou": {"at_least": "baseline - 0.01"}})
    (board,) = read_boards([folder])
    assert board.trials["number"].tolist() == [2, 0, 1]
    assert board.trials["standing"].tolist() == ["complete", "complete", "breaks box_iou"]
    assert "1 breaking a constraint: without a rank" in board.notes[1]


def test_where_every_image_is_a_building_protocols_cannot_differ(tmp_path: Path) -> None:
    folder = searched(tmp_path, [metrics(0.2, gallery_groups=90)])
    protocols = ("image", "building", "geotext-official")
    write_json(folder.final_metrics, card(*(evaluation(name, groups=3) for name in protocols)).to_json())
    (board,) = read_boards([folder])
    assert "every image is a building of its own, so that protocols cannot differ" in board.notes[0]
    assert board.final["protocol"].tolist() == ["building"]
    write_json(folder.final_metrics, card(*map(evaluation, protocols)).to_json())
    assert read_boards([folder])[0].final["protocol"].tolist() == list(protocols)


def test_the_final_model_is_shown_with_what_it_was_measured_on(tmp_path: Path) -> None:
    folder = searched(tmp_path, [metrics(0.2)])
    regions = {"box_iou": 0.5, "box_iou_text_only": 0.375, "relation_accuracy": 0.7, "relation_majority": 0.25}
    measured = card(evaluation("building"), evaluation("building", rerank=5), **regions)
    write_json(folder.final_metrics, {"trial": 0, **measured.to_json()})
    (board,) = read_boards([folder])
    first, second = board.final.to_dict("records")
    assert (first["split"], first["protocol"], first["order"], second["order"]) == (
        "test", "building", "by similarity", "5 re-ranked",
    )  # fmt: skip
    assert (first["t2i_r1"], first["t2i_r1_low"], first["t2i_r1_high"]) == (0.25, 0.125, 0.5)
    assert (first["gallery_images"], first["gallery_texts"], first["gallery_groups"]) == (3, 9, 2)
    assert (first["number"], first["stages"], first["box_iou"], first["box_iou_text_only"]) == (0, 2, 0.5, 0.375)
    assert board.notes[-1] == (
        "For comparison, on the validation split: box_iou 0.375 by the sentence alone; relation_accuracy 0.250 by the "
        "most frequent relation (measured with the final model of made)."
    )


@pytest.mark.parametrize("reads", [0, 1, 3])
def test_readings_of_the_test_split_beyond_the_first_are_told(tmp_path: Path, reads: int) -> None:
    folder = searched(tmp_path, [metrics(0.2)])
    write_json(folder.final_metrics, replace(card(evaluation("building")), test_reads=reads).to_json())
    (board,) = read_boards([folder])
    assert board.final["test_reads"].tolist() == [reads]
    told = [note for note in board.notes if "test split was read" in note]
    assert told == (["The test split was read 3 times for the final model of made."] if reads > 1 else [])


def test_with_several_goals_the_front_is_marked(tmp_path: Path) -> None:
    """Trial 1 is beaten by trial 2 in both goals; no other one is beaten in both."""
    best = [metrics(0.2, box_iou=0.5), metrics(0.3, box_iou=0.1), metrics(0.4, box_iou=0.2)]
    folder = searched(tmp_path, best, objectives=["recall_mean", {"box_iou": "max"}])
    (board,) = read_boards([folder])
    standing = board.trials.set_index("number")["standing"].to_dict()
    assert standing == {0: "complete, on the front", 1: "complete", 2: "complete, on the front"}
    assert "in all goals, recall_mean (max), box_iou (max): 0, 2." in board.notes[-1]


@pytest.mark.parametrize(("weight", "orders"), [(0.0, ["by similarity"]), (0.5, ["by similarity", "5 re-ranked"])])
def test_re_ranking_that_is_off_has_no_row_of_its_own(tmp_path: Path, weight: float, orders: list[str]) -> None:
    folder = searched(tmp_path, [metrics(0.2)])
    reranked = replace(evaluation("building", rerank=5), rerank_weight=weight)
    write_json(folder.final_metrics, card(evaluation("building"), reranked).to_json())
    (board,) = read_boards([folder])
    assert board.final["order"].tolist() == orders


@pytest.mark.parametrize("content", ["{", "[]", "null", '{"trial": 3}'])
def test_a_damaged_final_model_hides_no_trial(tmp_path: Path, content: str) -> None:
    folder = searched(tmp_path, [metrics(0.2)])
    folder.final_metrics.parent.mkdir()
    folder.final_metrics.write_text(content)
    (board,) = read_boards([folder])
    assert len(board.trials) == 1
    assert board.final.empty
    assert str(folder.final_metrics) in board.notes[-1]
    with pytest.raises(UserError, match=r"metrics\.json"):
        read_final(folder)


def test_what_a_later_version_adds_to_the_scorecard_is_ignored(tmp_path: Path) -> None:
    folder = searched(tmp_path, [metrics(0.2)])
    folder.final_metrics.parent.mkdir()
    folder.final_metrics.write_text(json.dumps({"trial": 7, "more": 1, **card(evaluation("building")).to_json()}))
    final = read_final(folder)
    assert final is not None
    assert (final.trial, final.card) == (7, card(evaluation("building")))

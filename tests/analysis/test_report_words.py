import math
from dataclasses import replace

import pandas as pd
import pytest

from analysis import report_words as words
from analysis.confirmation import Confirmed
from analysis.leaderboard import rank
from analysis.report_findings import Findings
from analysis.report_space import NextSpace
from core.campaign.campaign import Campaign, Limits
from core.config import TrainConfig
from core.records import RETRIEVAL_KEYS, Evaluation, Examples, Grounding, Interval
from core.sections import parse
from tests.analysis.report_tables import history, trials

CAMPAIGN = parse(
    Campaign,
    {
        "name": "c",
        "train": TrainConfig().model_dump(mode="json"),
        "limits": {"trials": 30, "hours": 2},
        "space": {"loss.itm": {"log": [0.1, 10.0]}},
    },
    where="test",
)


def findings(
    table: pd.DataFrame,
    *,
    confirmed: list[Confirmed] | None = None,
    final: Evaluation | None = None,
    grounding: dict[str, Grounding] | None = None,
) -> Findings:
    ranked = rank(table)
    complete = ranked[ranked["state"] == "complete"]
    return Findings(
        campaign=CAMPAIGN, trials=table, ranked=ranked, history=history(), settings=[], importance={},
        confirmed=confirmed or [], final=final, grounding=grounding or {},
        next_space=NextSpace([], CAMPAIGN.space), failures={},
        best=None if complete.empty else complete.iloc[0], best_config=None, model=None, model_name="no model",
    )  # fmt: skip


def repeat(trial: int, rank: int, mean: float, low: float) -> Confirmed:
    gain = mean - 0.2
    return Confirmed(
        trial=trial, rank=rank, seeds=[1, 2, 3], values=[mean] * 3, mean=Interval(mean, mean - 0.02, mean + 0.02),
        gain=Interval(gain, low, gain + 0.05), searched=mean + 0.03,
    )  # fmt: skip


def test_what_was_searched_names_backbone_data_objective_and_budget() -> None:
    first, second = words.searched(findings(trials({"value": 0.3}, {"state": "failed", "value": None, "reason": "x"})))
    assert "frozen backbone InternVL3-1B-hf" in first
    assert "trained on train.json and validated on 20 images and 60 texts" in first
    assert "1 settings were searched by a tree-structured Parzen estimator" in second
    assert "highest validation recall_mean" in second
    assert "Budget: 30 trials or 2 hours." in second
    assert "1 complete, 0 stopped early, 1 failed, 0 running; together 20 seconds" in second


def test_interrupted_trials_are_not_counted_but_their_time_is() -> None:
    retried = trials({"state": "failed", "value": None, "reason": "stale"}, {"origin": 0})
    assert "1 complete, 0 stopped early, 0 failed, 0 running; together 20 seconds" in words.progress(retried)


def test_the_best_trial_stands_beside_the_baseline() -> None:
    better = {"value": 0.4567, "t2i_r1": 0.25, "i2t_r1": 0.35, "box_iou": 0.61, "relation_accuracy": 0.875}
    text = " ".join(words.found(findings(trials({"value": 0.2}, better))))
    assert "best trial is 1: validation recall_mean 45.7 %, +25.7 points over the baseline (trial 0" in text
    assert "text-to-image R@1 25.0 % (baseline 20.0 %)" in text
    assert "IoU of 0.61 (baseline 0.50), and 87.5 % of relations are right (baseline 60.0 %)" in text


def test_a_trial_that_only_fresh_seeds_put_first_is_told_beside_the_one_of_the_search() -> None:
    told = findings(trials({"value": 0.2}, {"value": 0.3}, {"value": 0.4}))
    assert "put trial" not in " ".join(words.found(told))
    confirmed = replace(told, best=told.ranked.iloc[1])
    assert "The best trial is 1:" in words.found(confirmed)[0]
    assert "the search alone put trial 2 first, with 40.0 %." in words.found(confirmed)[0]


def test_nothing_is_said_of_boxes_that_the_data_lacks() -> None:
    without = {"box_iou": math.nan, "relation_accuracy": math.nan}
    text = " ".join(words.found(findings(trials({"value": 0.2, **without}, {"value": 0.3, **without}))))
    assert "IoU" not in text
    assert "relations" not in text


@pytest.mark.parametrize(
    ("table", "said"),
    [
        (trials({"value": 0.3}, {"value": 0.2}), "No trial is better than the baseline: validation recall_mean 30.0 %"),
        (trials({"value": 0.3, "state": "pruned"}), "No trial is complete yet"),
        (trials({"value": None, "state": "running"}, {"value": 0.2}), "The baseline is not complete yet"),
    ],
)
def test_other_outcomes_of_a_search(table: pd.DataFrame, said: str) -> None:
    assert said in " ".join(words.found(findings(table)))


def test_an_unconfirmed_campaign_says_so() -> None:
    assert "Nothing is confirmed yet" in words.confirmed(findings(trials({})))[0]


def test_a_confirmed_winner_has_its_interval_gain_and_curse() -> None:
    repeats = [repeat(3, 1, 0.40, 0.15), repeat(2, 1, 0.39, 0.14), repeat(0, 3, 0.2, 0.0)]
    (text,) = words.confirmed(findings(trials({}), confirmed=repeats))
    assert "with 3 fresh seeds, trial 3 reaches a mean validation recall_mean of 40.0 %" in text
    assert "(95 % interval 38.0 to 42.0)" in text
    assert "+20.0 points over the baseline (95 % interval +15.0 to +25.0): it beats the baseline" in text
    assert "The search said 43.0 %, which is +3.0 points off." in text
    assert "cannot be told apart from trial 2." in text


def test_a_gain_that_may_be_none_is_not_called_one() -> None:
    (text,) = words.confirmed(findings(trials({}), confirmed=[repeat(3, 1, 0.21, -0.01)]))
    assert "which cannot be told from none" in text
    assert "beats the baseline" not in text


def test_the_final_model_is_told_with_its_split() -> None:
    intervals = {"t2i_r1": Interval(0.5, 0.4, 0.6)}
    final = Evaluation("test", "building", 0, 60, 20, 5, dict.fromkeys(RETRIEVAL_KEYS, 0.5), intervals)
    better, same = Interval(0.1, 0.05, 0.15), Interval(0.0, -0.1, 0.1)
    grounding = {"box_iou": Grounding.judge(better, better), "relation_accuracy": Grounding.judge(better, same)}
    text = words.confirmed(findings(trials({}), final=final, grounding=grounding))[-1]
    assert "measured on the test split (20 images, 60 texts)" in text
    assert "text-to-image R@1 50.0 % (95 % interval 40.0 to 60.0), image-to-text R@1 50.0 %." in text
    assert "Its boxes are grounded, its relations are not grounded (" in text


@pytest.mark.parametrize(("complete", "warned"), [(29, True), (30, False)])
def test_importance_of_few_trials_comes_with_a_warning(complete: int, warned: bool) -> None:
    notes = words.importance_note(findings(trials(*[{}] * complete, {"state": "pruned"})))
    assert notes[0].startswith(f"Caution: only {complete} trials are complete") == warned


def test_pruning_saves_the_epochs_that_were_not_trained() -> None:
    stopped = trials({"epochs": 8}, {"epochs": 2, "state": "pruned"})
    assert "1 of 2 trials were stopped early, which saved 38 % of all epochs" in words.pruning_note(stopped, 8)[0]
    assert words.pruning_note(trials({}), 8) == ["No trial was stopped early."]


def test_a_trial_saves_its_own_epochs_where_they_are_searched() -> None:
    stopped = trials({"epochs": 8}, {"epochs": 2, "state": "pruned", "param:recipe.epochs": 4})
    assert "which saved 17 % of all epochs" in words.pruning_note(stopped, 8)[0]


def test_the_pictures_say_how_often_the_model_is_right() -> None:
    (text,) = words.pictures_note(Examples([], [], right_queries=1, queries=4, images=20, regions=[]), "trial 3")
    assert "with trial 3. Of 4 text queries over 20 images, 1 (25.0 %)" in text


def test_limits_that_are_not_set_are_not_told() -> None:
    assert words.budget(Limits(trials=1000)) == "1,000 trials"


def test_cells_of_the_table_of_trials() -> None:
    table = rank(trials({"value": 0.2, "box_iou": math.nan}, {"value": 0.123456, "state": "pruned"}))
    names = ("rank", "number", "recall_mean", "gain_over_baseline", "box_iou", "parameters")
    assert [[words.trial_cell(row, name) for name in names] for _, row in table.iterrows()] == [
        ["1", "0 (baseline)", "20.0", "+0.0", "–", "1,000"],
        ["–", "1 (stopped early)", "12.3", "-7.7", "0.50", "1,000"],
    ]


@pytest.mark.parametrize(("seconds", "told"), [(99, "99 seconds"), (600, "10 minutes"), (9000, "2.5 hours")])
def test_durations_are_short(seconds: float, told: str) -> None:
    assert words.duration(seconds) == told

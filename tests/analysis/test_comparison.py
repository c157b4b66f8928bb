from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from analysis.comparison import (
    benchmark_table,
    compare,
    compare_objective,
    comparison_table,
    grounding_notes,
    paired_interval,
    read_notes,
    tie_notes,
)
from core.errors import UserError
from core.records import RETRIEVAL_KEYS, Efficiency, Evaluation, Grounding, Interval, Samples, Scorecard


def samples(values: list[float], groups: list[int] | None = None) -> Samples:
    return Samples(np.array(values, dtype=float), np.array(groups if groups is not None else range(len(values))))


def card(**changes: object) -> Scorecard:
    evaluations = [
        Evaluation("test", "building", k, 4, 4, 2, dict.fromkeys((*RETRIEVAL_KEYS, "recall_mean"), 0.5 + k / 100))
        for k in (0, 10)
    ]
    efficiency = Efficiency(10, 90, 5, 12.0, 100.0, 1.0, 1.0, 1.0, 1.0, "cpu")
    fields = {"checkpoint": "a", "fingerprint": "f", "config_hash": "h", "epoch": 1, "evaluations": evaluations}
    rest: dict[str, object] = {"regions_split": None, "regions": {}, "confusion": [], "efficiency": efficiency}
    return Scorecard(**{**fields, **rest, **changes})  # type: ignore[arg-type]


@given(st.lists(st.booleans(), min_size=1, max_size=40))
def test_a_model_is_not_distinguishable_from_itself(hits: list[bool]) -> None:
    own = {"t2i_r1": samples(list(map(float, hits)))}
    (found,) = compare(own, own)
    assert (found.interval.value, found.interval.low, found.interval.high) == (0, 0, 0)
    assert found.verdict == "not distinguishable"


@given(st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1), st.integers(0, 5)), min_size=2, max_size=30))
def test_swapping_the_models_reverses_the_interval(rows: list[tuple[float, float, int]]) -> None:
    a, b, groups = (np.array(column) for column in zip(*rows, strict=True))
    one, other = paired_interval(a, b, groups), paired_interval(b, a, groups)
    assert (one.value, one.low, one.high) == pytest.approx((-other.value, -other.high, -other.low), abs=1e-12)


def test_a_clear_gain_is_better_and_lower_l1_is_better() -> None:
    worse, better = [0.0] * 30, [0.5, 0.6] * 15
    found = {d.metric: d.verdict for d in compare(
        {"t2i_r1": samples(worse), "box_l1": samples(better)}, {"t2i_r1": samples(better), "box_l1": samples(worse)}
    )}  # fmt: skip
    assert found == {"t2i_r1": "better", "box_l1": "better"}


def recalls(hits: list[float], groups: list[int]) -> dict[str, Samples]:
    """The same hits in all six recalls; images ask only half of the queries."""
    half = len(hits) // 2
    return {
        name: samples(hits, groups) if name.startswith("t2i") else samples(hits[:half], groups[:half])
        for name in RETRIEVAL_KEYS
    }


def test_the_mean_of_recalls_is_compared_recall_by_recall() -> None:
    groups = [number // 2 for number in range(40)]
    first, second = [0.0, 1.0] * 20, [1.0, 1.0] * 10 + [0.0, 1.0] * 10
    found = compare_objective(recalls(first, groups), recalls(second, groups), "recall_mean")
    assert (found.first, found.second) == (0.5, 0.875)  # (3 × 0.75 + 3 × 1) / 6
    assert found.interval.value == 0.375
    assert 0 < found.interval.low < 0.375 < found.interval.high <= 0.5
    assert found.verdict == "better"
    assert compare_objective(recalls(second, groups), recalls(first, groups), "recall_mean").verdict == "worse"


def test_one_recall_is_compared_alone() -> None:
    groups = [number // 2 for number in range(40)]
    first, second = recalls([0.0] * 40, groups), recalls([0.0] * 40, groups)
    second["i2t_r5"] = samples([1.0] * 20, groups[:20])
    found = compare_objective(first, second, "i2t_r5")
    assert (found.first, found.second, found.interval.low, found.interval.high) == (0, 1, 1, 1)
    assert compare_objective(first, second, "t2i_r1").verdict == "not distinguishable"


def test_a_gain_in_one_building_does_not_decide_for_the_mean_of_recalls() -> None:
    groups = [0] * 50 + [1] * 50 + [2] * 50 + [3] * 50
    gained = recalls([1.0] * 50 + [0.0] * 150, groups)
    assert compare_objective(recalls([0.0] * 200, groups), gained, "t2i_r1").verdict == "not distinguishable"


def test_reads_of_the_test_split_are_noted_from_the_second_on() -> None:
    notes = read_notes([card(), card(checkpoint="b", test_reads=1), card(checkpoint="c", test_reads=3)])
    assert notes == ["c: the test split was read 3 times for this model, this time included."]


def test_one_building_alone_cannot_decide() -> None:
    """All the gain is in one of four buildings: resampled rows would say better, buildings do not."""
    groups = [0] * 50 + [1] * 50 + [2] * 50 + [3] * 50
    gain = [1.0] * 50 + [0.0] * 150
    (found,) = compare({"t2i_r1": samples([0.0] * 200, groups)}, {"t2i_r1": samples(gain, groups)})
    assert found.verdict == "not distinguishable"


def test_the_interval_covers_what_it_should() -> None:
    """Of 200 experiments with a true difference of 0.3, about 95 % of intervals contain it."""
    generator = np.random.default_rng(0)
    covered = 0
    for seed in range(200):
        difference = generator.normal(0.3, 1, size=60)
        interval = paired_interval(np.zeros(60), difference, np.arange(60), seed=seed)
        covered += interval.low <= 0.3 <= interval.high
    assert 0.88 <= covered / 200 <= 0.99


def test_other_galleries_are_refused() -> None:
    with pytest.raises(UserError, match="measured on different galleries"):
        compare({"t2i_r1": samples([0.0, 1.0], [0, 1])}, {"t2i_r1": samples([0.0, 1.0], [0, 2])})
    with pytest.raises(UserError, match="not measured by the same metrics"):
        compare({"t2i_r1": samples([0.0])}, {})


def test_the_table_holds_metrics_and_cost() -> None:
    found = compare({"t2i_r1": samples([0.0, 0.0])}, {"t2i_r1": samples([1.0, 1.0])})
    table = comparison_table(found, card(), card()).set_index("metric")
    columns = ["single_stage", "two_stage", "difference", "verdict"]
    assert table.loc[["t2i_r1"], columns].to_numpy().tolist() == [[0, 1, 1, "better"]]
    assert table.loc["training_seconds", "difference"] == 0


def test_models_stand_side_by_side() -> None:
    table = benchmark_table({"a": card(), "b": card()})
    assert table["label"].tolist() == ["a", "b"]
    assert (table["t2i_r1"], table["t2i_r1_reranked"])[1].tolist() == [0.6, 0.6]


def test_figures_with_a_query_bank_and_verdicts_have_columns_of_their_own() -> None:
    plain = card().evaluations
    banked = [replace(e, query_bank="train_captions", metrics=dict.fromkeys(e.metrics, 0.9)) for e in plain]
    judged = {"box_iou": Grounding.judge(Interval(0.1, 0.05, 0.2), Interval(0.1, -0.05, 0.2))}
    row = benchmark_table({"a": card(evaluations=[*banked, *plain], grounding=judged)}).iloc[0]
    assert (row["t2i_r1"], row["t2i_r1_reranked"]) == (0.5, 0.6)
    assert (row["t2i_r1_query_bank"], row["t2i_r1_query_bank_reranked"]) == (0.9, 0.9)
    assert row["box_iou_verdict"] == "not grounded"


def test_notes_say_which_models_depend_on_the_image() -> None:
    grounded = Grounding.judge(Interval(0.1, 0.05, 0.2), Interval(0.1, 0.05, 0.2))
    notes = grounding_notes({"one": card(grounding={"box_iou": grounded}), "two": card()})
    assert notes == ["one: box_iou grounded (against the sentence alone and shuffled images)."]


def test_models_of_other_features_are_refused() -> None:
    with pytest.raises(UserError, match=r"different features \(a on f, b on g\)"):
        benchmark_table({"a": card(), "b": card(fingerprint="g")})


def test_recalls_with_ties_for_the_query_have_rows_and_columns_where_they_differ() -> None:
    plain, tied = card(), card()
    tied.evaluations[0].optimistic["i2t_r10"] = 0.75
    table = comparison_table([], plain, tied)
    row = table[table["metric"] == "i2t_r10_optimistic"].iloc[0]
    assert (row["single_stage"], row["two_stage"], row["difference"]) == (0.5, 0.75, 0.25)
    assert not any(name.endswith("optimistic") for name in comparison_table([], plain, plain)["metric"])
    benchmark = benchmark_table({"a": plain, "b": tied})
    assert benchmark["i2t_r10_optimistic"].tolist() == [0.5, 0.75]
    assert "t2i_r1_optimistic" not in benchmark
    assert (tie_notes([plain, plain]), len(tie_notes([plain, tied]))) == ([], 1)

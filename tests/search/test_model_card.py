import re
import shlex
from dataclasses import replace
from pathlib import Path

import pytest
from typer.main import get_command

from analysis.confirmation import Confirmed
from core.config import TrainConfig
from core.evaluation.read_count import CountedRead
from core.features.store import Features
from core.files.folders import CampaignFolder
from core.model.checkpoints import load_checkpoint
from core.records import RETRIEVAL_KEYS, Grounding, Interval
from search.cli import app
from search.model_card import FinalModel, command_of, model_card
from search.retrain import retrain
from search.winner import Winner, on_all_buildings
from tests.conftest import without_regions
from tests.search.test_retrain import trained


@pytest.fixture
def winner(planted_features: Features, small_config: TrainConfig, tmp_path: Path) -> Winner:
    config = small_config.with_overrides({"recipe.epochs": 2, "recipe.stage1_epochs": 1})
    return trained(config, planted_features, CampaignFolder(tmp_path / "campaign"))


@pytest.fixture
def final(winner: Winner, planted_features: Features, tmp_path: Path) -> FinalModel:
    return retrain(winner, planted_features, tmp_path / "final")


def cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip("| ").split(" | ")]


def test_the_card_is_written_with_the_figures_of_the_test_split(
    final: FinalModel, winner: Winner, planted_features: Features, tmp_path: Path
) -> None:
    text = (tmp_path / "final" / "model_card.md").read_text()
    assert text == model_card(final, winner, planted_features)
    plain, reranked = (final.card.find("building", reranked=again) for again in (False, True))
    by_building = text[text.index("Protocol `building`") :]
    for name in RETRIEVAL_KEYS:
        row = cells(next(line for line in by_building.splitlines() if line.startswith(f"| {name} |")))
        assert row[1] == f"{plain.metrics[name]:.1%}"
        assert row[2] == f"{100 * plain.intervals[name].low:.1f}–{100 * plain.intervals[name].high:.1f}"
        assert row[3] == f"{reranked.metrics[name]:.1%}"
        assert row[5] == f"{plain.metrics[f'chance_{name}']:.1%}"
    for fact in (
        f"box_iou | {final.card.regions['box_iou']:.3f} | {final.card.regions['box_iou_text_only']:.3f}",
        f"recall_mean {final.value:.4f}; trial 3 had {winner.value:.4f} in the search",
        "not distinguishable",
        f"was read once for this model ({final.reads[0].began})",
        final.checkpoint.receipt.config_hash,
        "| test | 12 | 36 | 36 | 36 |",
        "The trial was chosen by one seed",
    ):
        assert fact in text


def test_every_row_of_a_table_has_the_cells_of_its_heading(
    final: FinalModel, winner: Winner, planted_features: Features
) -> None:
    lines = model_card(final, winner, planted_features).splitlines()
    rulers = [number for number, line in enumerate(lines) if line.startswith("| ---")]
    assert len(rulers) == 7
    for ruler in rulers:
        width = lines[ruler - 1].count(" | ")
        rows = [line for line in lines[ruler:] if line.startswith("|")]
        end = next((number for number, line in enumerate(lines[ruler:]) if not line.startswith("|")), len(lines))
        assert all(line.count(" | ") == width for line in rows[: end - 1])


def test_the_command_is_one_that_the_command_line_understands(winner: Winner, tmp_path: Path) -> None:
    single = replace(winner, config=winner.config.with_overrides({"recipe.stage1_epochs": 0}))
    expected = {
        command_of(winner, tmp_path / "final" / "stage2" / "checkpoint_best.pth"): [],
        command_of(single, tmp_path / "final" / "checkpoint_best.pth"): ["--as-searched"],
        command_of(on_all_buildings(single), tmp_path / "final" / "a.pth"): ["--as-searched", "--on", "all"],
        command_of(on_all_buildings(winner), tmp_path / "final" / "stage2" / "a.pth"): ["--on", "all"],
    }
    for command, options in expected.items():
        words = shlex.split(command)
        assert words == [
            *("crossmodal", "retrain", str(tmp_path / "campaign"), "--output-dir", str(tmp_path / "final")),
            *options,
        ]
        get_command(app).commands["retrain"].make_context("retrain", words[2:])  # type: ignore[attr-defined]


def test_a_confirmed_winner_is_told_with_its_mean_and_seeds(
    final: FinalModel, winner: Winner, planted_features: Features
) -> None:
    mean, gain = Interval(0.375, 0.35, 0.4), Interval(0.125, 0.1, 0.15)
    confirmed = Confirmed(3, 1, [1, 2], [0.35, 0.4], mean, gain, searched=0.5)
    text = model_card(final, replace(winner, confirmed=confirmed, split_of="the methodology"), planted_features)
    assert "| mean over seeds 1, 2 | 0.3750 (0.3500 to 0.4000) |" in text
    assert "| gain over the baseline, paired | 0.1250 (0.1000 to 0.1500) |" in text
    assert "(winner's curse) | +0.1250 |" in text
    assert "split like the methodology" in text
    assert "chosen by one seed" not in text


def test_limits_name_what_weakens_the_figures(final: FinalModel, winner: Winner, planted_features: Features) -> None:
    text = model_card(final, winner, planted_features)
    assert "was read 2 times" not in text
    judged = {"box_iou": Grounding.judge(Interval(0.0, -0.1, 0.1), Interval(0.3, 0.2, 0.4))}
    twice = replace(
        final,
        card=replace(final.card, grounding=judged),
        reads=[*final.reads, CountedRead("2026-01-02", finished=True)],
    )
    text = model_card(twice, winner, planted_features)
    limits = text[text.index("## Limits") : text.index("## Receipt")]
    assert "was read 2 times; figures chosen among several are too good" in limits
    assert "`box_iou` is not grounded" in limits


def test_drawn_images_are_named_as_such(
    final: FinalModel, winner: Winner, planted_features: Features, tmp_path: Path
) -> None:
    assert "images are synthetic" not in model_card(final, winner, planted_features)
    (tmp_path / "synthetic.json").touch()
    drawn = winner.config.with_overrides({"data.train_annotations": str(tmp_path / "train.json")})
    assert "**The images are synthetic:**" in model_card(final, replace(winner, config=drawn), planted_features)


def test_the_weights_are_those_that_the_card_names(final: FinalModel, tmp_path: Path) -> None:
    text = (tmp_path / "final" / "model_card.md").read_text()
    named = re.search(r"the weights, `([\w.]+)`, are those of epoch (\d+)", text)
    assert named is not None
    assert load_checkpoint(tmp_path / "final" / "stage2" / named[1]).epoch == int(named[2])


def test_data_without_boxes_or_buildings_have_no_section_on_them(
    final: FinalModel, winner: Winner, planted_features: Features
) -> None:
    assert planted_features.test is not None
    features = replace(
        planted_features,
        train=without_regions(planted_features.train),
        validation=without_regions(planted_features.validation),
        test=without_regions(planted_features.test),
    )
    own = [replace(each, groups=each.queries_image) for each in final.card.evaluations]
    bare = replace(final, card=replace(final.card, regions={}, grounding={}, evaluations=own))
    text = model_card(bare, winner, features)
    assert text.count("The data contain no boxes") == 1
    assert not any(word in text for word in ("## Boxes", "spatial relations", "| regions", "box_iou"))
    assert re.findall("Protocol `(.*?)`", text) == ["building"]
    assert "Every image is a building of its own" in text

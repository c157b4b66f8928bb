import os
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from core.config import TrainConfig
from core.errors import UserError
from core.evaluation.read_count import TEST_READS
from core.features.opening import open_features
from core.features.store import Features
from core.files.folders import CampaignFolder
from core.files.json_files import read_json
from core.files.ownership import claim_folder
from core.model.checkpoints import Checkpoint, load_checkpoint, save_checkpoint
from core.records import EpochMetrics
from core.training.runs import hold_run
from core.training.train import train
from search import retrain as module
from search.retrain import require_free_output, retrain
from search.winner import Winner, find_winner, on_all_buildings
from tests.commands import CommandLine


@pytest.fixture
def winner(planted_features: Features, small_config: TrainConfig, tmp_path: Path) -> Winner:
    """A trial with two stages, and its checkpoint as the search left it."""
    config = small_config.with_overrides({"recipe.stage1_epochs": 1, "recipe.stage2_lr_scale": 0.5})
    return trained(config, planted_features, CampaignFolder(tmp_path / "campaign"))


@pytest.fixture
def single(planted_features: Features, small_config: TrainConfig, tmp_path: Path) -> Winner:
    """A trial with one stage that is retrained as it is."""
    return trained(small_config, planted_features, CampaignFolder(tmp_path / "campaign"))


def trained(config: TrainConfig, features: Features, folder: CampaignFolder) -> Winner:
    best = train(config, features).best
    save_checkpoint(folder.trial(3).best_checkpoint, best)
    value = best.history[best.epoch].recall_mean
    return Winner("planted", 3, value, config, None, 1, best.epoch + 1, None, folder)


def same_weights(a: Checkpoint, b: Checkpoint) -> bool:
    return all(torch.equal(a.weights[name], b.weights[name]) for name in a.weights)


def test_the_final_model_is_measured_on_the_test_split(finished_campaign: CampaignFolder, tmp_path: Path) -> None:
    winner = find_winner(finished_campaign)
    features = open_features(winner.config, with_test=True)
    final = retrain(winner, features, tmp_path)
    assert winner.was_single_stage or final.value == winner.value
    evaluation = final.card.find("building", reranked=False)
    assert evaluation.split == "test"
    assert features.test is not None
    assert evaluation.queries_image == len(features.test.images)
    written = read_json(tmp_path / "metrics.json")
    assert written["trial"] == winner.number
    assert written["evaluations"][2]["metrics"] == evaluation.metrics
    assert (tmp_path / "stage2" / "checkpoint_best.pth").exists()


def test_the_same_training_is_the_same_model_and_not_distinguishable(
    winner: Winner, planted_features: Features, tmp_path: Path
) -> None:
    final = retrain(winner, planted_features, tmp_path / "final")
    assert same_weights(final.checkpoint, load_checkpoint(winner.checkpoint))
    assert final.value == winner.value
    assert final.difference is not None
    assert (final.difference.interval.low, final.difference.interval.high) == (0, 0)
    assert final.difference.verdict == "not distinguishable"
    assert final.difference.first == pytest.approx(winner.value)
    assert final.card.efficiency.training_epochs == 4  # with those after the best one


def test_a_worse_final_model_is_called_worse(winner: Winner, planted_features: Features, tmp_path: Path) -> None:
    hardly = winner.config.with_overrides({"optimizer.learning_rate": 1e-8})
    final = retrain(replace(winner, config=hardly), planted_features, tmp_path / "final")
    assert final.difference is not None
    assert final.value is not None
    assert final.difference.interval.value == pytest.approx(final.value - winner.value)
    assert final.difference.verdict == "worse"
    assert "worse" in (tmp_path / "final" / "model_card.md").read_text()


def test_without_the_trials_checkpoint_there_is_no_difference(
    winner: Winner, planted_features: Features, tmp_path: Path
) -> None:
    winner.checkpoint.write_text("torn")
    final = retrain(winner, planted_features, tmp_path / "final")
    assert final.difference is None
    assert final.value == winner.value


def test_the_test_split_is_read_once_and_again_only_when_asked(
    winner: Winner, planted_features: Features, tmp_path: Path
) -> None:
    first = retrain(winner, planted_features, tmp_path / "final")
    assert (first.card.test_reads, len(first.reads)) == (1, 1)
    before = (tmp_path / "final" / "metrics.json").read_bytes()
    second = retrain(winner, planted_features, tmp_path / "final")
    assert second.card == first.card  # seconds of the evaluation included: nothing was measured
    assert (tmp_path / "final" / "metrics.json").read_bytes() == before
    third = retrain(winner, planted_features, tmp_path / "final", again=True)
    assert third.card.test_reads == read_json(tmp_path / "final" / "metrics.json")["test_reads"] == 2
    assert "was read 2 times for this model" in (tmp_path / "final" / "model_card.md").read_text()


def test_a_read_that_was_interrupted_is_continued_by_the_same_call(
    winner: Winner, planted_features: Features, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(*_: object, **__: object) -> None:
        (recorded,) = read_json(tmp_path / "final" / TEST_READS)
        assert not recorded["finished"]
        raise KeyboardInterrupt

    with monkeypatch.context() as context:
        context.setattr(module, "measure", killed)
        with pytest.raises(KeyboardInterrupt):
            retrain(winner, planted_features, tmp_path / "final")
    assert not (tmp_path / "final" / "metrics.json").exists()
    assert retrain(winner, planted_features, tmp_path / "final").card.test_reads == 1


def test_an_interrupted_training_ends_with_the_same_weights(
    winner: Winner, planted_features: Features, tmp_path: Path
) -> None:
    def stop(metrics: EpochMetrics) -> None:
        if metrics.stage == 2 and metrics.epoch == 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        retrain(winner, planted_features, tmp_path / "final", on_epoch=stop)
    assert not (tmp_path / "final" / TEST_READS).exists()
    final = retrain(winner, planted_features, tmp_path / "final")
    assert same_weights(final.checkpoint, load_checkpoint(winner.checkpoint))


@pytest.mark.parametrize("content", [None, "{}", "[]", "torn"])
def test_lost_figures_are_one_line_and_never_measured_unasked(
    winner: Winner, planted_features: Features, tmp_path: Path, content: str | None
) -> None:
    retrain(winner, planted_features, tmp_path / "final")
    metrics = tmp_path / "final" / "metrics.json"
    metrics.unlink() if content is None else metrics.write_text(content)
    with pytest.raises(UserError, match="holds no figures of the test split; measure again with --again") as caught:
        retrain(winner, planted_features, tmp_path / "final")
    assert "\n" not in str(caught.value)


def test_a_single_stage_winner_as_searched_is_one_run(
    single: Winner, planted_features: Features, tmp_path: Path
) -> None:
    final = retrain(single, planted_features, tmp_path / "final")
    assert final.path == tmp_path / "final" / "checkpoint_best.pth"
    assert not (tmp_path / "final" / "stage1").exists()
    assert same_weights(final.checkpoint, load_checkpoint(single.checkpoint))
    assert final.value == single.value


def test_one_and_two_stages_do_not_share_a_folder(single: Winner, planted_features: Features, tmp_path: Path) -> None:
    two = replace(single, config=single.config.with_overrides({"recipe.stage1_epochs": 1}))
    retrain(single, planted_features, tmp_path / "one")
    retrain(two, planted_features, tmp_path / "two")
    for other, output, stages in ((two, "one", "one stage"), (single, "two", "two stages")):
        for refuse in (require_free_output, lambda *arguments: retrain(arguments[0], planted_features, arguments[1])):
            with pytest.raises(UserError, match=f"holds a final model of {stages}; choose another --output-dir"):
                refuse(other, tmp_path / output)


@pytest.mark.parametrize("fixture", ["winner", "single"])
def test_on_all_buildings_the_last_epoch_is_kept_and_nothing_is_validated(
    fixture: str, request: pytest.FixtureRequest, planted_features: Features, tmp_path: Path
) -> None:
    everything = on_all_buildings(request.getfixturevalue(fixture))
    final = retrain(everything, planted_features, tmp_path / "final")
    assert final.value is None
    assert final.difference is None
    assert final.checkpoint.epoch == len(final.checkpoint.history) - 1
    assert not same_weights(final.checkpoint, load_checkpoint(everything.checkpoint))
    assert final.card.find("building", reranked=False).split == "test"
    text = (tmp_path / "final" / "model_card.md").read_text()
    assert "no validation figure" in text
    assert "Trained on the training and the validation split" in text


def test_on_all_buildings_candidates_are_re_ranked_as_was_best_for_the_trial(
    winner: Winner, planted_features: Features, tmp_path: Path
) -> None:
    as_trial = retrain(winner, planted_features, tmp_path / "held-out").checkpoint.reranking
    everything = retrain(on_all_buildings(winner), planted_features, tmp_path / "all")
    assert as_trial is not None
    assert everything.checkpoint.reranking == as_trial
    assert everything.card.find("building", reranked=True).rerank_weight == as_trial.weight
    winner.checkpoint.unlink()
    alone = retrain(on_all_buildings(winner), planted_features, tmp_path / "alone")
    assert alone.checkpoint.reranking is None
    assert alone.card.find("building", reranked=True).rerank_weight == 0


def test_a_folder_with_another_final_model_is_refused(
    winner: Winner, planted_features: Features, tmp_path: Path
) -> None:
    retrain(winner, planted_features, tmp_path / "final")
    for other in (on_all_buildings(winner), replace(winner, config=winner.config.with_overrides({"seed": 9}))):
        with pytest.raises(UserError, match="holds a run with another configuration"):
            retrain(other, planted_features, tmp_path / "final")


@pytest.mark.parametrize("name", ["metrics.json", "stage1/log.txt", "experiment_summary.json", "model_card.md"])
def test_foreign_files_are_refused_before_any_work(
    crossmodal: CommandLine, finished_campaign: CampaignFolder, tmp_path: Path, name: str
) -> None:
    theirs = tmp_path / "final" / name
    theirs.parent.mkdir(parents=True)
    theirs.write_text("mine")
    outcome = crossmodal("retrain", finished_campaign.root, "--output-dir", tmp_path / "final")
    assert outcome.code == 2
    assert f"holds {name.split('/')[0]}, which crossmodal did not write" in outcome.err
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == [theirs]
    assert theirs.read_text() == "mine"


def test_a_folder_held_by_a_run_is_refused_by_name(
    crossmodal: CommandLine, finished_campaign: CampaignFolder, tmp_path: Path
) -> None:
    claim_folder(tmp_path, ["stage1", "stage2"])
    with hold_run(tmp_path / "stage2"):
        outcome = crossmodal("retrain", finished_campaign.root, "--output-dir", tmp_path)
    assert outcome.code == 2
    assert f"process {os.getpid()} on " in outcome.err
    assert not (tmp_path / "stage1").exists()

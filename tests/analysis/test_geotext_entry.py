"""Entries for the official leaderboard, checked by the rules that its renderer applies to leaderboard/data.json."""

import json
import math
import secrets
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from analysis.geotext_entry import Submission, official_entry
from core.errors import UserError
from core.files.folders import CampaignFolder
from core.files.json_files import write_json
from core.records import RETRIEVAL_KEYS, Evaluation
from tests.analysis.campaigns import metrics, searched
from tests.analysis.test_boards import card

FULL = {"queries_image": 55_227, "queries_text": 165_681, "groups": 951}
SMALL = {"queries_image": 11_000, "queries_text": 33_000, "groups": 190}
OURS = Submission("A. Person", method="Frozen adapters")
RECALLS = {"txt": ("r1", "r5", "r10"), "img": ("r1", "r5", "r10")}
OFFICIAL = [f"{direction}_{recall}" for direction, recalls in RECALLS.items() for recall in recalls]


def measured(**changes: Any) -> Evaluation:
    recalls = {name: (index + 1) / 10 for index, name in enumerate(RETRIEVAL_KEYS)}
    fields = {"split": "test", "protocol": "geotext-official", "rerank": 0, "metrics": recalls, **FULL, **changes}
    return Evaluation(**fields)


def retrained(root: Path, *evaluations: Evaluation, test: str = "test_951_version.json") -> CampaignFolder:
    """A campaign with a final model of these figures."""
    data = {"train_annotations": str(root / "train.json"), "test_annotations": str(root / test)}
    folder = searched(
        root / secrets.token_hex(4) / "My Campaign",
        [metrics(0.2)],
        train={"data": data, "features": {"backbone": "org/b"}},
    )
    write_json(folder.final_metrics, {"trial": 0, **card(*evaluations).to_json()})
    return folder


def require_accepted(data: dict[str, Any]) -> None:
    """What scripts/render_leaderboard.py asks of leaderboard/data.json, and LEADERBOARD.md of an identifier."""
    assert data["primary_metric"] == "r_mean"
    splits = [board["split"] for board in data["leaderboards"]]
    assert len(splits) == len(set(splits)) > 0
    for board in data["leaderboards"]:
        assert isinstance(board["name"], str)
        assert board["name"]
        identifiers = [entry["id"] for entry in board["entries"]]
        assert len(identifiers) == len(set(identifiers))
        for entry in board["entries"]:
            require_accepted_entry(entry)


def require_accepted_entry(entry: dict[str, Any]) -> None:
    for field in ("id", "method", "submitter", "training_data", "backbone"):
        assert isinstance(entry[field], str)
        assert entry[field].strip()
    assert entry["id"] == entry["id"].lower()
    figures = entry["metrics"]
    for name in OFFICIAL:
        assert isinstance(figures[name], int | float)
        assert not isinstance(figures[name], bool)
        assert 0 <= figures[name] <= 100
    means = {
        f"{direction}_r_mean": math.fsum(figures[f"{direction}_{recall}"] for recall in recalls) / 3
        for direction, recalls in RECALLS.items()
    }
    means["r_mean"] = math.fsum(means.values()) / 2
    for name, mean in means.items():
        assert abs(figures.get(name, mean) - mean) <= 0.05
    for link in ("paper", "code", "checkpoint"):
        assert entry[link] == "" or entry[link].startswith("http")
    assert entry["verified"] is False


@pytest.mark.parametrize(
    ("counts", "file", "split"),
    [(FULL, "test_951_version.json", "full_test_951"), (SMALL, "test_24G_version.json", "test_24g")],
)
def test_the_official_renderer_accepts_an_entry(tmp_path: Path, counts: dict[str, int], file: str, split: str) -> None:
    folder = retrained(tmp_path, measured(**counts), test=file)
    named, entry = official_entry(folder, replace(OURS, paper="https://arxiv.org/abs/2311.12751", notes="Ours."))
    assert named == split
    other = {**json.loads(entry), "id": "official-geotext-full"}
    boards = [{"split": split, "name": "Test", "description": "", "entries": [other, json.loads(entry)]}]
    require_accepted({"version": 1, "primary_metric": "r_mean", "leaderboards": boards})


def test_text_queries_are_txt_and_image_queries_img(tmp_path: Path) -> None:
    entry = json.loads(official_entry(retrained(tmp_path, measured()), OURS)[1])
    assert entry["metrics"] == dict(zip(OFFICIAL, (10.0, 20.0, 30.0, 40.0, 50.0, 60.0), strict=True))


def test_an_entry_says_who_what_and_on_which_data(tmp_path: Path) -> None:
    submission = Submission(
        "A. Person", "Method|1", "Somewhere", "https://a.org/p", "https://a.org/c", "https://a.org/w",
        training_data="GeoText-1652 train, and more", notes="One GPU.", identifier="method-1",
    )  # fmt: skip
    entry = json.loads(official_entry(retrained(tmp_path, measured()), submission)[1])
    fields = ("method", "submitter", "affiliation", "paper", "code", "checkpoint", "training_data", "id", "backbone")
    assert [entry[name] for name in fields] == [
        "Method|1", "A. Person", "Somewhere", "https://a.org/p", "https://a.org/c", "https://a.org/w",
        "GeoText-1652 train, and more", "method-1", "b",
    ]  # fmt: skip
    assert entry["notes"].startswith("One GPU. 55,227 images, 165,681 texts, 951 buildings;")
    assert json.loads(official_entry(retrained(tmp_path, measured()), OURS)[1])["id"] == "frozen-adapters-my-campaign"


@pytest.mark.parametrize("reads", [1, 2])
def test_an_entry_tells_if_the_test_split_was_read_again(tmp_path: Path, reads: int) -> None:
    folder = retrained(tmp_path, measured())
    write_json(folder.final_metrics, replace(card(measured()), test_reads=reads).to_json())
    notes = json.loads(official_entry(folder, OURS)[1])["notes"]
    assert ("read 2 times for this model" in notes) == (reads == 2)


def test_figures_with_a_query_bank_or_another_protocol_do_not_stand_for_official_ones(tmp_path: Path) -> None:
    banked = measured(query_bank="train_captions", metrics=dict.fromkeys(RETRIEVAL_KEYS, 0.9))
    reranked = measured(rerank=5, metrics=dict.fromkeys(RETRIEVAL_KEYS, 0.9))
    by_building = measured(protocol="building", metrics=dict.fromkeys(RETRIEVAL_KEYS, 0.9))
    folder = retrained(tmp_path, banked, reranked, by_building, measured())
    assert json.loads(official_entry(folder, OURS)[1])["metrics"]["txt_r1"] == 10.0
    with pytest.raises(UserError, match="has no figures by geotext-official"):
        official_entry(retrained(tmp_path, banked, reranked, by_building), OURS)


@pytest.mark.parametrize(
    ("changes", "file", "problem"),
    [
        ({"split": "validation"}, "test_951_version.json", "figures of the validation split"),
        ({"unique_texts": True}, "test_951_version.json", "figures with equal texts as one"),
        ({"groups": 100}, "test_951_version.json", "figures of 55,227 images, 165,681 texts and 100 buildings"),
        ({"queries_image": 55_226}, "test_951_version.json", "55,226 images"),
        ({"queries_text": 55_227}, "test_951_version.json", "55,227 texts"),
        ({"queries_text": 165_682}, "test_951_version.json", "165,682 texts"),
        (SMALL, "test_951_version.json", "190 buildings"),
        ({**SMALL, "groups": 250}, "test_24G_version.json", "250 buildings"),
    ],
)
def test_figures_of_anything_else_are_refused(tmp_path: Path, changes: dict[str, Any], file: str, problem: str) -> None:
    folder = retrained(tmp_path, measured(**changes), test=file)
    with pytest.raises(UserError, match=f"{problem}.* do not belong on the leaderboard of GeoText-1652") as refused:
        official_entry(folder, OURS)
    assert "\n" not in str(refused.value)


def test_drawn_data_are_refused_whatever_their_number(tmp_path: Path) -> None:
    folder = retrained(tmp_path, measured())
    (tmp_path / "synthetic.json").touch()
    with pytest.raises(UserError, match=r"figures of synthetic data \(.*synthetic\.json\) do not belong"):
        official_entry(folder, OURS)


@pytest.mark.parametrize(
    ("submission", "option"),
    [
        (Submission(""), "--submitter"),
        (Submission(" \n"), "--submitter"),
        (Submission("a", method=""), "--method"),
        (Submission("a", paper="arxiv.org/abs/1"), "--paper"),
        (Submission("a", code="https://a.org/x) [evil](https://b.org"), "--code"),
        (Submission("a", checkpoint="https://a.org/x|y"), "--checkpoint"),
        (Submission("a", identifier="Not An Id"), "--id"),
    ],
)
def test_an_incomplete_submission_is_refused_by_the_name_of_its_option(
    tmp_path: Path, submission: Submission, option: str
) -> None:
    with pytest.raises(UserError, match=f"^{option}: "):
        official_entry(retrained(tmp_path, measured()), submission)


def test_without_a_final_model_there_is_no_entry(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="there is no final model; run crossmodal retrain"):
        official_entry(searched(tmp_path, [metrics(0.2)]), OURS)

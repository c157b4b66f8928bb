from dataclasses import replace
from pathlib import Path

import pytest
import torch

from core.config import TrainConfig
from core.data.annotations import AnnotatedImage, Region
from core.data.geometry import RELATIONS
from core.errors import UserError
from core.evaluation.embedding import embed_split
from core.evaluation.examples import FOUND, QUERIES, examples_of, load_examples
from core.evaluation.ranking import ranks_by_similarity
from core.evaluation.regions import measure_regions
from core.evaluation.retrieval import both_directions, relevance_of
from core.features.store import Features, FeatureSplit
from core.files.folders import CampaignFolder, RunFolder
from core.model.model import CrossModalModel, build_model
from core.records import Examples
from tests.conftest import planted_split, without_regions


def annotated(split: FeatureSplit) -> list[AnnotatedImage]:
    """Images with one caption and one region each, as a planted split has them; named by their rows."""
    regions = [
        Region(f"sentence {row}", tuple(split.boxes[row].tolist()), int(split.relations[row]))
        for row in range(len(split.boxes))
    ]
    return [
        AnnotatedImage(
            Path(f"{row}"), f"{group}/{row}", str(int(group)), (f"caption {row}",), tuple(regions[row : row + 1])
        )
        for row, group in enumerate(split.groups)
    ]


@pytest.fixture
def model(small_config: TrainConfig, planted_features: Features) -> CrossModalModel:
    torch.manual_seed(0)
    return build_model(small_config, planted_features).eval()


@pytest.fixture
def split() -> FeatureSplit:
    return planted_split(12, seed=1)


@pytest.fixture
def examples(model: CrossModalModel, split: FeatureSplit) -> Examples:
    return examples_of(model, split, annotated(split))


def test_queries_are_right_exactly_if_their_first_image_is(
    model: CrossModalModel, split: FeatureSplit, examples: Examples
) -> None:
    search, _ = both_directions(embed_split(model, split))
    ranks = ranks_by_similarity(search, relevance_of(split, "building", search))
    assert examples.right_queries == int((ranks == 1).sum())
    assert (examples.queries, examples.images) == (36, 36)
    for query in (*examples.right, *examples.wrong):
        row = int(query.caption.removeprefix("caption "))
        assert query.rank == ranks[row]
        assert query.found[0].is_right == (query.rank == 1)
        assert query.image == Path(f"{row}")
    assert all(query.rank == 1 for query in examples.right)
    assert len(examples.wrong) == QUERIES


def test_found_images_are_the_most_similar_and_marked_by_building(split: FeatureSplit, examples: Examples) -> None:
    for query in (*examples.right, *examples.wrong):
        assert len(query.found) == FOUND
        similarities = [each.similarity for each in query.found]
        assert similarities == sorted(similarities, reverse=True)
        building = split.groups[int(query.image.name)]
        assert [each.is_right for each in query.found] == [
            split.groups[int(each.path.name)] == building for each in query.found
        ]


def test_examples_are_of_different_buildings_and_the_same_every_time(
    model: CrossModalModel, split: FeatureSplit, examples: Examples
) -> None:
    buildings = [int(split.groups[int(query.image.name)]) for query in examples.wrong]
    assert len(set(buildings)) == len(buildings)
    assert examples_of(model, split, annotated(split)) == examples


def test_regions_are_as_annotated_and_as_measured(
    model: CrossModalModel, split: FeatureSplit, examples: Examples
) -> None:
    iou = measure_regions(model, embed_split(model, split)).samples["box_iou"].values
    for region in examples.regions:
        row = int(region.image.name)
        assert region.sentence == region.reference_sentence == f"sentence {row}"
        assert region.box == pytest.approx(split.boxes[row].tolist())
        assert region.iou == pytest.approx(iou[row])
        assert region.relation == RELATIONS[int(split.relations[row])]
        assert region.predicted_relation in RELATIONS


def test_data_without_relations_or_regions_has_examples_too(model: CrossModalModel, split: FeatureSplit) -> None:
    unrelated = replace(split, relations=torch.full_like(split.relations, -1))
    assert {region.relation for region in examples_of(model, unrelated, annotated(unrelated)).regions} == {None}
    bare = without_regions(split)
    assert list(examples_of(model, bare, annotated(bare)).regions) == []


def test_a_trial_has_examples_of_its_validation_images(finished_campaign: CampaignFolder, demo: Path) -> None:
    examples = load_examples(finished_campaign.trial(0).best_checkpoint)
    assert examples.images == 9  # of 3 of the 12 buildings
    for query in (*examples.right, *examples.wrong):
        assert query.image.is_relative_to(demo / "images")
        assert query.image.exists()


def test_without_the_features_nothing_is_extracted(
    finished_campaign: CampaignFolder, demo: Path, tmp_path: Path
) -> None:
    checkpoint = tmp_path / "checkpoint.pth"
    content = torch.load(finished_campaign.trial(0).best_checkpoint, weights_only=True)
    content["config"]["features"]["store"] = str(tmp_path / "store")
    torch.save(content, checkpoint)
    with pytest.raises(UserError, match="does not hold the features"):
        load_examples(checkpoint)
    assert not (tmp_path / "store").exists()


def test_data_without_pictures_have_no_examples(finished_campaign: CampaignFolder, tmp_path: Path) -> None:
    checkpoint = tmp_path / "checkpoint.pth"
    content = torch.load(finished_campaign.trial(0).best_checkpoint, weights_only=True)
    content["config"]["data"]["image_root"] = None
    content["config"]["features"] |= {"vectors": "v", "image": "vectors.clip"}
    torch.save(content, checkpoint)
    with pytest.raises(UserError, match=r"the data has no pictures \(data\.image_root is null\)"):
        load_examples(checkpoint)


def test_without_the_annotations_the_file_is_named(
    finished_campaign: CampaignFolder, demo: Path, tmp_path: Path
) -> None:
    checkpoint = tmp_path / "checkpoint.pth"
    content = torch.load(finished_campaign.trial(0).best_checkpoint, weights_only=True)
    content["config"]["data"]["train_annotations"] = str(tmp_path / "gone.json")
    torch.save(content, checkpoint)
    with pytest.raises(UserError, match=r"gone\.json: there is no such file"):
        load_examples(checkpoint)


def test_a_missing_checkpoint_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="there is no such checkpoint"):
        load_examples(RunFolder(tmp_path).best_checkpoint)

import dataclasses
import math
from functools import cache

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional

from core.config import LossConfig, ModelConfig, TrainConfig
from core.data.geometry import RELATIONS, relation_of
from core.data.overlap import paired_iou
from core.features.store import Features, Widths
from core.model.attention import GridAttention, cell_centres
from core.model.grounding import REACH, GroundingHead
from core.model.losses import Negatives, box_loss, relation_loss, weighted_sum
from core.model.model import CrossModalModel, build_model
from core.model.views import ImageView, TextView
from core.training.batches import epoch_batches
from core.training.step import compute_losses

TEXT, GRID, CELLS = 8, 12, 36


def head(seed: int, *, heads: int = 1, dropout: float = 0.0) -> GroundingHead:
    """Nothing of it begins at zero."""
    torch.manual_seed(seed)
    made = GroundingHead(TEXT, GridAttention(CELLS, GRID, "standardize"), dropout=dropout, heads=heads)
    torch.nn.init.normal_(made.get_parameter("box.2.weight"), std=0.1)
    made.attention.norm.use_statistics(torch.randn(GRID), torch.rand(GRID) + 0.5)
    return made.requires_grad_(False)


def textbook(made: GroundingHead, grid: Tensor, text: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Pair vector, location and spread of one text in one image: standardise, project keys, attend, project values."""
    hidden = made.text(text)
    cells = (grid - made.attention.norm.mean) / made.attention.norm.std
    xy, attended, locations, spreads = cell_centres(CELLS).to(grid.dtype), [], [], []
    for queries, places in zip(
        made.content(hidden).chunk(made.heads), made.position(hidden).chunk(made.heads), strict=True
    ):
        logits = [
            sum(queries * cell) / math.sqrt(GRID) + sum(places * code)
            for cell, code in zip(cells, made.attention.positions, strict=True)
        ]
        weights = torch.stack(logits).softmax(dim=0)
        attended.append(sum(weight * cell for weight, cell in zip(weights, cells, strict=True)))
        location = sum(weight * place for weight, place in zip(weights, xy, strict=True))
        spreads.append(sum(w * (place - location) ** 2 for w, place in zip(weights, xy, strict=True)).sqrt())
        locations.append(location)
    found = made.value(torch.cat(attended))
    return torch.cat([found, hidden, found * hidden]), torch.cat(locations), torch.cat(spreads)


@given(st.integers(1, 3), st.integers(0, 1000))
@settings(max_examples=15)
def test_what_is_found_equals_a_textbook_cross_attention(heads: int, seed: int) -> None:
    made = head(seed, heads=heads).double()
    grid, texts = torch.randn(2, CELLS, GRID, dtype=torch.float64), torch.randn(6, TEXT, dtype=torch.float64)
    finding = made.attend(grid, made.queries(texts))
    for row in range(6):
        expected = textbook(made, grid[row // 3], texts[row])
        for part, value in zip(finding, expected, strict=True):
            torch.testing.assert_close(part[row], value)


def test_texts_shown_together_find_what_each_finds_alone() -> None:
    made, grid, texts = head(0, heads=2), torch.randn(4, CELLS, GRID), torch.randn(12, TEXT)
    together = made.attend(grid, made.queries(texts))
    alone = made.attend(grid.repeat_interleave(3, dim=0), made.queries(texts))
    for one, other in zip(together, alone, strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-4)


@given(st.floats(0.0, 1e4), st.integers(0, 1000))
def test_boxes_are_valid_whatever_the_weights(scale: float, seed: int) -> None:
    made = head(seed)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.mul_(scale)
    boxes, _ = made.ground(10 * torch.randn(5, CELLS, GRID).half(), torch.randn(5, 2, TEXT))
    assert boxes.isfinite().all()
    assert (boxes >= 0).all()
    assert (boxes <= 1).all()
    assert (boxes[:, :2] <= boxes[:, 2:]).all()


def test_a_fresh_head_puts_boxes_of_one_size_where_the_text_looks() -> None:
    torch.manual_seed(0)
    made = GroundingHead(TEXT, GridAttention(CELLS, GRID, "none"), dropout=0.0)
    finding = made.attend(torch.randn(5, CELLS, GRID), made.queries(torch.randn(5, TEXT)))
    boxes = made.boxes(finding)
    torch.testing.assert_close((boxes[:, :2] + boxes[:, 2:]) / 2, finding.location)
    torch.testing.assert_close(boxes[:, 2:] - boxes[:, :2], torch.full((5, 2), 1 / (1 + math.exp(1.3))))


@given(st.integers(0, 1000))
def test_a_box_has_its_centre_within_reach_of_where_the_first_head_looks(seed: int) -> None:
    made = head(seed, heads=2)
    torch.nn.init.normal_(made.get_parameter("box.2.weight"))
    finding = made.attend(torch.randn(5, CELLS, GRID), made.queries(torch.randn(5, TEXT)))
    boxes = made.boxes(finding)
    inside = ((boxes > 0) & (boxes < 1)).all(dim=1)  # elsewhere the image cuts a box off
    centres = (boxes[:, :2] + boxes[:, 2:]) / 2
    assert ((centres - finding.location[:, :2]).abs()[inside] <= REACH + 1e-5).all()


def test_relations_depend_on_the_reference_and_boxes_do_not() -> None:
    made, grid = head(0), torch.randn(5, CELLS, GRID)
    phrase, one, other = torch.randn(3, 5, TEXT)
    boxes, relations = made.ground(grid, torch.stack([phrase, one], dim=1))
    same_boxes, others = made.ground(grid, torch.stack([phrase, other], dim=1))
    torch.testing.assert_close(boxes, same_boxes)
    assert (relations - others).abs().max() > 1e-3
    assert relations.shape == (5, len(RELATIONS))


def test_without_logits_of_positions_texts_look_at_the_middle_of_a_blank_image_and_with_them_elsewhere() -> None:
    made, blank, texts = head(0), torch.ones(5, CELLS, GRID), torch.randn(5, TEXT)
    anywhere = made.attend(blank, made.queries(texts)).location
    assert (anywhere - 0.5).abs().max() > 0.01
    torch.nn.init.zeros_(made.position.weight)
    torch.nn.init.zeros_(made.position.bias)
    torch.testing.assert_close(made.attend(blank, made.queries(texts)).location, torch.full((5, 2), 0.5))


@pytest.mark.parametrize("image_pooling", ["none", "attention"])
def test_no_gradient_of_the_heads_reaches_the_retrieval_towers(
    grid_features: Features, small_config: TrainConfig, image_pooling: str
) -> None:
    config = small_config.with_overrides({"model.fusion": "attention", "model.image_pooling": image_pooling})
    model = build_model(config, grid_features)
    generator = torch.Generator().manual_seed(0)
    batch = next(epoch_batches(grid_features.train, config, with_regions=True, generator=generator))
    losses = compute_losses(model, batch, LossConfig(), generator)
    weighted_sum(losses._replace(itc=torch.zeros(())), LossConfig()).backward()
    reached = {name.split(".")[0] for name, value in model.named_parameters() if value.grad is not None}
    assert reached == {"grounding"}
    assert all(value.grad is not None for value in model.grounding.parameters())  # type: ignore[union-attr]


def test_a_match_depends_on_the_similarity_of_the_embeddings() -> None:
    torch.manual_seed(0)
    model = CrossModalModel(Widths(4, TEXT, (CELLS, GRID)), ModelConfig(fusion="attention", embed_dim=5)).eval()
    grid, features = torch.randn(3, CELLS, GRID), torch.randn(3, TEXT)
    image = functional.normalize(torch.randn(3, 5), dim=1)
    near, far = (model.match_odds(ImageView(image, grid), TextView(text, features)) for text in (image, -image))
    assert (near - far).abs().min() > 1e-3


@given(st.lists(st.integers(-1, 4), min_size=15, max_size=15))
@settings(max_examples=20)
def test_pairs_and_negatives_are_those_that_are_shown_one_by_one(drawn: list[int]) -> None:
    torch.manual_seed(0)
    config = ModelConfig(fusion="attention", embed_dim=5, dropout=0.0)
    model = CrossModalModel(Widths(4, TEXT, (CELLS, GRID)), config)
    images = ImageView(functional.normalize(torch.randn(5, 5), dim=1), torch.randn(5, CELLS, GRID))
    texts = TextView(functional.normalize(torch.randn(5, 5), dim=1), torch.randn(5, TEXT))
    hard_texts, random_texts, hard_images = torch.tensor(drawn).view(3, 5)
    odds = model.odds_with_negatives(images, texts, Negatives(torch.stack([hard_texts, random_texts]), hard_images))
    assert odds.shape == (4, 5)
    own = torch.arange(5)
    pairs = [(own, own), (own, hard_texts), (own, random_texts), (hard_images, own)]
    for row, (image_rows, text_rows) in zip(odds, pairs, strict=True):
        exists = (image_rows >= 0) & (text_rows >= 0)
        shown = model.match_odds(images.rows(image_rows.clamp(min=0)), texts.rows(text_rows.clamp(min=0)))
        torch.testing.assert_close(row[exists], shown[exists], atol=1e-5, rtol=1e-4)


@dataclasses.dataclass(frozen=True)
class Scenes:
    """Pictures of two things, and a phrase for each: its code, which the cells of the thing hold, too."""

    grid: Tensor
    sentences: Tensor
    """[N, 2, TEXT], the thing that is meant, and the other one"""
    boxes: Tensor
    relations: Tensor


def scenes(count: int, seed: int) -> Scenes:
    generator = torch.Generator().manual_seed(seed)
    codes = torch.randn(count, 2, TEXT, generator=generator)
    to_cell = torch.randn(TEXT, GRID, generator=torch.Generator().manual_seed(99))
    corners = torch.rand(count, 2, 2, generator=generator) * 0.7
    boxes = torch.cat([corners, corners + 0.3], dim=2)  # [N, 2, 4]
    centres = cell_centres(CELLS)
    inside = ((centres > boxes[:, :, None, :2]) & (centres < boxes[:, :, None, 2:])).all(dim=3)  # [N, 2, CELLS]
    noise = 0.5 * torch.randn(count, CELLS, GRID, generator=generator)
    grid = noise + torch.einsum("ntp,ntd->npd", inside.float(), codes @ to_cell)
    relations = [RELATIONS.index(relation_of(tuple(own), tuple(other))) for own, other in boxes.tolist()]
    return Scenes(grid.half(), codes, boxes[:, 0], torch.tensor(relations))


def trained_on(given: Scenes) -> GroundingHead:
    torch.manual_seed(0)
    cells = given.grid.float().flatten(0, 1)
    made = GroundingHead(TEXT, GridAttention(CELLS, GRID, "standardize"), dropout=0.0)
    made.attention.norm.use_statistics(cells.mean(dim=0), cells.std(dim=0))
    optimizer = torch.optim.Adam(made.parameters(), lr=3e-3)
    for rows in (torch.arange(start, start + 100) % len(given.grid) for start in range(0, 25_000, 100)):
        boxes, relations = made.ground(given.grid[rows], given.sentences[rows])
        loss = 2 * box_loss(boxes, given.boxes[rows], giou=1.0) + 0.3 * relation_loss(relations, given.relations[rows])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return made.requires_grad_(False)


SEEN, UNSEEN = scenes(2000, 0), scenes(300, 1)


@cache
def trained() -> GroundingHead:
    """Not a fixture of the module, which would be made before a test is held to one thread."""
    return trained_on(SEEN)


def reached(made: GroundingHead, given: Scenes) -> tuple[float, float]:
    """Mean IoU, and accuracy of relations."""
    boxes, relations = made.ground(given.grid, given.sentences)
    accuracy = (relations.argmax(dim=1) == given.relations).double().mean()
    return float(paired_iou(boxes, given.boxes).mean()), float(accuracy)


def test_the_head_learns_to_look() -> None:
    """Against the same head that never sees a picture, and against itself when pictures are shuffled."""
    iou, accuracy = reached(trained(), UNSEEN)
    blank = dataclasses.replace(SEEN, grid=torch.zeros_like(SEEN.grid))
    blind_iou, blind_accuracy = reached(
        trained_on(blank), dataclasses.replace(UNSEEN, grid=torch.zeros_like(UNSEEN.grid))
    )
    shuffled_iou, shuffled_accuracy = reached(trained(), dataclasses.replace(UNSEEN, grid=UNSEEN.grid.roll(1, dims=0)))
    assert iou > 0.4
    assert iou > 2 * max(blind_iou, shuffled_iou)
    assert accuracy > 0.2 + max(blind_accuracy, shuffled_accuracy)


def test_a_thing_that_moves_takes_its_box_along() -> None:
    """Two cells to the right, which is a third of the picture, where nothing is pushed over the edge."""
    stays = (UNSEEN.boxes[:, 2] < 0.6) & (UNSEEN.boxes[:, 0] > 0.05)
    grid, sentences = UNSEEN.grid[stays], UNSEEN.sentences[stays]
    moved = grid.view(-1, 6, 6, GRID).roll(2, dims=2).flatten(1, 2)
    before, after = trained().ground(grid, sentences)[0], trained().ground(moved, sentences)[0]
    by = ((after[:, :2] + after[:, 2:]) - (before[:, :2] + before[:, 2:])).median(dim=0).values / 2
    assert float(by[0]) == pytest.approx(1 / 3, abs=0.1)
    assert float(by[1]) == pytest.approx(0, abs=0.05)

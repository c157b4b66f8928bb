from collections.abc import Callable

import pytest
import torch
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy, embedding, l1_loss, normalize

from core.config import LossConfig, TrainConfig
from core.data.overlap import paired_giou
from core.features.store import Features
from core.model.model import CrossModalModel, build_model
from core.sections import Scalar
from core.training.batches import Batch, epoch_batches
from core.training.optimizer import build_optimizer
from core.training.step import WARM_UP, ReplayedStep, TrainStep, build_step, compute_losses
from core.training.train import train
from tests.core.training.recording import record_operations

CHOICES: list[dict[str, Scalar]] = [
    {"model.fusion": "concat"},
    {"model.fusion": "interaction"},
    {"model.fusion": "attention"},
    {"model.image_pooling": "attention", "loss.positives": "text"},
    {"model.fusion": "attention", "model.image_pooling": "attention", "loss.contrastive": "sigmoid"},
]


def prepare(features: Features, config: TrainConfig) -> tuple[CrossModalModel, torch.optim.AdamW]:
    model = build_model(config, features)
    return model.train(), build_optimizer(model, 1e-2, 0.01)


def batches(features: Features, config: TrainConfig, *, with_regions: bool = True) -> list[Batch]:
    generator = torch.Generator().manual_seed(0)
    return [
        batch
        for _ in range(4)
        for batch in epoch_batches(features.train, config, with_regions=with_regions, generator=generator)
    ]


def run(step: TrainStep, optimizer: torch.optim.AdamW, given: list[Batch]) -> torch.Tensor:
    """As an epoch does, at a rate that changes with every step."""
    step.begin_epoch(0)
    torch.manual_seed(0)
    for number, batch in enumerate(given):
        optimizer.param_groups[0]["lr"].fill_(1e-2 / (1 + number))
        step(batch)
    return step.totals


class Counting:
    """`record_operations` with counts of recordings and replays."""

    def __init__(self) -> None:
        self.recorded = self.replayed = 0

    def __call__(self, act: Callable[[], None], generator: torch.Generator) -> Callable[[], None]:
        self.recorded += 1
        replay = record_operations(act, generator)

        def counted() -> None:
            self.replayed += 1
            replay()

        return counted


@pytest.mark.parametrize("changes", CHOICES)
@pytest.mark.parametrize("batching", [(24, True, 1), (24, False, 1), (17, True, 2)])
def test_a_replayed_step_does_bit_for_bit_what_the_step_does(
    grid_features: Features, small_config: TrainConfig, changes: dict[str, Scalar], batching: tuple[int, bool, int]
) -> None:
    batch_size, with_regions, sizes = batching
    config = small_config.with_overrides(
        {"model.dropout": 0.2, "loss.giou": 0.5, "optimizer.batch_size": batch_size} | changes
    )
    given = batches(grid_features, config, with_regions=with_regions)
    model, optimizer = prepare(grid_features, config)
    expected = run(TrainStep(model, optimizer, config.loss), optimizer, given)

    replayed, its_optimizer = prepare(grid_features, config)
    record = Counting()
    totals = run(ReplayedStep(replayed, its_optimizer, config.loss, record), its_optimizer, given)

    assert record.recorded == sizes
    assert record.replayed == len(given) - sizes * WARM_UP
    assert torch.equal(totals, expected)
    for name, weights in model.state_dict().items():
        assert torch.equal(replayed.state_dict()[name], weights), name


@pytest.mark.parametrize(
    "weights",
    [
        LossConfig(),
        LossConfig(itc=0, itm=2),
        LossConfig(itm=0, box=3),
        LossConfig(box=0, spatial=3),
        LossConfig(itm=0.1),
    ],
)
def test_a_step_follows_the_gradient_of_the_weighted_losses(
    planted_features: Features, small_config: TrainConfig, weights: LossConfig
) -> None:
    config = small_config.with_overrides({"model.dropout": 0.0})
    batch = batches(planted_features, config)[0]
    model, _ = prepare(planted_features, config)
    itc, itm, box, spatial = compute_losses(model, batch, LossConfig(), torch.Generator().manual_seed(7))
    loss = weights.itc * itc + weights.itm * itm + weights.box * box + weights.spatial * spatial
    parameters = list(model.parameters())
    before, gradients = [value.detach().clone() for value in parameters], torch.autograd.grad(loss, parameters)
    step = TrainStep(model, torch.optim.SGD(parameters, lr=0.1), weights)
    step.begin_epoch(7)
    step(batch)
    for now, then, gradient in zip(parameters, before, gradients, strict=True):
        torch.testing.assert_close(now.detach(), then - 0.1 * gradient)


@pytest.mark.parametrize("fusion", ["interaction", "attention"])
@pytest.mark.parametrize("weights", [LossConfig(itm=0), LossConfig(itc=0), LossConfig(box=0), LossConfig(spatial=0)])
def test_a_step_never_waits_for_the_device(
    grid_features: Features, small_config: TrainConfig, weights: LossConfig, fusion: str
) -> None:
    config = small_config.with_overrides({"model.fusion": fusion})
    model, optimizer = prepare(grid_features, config)
    step = ReplayedStep(model, optimizer, weights, record_operations)
    run(step, optimizer, batches(grid_features, config))


def plain_losses(model: CrossModalModel, batch: Batch, generator: torch.Generator, giou: float) -> torch.Tensor:
    """Weighted sum of the four losses of linear heads on pooled features, written out for pairs with keys."""
    image = normalize(model.vision_projector(model.vision_adapter(model.vision_norm(batch.images))), dim=-1)
    text = normalize(model.text_projector(model.text_adapter(model.text_norm(batch.texts))), dim=-1)
    (image, region), (text, sentence) = (rows.split([batch.pairs, batch.regions]) for rows in (image, text))
    logits = (image / model.temperature) @ text.T
    same = batch.keys[:, None] == batch.keys
    positives = (logits * same.float()).sum(dim=1) / same.float().sum(dim=1)
    itc = ((logits.logsumexp(dim=1) + logits.logsumexp(dim=0)) / 2 - positives).mean()

    points = torch.rand(2, batch.pairs, 1, generator=generator) * (1 - 1e-6)
    drawn = []
    for scores, point in zip((logits.detach(), logits.detach().T.contiguous()), points, strict=True):
        cumulative = scores.masked_fill(same, -1e9).softmax(dim=1).cumsum(dim=1)
        drawn.append(torch.searchsorted(cumulative, point * cumulative[:, -1:], right=True).squeeze(1))
    own = torch.arange(batch.pairs)
    fused = fuse(
        model, embedding(torch.cat([own, own, drawn[1]]), image), embedding(torch.cat([own, drawn[0], own]), text)
    )
    odds = fused @ model.match_head.weight.diff(dim=0)[0] + model.match_head.bias.diff()
    itm = binary_cross_entropy_with_logits(
        odds, torch.cat([torch.ones_like(own), 0 * own, 0 * own]).float(), reduction="sum"
    )

    pairs = fuse(model, region, sentence)
    free = model.box_head(pairs).sigmoid()
    corner = free[:, :2] * (1 - free[:, 2:])
    boxes = torch.cat([corner, corner + free[:, 2:]], dim=1)
    box = l1_loss(boxes, batch.boxes) + giou * (1 - paired_giou(boxes, batch.boxes)).mean()
    known = (batch.relations >= 0).sum()
    spatial = cross_entropy(model.relation_head(pairs), batch.relations, ignore_index=-1, reduction="sum") / known
    total: torch.Tensor = itc + itm / (3.0 * batch.pairs) + 0.1 * box + 0.1 * spatial
    return total


def fuse(model: CrossModalModel, image: torch.Tensor, text: torch.Tensor) -> torch.Tensor:
    if model.fusion == "concat":
        return torch.cat([image, text], dim=1)
    stretch = image.shape[1] ** 0.5
    image, text = image * stretch, text * stretch
    return torch.cat([image, text, image * text, (image - text).abs()], dim=1)


@pytest.mark.parametrize("fusion", ["concat", "interaction"])
@pytest.mark.parametrize("positives", ["image", "building"])
def test_linear_heads_on_pooled_features_train_to_the_bits_of_the_losses_written_out(
    grid_features: Features, small_config: TrainConfig, fusion: str, positives: str
) -> None:
    """Whatever else a model may look at, the reference configurations cost and give what they always did."""
    changes: dict[str, Scalar] = {"model.fusion": fusion, "loss.positives": positives, "loss.giou": 0.5}
    config = small_config.with_overrides({**changes, "model.dropout": 0.2})
    given = batches(grid_features, config)
    model, optimizer = prepare(grid_features, config)
    run(TrainStep(model, optimizer, config.loss), optimizer, given)
    plain, its_optimizer = prepare(grid_features, config)
    torch.manual_seed(0)
    generator = torch.Generator().manual_seed(0)
    for number, batch in enumerate(given):
        its_optimizer.param_groups[0]["lr"].fill_(1e-2 / (1 + number))
        plain_losses(plain, batch, generator, config.loss.giou).backward()
        its_optimizer.step()
        its_optimizer.zero_grad()
        assert batch.grid is None
    for name, weights in model.state_dict().items():
        assert torch.equal(plain.state_dict()[name], weights), name


def test_the_recording_itself_refuses_what_waits_for_the_device() -> None:
    waits: list[float] = []
    with pytest.raises(RuntimeError, match="reads a value back"):
        record_operations(lambda: waits.append(float(torch.ones(1))), torch.Generator())


def test_a_step_on_the_cpu_runs_as_written(planted_features: Features, small_config: TrainConfig) -> None:
    model, optimizer = prepare(planted_features, small_config)
    assert type(build_step(model, optimizer, small_config)) is TrainStep


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("changes", CHOICES)
def test_a_cuda_graph_trains_as_the_step_itself(
    grid_features: Features, small_config: TrainConfig, changes: dict[str, Scalar]
) -> None:
    config = small_config.with_overrides({**changes, "device": "cuda", "recipe.stage1_epochs": 2})
    captured = train(config, grid_features).last
    eager = train(config.with_overrides({"optimizer.cuda_graph": False}), grid_features).last
    for name, weights in eager.weights.items():
        torch.testing.assert_close(captured.weights[name], weights, rtol=1e-3, atol=1e-4)

import io
import math
import re
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from core.config import TrainConfig
from core.errors import UserError
from core.features.store import Features, Statistics
from core.model.checkpoints import (
    ZIP_MAGIC,
    Checkpoint,
    load_checkpoint,
    parse_checkpoint,
    restore_model,
    save_checkpoint,
    widths_of,
)
from core.records import Reranking
from core.training.train import train
from tests.conftest import planted_split


def test_a_checkpoint_reads_back_and_continues_bit_equal(
    tmp_path: Path, planted_features: Features, small_config: TrainConfig
) -> None:
    def keep(metrics: object, checkpoint: object) -> None:
        if not path.exists():
            save_checkpoint(path, checkpoint)  # type: ignore[arg-type]

    path = tmp_path / "checkpoint_0.pth"
    whole = train(small_config, planted_features, keep)
    continued = train(small_config, planted_features, resume_from=load_checkpoint(path, fingerprint="planted"))
    assert all(torch.equal(whole.last.weights[name], value) for name, value in continued.last.weights.items())


def test_the_best_epoch_is_kept_apart_from_the_last(planted_features: Features, small_config: TrainConfig) -> None:
    result = train(small_config, planted_features)
    best = max(result.history, key=lambda metrics: metrics.recall_mean)
    assert result.best.epoch == best.epoch
    assert result.best.optimizer is None


def test_how_to_rerank_is_stored_and_an_older_checkpoint_has_none(last: Checkpoint, tmp_path: Path) -> None:
    assert "reranking" not in content_of(last)
    assert load(last, tmp_path).reranking is None
    chosen = Reranking(16, 0.25, "recall_mean", plain=0.5, reranked=0.625)
    assert load(replace(last, reranking=chosen), tmp_path).reranking == chosen


def load(checkpoint: Checkpoint, folder: Path) -> Checkpoint:
    save_checkpoint(folder / "a.pth", checkpoint)
    return load_checkpoint(folder / "a.pth")


@pytest.mark.parametrize("damage", ["truncated", "garbage", "pickle", "empty"])
def test_a_damaged_file_is_one_clear_line(
    tmp_path: Path, planted_features: Features, small_config: TrainConfig, damage: str
) -> None:
    path = tmp_path / "checkpoint_best.pth"
    save_checkpoint(path, train(small_config, planted_features).best)
    content = path.read_bytes()
    match damage:
        case "truncated":
            path.write_bytes(content[: len(content) // 2])
        case "garbage":
            path.write_bytes(b"not a checkpoint at all")
        case "pickle":
            torch.save({"config": Path("/etc/passwd")}, path)  # a class that weights_only must refuse
        case "empty":
            path.write_bytes(b"")
    with pytest.raises(UserError, match=r"checkpoint_best\.pth: is damaged, or not a checkpoint") as caught:
        load_checkpoint(path)
    assert "\n" not in str(caught.value)


def test_a_checkpoint_of_other_features_is_refused(
    tmp_path: Path, planted_features: Features, small_config: TrainConfig
) -> None:
    path = tmp_path / "checkpoint_best.pth"
    save_checkpoint(path, train(small_config, planted_features).best)
    with pytest.raises(UserError, match="was trained on features planted, not on others"):
        load_checkpoint(path, fingerprint="others")


def test_a_missing_checkpoint_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"nowhere\.pth: there is no such checkpoint"):
        load_checkpoint(tmp_path / "nowhere.pth")


@given(st.binary(max_size=200))
def test_bytes_that_are_no_checkpoint_are_refused_in_one_line(data: bytes) -> None:
    for content in (data, ZIP_MAGIC + data):
        with pytest.raises(UserError, match=r"x\.pth: is damaged"):
            parse_checkpoint(content, where="x.pth")


def content_of(checkpoint: Checkpoint) -> dict[str, Any]:
    """What a checkpoint's file holds; its tensors may be changed in place."""
    stream = io.BytesIO(saved(checkpoint))
    content: dict[str, Any] = torch.load(stream, weights_only=True)
    return content


def saved(checkpoint: Checkpoint) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        save_checkpoint(Path(folder) / "a.pth", checkpoint)
        return (Path(folder) / "a.pth").read_bytes()


def refusal(content: object) -> str:
    """The line that refuses a file of this content."""
    stream = io.BytesIO()
    torch.save(content, stream)
    with pytest.raises(UserError) as caught:
        parse_checkpoint(stream.getvalue(), where="a.pth")
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.fixture(scope="module")
def last() -> Checkpoint:
    """After two epochs; with the state of its optimizer."""
    config = TrainConfig().with_overrides({"model.adapter_width": 8, "model.embed_dim": 4, "optimizer.batch_size": 24})
    config = config.with_overrides({"recipe.epochs": 2, "device": "cpu"})
    train_split = planted_split(12, seed=0)
    statistics = Statistics(*(torch.zeros(16), torch.ones(16), torch.zeros(20), torch.ones(20)))
    return train(config, Features("planted", train_split, planted_split(4, seed=1), statistics)).last


@pytest.mark.parametrize("field", ["weights", "best_weights"])
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_weights_that_are_not_finite_are_refused(last: Checkpoint, field: str, value: float) -> None:
    content = content_of(last)
    content[field]["match_head.bias"] = torch.tensor([0.0, value])
    assert "a.pth: holds weights that are not finite" in refusal(content)


CHOSEN = Reranking(16, 0.25, "recall_mean", plain=0.5, reranked=0.625).to_json()
CHANGES: dict[str, Callable[[dict[str, Any]], object]] = {
    "no history": lambda c: c.update(history=[]),
    "a gap in the history": lambda c: c["history"].pop(0),
    "an epoch of no history": lambda c: c.update(epoch=7),
    "an earlier epoch than the optimizer's": lambda c: c.update(epoch=0),
    "more epochs than the recipe": lambda c: c["config"]["recipe"].update(epochs=1),
    "a boolean epoch": lambda c: c.update(epoch=True),
    "re-ranking of no candidates": lambda c: c.update(reranking=CHOSEN | {"depth": 0}),
    "re-ranking with a negative weight": lambda c: c.update(reranking=CHOSEN | {"weight": -1.0}),
    "re-ranking with an endless weight": lambda c: c.update(reranking=CHOSEN | {"weight": math.inf}),
    "re-ranking without a weight": lambda c: c.update(reranking={"depth": 3}),
    "re-ranking that is none": lambda c: c.update(reranking=None),
    "another key": lambda c: c.update(schema=2),
    "no best weights": lambda c: c.pop("best_weights"),
    "best weights of another shape": lambda c: c["best_weights"].update({"match_head.bias": torch.zeros(3)}),
    "best weights of other names": lambda c: c["best_weights"].pop("match_head.bias"),
    "a list of weights": lambda c: c.update(weights=[torch.zeros(2)]),
    "weights that are numbers": lambda c: c["weights"].update({"match_head.bias": 1.0}),
    "sparse weights": lambda c: c["weights"].update({"match_head.bias": torch.ones(2).to_sparse()}),
    "an optimizer without state": lambda c: c.update(optimizer={}),
    "a receipt of another version": lambda c: c["receipt"].update(schema=2),
    "a receipt without its groups": lambda c: c["receipt"].update(optimizer_groups=[{}]),
    "a key of two lines in the configuration": lambda c: c["config"].update({"a\nb": 1}),
    "a list as configuration": lambda c: c.update(config=[]),
    "a fingerprint of two lines": lambda c: c.update(fingerprint="a\nb"),
    "an endless fingerprint": lambda c: c.update(fingerprint="a" * 5000),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES.keys())
def test_a_checkpoint_that_is_not_of_one_run_is_refused_in_one_line(
    last: Checkpoint, change: Callable[[dict[str, Any]], object]
) -> None:
    content = content_of(last)
    change(content)
    assert re.match(r"a\.pth: (is damaged|'a\\nb' is not a setting)[^\n]*$", refusal(content))


@given(st.data())
@settings(max_examples=60)
def test_changed_bytes_are_a_checkpoint_or_one_line(last: Checkpoint, data: st.DataObject) -> None:
    raw = bytearray(saved(last))
    for _ in range(data.draw(st.integers(1, 4))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    assert_checkpoint_or_one_line(bytes(raw))


KINDS = [torch.float16, torch.int64, torch.complex64, torch.bool]
TENSORS = st.builds(lambda size, kind: torch.zeros(size, dtype=kind), st.integers(0, 3), st.sampled_from(KINDS))
LEAVES = [st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=20), st.binary(max_size=5), TENSORS]
ANYTHING = st.recursive(
    st.one_of(LEAVES),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5) | st.integers(0, 9), inner, max_size=3)
    ),
    max_leaves=6,
)


@given(st.data())
@settings(max_examples=100)
def test_changed_content_is_a_checkpoint_or_one_line(last: Checkpoint, data: st.DataObject) -> None:
    place = content = content_of(last)
    keys = sorted(content)
    key = data.draw(st.sampled_from(keys))
    while isinstance(place[key], dict) and place[key] and data.draw(st.booleans()):  # somewhere inside
        place = place[key]
        key = data.draw(st.sampled_from(sorted(place, key=str)))
    if data.draw(st.booleans()):
        place[key] = data.draw(ANYTHING)
    else:
        del place[key]
    stream = io.BytesIO()
    torch.save(content, stream)
    assert_checkpoint_or_one_line(stream.getvalue())


def assert_checkpoint_or_one_line(data: bytes) -> None:
    try:
        checkpoint = parse_checkpoint(data, where="a.pth")
    except UserError as error:
        refused = str(error)
    else:
        refused = ""
        assert checkpoint.best().epoch == checkpoint.best_epoch
    assert "\n" not in refused


def test_a_checkpoint_cut_anywhere_is_refused(
    planted_features: Features, small_config: TrainConfig, tmp_path: Path
) -> None:
    last = train(small_config.with_overrides({"recipe.epochs": 1}), planted_features).last
    save_checkpoint(tmp_path / "a.pth", last)
    data = (tmp_path / "a.pth").read_bytes()
    for share in (0.01, 0.3, 0.6, 0.9, 0.999):
        with pytest.raises(UserError, match="is damaged"):
            parse_checkpoint(data[: int(share * len(data))], where="a.pth")


def test_a_model_is_restored_from_its_weights_alone(grid_features: Features, small_config: TrainConfig) -> None:
    for fusion, pooling in (("interaction", "none"), ("concat", "attention"), ("attention", "none")):
        config = small_config.with_overrides({"model.fusion": fusion, "model.image_pooling": pooling})
        trained = train(config.with_overrides({"recipe.epochs": 1}), grid_features).best
        widths = widths_of(trained)
        assert (widths.images, widths.texts) == (grid_features.vision_dim, grid_features.text_dim)
        assert widths.grid == (None if pooling == "none" and fusion == "interaction" else (25, 12))
        model = restore_model(trained)
        assert torch.equal(model.vision_norm.mean, grid_features.statistics.image_mean)
        assert all(torch.equal(value, trained.weights[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize(
    ("name", "weight", "problem"),
    [
        ("vision_adapter.0.weight", None, "has no vision_adapter.0.weight"),
        ("vision_adapter.0.weight", torch.zeros(3, 16), r"holds vision_adapter.0.weight as \[3, 16\]"),
        ("text_adapter.0.weight", torch.zeros(32, 0), r"holds text_adapter.0.weight as \[32, 0\]"),
        ("text_adapter.0.weight", torch.zeros(1, 1).expand(32, 10**9), "holds text_adapter.0.weight as"),
        ("box_head.weight", torch.zeros(2, 2), "holds box_head.weight as"),
    ],
)
def test_weights_that_do_not_fit_are_one_clear_line(
    last: Checkpoint, name: str, weight: torch.Tensor | None, problem: str
) -> None:
    weights = {key: value for key, value in last.weights.items() if key != name}
    damaged = replace(last, weights=weights if weight is None else {**weights, name: weight})
    with pytest.raises(UserError, match=problem):
        restore_model(damaged)

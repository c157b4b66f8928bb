import os
from pathlib import Path

import pytest
from transformers import InternVLModel

from core.config import TrainConfig
from core.errors import UserError
from core.features.inputs import read_inputs
from core.sections import Scalar


def test_it_stays_the_same_for_what_features_do_not_depend_on(demo_config: TrainConfig) -> None:
    changed = demo_config.with_overrides({"model.adapter_width": 8, "seed": 5, "features.text": "lm.mean"})
    assert read_inputs(changed).parts == read_inputs(demo_config).parts


@pytest.mark.parametrize(
    "change",
    [
        {"features.max_tokens": 16},
        {"features.image_size": 56},
        {"features.dtype": "bfloat16"},
        {"data.split_seed": 1},
    ],
)
def test_it_changes_with_what_features_depend_on(demo_config: TrainConfig, change: dict[str, Scalar]) -> None:
    changed = demo_config.with_overrides(change)
    assert read_inputs(changed).parts.fingerprint != read_inputs(demo_config).parts.fingerprint


def fingerprint(config: TrainConfig) -> str:
    return read_inputs(config).parts.fingerprint


def shard(folder: Path) -> None:
    """The same weights in several files."""
    model = InternVLModel.from_pretrained(folder, local_files_only=True)
    (folder / "model.safetensors").unlink()
    model.save_pretrained(folder, max_shard_size="1MB")


def test_where_the_files_lie_does_not_matter(moved: TrainConfig, demo_config: TrainConfig) -> None:
    assert fingerprint(moved) == fingerprint(demo_config)


LOADED = (
    *("config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json", "preprocessor_config.json"),
    *("processor_config.json", "vocab.json", "vocab.txt", "merges.txt", "tokenizer.model", "added_tokens.json"),
    *("special_tokens_map.json", "chat_template.jinja", "tokenizer.4.0.0.json"),
)


@pytest.mark.parametrize("name", LOADED)
def test_a_byte_of_any_file_that_is_loaded_changes_it(copy: Path, moved: TrainConfig, name: str) -> None:
    path = copy / "tiny-internvl" / name
    before = fingerprint(moved)
    path.write_bytes((path.read_bytes() if path.exists() else b"{}") + b" ")
    between = fingerprint(moved)
    path.write_bytes(path.read_bytes()[:-1] + b"\n")
    assert len({before, between, fingerprint(moved)}) == 3


@pytest.mark.parametrize("pattern", ["model.safetensors.index.json", "model-00001-of-*", "model-00002-of-*"])
def test_a_byte_of_the_index_or_of_any_shard_changes_it(copy: Path, moved: TrainConfig, pattern: str) -> None:
    shard(copy / "tiny-internvl")
    before = fingerprint(moved)
    (path,) = (copy / "tiny-internvl").glob(pattern)
    path.write_bytes(path.read_bytes() + b" ")
    assert fingerprint(moved) != before


@pytest.mark.parametrize(
    "name", ["pytorch_model.bin", "README.md", "generation_config.json", "model.fp16.safetensors", "flax_model.msgpack"]
)
def test_what_is_not_loaded_does_not_change_it(copy: Path, moved: TrainConfig, name: str) -> None:
    before = fingerprint(moved)
    (copy / "tiny-internvl" / name).write_bytes(b"of another model")
    assert fingerprint(moved) == before


def test_two_pickled_models_do_not_share_one(copy: Path, moved: TrainConfig) -> None:
    folder = copy / "tiny-internvl"
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(UserError, match=r"pytorch_model\.bin is pickled"):
        read_inputs(moved)


def test_a_replaced_image_of_equal_size_and_time_changes_it(copy: Path, moved: TrainConfig) -> None:
    before = fingerprint(moved)
    path = next((copy / "images").rglob("*.jpeg"))
    stat = path.stat()
    path.write_bytes(path.read_bytes()[:-1] + b"\0")
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert fingerprint(moved) != before


def test_its_cache_is_in_the_folder_of_stores_and_nothing_else_there_is_touched(
    demo_config: TrainConfig,
) -> None:
    root = demo_config.features.store
    (root / "digests").mkdir(parents=True)
    theirs = {root / "thesis.tex": "mine", root / "digests" / "a.txt": "mine", root / "identity.json": "not JSON"}
    for path, content in theirs.items():
        path.write_text(content)
    assert fingerprint(demo_config) == fingerprint(demo_config)
    assert {path: path.read_text() for path in theirs} == theirs

"""Checkpoints in a folder, and on an S3-compatible server that the test starts on loopback."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from moto.server import ThreadedMotoServer
from pyarrow import fs

from core.config import TrainConfig
from core.errors import UserError
from core.features.store import Features
from core.model.checkpoints import Checkpoint, save_checkpoint
from core.training.train import train
from search.session.storage import CHECKPOINT_NAME, Storage


@pytest.fixture(params=["folder", "s3"])
def storage(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Storage]:
    if request.param == "folder":
        yield Storage(str(tmp_path / "sessions"))
        return
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "test")
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    server.start()
    host, port = server.get_host_and_port()
    options = f"scheme=http&endpoint_override={host}:{port}&region=us-east-1&allow_bucket_creation=true"
    yield Storage(f"s3://campaigns/test?{options}")
    server.stop()


@pytest.fixture
def checkpoint(planted_features: Features, small_config: TrainConfig) -> Checkpoint:
    return train(small_config.with_overrides({"recipe.epochs": 1}), planted_features).last


def put(storage: Storage, place: str, content: bytes) -> None:
    filesystem, root = fs.FileSystem.from_uri(storage.root)
    filesystem.create_dir(f"{root}/{place}", recursive=True)
    with filesystem.open_output_stream(f"{root}/{place}/{CHECKPOINT_NAME}") as stream:
        stream.write(content)


def test_a_trials_checkpoints_are_found_read_and_cleared(
    storage: Storage, checkpoint: Checkpoint, tmp_path: Path
) -> None:
    storage.require_writable()
    save_checkpoint(tmp_path / "a.pth", checkpoint)
    put(storage, "1/0007/checkpoint_000000", (tmp_path / "a.pth").read_bytes())
    put(storage, "1/0008/checkpoint_000000", b"torn")
    (found,) = storage.checkpoints_of(7)
    read = storage.read_checkpoint(found)
    assert read is not None
    assert read.history == checkpoint.history
    (torn,) = storage.checkpoints_of(8)
    assert storage.read_checkpoint(torn) is None
    assert storage.checkpoints_of(9) == []
    storage.clear(["1"])
    assert storage.checkpoints_of(7) == []


def test_the_newest_comes_first(tmp_path: Path) -> None:
    storage = Storage(str(tmp_path))
    for session, when in (("1", 300), ("2", 100), ("3", 200)):
        put(storage, f"{session}/0000/checkpoint_000000", b"")
        os.utime(tmp_path / session / "0000" / "checkpoint_000000" / CHECKPOINT_NAME, (when, when))
    assert [path.split("/")[-4] for path in storage.checkpoints_of(0)] == ["1", "3", "2"]


def test_a_place_that_cannot_be_written_is_one_line_without_secrets(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot be written"):
        Storage(str(tmp_path / "file" / "below")).require_writable()
    with pytest.raises(UserError) as refused:
        Storage("nowhere://bucket/x?secret_key=hidden").require_writable()
    assert "hidden" not in str(refused.value).replace(str(refused.value.what), "")


def test_only_the_sessions_of_this_campaign_are_removed(storage: Storage) -> None:
    """The location is the user's: other files, other campaigns and unknown sessions stay."""
    first, second = (Storage.of_campaign(storage.root, "demo", identity) for identity in ("aa", "bb"))
    put(storage, "thesis", b"mine")
    for campaign in (first, second):
        campaign.require_writable()
        put(campaign, "0001-x/0000/checkpoint_000000", b"")
    put(first, "notes", b"mine")
    first.clear(["0001-x", "0002-never"])
    assert first.checkpoints_of(0) == []
    assert len(second.checkpoints_of(0)) == 1
    assert content(storage, "thesis") == content(first, "notes") == b"mine"
    second.clear(["0001-x"])
    assert content(storage, "thesis") == b"mine"
    filesystem, root = fs.FileSystem.from_uri(storage.root)
    left = filesystem.get_file_info(fs.FileSelector(root))
    assert {info.base_name for info in left} == {"thesis", "demo-aa"}


def content(storage: Storage, place: str) -> bytes:
    filesystem, root = fs.FileSystem.from_uri(storage.root)
    with filesystem.open_input_stream(f"{root}/{place}/{CHECKPOINT_NAME}") as stream:
        return bytes(stream.read())


def test_a_number_in_the_place_itself_is_no_trial(tmp_path: Path) -> None:
    storage = Storage(str(tmp_path / "0007"))
    put(storage, "1/0003/checkpoint_000000", b"")
    assert storage.checkpoints_of(7) == []
    assert len(storage.checkpoints_of(3)) == 1


@pytest.mark.parametrize(
    ("place", "root"),
    [
        ("/data/store/", "/data/store/demo-aa"),
        ("s3://bucket/prefix?region=x/y", "s3://bucket/prefix/demo-aa?region=x/y"),
        ("/odd?name", "/odd?name/demo-aa"),
    ],
)
def test_a_campaign_works_in_a_folder_of_its_own(place: str, root: str) -> None:
    assert Storage.of_campaign(place, "demo", "aa").root == root

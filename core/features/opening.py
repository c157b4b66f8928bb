"""Opening the features of a configuration: extracted first if they are missing, or computed live.

The one entry point for commands, campaigns and benchmarks. Prints nothing itself: it reports to a `FeatureDisplay`.
"""

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Protocol

from core.config import TrainConfig
from core.errors import UserError
from core.features.extraction import EncodeShards, Extraction, Shard, encode_here, extract_features
from core.features.inputs import FeatureInputs, read_inputs
from core.features.manifest import missing_readings
from core.features.store import Features, FeatureStore
from core.features.vector_store import copy_rows, extract_with_vectors, require_vectors


class FeatureDisplay(Protocol):
    """Receives the progress of opening features."""

    def note(self, text: str) -> None:
        """Announce what is about to be done."""

    def warn(self, text: str) -> None:
        """Point out something the user may not expect."""

    def progress(self, kind: str, done: int, total: int) -> None:
        """Update the number of encoded inputs of a kind ('images' or 'texts')."""


class NoDisplay:
    """No-op display."""

    def note(self, text: str) -> None:
        pass

    def warn(self, text: str) -> None:
        pass

    def progress(self, kind: str, done: int, total: int) -> None:
        pass


def prepare_features(
    config: TrainConfig,
    wanted: Extraction | None = None,
    *,
    encode: EncodeShards | None = None,
    display: FeatureDisplay | None = None,
) -> FeatureStore:
    """The feature store of a configuration; readings that it lacks are extracted first.

    Args:
        wanted: the inputs of this configuration and the readings; by default those that the configuration names.
        encode: how shards are encoded; by default the backbone is loaded in this process.
    Raises:
        UserError: an input cannot be read or changed during extraction, the backbone cannot be loaded or cannot give a
            reading, or the vectors lack a reading, an image or a text.
    """
    display = display or NoDisplay()
    wanted = wanted or Extraction(read_inputs(config), config.readings.all)
    root, fingerprint = config.features.store, wanted.inputs.parts.fingerprint
    if FeatureStore.exists(root, fingerprint, wanted.readings):
        return FeatureStore.open(root, fingerprint)
    missing = missing_readings(root, fingerprint, wanted.readings)
    require_vectors(wanted.inputs, missing)
    names = ", ".join(reading.name for reading in missing)
    if (root / fingerprint).exists():
        display.note(f"adding {names} to features {fingerprint}")
    else:
        _note_annotations(wanted.inputs, display)
        display.note(
            f"extracting features {fingerprint} with {config.features.backbone or config.features.encoders}: {names}"
        )
    vectors, unchanged = wanted.inputs.vectors, partial(_of_unchanged_files, config, wanted.inputs)
    if vectors is None:
        return extract_features(wanted, unchanged(encode or _load_and_encode(config)), root, display.progress)
    encode = unchanged(encode or _encode_when_needed(config))
    return extract_with_vectors(wanted, encode, unchanged(copy_rows(vectors)), root, display.progress)


def open_features(
    config: TrainConfig,
    *,
    inputs: FeatureInputs | None = None,
    with_test: bool = False,
    display: FeatureDisplay | None = None,
) -> Features:
    """The features that a run reads: from the store, extracted first if they are missing, or computed live.

    Raises:
        UserError: as `prepare_features`; or the store has no test split, though it is asked for.
    """
    display = display or NoDisplay()
    if config.features.source == "live":
        return _open_live(config, inputs or read_inputs(config), with_test=with_test, display=display)
    store = prepare_features(config, Extraction(inputs or read_inputs(config), config.readings.all), display=display)
    return store.features(config.readings, allow_degenerate=config.features.allow_degenerate, with_test=with_test)


def _open_live(config: TrainConfig, inputs: FeatureInputs, *, with_test: bool, display: FeatureDisplay) -> Features:
    from core.backbone.internvl import load_backbone
    from core.features.live import live_features

    display.note(
        "the frozen backbone runs in the training loop (features.source: live); cached features are far faster"
    )
    _note_annotations(inputs, display)
    return live_features(inputs, load_backbone(config.features, config.device), config, with_test=with_test)


def _load_and_encode(config: TrainConfig) -> EncodeShards:
    from core.backbone.internvl import load_backbone  # importing transformers takes seconds

    return encode_here(load_backbone(config.features, config.device))


def _encode_when_needed(config: TrainConfig) -> EncodeShards:
    """Loads the backbone with the first shard: beside vectors there may be none."""
    return lambda shards: _load_and_encode(config)(shards)


def _note_annotations(inputs: FeatureInputs, display: FeatureDisplay) -> None:
    for kind, count in inputs.repaired.items():
        display.warn(f"repaired in the annotations: {kind}, {count:,} times")
    for note, count in inputs.notes.items():
        display.warn(f"to be noted in the annotations: {note}, {count:,} times")


def _of_unchanged_files(config: TrainConfig, inputs: FeatureInputs, encode: EncodeShards) -> EncodeShards:
    """Encode as `encode` does; fail at the end if an input changed, since the fingerprint would be wrong."""

    def encode_and_compare(shards: Sequence[Shard]) -> Iterator[tuple[Shard, bytes]]:
        yield from encode(shards)
        if read_inputs(config).parts != inputs.parts:
            raise UserError(
                "data, backbone or vectors changed while features were extracted", how="run the same command again"
            )

    return encode_and_compare

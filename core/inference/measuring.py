"""A test set of any annotations, encoded alone for one model: neither its features nor its training data are read.

Features lie in a store by their fingerprint, so that an interrupted evaluation continues and a repeated one encodes
nothing. What the test set shares with the model's own data is counted, as far as that data is still there.
"""

from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from core.backbone.checkpoint_files import backbone_files
from core.backbone.hub import checkpoint_folder
from core.data.annotations import AnnotatedImage, Annotations, read_annotations
from core.errors import UserError
from core.evaluation.scorecard import MeasuredSet
from core.features.extraction import EncodeShards, Extraction, Shard, encode_here, extract_features
from core.features.fingerprint import FingerprintParts, data_digest, fingerprint_parts
from core.features.inputs import DIGESTS, FeatureInputs
from core.features.opening import FeatureDisplay
from core.features.store import FeatureStore
from core.inference.encoding import backbone_of, require_backbone
from core.inference.identity import require_same_backbone

if TYPE_CHECKING:
    from core.inference.retrieval_model import RetrievalModel

LEFT_OUT = (
    "left out, since they need the training split: the baselines text only and mean box, and with them the verdict on "
    "boxes and relations; the query bank"
)


@dataclass(frozen=True, slots=True)
class Shared:
    """Images of a test set that the model's own data also has; None where that data is not there."""

    trained_on: int | None
    own_test: int | None


def read_test_set(model: "RetrievalModel", annotations: Path, images: Path, store: Path) -> FeatureInputs:
    """The inputs of a test set, and the fingerprint of its features.

    Args:
        images: folder that the paths of the annotations start from.
        store: folder of feature stores.
    Raises:
        UserError: a mistake in the annotations, a missing file, or a backbone that is not there or not the model's.
    """
    require_backbone(model.config, model.name)
    read = read_annotations(annotations.resolve(), images.resolve())
    parts = _parts(model, read, store)
    require_same_backbone(model, parts.backbone)
    return FeatureInputs({"test": read.images}, parts, read.repaired, read.notes)


def open_test_set(
    model: "RetrievalModel", inputs: FeatureInputs, store: Path, *, name: str, display: FeatureDisplay
) -> MeasuredSet:
    """The features of a test set, of which those that are missing are extracted first.

    Args:
        name: of the test set, in tables.
    Raises:
        UserError: an image cannot be read, a file changed meanwhile, or the backbone cannot be loaded.
    """
    readings, fingerprint = model.config.readings, inputs.parts.fingerprint
    if not FeatureStore.exists(store, fingerprint, readings.all):
        display.note(f"extracting features {fingerprint} of {name}")
    opened = extract_features(Extraction(inputs, readings.all), _encode(model, inputs, store), store, display.progress)
    return MeasuredSet(opened.split("test", readings), name, fingerprint, opened.backbone_parameters(readings))


def shared_images(model: "RetrievalModel", images: Sequence[AnnotatedImage]) -> Shared:
    """How many images of a test set are also in the annotations that a model was trained or tested on."""
    data, tested = model.checkpoint.config.data, [image.path.resolve() for image in images]
    counts: list[int | None] = []
    for annotations in (data.train_annotations, data.test_annotations):
        count = None
        if annotations is not None:
            with suppress(UserError):
                own = {image.path.resolve() for image in read_annotations(annotations, data.image_root).images}
                count = sum(path in own for path in tested)
        counts.append(count)
    return Shared(*counts)


def _parts(model: "RetrievalModel", read: Annotations, store: Path) -> FingerprintParts:
    files = backbone_files(checkpoint_folder(backbone_of(model.config)))
    data = data_digest({"test": read.images}, store / DIGESTS)
    return fingerprint_parts(model.config.features, files, data, store / DIGESTS)


def _encode(model: "RetrievalModel", inputs: FeatureInputs, store: Path) -> EncodeShards:
    """Encode with the model's backbone; fail at the end if an input changed, since the fingerprint would be wrong."""

    def encode(shards: Sequence[Shard]) -> Iterator[tuple[Shard, bytes]]:
        yield from encode_here(model.encoder.backbone)(shards)
        read = Annotations(list(inputs.images["test"]), {}, {})
        if _parts(model, read, store) != inputs.parts:
            raise UserError("pictures or backbone changed while features were extracted", how="run it again")

    return encode

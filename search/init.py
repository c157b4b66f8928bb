"""A training and a campaign file for the data at hand, with a comment on each setting.

What the data lack is left out: without boxes there are no losses of boxes and relations, neither in the space nor in
the constraints.
"""

import json
import os
import re
from dataclasses import dataclass
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined

from core.config import TrainConfig
from core.data.annotations import NO_RELATION, AnnotatedImage, read_annotations
from core.data.checks import shared_captions
from core.data.splits import split_by_group
from core.errors import UserError
from core.files.atomic import write_atomically
from core.files.json_files import read_json
from core.files.ownership import claim_folder, require_ours

FILES = ("train.yaml", "campaign.yaml")
MOST_PAIRS = 512
"""Pairs of a batch, where there are images enough."""
FEW_GROUPS = 50
"""Groups below which a quarter of them is held out, since a tenth would measure nothing."""
REPEATED = 0.01
"""Share of captions under several groups from which on they are counted as positives."""
MANY_CAPTIONS = 50_000
"""Training captions from which on few epochs are enough."""
LONG_CAPTION = 80
"""Words beyond which a text may have more than the default number of tokens."""
PLAIN = re.compile(r"[A-Za-z0-9_./-]*/[A-Za-z0-9_./-]*")


@dataclass(frozen=True, slots=True)
class Data:
    """What a folder of annotations holds, as far as settings depend on it."""

    images: int
    captions: int
    groups: int
    training_images: int
    """Without those that are held out."""
    validation_fraction: float
    regions: int
    related: int
    """Regions with a relation to another one."""
    repeated: int
    """Captions that stand under another group, too."""
    longest: int
    """Words of the longest text."""
    test: str | None
    """Name of the file of test annotations."""

    @property
    def has_groups(self) -> bool:
        """Whether an image shares its group with another one."""
        return self.groups < self.images

    @property
    def batch_size(self) -> int:
        """The largest power of two that leaves several steps an epoch, below the number of training images."""
        size = 2
        while size * 4 <= self.training_images and size < MOST_PAIRS:
            size *= 2
        return size

    @property
    def positives(self) -> str:
        """Which pairs of a batch match."""
        if self.repeated > REPEATED * self.captions:
            return "text"
        return "building" if self.has_groups else "image"


def inspect_data(folder: Path) -> Data:
    """Read the annotations of a folder with train.json, images/ and, if there are any, test annotations.

    Raises:
        UserError: train.json or images/ is missing, an entry is damaged, or there are too few groups.
    """
    train = folder / "train.json"
    if not train.exists():
        raise UserError("holds no train.json", where=folder, how="write it by crossmodal data import")
    images = read_annotations(train, folder / "images").images
    groups = len({image.group for image in images})
    held_out = 0.1 if groups >= FEW_GROUPS else 0.25
    training = split_by_group(images, {"train": 1 - held_out, "validation": held_out}, 0)["train"]
    regions = [region for image in images for region in image.regions]
    texts = [caption for image in images for caption in image.captions]
    return Data(
        images=len(images),
        captions=len(texts),
        groups=groups,
        training_images=len(training),
        validation_fraction=held_out,
        regions=len(regions),
        related=sum(region.relation != NO_RELATION for region in regions),
        repeated=_repeated(images),
        longest=max(len(text.split()) for text in (*texts, *(region.sentence for region in regions))),
        test=_test_annotations(folder),
    )


def _repeated(images: list[AnnotatedImage]) -> int:
    shared = shared_captions(images)
    return sum(caption in shared for image in images for caption in image.captions)


def _test_annotations(folder: Path) -> str | None:
    """test.json, or the only other file whose name begins with test."""
    if (folder / "test.json").exists():
        return "test.json"
    found = sorted(path.name for path in folder.glob("test*.json"))
    return found[0] if len(found) == 1 else None


def write_configs(out: Path, folder: Path, data: Data, *, backbone: str, gpu: bool) -> None:
    """Write train.yaml and campaign.yaml, with paths relative to them.

    Args:
        folder: of the data.
        backbone: a folder, or a hub id.
        gpu: whether trials are to share a GPU.
    Raises:
        UserError: one of the files exists already, or the backbone's folder has no config.json that can be read.
    """
    require_ours(out, FILES)
    if existing := next((name for name in FILES if (out / name).exists()), None):
        raise UserError(f"holds {existing} already", where=out, how="name another folder, or move it away")
    root, checkpoint = out.resolve(), _checkpoint_folder(backbone)
    content = {
        "data": data,
        "name": _name_of(folder),
        "annotations": _relative(folder, root),
        "backbone": backbone if checkpoint is None else _relative(checkpoint, root),
        "image_size": TrainConfig().features.image_size if checkpoint is None else _image_size(checkpoint),
        "defaults": TrainConfig(),
        "long_captions": data.longest > LONG_CAPTION,
        "epochs": 8 if data.captions > MANY_CAPTIONS else 20,
        "batch_sizes": [size for size in (data.batch_size // 4, data.batch_size // 2, data.batch_size) if size > 1],
        "gpu": gpu,
    }
    environment = Environment(
        loader=PackageLoader("search"), undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["quoted"] = _quoted
    pages = {name: environment.get_template(name).render(content) + "\n" for name in FILES}
    claim_folder(out, FILES)
    for name, page in pages.items():
        write_atomically(out / name, page)


def _name_of(folder: Path) -> str:
    """A campaign's name: that of the folder, with - for what names may not contain."""
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", folder.resolve().name).strip("._-")[:100]
    return name or "campaign"


def _relative(path: Path, root: Path) -> str:
    """Links above a data set are followed as the configuration's reader follows them."""
    return Path(os.path.relpath(path.resolve(), root)).as_posix()


def _quoted(text: str) -> str:
    """A string as a YAML value, which a name like 2024 or no would not be by itself."""
    return text if PLAIN.fullmatch(text) else json.dumps(text, ensure_ascii=False)


def _checkpoint_folder(backbone: str) -> Path | None:
    """The folder of a backbone; None for a hub id."""
    folder = Path(backbone).expanduser()
    if folder.is_dir():
        return folder
    if backbone.startswith((".", "/", "~")):
        raise UserError("there is no such folder", where=backbone, how="name a checkpoint, or a hub id like owner/name")
    return None


def _image_size(checkpoint: Path) -> int:
    """That of a checkpoint's own configuration, else the default."""
    match read_json(checkpoint / "config.json"):
        case {"vision_config": {"image_size": int(size) | [int(size), *_]}}:
            return size
    return TrainConfig().features.image_size

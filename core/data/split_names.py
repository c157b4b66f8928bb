"""Names of splits: those that published data sets use, and those in the names of files."""

import re
from collections.abc import Mapping
from pathlib import PurePath

from core.data.splits import Split

TRAIN: Split = "train"
VALIDATION: Split = "validation"
TEST: Split = "test"
SPLITS = (TRAIN, VALIDATION, TEST)
KNOWN: Mapping[str, Split] = {
    "train": TRAIN, "training": TRAIN, "trn": TRAIN, "restval": TRAIN,
    "validation": VALIDATION, "val": VALIDATION, "valid": VALIDATION, "dev": VALIDATION, "minival": VALIDATION,
    "test": TEST, "testing": TEST,
}  # fmt: skip
"""What a source calls a split → ours. `restval` is Karpathy's: the part of COCO's validation images to train on."""


def split_called(name: str) -> str | None:
    """Our name of a split; None if it is unknown."""
    return KNOWN.get(name.strip().lower())


def split_in_name(path: PurePath, default: str = TRAIN) -> str:
    """The split that a file's name contains as a word (`captions_val2017.json`), else the one its folder is called."""
    words = re.findall(r"[a-z]+", path.name.partition(".")[0].lower())
    named = next((KNOWN[word] for word in words if word in KNOWN), None)
    return named or split_called(path.parent.name) or default

"""JSON files that detect damage: each carries the digest of everything else in it.

For files that only the program writes and reads. A file that is torn, edited or foreign has no valid seal, so readers
need not check each field.
"""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from core.files.atomic import write_atomically

SEAL = "seal"


def write_sealed(path: Path, content: Mapping[str, Any]) -> None:
    """Write a JSON object with its seal, atomically; NaN and infinity are refused with ValueError."""
    write_atomically(path, json.dumps({**content, SEAL: _seal(content)}, indent=1, allow_nan=False) + "\n")


def read_sealed(path: Path) -> dict[str, Any]:
    """Read what `write_sealed` wrote, without the seal.

    Raises:
        OSError: the file cannot be read.
        ValueError: it is not exactly what was written.
    """
    try:
        content: Any = json.loads(path.read_bytes())
    except RecursionError:
        raise ValueError("is nested too deeply") from None
    if not isinstance(content, dict) or content.pop(SEAL, None) != _seal(content):
        raise ValueError("has no valid seal")
    return content


def _seal(content: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()

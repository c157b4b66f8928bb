"""JSON lists of objects with an image and a caption, as X-VLM and PIR have them (`rsicd_train.json`).

`caption` is text in training files and a list in test files; `image_id` is an integer, or absent; `label_name` may be a
group. Source: Zeng et al. 2022 (2111.08276), dataset/re_dataset.py.
"""

from collections.abc import Iterator
from pathlib import Path

from core.errors import UserError
from core.files.json_files import read_json
from core.formats.records import Findings, Record
from core.formats.rows import rows_of


def read(path: Path, split: str, findings: Findings) -> Iterator[Record]:
    """Entries of the file, in its order."""
    content = read_json(path)
    if not isinstance(content, list):
        raise UserError("is not a list of entries", where=path)
    return rows_of(((f"{path}: entry {number}", entry) for number, entry in enumerate(content)), split, findings)

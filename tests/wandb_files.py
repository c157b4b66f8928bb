"""Reading an offline W&B run back: its file is a LevelDB log of protobuf records, in blocks of 32 KiB."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from wandb.proto.wandb_internal_pb2 import Record

FILE_HEADER, RECORD_HEADER, BLOCK = 7, 7, 32768
FULL, LAST = 1, 4


def _payloads(content: bytes) -> Iterator[bytes]:
    position, parts = FILE_HEADER, []
    while position + RECORD_HEADER <= len(content):
        if (left := BLOCK - position % BLOCK) < RECORD_HEADER:
            position += left
            continue
        size, kind = int.from_bytes(content[position + 4 : position + 6], "little"), content[position + 6]
        position += RECORD_HEADER
        parts.append(content[position : position + size])
        position += size
        if kind in (FULL, LAST):
            yield b"".join(parts)
            parts = []


def _values(items: Any) -> dict[str, Any]:
    return {item.key or item.nested_key[0]: json.loads(item.value_json) for item in items}


def read_run(path: Path) -> dict[str, Any]:
    """`group`, `name`, `config`, logged `rows`, `summary` and `exit` code of an offline run file."""
    found: dict[str, Any] = {"rows": [], "summary": {}, "config": {}}
    for payload in _payloads(path.read_bytes()):
        record = Record()
        record.ParseFromString(payload)
        match record.WhichOneof("record_type"):
            case "run":
                found |= {"group": record.run.run_group, "name": record.run.display_name}
                found["config"] |= _values(record.run.config.update)
            case "history":
                found["rows"].append(_values(record.history.item))
            case "summary":
                found["summary"] |= _values(record.summary.update)
            case "exit":
                found["exit"] = record.exit.exit_code
    return found

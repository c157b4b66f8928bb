"""Reading an offline W&B run back with W&B's own reader, `wandb leet inspect`, called without its Python front end."""

import json
import subprocess
from pathlib import Path
from typing import Any

from wandb.util import get_core_path


def read_records(path: Path) -> list[dict[str, Any]]:
    """All records of a run file, in order."""
    inspect = [
        get_core_path(),
        "leet",
        "inspect",
        "--no-observability",
        "--json",
        "--run-file",
        path,
        path.parent.parent,
    ]
    outcome = subprocess.run(inspect, capture_output=True, text=True, check=True)
    return [json.loads(line) for line in outcome.stdout.splitlines()]


def read_run(path: Path) -> dict[str, Any]:
    """An offline run file.

    Returns:
        `id`, `name`, `group`, `project`, `job_type`, `tags`, `config`, logged `rows`, `summary`, `metrics` (name or
        glob → definition), `artifacts` (name → paths) and `exit` code.
    """
    found: dict[str, Any] = {"rows": [], "summary": {}, "config": {}, "metrics": {}, "artifacts": {}}
    for record in read_records(path):
        content = record[record["type"]]
        match record["type"]:
            case "run":
                found |= {"id": content["run_id"], "name": content["display_name"], "tags": content.get("tags", [])}
                found |= {"group": content["run_group"], "job_type": content["job_type"], "project": content["project"]}
                found["config"] |= content.get("config", {}).get("update", {})
            case "history":
                found["rows"].append(content["item"])
            case "summary":
                found["summary"] |= content["update"]
            case "metric":
                found["metrics"][content.get("name") or content["glob_name"]] = content
            case "artifact":
                found["artifacts"][content["name"]] = [each["path"] for each in content["manifest"]["contents"]]
            case "exit":
                found["exit"] = content.get("exit_code", 0)
    return found


def read_runs(folder: Path) -> dict[str, dict[str, Any]]:
    """The offline runs below an output folder, by name; a name that two files have fails."""
    runs = [read_run(path) for path in sorted(folder.glob("wandb/offline-run-*/*.wandb"))]
    by_name = {run["name"]: run for run in runs}
    assert len(by_name) == len(runs), "two runs have one name"
    return by_name

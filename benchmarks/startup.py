"""How long one waits: from `crossmodal search` to the first trained epoch, and for the commands that only read.

    python -m benchmarks.startup [--rounds 3] [--against OTHER_CHECKOUT]

A campaign on the demo data with all features present is started anew in each round, in its own process, with two
trials. Its phases are told by what appears on disk and on the terminal, so that any checkout can be measured:

checked         the line that announces the campaign: settings, data and features were checked
asked           config.yaml of the first trial: Ray runs, and Tune asks for trials
first epoch     the first line of metrics.jsonl of any trial, including the seconds of that epoch

With --against, another checkout (`git worktree add OTHER_CHECKOUT main`) takes turns with this one, on the same data.
`--help`, `status` and `leaderboard` are timed on a made-up campaign of 500 trials.
"""

import os
import subprocess
import sys
import tempfile
import time
import zipfile
from pathlib import Path

import numpy as np

from benchmarks.demo import ROOT, demo_campaign, demo_store
from benchmarks.results import Row, median, options, say, write
from core.campaign.campaign import Campaign, read_campaign
from core.files.json_files import write_json
from core.files.yaml_files import dump_plain
from core.records import Receipt

PHASES = ("checked", "asked", "first epoch", "all")
POLL_S = 0.01
TRIALS = 500


def run_search(checkout: Path, campaign: Path, folder: Path) -> Row:
    """Seconds from the command to each phase of a new campaign."""
    command = [sys.executable, "-m", "search.cli", "search", str(campaign), "--output-dir", str(folder)]
    output = folder.with_suffix(".txt")
    began = time.monotonic()
    found: Row = {}
    with output.open("w") as stream:
        process = subprocess.Popen(command, cwd=checkout, env=_environment(checkout), stdout=stream, stderr=stream)
        while process.poll() is None:
            signs = {
                "checked": output.stat().st_size > 0,
                "asked": any(folder.glob("trials/*/config.yaml")),
                "first epoch": any(path.stat().st_size for path in folder.glob("trials/*/metrics.jsonl")),
            }
            now = time.monotonic() - began
            found |= {phase: now for phase, seen in signs.items() if seen and phase not in found}
            time.sleep(POLL_S)
    if process.returncode:
        sys.exit(output.read_text())
    return {**found, "all": time.monotonic() - began}


def run_reading(checkout: Path, arguments: list[str]) -> float:
    """Seconds of a command that only reads."""
    began = time.monotonic()
    command = [sys.executable, "-m", "search.cli", *arguments]
    subprocess.run(command, cwd=checkout, env=_environment(checkout), check=True, capture_output=True)
    return time.monotonic() - began


def _environment(checkout: Path) -> dict[str, str]:
    return os.environ | {"PYTHONPATH": str(checkout), "WANDB_MODE": "offline", "RAY_USAGE_STATS_ENABLED": "0"}


def make_campaign(root: Path) -> Path:
    """A campaign of 500 complete trials, of which nothing was trained."""
    from tests.analysis.campaigns import metrics, searched

    rng = np.random.default_rng(0)
    folder = searched(root, [metrics(float(recall)) for recall in rng.uniform(0.2, 0.4, TRIALS)])
    receipt = Receipt("", "", 400_000, [], {}, 0, "cpu", {}, None, 1.0, 1.0, 1).to_json()
    del receipt["backbone"]  # which older checkouts do not know
    for number in range(TRIALS):
        files = folder.trial(number)
        write_json(files.receipt, receipt)
        for path in (files.config, files.metrics):
            path.write_text("{}\n")
        zipfile.ZipFile(files.best_checkpoint, "w").close()
    write_campaign(folder.campaign, read_campaign(folder))
    return folder.root


def write_campaign(path: Path, campaign: Campaign) -> None:
    """Without the settings that have their defaults, of which an older checkout may lack some."""
    path.write_text(dump_plain(campaign.model_dump(mode="json", by_alias=True, exclude_defaults=True)))


def main() -> None:
    parser = options(__doc__ or "", "startup")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--against", type=Path, help="another checkout, measured side by side")
    settings = parser.parse_args()
    checkouts = {"this checkout": ROOT}
    if settings.against:
        checkouts = {"the other": settings.against.resolve(), **checkouts}
    campaign = demo_campaign()
    demo_store(campaign)
    with tempfile.TemporaryDirectory() as place:
        root = Path(place)
        write_campaign(root / "campaign.yaml", campaign.with_limits(trials=2, hours=None))
        made = str(make_campaign(root / "made"))
        reading = {"--help": ["--help"], "status": ["status", made], "leaderboard": ["leaderboard", made]}
        rows: dict[str, list[Row]] = {name: [] for name in checkouts}
        for turn in range(settings.rounds):
            for number, (name, checkout) in enumerate(checkouts.items()):
                row = run_search(checkout, root / "campaign.yaml", root / f"run{turn}{number}")
                rows[name].append(row | {command: run_reading(checkout, each) for command, each in reading.items()})
    medians = [{"checkout": name, **{key: median([row[key] for row in found]) for key in found[0]}}
               for name, found in rows.items()]  # fmt: skip
    say(f"seconds from the command, medians of {settings.rounds} rounds", medians)
    write(settings.output, {"rounds": rows, "medians": medians})


if __name__ == "__main__":
    main()

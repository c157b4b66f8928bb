"""Overhead of a campaign: idle workers, the driver's work, and its memory over many trials.

    python -m benchmarks.efficiency [--trials 24] [--many 500]

Trials of about four seconds and of about one, all alike (only the learning rate is searched), with offline tracking.
Efficiency is Σ training seconds ÷ (wall seconds × concurrent trials), from the end of the first trial on, so that the
start-up of Ray and its workers does not count. Then many trials of a fraction of a second, for the driver's memory and
the duration of early and late trials.
"""

import resource
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.demo import demo_campaign, demo_store
from benchmarks.results import Row, options, say, write
from core.campaign.campaign import Limits, Pruner, Tracking
from core.campaign.space import Space
from core.campaign.trials import Standing
from core.features.fingerprint import FingerprintParts
from core.files.folders import CampaignFolder
from core.files.json_files import read_json_lines
from search.campaign import CampaignFeatures, Listeners, advance, campaign_readings, extraction_variant
from search.study.proposals import SearchProposals

SPACE = Space.model_validate({"optimizer.learning_rate": {"log": [1e-4, 1e-2]}})
PAGE_KB = resource.getpagesize() / 1024


@dataclass
class Watch:
    """Time and memory of the driver at the end of every trial."""

    ends: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)
    memory_mb: list[float] = field(default_factory=list)

    def __call__(self, standing: Standing) -> None:
        if standing.complete > len(self.ends):
            self.ends.append(time.monotonic())
            self.cpu.append(time.process_time())
            pages = int(Path("/proc/self/statm").read_text().split()[1])
            self.memory_mb.append(pages * PAGE_KB / 1024)


def run(trials: int, overrides: dict[str, float], slots: int = 2) -> tuple[Watch, list[float]]:
    """Run a campaign; returns what was watched, and the training seconds of each trial."""
    campaign = demo_campaign(
        limits=Limits(trials=trials), pruner=Pruner(kind="none"), wandb=Tracking(mode="offline"), space=SPACE
    )
    base = campaign.base.with_overrides({"recipe.stage1_epochs": 0, **overrides})
    campaign = campaign.model_copy(update={"train": base})
    parts = FingerprintParts(**demo_store(campaign).manifest["parts"])
    features = CampaignFeatures({extraction_variant(base): parts}, campaign_readings(campaign))
    watch = Watch()
    with tempfile.TemporaryDirectory() as place:
        folder = CampaignFolder(Path(place) / "campaign")
        advance(SearchProposals(campaign), folder, features, listeners=Listeners(watch))
        rows = [read_json_lines(folder.trial(number).metrics) for number in range(trials)]
    return watch, [sum(row["train_seconds"] + row["evaluation_seconds"] for row in epochs) for epochs in rows]


def measure_efficiency(name: str, trials: int, overrides: dict[str, float], slots: int = 2) -> Row:
    watch, trained = run(trials, overrides)
    wall = watch.ends[-1] - watch.ends[0]
    counted = trained[slots:]  # the first ones begin before the clock
    return {
        "trials": name,
        "count": trials,
        "seconds per trial": sum(counted) / len(counted),
        "efficiency": sum(counted) / (wall * slots),
        "driver CPU s per trial": (watch.cpu[-1] - watch.cpu[0]) / (trials - 1),
        "idle slot s per trial": (wall * slots - sum(counted)) / len(counted),
    }


def measure_many(trials: int) -> Row:
    watch, _ = run(trials, {"recipe.epochs": 1, "optimizer.batch_size": 1024})
    tenth = trials // 10
    return {
        "trials": trials,
        "driver MB after a tenth": watch.memory_mb[tenth],
        "driver MB at the end": watch.memory_mb[-1],
        "grown MB": watch.memory_mb[-1] - watch.memory_mb[tenth],
        "s per trial, early": (watch.ends[3 * tenth] - watch.ends[tenth]) / (2 * tenth),
        "s per trial, late": (watch.ends[-1] - watch.ends[-1 - 2 * tenth]) / (2 * tenth),
    }


def main() -> None:
    parser = options(__doc__ or "", "efficiency")
    parser.add_argument("--trials", type=int, default=24)
    parser.add_argument("--many", type=int, default=500)
    settings = parser.parse_args()
    rows = [
        measure_efficiency("of four seconds", settings.trials, {"recipe.epochs": 13}),
        measure_efficiency("of one second", 2 * settings.trials, {"recipe.epochs": 3}),
    ]
    say("campaign efficiency, two workers", rows)
    many = measure_many(settings.many)
    say("the driver over many short trials", [many])
    write(settings.output, {"efficiency": rows, "many": many})


if __name__ == "__main__":
    main()

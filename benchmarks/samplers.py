"""Samplers compared on one campaign: best value so far, against trained epochs and against seconds.

    python -m benchmarks.samplers [--campaign FILE] [--trials 20] [--seeds 5] [--samplers tpe random gp cmaes qmc]
                                  [--pruned tpe random]

Without a campaign file, a fast version of the demo's campaign: its baseline's branch (linear heads on pooled readings)
with the settings that this branch searches, and trials of four epochs. Of a file, its space on its data, as long as it
does not search what a model reads, and its trials as they are. Either way cached features, one trial at a time in this
process. Asking, telling and the study are those of a campaign. Every way gets as many epochs as `--trials` complete
trials have, and the same sampler seeds; the training seed is the campaign's own, as in a search. `--pruned` names
samplers that run once more with the defaults of our pruner, and so start more trials; only complete trials count as
found. Seconds are CPU seconds of one thread, training and sampler together, since machines are busy. Spread is the
standard deviation over seeds.
"""

import argparse
import importlib.util
import itertools
import sys
import tempfile
import time
from collections import defaultdict
from contextlib import suppress
from pathlib import Path
from statistics import fmean, stdev
from typing import get_args

import torch

from benchmarks.demo import demo_store, pooled_campaign
from benchmarks.results import Row, options, say, write
from core.campaign.campaign import Campaign, Limits, Pruner, Sampler, SamplerKind, load_campaign
from core.campaign.constraints import Constraints
from core.features.store import Features
from core.files.folders import CampaignFolder
from core.files.ownership import claim_folder
from core.model.checkpoints import Checkpoint
from core.records import EpochMetrics, best_epoch
from core.training.train import train
from search.study.ledger import AskedTrial, Ledger, TrialOutcome
from search.study.proposals import SearchProposals
from search.study.strategy import NEEDED

EVERY = 5
"""Trials between two columns of the printed table."""


def chosen_campaign(file: Path | None, epochs: int) -> Campaign:
    """The campaign of a file; without one, the branch of the demo's baseline, with trials of so many epochs."""
    if file is not None:
        return load_campaign(file)
    campaign = pooled_campaign(constraints=Constraints({}))
    short = campaign.base.with_overrides({"recipe.epochs": epochs, "recipe.stage1_epochs": 1})
    return campaign.model_copy(update={"train": short})


class StoppedError(Exception):
    """The pruner stops this trial."""


def search(campaign: Campaign, features: Features, trials: int) -> list[Row]:
    """Value (None of a pruned trial), epochs and CPU seconds of each trial, and the sampler's share of these seconds.

    Trials start until as many epochs are trained as `trials` complete ones have.
    """
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as place:
        folder = CampaignFolder(Path(place) / campaign.name)
        identity = claim_folder(folder.root, folder.NAMES)
        endless = campaign.model_copy(update={"limits": Limits(trials=trials * campaign.base.recipe.epochs)})
        with Ledger(SearchProposals(endless), folder, identity, [features.fingerprint]) as ledger:
            while sum(row["epochs"] for row in rows) < trials * campaign.base.recipe.epochs:
                started = time.process_time()
                asked = ledger.ask()
                assert asked is not None, "the limit of trials is the number of epochs"
                proposed = time.process_time()
                row = run(ledger, asked, features)
                rows.append(row | {"seconds": time.process_time() - started, "asking": proposed - started})
    return rows


def run(ledger: Ledger, asked: AskedTrial, features: Features) -> Row:
    """Train a trial to its end, or until the pruner stops it, and tell how it ended."""
    objective, history = ledger.campaign.objective, list[EpochMetrics]()
    started = time.process_time()

    def report(metrics: EpochMetrics, checkpoint: Checkpoint) -> None:
        history.append(metrics)
        ledger.record(asked.number, metrics.epoch, float(getattr(metrics, objective)))
        if ledger.should_stop(asked.number):
            raise StoppedError

    with suppress(StoppedError):
        train(asked.config, features, report)
    is_complete = len(history) == asked.config.recipe.epochs
    best = best_epoch(history, objective) if is_complete else None
    value = None if best is None else float(getattr(best, objective))
    seconds = time.process_time() - started
    ledger.tell(asked.number, TrialOutcome("complete" if is_complete else "pruned", value, best, None, seconds))
    return {"value": value, "epochs": len(history)}


def best_within(rows: list[Row], limit: float, of: str) -> float:
    """Best value among the trials that had ended by then, in `epochs` or `seconds`; the first always counts."""
    ends = itertools.accumulate(row[of] for row in rows)
    ended = [row for row, end in zip(rows, ends, strict=True) if end <= limit or row is rows[0]]
    return max(float(row["value"]) for row in ended if row["value"] is not None)


def spread(values: list[float]) -> str:
    """Mean ± standard deviation, in percent."""
    return f"{100 * fmean(values):.2f} ± {100 * (stdev(values) if len(values) > 1 else 0.0):.2f}"


def against_trials(runs: dict[str, list[list[Row]]], trials: int) -> list[Row]:
    """At the epochs of so many complete trials, of which the first of every run is one."""
    points = sorted({1, *range(EVERY, trials + 1, EVERY), trials})
    epochs = epochs_of_a_trial(runs)
    return [
        {
            "sampler": name,
            "trials": f"{fmean(map(len, each)):.0f}",
            **{f"after {n}": spread([best_within(rows, n * epochs, "epochs") for rows in each]) for n in points},
        }
        for name, each in runs.items()
    ]


def against_seconds(runs: dict[str, list[list[Row]]]) -> list[Row]:
    """At quarters of the time that the fastest run took for all its trials."""
    budget = min(sum(row["seconds"] for row in rows) for each in runs.values() for rows in each)
    points = [budget * quarter / 4 for quarter in (1, 2, 3, 4)]
    table = []
    for name, each in runs.items():
        asking = fmean(row["asking"] for rows in each for row in rows)
        values = {f"after {s:.0f} s": spread([best_within(rows, s, "seconds") for rows in each]) for s in points}
        table.append({"sampler": name, **values, "s to propose": asking})
    return table


def epochs_of_a_trial(runs: dict[str, list[list[Row]]]) -> int:
    return int(next(iter(runs.values()))[0][0]["epochs"])  # of the baseline, which is always complete


def over_random(runs: dict[str, list[list[Row]]], trials: int) -> list[Row]:
    """Difference of the final bests to those of random draws, and in how many of the seeds a sampler was better."""
    epochs = trials * epochs_of_a_trial(runs)
    final = {name: [best_within(rows, epochs, "epochs") for rows in each] for name, each in runs.items()}
    table = []
    for name in final.keys() - {"random"} if "random" in final else ():
        gains = [mine - theirs for mine, theirs in zip(final[name], final["random"], strict=True)]
        better = sum(gain > 0 for gain in gains)
        table.append({"sampler": name, "over random": spread(gains), "better in": f"{better} of {len(gains)}"})
    return sorted(table, key=lambda row: list(final).index(row["sampler"]))


def main() -> None:
    parser = options(__doc__ or "", "samplers")
    parser.add_argument("--trials", type=int, default=20)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--campaign", type=Path, help="campaign file; by default the demo with linear heads")
    parser.add_argument("--epochs", type=int, default=4, help="of a trial of the demo")
    installed = [kind for kind in get_args(SamplerKind) if importlib.util.find_spec(NEEDED.get(kind, "json"))]
    parser.add_argument("--samplers", nargs="+", choices=installed, default=installed)
    parser.add_argument("--pruned", nargs="*", choices=installed, default=["tpe", "random"])
    settings = parser.parse_args()
    torch.set_num_threads(1)
    campaign = chosen_campaign(settings.campaign, settings.epochs)
    features = demo_store(campaign).features(campaign.base.readings)
    ways: dict[str, tuple[SamplerKind, Pruner]] = {kind: (kind, Pruner(kind="none")) for kind in settings.samplers}
    ways |= {f"{kind}, pruned": (kind, Pruner()) for kind in settings.pruned}
    runs: dict[str, list[list[Row]]] = defaultdict(list)
    for seed in range(settings.seeds):  # seed by seed, so that all ways share the machine's moods
        for name, (kind, pruner) in ways.items():
            chosen = campaign.model_copy(update={"sampler": Sampler(kind=kind, seed=seed), "pruner": pruner})
            runs[name].append(search(chosen, features, settings.trials))
        report(runs, settings)


def report(runs: dict[str, list[list[Row]]], settings: argparse.Namespace) -> None:
    """Print and write what the seeds so far give."""
    seeds = len(next(iter(runs.values())))
    sys.stdout.write(f"\nbest recall_mean so far in percent, {seeds} seeds\n")
    tables = {"trials": against_trials(runs, settings.trials), "seconds": against_seconds(runs)}
    tables |= {"over random": over_random(runs, settings.trials)}
    for name, rows in tables.items():
        if rows:
            say(name, rows)
    write(settings.output, {"runs": runs, **tables})


if __name__ == "__main__":
    main()

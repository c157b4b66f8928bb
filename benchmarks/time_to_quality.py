"""Seconds from the command until the best validation recall_mean reaches a level, by several ways to search.

    python -m benchmarks.time_to_quality [--trials 24] [--seeds 5]

ours                        `crossmodal search`: two warm workers, offline W&B runs, all defaults
plain Tune                  Ray Tune as its documentation starts: OptunaSearch, ASHAScheduler, all defaults
plain Tune, baseline first  the same, given the campaign's baseline as the first trial
bare loop                   one process, one Optuna study with its median pruner

All search the demo with linear heads: the same space, the same cached features, our train function with its eight
epochs a trial, and one sampler seed a round. Each starts as its own process, and the clock runs from there, imports
included. Plain Tune ends after `--trials` trials; with the same seed, the others get the seconds that this took. Every
validated epoch of the joint stage counts when its figures arrive, whether or not its trial ends.

Levels are relative to what plain Tune has reached at its end with the same seed. "times as fast" is the time of plain
Tune's whole campaign over the time to that level: the median over seeds, where a seed without that level counts as
infinitely slow. What was measured is kept in benchmarks/results/time_to_quality and not measured again; the curves are
drawn to time_to_quality.html beside it.
"""

import argparse
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from statistics import fmean
from typing import Any

import optuna
import plotly.graph_objects as go

from benchmarks.campaign import Parameters, configure, draw_all, open_features, train_ours
from benchmarks.demo import ROOT, demo_store, pooled_campaign
from benchmarks.results import FOLDER, Row, median, options, say, write
from core.campaign.campaign import Campaign, Limits, Pruner, Sampler, Tracking
from core.campaign.constraints import Constraints
from core.features.inputs import read_inputs
from core.features.store import Features
from core.files.json_files import append_json_line, read_json, read_json_lines, write_json
from core.readings import Readings
from core.records import JOINT
from core.sections import dump_yaml

PLAIN, BASELINE_FIRST, BARE, OURS = "plain Tune", "plain Tune, baseline first", "bare loop", "ours"
WAYS = (PLAIN, OURS, BASELINE_FIRST, BARE)
BELOW = (0.02, 0.01, 0.0)
"""Levels, as recall below that of plain Tune's end."""
SHARES = (1 / 6, 1 / 2, 1)
"""Of plain Tune's time, at which the best recall is compared."""
Curve = list[tuple[float, float]]
"""Seconds from the command, and recall, of every validated epoch."""


def tuned_campaign(seed: int, trials: int) -> Campaign:
    return pooled_campaign(
        limits=Limits(trials=trials),
        sampler=Sampler(seed=seed),
        pruner=Pruner(),
        constraints=Constraints({}),
        wandb=Tracking(mode="offline"),
    )


def run_tune(campaign: Campaign, rows: Path, known: list[Parameters]) -> None:
    import ray
    from ray import tune
    from ray.tune.schedulers import ASHAScheduler
    from ray.tune.search.optuna import OptunaSearch

    fingerprint = read_inputs(campaign.base).parts.fingerprint

    class Watch(tune.Callback):  # type: ignore[misc]
        def on_trial_result(self, iteration: int, trials: Any, trial: Any, result: Row, **info: Any) -> None:
            note(rows, result)

    def trainable(chosen: Parameters) -> None:
        config = configure(campaign, optuna.trial.FixedTrial(chosen))
        train_ours(config, open_features(config, fingerprint), tune.report)

    ray.init("local")  # not a cluster that another program left here
    search = OptunaSearch(
        partial(draw_all, campaign),
        metric="recall_mean",
        mode="max",
        seed=campaign.sampler.seed,
        points_to_evaluate=known or None,
    )
    scheduler = ASHAScheduler(metric="recall_mean", mode="max")
    tune.Tuner(
        trainable,
        tune_config=tune.TuneConfig(search_alg=search, scheduler=scheduler, num_samples=campaign.limits.trials),
        run_config=tune.RunConfig(storage_path=str(Path.cwd()), callbacks=[Watch()]),
    ).fit()


def run_bare_loop(campaign: Campaign, rows: Path) -> None:
    """Until the process is ended."""
    fingerprint = read_inputs(campaign.base).parts.fingerprint
    opened: dict[Readings, Features] = {}

    def objective(trial: optuna.Trial) -> float:
        config = configure(campaign, trial)
        if config.readings not in opened:
            opened[config.readings] = open_features(config, fingerprint)
        recalls: list[float] = []

        def report(row: Row) -> None:
            note(rows, row)
            recalls.append(row["recall_mean"])
            trial.report(recalls[-1], row["epoch"])
            if trial.should_prune():
                raise optuna.TrialPruned

        train_ours(config, opened[config.readings], report)
        return max(recalls)

    sampler = optuna.samplers.TPESampler(seed=campaign.sampler.seed)
    optuna.create_study(direction="maximize", sampler=sampler, pruner=optuna.pruners.MedianPruner()).optimize(objective)


def note(rows: Path, row: Mapping[str, Any]) -> None:
    append_json_line(rows, {"recall_mean": row["recall_mean"], "stage": row["stage"]})


def run_way(name: str, campaign: Campaign, rows: Path) -> None:
    """Run one of the other ways in this process."""
    match name:
        case "plain Tune":
            run_tune(campaign, rows, [])
        case "plain Tune, baseline first":
            run_tune(campaign, rows, [campaign.space.baseline(campaign.base)])
        case _:
            run_bare_loop(campaign, rows)


def command_of(name: str, campaign: Campaign, place: Path) -> list[str]:
    """The command of a way, which writes its figures to files *.jsonl below `place`."""
    seed, trials = str(campaign.sampler.seed), str(campaign.limits.trials)
    if name != OURS:
        script = [sys.executable, "-m", "benchmarks.time_to_quality"]
        return [*script, "--way", name, "--seed", seed, "--trials", trials, "--rows", str(place / "rows.jsonl")]
    file = place / "campaign.yaml"
    file.write_text(dump_yaml(campaign))
    endless = ["--trials", "100000"]
    return [sys.executable, "-m", "search.cli", "search", str(file), "--output-dir", str(place / "ours"), *endless]


def measure(name: str, campaign: Campaign, within: float | None) -> Row:
    """Run a way until it ends, or for so many seconds: its curve, and how long it took."""
    environment = os.environ | {"WANDB_MODE": "offline", "WANDB_SILENT": "true", "RAY_USAGE_STATS_ENABLED": "0"}
    environment["PYTHONPATH"] = str(ROOT)  # Ray's workers must find benchmarks
    with tempfile.TemporaryDirectory() as made, (Path(made) / "log").open("w") as log:
        command = command_of(name, campaign, Path(made))
        began = time.monotonic()
        process = subprocess.Popen(command, cwd=made, env=environment, stdout=log, stderr=log)
        curve = watch(process, Path(made), began, within)
        seconds = time.monotonic() - began
        if process.poll():
            sys.exit(f"{name} failed:\n{(Path(made) / 'log').read_text()}")
        process.send_signal(signal.SIGINT if name == OURS else signal.SIGTERM)
        process.wait()
    return {"seconds": seconds, "curve": curve}


def watch(process: "subprocess.Popen[bytes]", place: Path, began: float, within: float | None) -> Curve:
    """Note when each row arrives in any of the files, until the process ends or the time is over."""
    curve: Curve = []
    read: dict[Path, int] = {}
    ended = False
    while not ended:
        ended = process.poll() is not None or (within is not None and time.monotonic() - began > within)
        for file in place.rglob("*.jsonl"):
            rows = read_json_lines(file)
            new, read[file] = rows[read.get(file, 0) :], len(rows)
            curve += [(time.monotonic() - began, row["recall_mean"]) for row in new if row.get("stage") == JOINT]
        time.sleep(0.05)
    return curve


def measured(name: str, seed: int, trials: int, within: float | None) -> Row:
    """What a way reached with a seed, read from an earlier run if there was one."""
    file = FOLDER / "time_to_quality" / f"{name.replace(',', '').replace(' ', '-')}-{trials}-trials-seed-{seed}.json"
    if not file.exists():
        file.parent.mkdir(parents=True, exist_ok=True)
        write_json(file, measure(name, tuned_campaign(seed, trials), within))
    row: Row = read_json(file)
    return row


def best_within(curve: Curve, seconds: float) -> float:
    """Best recall by then; 0 before the first epoch."""
    return max((recall for arrived, recall in curve if arrived <= seconds), default=0.0)


def time_to(curve: Curve, level: float) -> float:
    """Seconds until the level is reached; infinite if it is not."""
    return min((arrived for arrived, recall in curve if recall >= level), default=float("inf"))


def finite(seconds: float) -> float | None:
    """None for a level that was not reached."""
    return seconds if seconds < float("inf") else None


def compare(runs: Mapping[str, list[Row]]) -> list[Row]:
    """A row of figures for each way, over the seeds."""
    plain = runs[PLAIN]
    ends = [best_within(run["curve"], run["seconds"]) for run in plain]
    table = []
    for name, each in runs.items():
        times = {
            below: [time_to(run["curve"], end - below) for run, end in zip(each, ends, strict=True)] for below in BELOW
        }
        best = {
            share: fmean(best_within(run["curve"], share * of["seconds"]) for run, of in zip(each, plain, strict=True))
            for share in SHARES
        }
        table.append(
            {
                "way": name,
                "joint epochs": fmean(len(run["curve"]) for run in each),
                **{f"s to −{100 * below:g}": finite(median(seconds)) for below, seconds in times.items()},
                "reached": f"{sum(seconds < float('inf') for seconds in times[0.0])} of {len(each)}",
                "times as fast": median([of["seconds"] / s for of, s in zip(plain, times[0.0], strict=True)]),
                **{f"best at {share:.2g} of the time": 100 * recall for share, recall in best.items()},
            }
        )
    return table


def draw_curves(runs: Mapping[str, list[Row]], path: Path) -> None:
    """Best recall so far against seconds: a step line for each seed of each way."""
    figure = go.Figure()
    colours = dict(zip(WAYS, ("#888888", "#d62728", "#1f77b4", "#2ca02c"), strict=True))
    for name, each in runs.items():
        for seed, run in enumerate(each):
            seconds = [arrived for arrived, _ in run["curve"]]
            figure.add_scatter(
                x=seconds,
                y=[100 * best_within(run["curve"], second) for second in seconds],
                name=name,
                legendgroup=name,
                showlegend=seed == 0,
                line={"shape": "hv", "color": colours[name]},
            )
    figure.update_layout(xaxis_title="seconds from the command", yaxis_title="best validation recall_mean, %")
    figure.write_html(path)


def main() -> None:
    parser = options(__doc__ or "", "time_to_quality")
    parser.add_argument("--trials", type=int, default=24)
    parser.add_argument("--seeds", type=int, default=5)
    for name, kind in (("--way", str), ("--seed", int), ("--rows", Path)):
        parser.add_argument(name, type=kind, help=argparse.SUPPRESS)
    settings = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    if settings.way:
        run_way(settings.way, tuned_campaign(settings.seed, settings.trials), settings.rows)
        return
    demo_store(tuned_campaign(0, settings.trials))
    runs: dict[str, list[Row]] = {name: [] for name in WAYS}
    for seed in range(settings.seeds):
        for name in WAYS:  # plain Tune first: the others get its time
            within = runs[PLAIN][seed]["seconds"] if name != PLAIN else None
            runs[name].append(measured(name, seed, settings.trials, within))
        report(runs, settings)


def report(runs: Mapping[str, list[Row]], settings: argparse.Namespace) -> None:
    """Print, draw and write what the seeds so far give."""
    seconds = median([run["seconds"] for run in runs[PLAIN]])
    table = compare(runs)
    say(f"{settings.trials} trials of plain Tune take {seconds:.0f} s; {len(runs[PLAIN])} seeds", table)
    draw_curves(runs, settings.output.with_suffix(".html"))
    write(settings.output, {"trials": settings.trials, "runs": runs, "table": table})


if __name__ == "__main__":
    main()

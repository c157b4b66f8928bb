"""The same 16 trials of 8 epochs on the demo data, with linear heads, run in several ways.

    python -m benchmarks.campaign [--rounds 3] [--trials 16] [--live-trials 1]

ours            `crossmodal search`: an ask-and-tell study, warm Ray workers, cached features, offline W&B runs
in the loop     the methodology's way: the frozen backbone in every trial's training loop, one trial at a time
plain Tune      Ray Tune with OptunaSearch, default actors and WandbLoggerCallback (offline), on cached features
bare loop       one process, one Optuna study, cached features, nothing else

The last two run twice: with plain PyTorch training (`benchmarks.plain`), and with our own train function, which shows
the gain of the campaign alone. Each way runs in its own process. Start-up (imports, Ray, its first workers) ends when
the first trial begins to train, and is reported separately. With the backbone in the loop, trials take so long
that only `--live-trials` of them run, and their mean stands for the others.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import optuna

from benchmarks.demo import ROOT, demo_campaign, demo_store, pooled_campaign
from benchmarks.plain import train_plainly
from benchmarks.results import Row, median, options, say, write
from core.campaign.campaign import Campaign, Limits, Pruner, Tracking
from core.config import TrainConfig
from core.features.fingerprint import FingerprintParts
from core.features.inputs import read_inputs
from core.features.store import Features, FeatureStore
from core.files.folders import CampaignFolder
from core.files.json_files import read_json_lines
from core.files.ownership import claim_folder
from core.readings import Readings
from core.sections import Scalar
from core.training.train import train

Parameters = dict[str, Scalar]
Training = Callable[[TrainConfig, Features, Callable[[Row], None]], None]
"""Trains, and reports the figures of each epoch."""


def train_ours(config: TrainConfig, features: Features, report: Callable[[Row], None]) -> None:
    train(config, features, lambda metrics, checkpoint: report(metrics.to_json()))


def train_straight(config: TrainConfig, features: Features, report: Callable[[Row], None]) -> None:
    for row in train_plainly(config, features):
        report(row)


def draw(campaign: Campaign, trials: int) -> list[Parameters]:
    """The parameters of the trials that every way runs."""
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    drawn = [study.ask() for _ in range(trials)]
    for trial in drawn:
        campaign.space.suggest(trial, campaign.base)
    return [trial.params for trial in drawn]


def draw_all(campaign: Campaign, trial: optuna.Trial) -> None:
    """The space as OptunaSearch expects it: a function that can be pickled."""
    campaign.space.suggest(trial, campaign.base)


def configure(campaign: Campaign, trial: Any) -> TrainConfig:
    """The configuration of an Optuna trial, open or fixed."""
    return campaign.base.with_overrides(campaign.space.suggest(trial, campaign.base))


def open_features(config: TrainConfig, fingerprint: str) -> Features:
    return FeatureStore.open(config.features.store, fingerprint).features(config.readings)


def run_ours(campaign: Campaign, parameters: list[Parameters], fingerprint: str) -> Row:
    from search.campaign import CampaignFeatures, Listeners, advance, campaign_readings, extraction_variant
    from search.study.ledger import Ledger
    from search.study.proposals import SearchProposals
    from search.study.restore import trial_config

    first, *others = parameters
    campaign = campaign.model_copy(update={"train": trial_config(campaign, first)})  # the baseline is the first trial
    store = FeatureStore.open(campaign.base.features.store, fingerprint)
    parts = FingerprintParts(**store.manifest["parts"])
    features = CampaignFeatures({extraction_variant(campaign.base): parts}, campaign_readings(campaign))
    with tempfile.TemporaryDirectory() as place:
        folder = CampaignFolder(Path(place) / campaign.name)
        identity = claim_folder(folder.root, folder.NAMES)
        with Ledger(SearchProposals(campaign), folder, identity, features.fingerprints) as ledger:
            for chosen in others:
                ledger.enqueue(chosen)
        began: list[float] = []
        threading.Thread(target=_watch_first_epoch, args=(folder.trial(0).metrics, began), daemon=True).start()
        ended = []
        listeners = Listeners(lambda standing: ended.append(time.time()))
        end = advance(SearchProposals(campaign), folder, features, listeners=listeners)
        assert end.standing.complete == len(parameters), end
        trials = [read_json_lines(folder.trial(number).metrics) for number in range(len(parameters))]
    return _row(began[0], ended[-1], trials)


def _watch_first_epoch(metrics: Path, began: list[float]) -> None:
    """When training began: the time of the first report minus the duration of its epoch."""
    while not (rows := read_json_lines(metrics)):
        time.sleep(0.01)
    began.append(time.time() - _seconds(rows[0]))


def _seconds(row: Row) -> float:
    return float(row["train_seconds"] + row["evaluation_seconds"])


def _row(began: float, ended: float, trials: list[list[Row]], share: float = 1) -> Row:
    """The figures of a way, scaled up if only a share of the trials was run."""
    return {
        "began": began,
        "seconds": (ended - began) / share,
        "training_seconds": sum(_seconds(epoch) for epochs in trials for epoch in epochs) / share,
        "mean best recall": sum(max(epoch["recall_mean"] for epoch in epochs) for epochs in trials) / len(trials),
    }


def run_in_the_loop(campaign: Campaign, parameters: list[Parameters], trials: int) -> Row:
    from core.features.opening import open_features as open_live

    epochs_of_trials: list[list[Row]] = []
    began = time.time()
    for chosen in parameters[:trials]:
        config = configure(campaign, optuna.trial.FixedTrial(chosen)).with_overrides({"features.source": "live"})
        epochs_of_trials.append([])
        train_ours(config, open_live(config), epochs_of_trials[-1].append)
    return _row(began, time.time(), epochs_of_trials, share=trials / len(parameters))


def run_plain_tune(campaign: Campaign, parameters: list[Parameters], fingerprint: str, training: Training) -> Row:
    import ray
    from ray import tune
    from ray.air.integrations.wandb import WandbLoggerCallback
    from ray.tune.search.optuna import OptunaSearch

    epochs_of: dict[str, list[Row]] = defaultdict(list)
    began: list[float] = []

    class Watch(tune.Callback):  # type: ignore[misc]
        def on_trial_result(self, iteration: int, trials: Any, trial: Any, result: Row, **info: Any) -> None:
            began.append(time.time() - _seconds(result))
            epochs_of[trial.trial_id].append(result)

    def trainable(chosen: Parameters) -> None:
        config = configure(campaign, optuna.trial.FixedTrial(chosen))
        training(config, open_features(config, fingerprint), tune.report)

    with tempfile.TemporaryDirectory() as place:
        os.chdir(place)
        ray.init("local", include_dashboard=False, log_to_driver=False, logging_level="error")
        space = partial(draw_all, campaign)
        search = OptunaSearch(space, metric="recall_mean", mode="max", points_to_evaluate=parameters)
        tune.Tuner(
            tune.with_resources(trainable, {"cpu": 1}),
            tune_config=tune.TuneConfig(search_alg=search, num_samples=len(parameters)),
            run_config=tune.RunConfig(
                storage_path=place, verbose=0, callbacks=[WandbLoggerCallback(project="benchmark"), Watch()]
            ),
        ).fit()
        ended = time.time()
        ray.shutdown()
    assert [len(rows) for rows in epochs_of.values()] == [campaign.base.recipe.epochs] * len(parameters)
    return _row(began[0], ended, list(epochs_of.values()))


def run_bare_loop(campaign: Campaign, parameters: list[Parameters], fingerprint: str, training: Training) -> Row:
    epochs_of_trials: list[list[Row]] = []
    opened: dict[Readings, Features] = {}

    def objective(trial: optuna.Trial) -> float:
        config = configure(campaign, trial)
        if config.readings not in opened:
            opened[config.readings] = open_features(config, fingerprint)
        epochs_of_trials.append([])
        training(config, opened[config.readings], epochs_of_trials[-1].append)
        return float(max(epoch["recall_mean"] for epoch in epochs_of_trials[-1]))

    study = optuna.create_study(direction="maximize")
    for chosen in parameters:
        study.enqueue_trial(chosen)
    began = time.time()
    study.optimize(objective, n_trials=len(parameters))
    return _row(began, time.time(), epochs_of_trials)


def run_variant(name: str, trials: int, live_trials: int) -> Row:
    """Run one way in this process."""
    started = time.time()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    campaign = pooled_campaign(
        limits=Limits(trials=trials), pruner=Pruner(kind="none"), wandb=Tracking(mode="offline"), max_failed_trials=1
    )
    parameters, fingerprint = draw(campaign, trials), read_inputs(campaign.base).parts.fingerprint
    ways: dict[str, Callable[[], Row]] = {
        "ours": lambda: run_ours(campaign, parameters, fingerprint),
        "in the loop": lambda: run_in_the_loop(campaign, parameters, min(trials, live_trials)),
        "plain Tune": lambda: run_plain_tune(campaign, parameters, fingerprint, train_straight),
        "plain Tune with our train": lambda: run_plain_tune(campaign, parameters, fingerprint, train_ours),
        "bare loop": lambda: run_bare_loop(campaign, parameters, fingerprint, train_straight),
        "bare loop with our train": lambda: run_bare_loop(campaign, parameters, fingerprint, train_ours),
    }
    row = ways[name]()
    return {"startup_seconds": row.pop("began") - started, **row}


WAYS = (
    "ours",
    "in the loop",
    "plain Tune",
    "plain Tune with our train",
    "bare loop",
    "bare loop with our train",
)


def measure(name: str, settings: argparse.Namespace) -> Row:
    """Run one way in its own process."""
    command = [sys.executable, "-m", "benchmarks.campaign", "--way", name]
    command += ["--trials", str(settings.trials), "--live-trials", str(settings.live_trials)]
    environment = os.environ | {"WANDB_MODE": "offline", "WANDB_SILENT": "true", "RAY_USAGE_STATS_ENABLED": "0"}
    environment["PYTHONPATH"] = str(ROOT)  # Ray's workers must find benchmarks.plain
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    if done.returncode:
        sys.exit(done.stderr)
    row: Row = json.loads(done.stdout.splitlines()[-1])
    return row


def main() -> None:
    parser = options(__doc__ or "", "campaign")
    parser.add_argument("--trials", type=int, default=16)
    parser.add_argument("--live-trials", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--way", choices=WAYS, help=argparse.SUPPRESS)
    settings = parser.parse_args()
    if settings.way:
        sys.stdout.write(json.dumps(run_variant(settings.way, settings.trials, settings.live_trials)) + "\n")
        return
    demo_store(demo_campaign())
    measured: dict[str, list[Row]] = {name: [] for name in WAYS}
    for round_number in range(settings.rounds):
        for name in WAYS:
            if name != "in the loop" or round_number == 0:  # it takes minutes, and its ratio is clear
                measured[name].append(measure(name, settings))
    medians = {name: {key: median([row[key] for row in rows]) for key in rows[0]} for name, rows in measured.items()}
    base = medians["ours"]["seconds"]
    rows = [{"way": name, **row, "times ours": row["seconds"] / base} for name, row in medians.items()]
    say(f"{settings.trials} trials of 8 epochs, medians of {settings.rounds} rounds", rows)
    write(settings.output, {"trials": settings.trials, "rounds": measured, "medians": rows})


if __name__ == "__main__":
    main()

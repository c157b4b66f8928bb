"""Choices of sampler and pruner on a surrogate of a campaign, which answers in microseconds, over many seeds.

    python -m benchmarks.simulated [--campaign FILE | --epochs 4] [--configurations 240] [--trials 40] [--seeds 30]

Random configurations of the campaign are trained once, with the recall of every epoch; they are kept in
benchmarks/results/simulated and continued after an interruption. A Gaussian process on their settings then predicts the
curve of any other one, and a trial adds noise of the deviation that the process has fitted, fixed for a configuration.
Campaigns on it start with the baseline and are scored by the curve without noise of the trial that they would choose:
a complete one, by its best epoch of the joint stage. Strategies are compared at equal numbers of trained epochs, so one
that stops trials early starts more of them.

Before that, a table tells what a pruner would go by: how well recall after each epoch ranks the configurations by their
value, and how many of the best tenth are then among the best third.

It is a surrogate: it tells which choices cannot matter much, and a difference on it has to be confirmed by real trials
(`benchmarks.samplers`).
"""

import math
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from statistics import fmean

import optuna
import torch
from optuna.distributions import BaseDistribution, CategoricalDistribution
from optuna.samplers import BaseSampler, TPESampler
from optuna.trial import TrialState
from torch import Tensor

from benchmarks.campaign import configure, draw
from benchmarks.demo import demo_store
from benchmarks.results import FOLDER, Row, options, say, write
from benchmarks.samplers import chosen_campaign, spread
from core.campaign.campaign import Campaign, Pruner, Sampler, SamplerKind
from core.campaign.trials import TrialRecord
from core.features.store import Features
from core.files.json_files import append_json_line, read_json_lines
from core.training.train import train
from search.study.pruner import should_stop
from search.study.strategy import build_sampler

NONE = Pruner(kind="none")


def tabulate(campaign: Campaign, features: Features, count: int, path: Path) -> list[Row]:
    """Parameters, recall of every epoch and CPU seconds of random configurations, those in `path` included."""
    path.parent.mkdir(parents=True, exist_ok=True)
    known = len(read_json_lines(path)) if path.exists() else 0
    for parameters in draw(campaign, count)[known:]:
        started = time.process_time()
        history = train(configure(campaign, optuna.trial.FixedTrial(parameters)), features).history
        row = {"parameters": parameters, "curve": [epoch.recall_mean for epoch in history]}
        append_json_line(path, row | {"seconds": time.process_time() - started})
    return read_json_lines(path)[:count]


@dataclass(frozen=True)
class Surrogate:
    """A Gaussian process from the settings of a trial to its curve, with one length per setting."""

    campaign: Campaign
    rows: Sequence[Row]

    @cached_property
    def _distributions(self) -> dict[str, BaseDistribution]:
        study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
        found: dict[str, BaseDistribution] = {}
        for _ in range(100):
            trial = study.ask()
            self.campaign.space.suggest(trial, self.campaign.base)
            found |= trial.distributions
        return found

    def encode(self, parameters: Mapping[str, object]) -> list[float]:
        """Numbers in 0..1: choices one by one, and for every setting whether it was drawn."""
        encoded: list[float] = []
        for name, kind in self._distributions.items():
            drawn = name in parameters
            if isinstance(kind, CategoricalDistribution):
                encoded += [float(drawn and parameters[name] == choice) for choice in kind.choices]
                continue
            low, high, value = (float(n) for n in (kind.low, kind.high, parameters.get(name, kind.low)))  # type: ignore
            scale = math.log if getattr(kind, "log", False) else float
            encoded += [drawn * (scale(value) - scale(low)) / (scale(high) - scale(low)), float(drawn)]
        return encoded

    @cached_property
    def _inputs(self) -> Tensor:
        return torch.tensor([self.encode(row["parameters"]) for row in self.rows], dtype=torch.float64)

    @cached_property
    def _curves(self) -> Tensor:
        return torch.tensor([row["curve"] for row in self.rows], dtype=torch.float64)

    @cached_property
    def _fitted(self) -> tuple[Tensor, Tensor, Tensor]:
        """Logarithms of the lengths, of the scale and of the noise, by maximum likelihood over all epochs."""
        targets = (self._curves - self._curves.mean(0)) / self._curves.std()
        unknown = [torch.zeros(self._inputs.shape[1]), torch.zeros(()), torch.tensor(-2.0)]
        logarithms = [value.double().requires_grad_() for value in unknown]
        optimizer = torch.optim.Adam(logarithms, lr=0.05)
        for _ in range(300):
            covariance = self._kernel(self._inputs, logarithms) + logarithms[2].exp() * torch.eye(len(targets))
            factor = torch.linalg.cholesky(covariance)
            explained = (targets * torch.cholesky_solve(targets, factor)).sum() / 2
            loss = explained + targets.shape[1] * factor.diagonal().log().sum()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        lengths, scale, noise = (value.detach() for value in logarithms)
        return lengths, scale, noise

    def _kernel(self, others: Tensor, logarithms: Sequence[Tensor]) -> Tensor:
        lengths = logarithms[0].exp()
        distances = torch.cdist(others / lengths, self._inputs / lengths)
        return logarithms[1].exp() * (1 + 5**0.5 * distances + 5 / 3 * distances**2) * (-(5**0.5) * distances).exp()

    @cached_property
    def _weights(self) -> Tensor:
        covariance = self._kernel(self._inputs, self._fitted) + self._fitted[2].exp() * torch.eye(len(self.rows))
        weights: Tensor = torch.linalg.solve(covariance, self._curves - self._curves.mean(0))
        return weights

    @property
    def noise(self) -> float:
        """Standard deviation of recall between equal configurations."""
        return float((self._fitted[2] / 2).exp() * self._curves.std())

    def curve(self, parameters: Mapping[str, object]) -> list[float]:
        """Expected recall of every epoch."""
        encoded = torch.tensor([self.encode(parameters)], dtype=torch.float64)
        predicted: list[float] = (self._kernel(encoded, self._fitted) @ self._weights + self._curves.mean(0))[
            0
        ].tolist()
        return predicted

    def drawn_curve(self, parameters: Mapping[str, object]) -> list[float]:
        """The same with the noise of this configuration, equal in all epochs."""
        seed = hash(tuple(self.encode(parameters)))  # of numbers, so the same in every process
        noise = self.noise * float(torch.randn((), generator=torch.Generator().manual_seed(seed & 0xFFFFFFFF)))
        return [recall + noise for recall in self.curve(parameters)]

    def value(self, curve: Sequence[float], parameters: Mapping[str, object]) -> float:
        """A curve's best epoch of the joint stage."""
        return max(curve[int(str(parameters.get("recipe.stage1_epochs", 0))) :])


@dataclass(frozen=True, slots=True)
class Strategy:
    """How a simulated campaign proposes and stops trials."""

    sampler: Callable[[int], BaseSampler]
    pruner: Pruner = NONE
    workers: int = 1


def configured(kind: SamplerKind, seed: int, startup: int = 10) -> BaseSampler:
    """As a campaign builds it."""
    return build_sampler(Sampler(kind=kind, seed=seed, startup_trials=startup), [0, 0])


def tpe(seed: int, **changes: bool) -> BaseSampler:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # `group` is experimental
        return TPESampler(seed=seed, n_startup_trials=10, **changes)


def asha(first: int, factor: int, bootstrap: int = 4) -> Pruner:
    return Pruner(kind="asha", min_epochs=first, reduction_factor=factor, bootstrap=bootstrap)


CONFIGURED = partial(configured, "tpe")
STRATEGIES: dict[str, Strategy] = {
    "random": Strategy(partial(configured, "random")),
    "tpe": Strategy(CONFIGURED),
    "tpe, 5 startup trials": Strategy(partial(configured, "tpe", startup=5)),
    "tpe, 20 startup trials": Strategy(partial(configured, "tpe", startup=20)),
    "tpe, univariate": Strategy(partial(tpe, multivariate=False)),
    "tpe, grouped": Strategy(partial(tpe, multivariate=True, group=True)),
    "tpe, 8 workers": Strategy(CONFIGURED, workers=8),
    "tpe, 8 workers, no liar": Strategy(partial(tpe, constant_liar=False), workers=8),
    "gp": Strategy(partial(configured, "gp")),
    "random, asha 1, 3": Strategy(partial(configured, "random"), asha(1, 3)),
    "tpe, asha 1, 3": Strategy(CONFIGURED, asha(1, 3)),
    "tpe, asha 1, 3, bootstrap 10": Strategy(CONFIGURED, asha(1, 3, 10)),
    "tpe, asha 1, 2": Strategy(CONFIGURED, asha(1, 2)),
    "tpe, asha 1, 4": Strategy(CONFIGURED, asha(1, 4)),
    "tpe, asha 2, 3": Strategy(CONFIGURED, asha(2, 3)),
    "tpe, asha 4, 3": Strategy(CONFIGURED, asha(4, 3)),
}


def simulate(surrogate: Surrogate, strategy: Strategy, seed: int, epochs: int) -> list[float]:
    """Expected value of the best complete trial so far, after each trained epoch."""
    campaign = surrogate.campaign
    study = optuna.create_study(direction="maximize", sampler=strategy.sampler(seed))
    study.enqueue_trial(campaign.space.baseline(campaign.base))
    records: list[TrialRecord] = []
    best, chosen = -1.0, 0.0
    standing: list[float] = []
    while len(standing) < epochs:
        asked = [study.ask() for _ in range(strategy.workers)]
        for trial in asked:
            campaign.space.suggest(trial, campaign.base)
        for trial in asked:
            record = run(surrogate, trial, strategy.pruner, records)
            records.append(record)
            if record.state == "complete" and (record.value or 0) > best:
                best = record.value or 0
                chosen = surrogate.value(surrogate.curve(trial.params), trial.params)
            standing += [standing[-1] if standing else 0.0] * (record.epochs - 1) + [chosen]
            if record.state == "complete":
                study.tell(trial, record.value)
            else:
                study.tell(trial, state=TrialState.PRUNED)
    return standing[:epochs]


def run(surrogate: Surrogate, trial: optuna.Trial, pruner: Pruner, earlier: Sequence[TrialRecord]) -> TrialRecord:
    """A trial, up to the epoch at which it is stopped; the baseline is never stopped."""
    curve = surrogate.drawn_curve(trial.params)
    record = TrialRecord(trial.number, "complete", trial.number)
    for epoch in range(1, len(curve) + 1):
        record = replace(record, reports={**record.reports, epoch: (curve[epoch - 1],)})
        trial.report(curve[epoch - 1], epoch)
        last = epoch == len(curve)
        if not last and trial.number and should_stop(pruner, surrogate.campaign.goals, record, [*earlier, record]):
            return replace(record, state="pruned")
    return replace(record, value=surrogate.value(curve, trial.params))


def errors_left_out(surrogate: Surrogate) -> Iterator[float]:
    """Predicted minus measured value of each fifth of the configurations, by a surrogate of the others."""
    for part in range(5):
        others = replace(surrogate, rows=[row for n, row in enumerate(surrogate.rows) if n % 5 != part])
        for row in surrogate.rows[part::5]:
            parameters = row["parameters"]
            yield surrogate.value(others.curve(parameters), parameters) - surrogate.value(row["curve"], parameters)


def judge_epochs(surrogate: Surrogate) -> list[Row]:
    """A row for each epoch: what its recall tells of the value that a configuration reaches."""
    values = torch.tensor([surrogate.value(row["curve"], row["parameters"]) for row in surrogate.rows])
    is_best = values >= values.quantile(0.9)
    table = []
    for epoch, recalls in enumerate(torch.tensor([row["curve"] for row in surrogate.rows]).T, start=1):
        correlation = torch.stack([_ranks(recalls), _ranks(values)]).corrcoef()[0, 1]
        kept = is_best & (recalls >= recalls.quantile(2 / 3))
        table.append(
            {
                "epoch": epoch,
                "rank correlation": float(correlation),
                "best tenth kept": float(kept.sum() / is_best.sum()),
            }
        )
    return table


def _ranks(values: Tensor) -> Tensor:
    return values.argsort().argsort().double()


def compare(surrogate: Surrogate, trials: int, seeds: int) -> list[Row]:
    """The standing of every strategy after half and all of the epochs, and its difference to tpe with equal seeds."""
    epochs = trials * surrogate.campaign.base.recipe.epochs
    runs = {
        name: [simulate(surrogate, strategy, seed, epochs) for seed in range(seeds)]
        for name, strategy in STRATEGIES.items()
    }
    table = []
    for name, each in runs.items():
        gains = [mine[-1] - theirs[-1] for mine, theirs in zip(each, runs["tpe"], strict=True)]
        table.append(
            {
                "strategy": name,
                f"after {trials // 2} trials' epochs": spread([run[epochs // 2 - 1] for run in each]),
                f"after {trials}": spread([run[-1] for run in each]),
                "over tpe": spread(gains),
                "better in": f"{sum(gain > 0 for gain in gains)} of {seeds}",
            }
        )
    return table


def main() -> None:
    parser = options(__doc__ or "", "simulated")
    parser.add_argument("--campaign", type=Path, help="campaign file; by default the demo with linear heads")
    parser.add_argument("--epochs", type=int, default=4, help="of a trial of the demo")
    parser.add_argument("--configurations", type=int, default=240)
    parser.add_argument("--trials", type=int, default=40)
    parser.add_argument("--seeds", type=int, default=30)
    settings = parser.parse_args()
    torch.set_num_threads(1)
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    campaign = chosen_campaign(settings.campaign, settings.epochs)
    path = FOLDER / "simulated" / f"{campaign.name}-{campaign.base.recipe.epochs}-epochs.jsonl"
    features = demo_store(campaign).features(campaign.base.readings)
    rows = tabulate(campaign, features, settings.configurations, path)
    surrogate = Surrogate(campaign, rows)
    errors = [abs(error) for error in errors_left_out(surrogate)]
    values = [surrogate.value(row["curve"], row["parameters"]) for row in rows]
    quality = {
        "configurations": len(rows),
        "recall": spread(values),
        "noise": 100 * surrogate.noise,
        "error left out": 100 * fmean(errors),
    }
    say("the surrogate, in points of recall", [quality])
    epochs = judge_epochs(surrogate)
    say("what the recall after an epoch tells of the value", epochs)
    table = compare(surrogate, settings.trials, settings.seeds)
    say(f"expected recall_mean of the chosen trial in percent, {settings.seeds} seeds", table)
    write(settings.output, {"surrogate": quality, "epochs": epochs, "table": table})


if __name__ == "__main__":
    main()

import logging
import sys
from collections.abc import Callable
from pathlib import Path
from typing import get_args

import optuna
import pytest

from core.campaign.campaign import Campaign, Sampler, SamplerKind
from core.errors import UserError
from core.files.folders import CampaignFolder
from search.study.ledger import Ledger, TrialOutcome
from search.study.proposals import SearchProposals
from search.study.strategy import NEEDED, build_sampler, require_sampler
from tests.conftest import epoch_metrics


def drawn(sampler: Sampler, progress: list[int]) -> list[float]:
    study = optuna.create_study(sampler=build_sampler(sampler, progress))
    return [study.ask().suggest_float("x", 0.0, 1.0) for _ in range(3)]


KINDS = get_args(SamplerKind)


def require_package(kind: SamplerKind) -> None:
    if kind in NEEDED:
        pytest.importorskip(NEEDED[kind])


@pytest.mark.parametrize("kind", KINDS)
def test_draws_follow_from_the_seed_and_the_progress(kind: SamplerKind) -> None:
    require_package(kind)
    sampler = Sampler.model_validate({"kind": kind, "seed": 3})
    assert drawn(sampler, [1, 0]) == drawn(sampler, [1, 0])
    assert drawn(sampler, [1, 0]) != drawn(sampler, [2, 0])
    assert drawn(sampler, [1, 0]) != drawn(Sampler.model_validate({"kind": kind, "seed": 4}), [1, 0])


@pytest.mark.parametrize("kind", KINDS)
def test_conditional_settings_are_drawn_without_a_word(kind: SamplerKind, caplog: pytest.LogCaptureFixture) -> None:
    """Warnings are errors in tests; what Optuna logs would flood the terminal."""
    require_package(kind)
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    sampler = build_sampler(Sampler(kind=kind, startup_trials=4), [1, 0], {"x", "n"})
    study = optuna.create_study(direction="maximize", sampler=sampler)
    with caplog.at_level(logging.WARNING):
        for _ in range(14):
            trial = study.ask()
            x, n = trial.suggest_float("x", 0.1, 1.0, log=True), trial.suggest_int("n", 0, 2)
            trial.suggest_categorical("kind", ["a", "b", "c"])
            if n:
                trial.suggest_float("scale", 0.0, 1.0)
            study.tell(trial, x)
    assert not caplog.records
    scaled = [trial for trial in study.trials if "scale" in trial.params]
    assert 0 < len(scaled) < len(study.trials)
    assert len({trial.params["scale"] for trial in scaled}) == len(scaled)


def test_a_sobol_sequence_goes_on_where_the_last_session_left_it() -> None:
    pytest.importorskip("scipy")

    def fill(study: optuna.Study, trials: int) -> None:
        for _ in range(trials):
            study.tell(trial := study.ask(), trial.suggest_float("x", 0.0, 1.0))

    whole, parts = (optuna.create_study(sampler=build_sampler(Sampler(kind="qmc"), [1, 0])) for _ in range(2))
    fill(whole, 9)
    fill(parts, 5)
    parts.sampler = build_sampler(Sampler(kind="qmc"), [2, 5])
    fill(parts, 4)
    assert [trial.params for trial in parts.trials] == [trial.params for trial in whole.trials]
    eighths = sorted(int(8 * trial.params["x"]) for trial in whole.trials[1:])
    assert eighths == list(range(8))  # the first was drawn at random; the others fill the range evenly


@pytest.mark.parametrize("kind", NEEDED)
def test_a_missing_package_is_one_line_that_says_how_to_get_it(
    kind: SamplerKind, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, NEEDED[kind], None)
    with pytest.raises(
        UserError, match=rf"sampler.kind: {kind} needs {NEEDED[kind]}, which is not installed"
    ) as refused:
        require_sampler(kind)
    assert "pip install 'crossmodal-search[samplers]'" in str(refused.value)
    assert len(str(refused.value).splitlines()) == 1


@pytest.mark.parametrize("kind", KINDS)
def test_every_sampler_runs_a_campaign_with_conditions_constraints_and_two_trials_at_once(
    campaign_of: Callable[..., Campaign], tmp_path: Path, kind: SamplerKind
) -> None:
    require_package(kind)
    campaign = campaign_of(
        sampler={"kind": kind, "startup_trials": 3},
        constraints={"box_iou": {"at_least": "baseline - 0.1"}},
        limits={"trials": 8},
    )
    proposals, folder = SearchProposals(campaign), CampaignFolder(tmp_path)
    with Ledger(proposals, folder, "id", ["f"]) as ledger:
        running = [ledger.ask()]
        while any(running):
            running.append(ledger.ask())
            if (ended := running.pop(0)) is not None:
                value = ended.config.model.dropout
                best = epoch_metrics(recall_mean=value, box_iou=value)
                ledger.tell(ended.number, TrialOutcome("complete", value, best, None, 1.0))
        assert ledger.standing().complete == 8
        assert len({trial.config_hash for trial in ledger.trials()}) == 8

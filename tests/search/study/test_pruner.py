import optuna

from search.study.pruner import AshaPruner


def stopped_at(values: list[list[float]], pruner: AshaPruner) -> list[int | None]:
    """The epoch at which each trial is pruned; trials run one after the other."""
    study = optuna.create_study(direction="maximize", pruner=pruner)
    stops: list[int | None] = []
    for curve in values:
        trial = study.ask()
        stop = None
        for epoch, value in enumerate(curve, start=1):
            trial.report(value, epoch)
            if trial.should_prune():
                stop = epoch
                break
        study.tell(trial, curve[-1] if stop is None else None, state=None if stop is None else _pruned())
        stops.append(stop)
    return stops


def _pruned() -> optuna.trial.TrialState:
    return optuna.trial.TrialState.PRUNED


def test_the_first_trials_at_a_rung_continue_and_a_later_worse_one_stops() -> None:
    pruner = AshaPruner(min_epochs=1, reduction_factor=3, bootstrap=3)
    curves = [[0.1] * 4, [0.2] * 4, [0.3] * 4, [0.15] * 4, [0.4] * 4]
    assert stopped_at(curves, pruner) == [None, None, None, 1, None]


def test_it_looks_only_at_rungs() -> None:
    pruner = AshaPruner(min_epochs=2, reduction_factor=2, bootstrap=1)
    assert stopped_at([[0.5] * 5, [0.1] * 5], pruner) == [None, 2]
    late = [[0.5] * 5, [0.5, 0.5, 0.1, 0.1, 0.1]]
    assert stopped_at(late, pruner) == [None, 4]


def test_ties_continue() -> None:
    pruner = AshaPruner(min_epochs=1, reduction_factor=3, bootstrap=1)
    assert stopped_at([[0.2], [0.2], [0.2]], pruner) == [None, None, None]

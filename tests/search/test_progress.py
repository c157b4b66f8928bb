import io
from dataclasses import replace

from rich.console import Console

from core.campaign.trials import Standing
from search.progress import CampaignProgress


def status(finished: int, *, running: int = 1, best: float | None = 0.4) -> Standing:
    return Standing(
        complete=finished,
        running=running,
        pruned=2,
        failed=1,
        best=(4, best) if best else None,
        baseline=0.35 if best else None,
    )


def shown(*statuses: Standing) -> str:
    console = Console(file=io.StringIO(), width=60)
    with CampaignProgress(console, "recall_mean", lambda: 10) as progress:
        for each in statuses:
            progress.update(each)
    return console.file.getvalue()  # type: ignore[attr-defined,no-any-return]


def test_a_line_is_printed_for_every_trial_that_ended() -> None:
    lines = [
        line for line in shown(status(0, best=None), status(1), status(1), status(2)).splitlines() if "trials" in line
    ]
    assert lines == [
        f"{n + 3}/10 trials: {n} complete, 1 running, 2 pruned, 1 failed, best recall_mean 0.4000 (trial 4, +0.0500)"
        for n in (1, 2)
    ]


def test_a_baseline_of_zero_is_a_baseline() -> None:
    at_zero = replace(status(1), baseline=0.0)
    assert "best recall_mean 0.4000 (trial 4, +0.4000)" in shown(status(0), at_zero)
    unknown = replace(status(1), baseline=None)
    assert "best recall_mean 0.4000 (trial 4)" in shown(status(0), unknown)


def test_time_left_follows_the_pace_of_this_session() -> None:
    progress = CampaignProgress(Console(file=io.StringIO()), "recall_mean", lambda: 10)
    progress.update(status(0))
    progress._started -= 30
    progress.update(status(2))
    assert "30 s so far, about 75 s left" in progress._render().plain  # 2 in 30 s, 5 to go

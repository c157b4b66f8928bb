import pytest

from analysis.confirmation import Confirmed
from core.records import Interval
from search.winner_cli import print_confirmation
from tests.commands import CommandLine


def confirmed(trial: int, mean: float, gain: Interval, rank: int = 1) -> Confirmed:
    return Confirmed(
        trial, rank, [1, 2], [mean, mean], Interval(mean, mean - 0.02, mean + 0.02), gain, searched=mean + 0.015
    )


@pytest.mark.parametrize(
    ("low", "said"), [(0.05, "and beats the baseline"), (-0.01, "and cannot be told from the baseline")]
)
def test_the_last_line_says_whether_the_winner_beats_the_baseline(
    capsys: pytest.CaptureFixture[str], low: float, said: str
) -> None:
    print_confirmation(
        [confirmed(7, 0.72, Interval(0.1, low, 0.15)), confirmed(0, 0.62, Interval(0, 0, 0), rank=2)], "recall_mean"
    )
    printed = " ".join(capsys.readouterr().out.split())
    assert f"trial 7 has the best mean, 0.7200, {said}; the search said 0.7350" in printed
    assert "0 (baseline)" in printed
    assert "+1.5" in printed


def test_a_folder_without_a_campaign_is_named(crossmodal: CommandLine, tmp_path: object) -> None:
    outcome = crossmodal("confirm", tmp_path)
    assert outcome.code == 2
    assert "holds no campaign" in outcome.err
    assert "Traceback" not in outcome.err

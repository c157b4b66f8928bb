"""The commands of `search.external_cli`; tests/search/test_track.py and test_dashboard.py run them on campaigns."""

from pathlib import Path

import pytest

from tests.commands import CommandLine


@pytest.mark.parametrize("command", ["track", "dashboard"])
def test_a_folder_without_a_campaign_is_refused_in_one_line(
    crossmodal: CommandLine, tmp_path: Path, command: str
) -> None:
    outcome = crossmodal(command, tmp_path)
    assert (outcome.code, len(outcome.err.strip().splitlines())) == (2, 1)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("port", ["-1", "65536", "eighty"])
def test_a_port_is_a_port(crossmodal: CommandLine, tmp_path: Path, port: str) -> None:
    outcome = crossmodal("dashboard", tmp_path, "--port", port)
    assert outcome.code == 2
    assert "--port" in outcome.err

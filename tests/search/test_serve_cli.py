import signal
import urllib.request
from pathlib import Path

import pytest

from tests.commands import CommandLine, finish, start


def test_ctrl_c_ends_the_server(trained: Path, demo: Path, tmp_path: Path) -> None:
    pictures = demo / "images" / "test"
    process = start(
        *("serve", trained, "--index", pictures, "--port", 0, "--cache-dir", tmp_path / "cache"), cwd=tmp_path
    )
    assert process.stdout is not None
    line = process.stdout.readline()
    assert "(Ctrl-C ends it)" in line, finish(process)
    address = next(word for word in line.split() if word.startswith("http://127.0.0.1:"))
    with urllib.request.urlopen(address) as answer:
        assert b"Search pictures" in answer.read()
    process.send_signal(signal.SIGINT)
    outcome = finish(process)
    assert (outcome.code, outcome.err) == (0, "")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--index", "gone"], "there is no such folder of pictures"),
        (["--index", ".", "--texts", "gone.txt"], "gone.txt: there is no such file"),
        (["--index", ".", "--host", "192.0.2.1"], "choose another --port"),
    ],
)
def test_a_mistake_is_one_line(crossmodal: CommandLine, trained: Path, arguments: list[str], message: str) -> None:
    outcome = crossmodal("serve", trained, *arguments, "--port", 0)
    assert (outcome.code, outcome.err.count("\n")) == (2, 1)
    assert message in outcome.err

from pathlib import Path

from tests.commands import CommandLine


def test_init_says_what_the_files_follow_from_and_what_comes_next(
    crossmodal: CommandLine, demo: Path, tmp_path: Path
) -> None:
    outcome = crossmodal("init", tmp_path / "a", "--data", demo, "--backbone", demo / "tiny-internvl")
    assert outcome.code == 0, outcome.err
    said = outcome.out.splitlines()
    assert said[:4] == [
        "36 training images with 108 captions",
        "98 boxes",
        "12 buildings",
        "test annotations: test.json",
    ]
    assert [line.split()[1] for line in said[-3:]] == ["doctor", "plan", "search"]


def test_lines_of_the_doctor_begin_with_the_verdict(crossmodal: CommandLine) -> None:
    outcome = crossmodal("doctor")
    assert outcome.code in (0, 1)
    for line in outcome.out.splitlines():
        assert line.split()[0] in ("ok", "note", "problem")

import json
import shutil
from pathlib import Path

import pytest

from core.evaluation.read_count import counted_read
from core.files.json_files import read_json
from core.inference.loading import read_model
from tests.commands import CommandLine


@pytest.fixture
def pictures(demo: Path) -> Path:
    return demo / "images" / "test"


@pytest.fixture
def final(trained: Path, tmp_path: Path) -> Path:
    """A final model whose test split was read once."""
    (tmp_path / "final").mkdir()
    shutil.copy(trained / "checkpoint_best.pth", tmp_path / "final")
    with counted_read(tmp_path / "final", again=False):
        pass
    return tmp_path / "final"


def test_retrieve_prints_pictures_and_writes_a_page(
    crossmodal: CommandLine, trained: Path, pictures: Path, tmp_path: Path
) -> None:
    ask = ["retrieve", trained, "a red dome on sand", "--images", pictures, "--top", 3]
    outcome = crossmodal(*ask, "--html", tmp_path / "page.html")
    assert outcome.code == 0, outcome.err
    assert f"{len(list(pictures.rglob('*.jpeg')))} pictures in {pictures}" in outcome.out
    assert "the best 8 by similarity are re-ranked by the matching head" in outcome.out
    assert (tmp_path / "page.html").read_text().count("<img") == 3
    answers = json.loads(crossmodal(*ask, "--json").out)["answers"]
    assert len(answers) == 3
    assert all(Path(each["path"]).is_file() and len(each["box"]) == 4 for each in answers)
    assert all(each["path"] in outcome.out.replace("\n", "") or "…" in outcome.out for each in answers)
    assert crossmodal(*ask, "--html", tmp_path / "page.html").code == 0  # over its own page


def test_retrieve_finds_texts_for_a_picture(
    crossmodal: CommandLine, trained: Path, pictures: Path, tmp_path: Path
) -> None:
    (tmp_path / "texts.txt").write_text("a red dome\n\n  a blue pool\na red dome\n")
    picture = next(pictures.rglob("*.jpeg"))
    outcome = crossmodal("retrieve", trained, "--image", picture, "--texts", tmp_path / "texts.txt", "--json")
    assert outcome.code == 0, outcome.err
    content = json.loads(outcome.out)
    assert content["query"] == str(picture)
    assert {each["text"] for each in content["answers"]} == {"a red dome", "a blue pool"}


def test_what_does_not_go_together_is_one_clear_line(
    crossmodal: CommandLine, trained: Path, pictures: Path, tmp_path: Path
) -> None:
    (tmp_path / "empty.txt").write_text("\n")
    (tmp_path / "mine.html").write_text("mine")
    for arguments, problem in (
        ([trained, "a dome"], "a TEXT goes with --images, and --image with --texts"),
        ([trained, "a dome", "--images", pictures, "--texts", "a.txt"], "a TEXT goes with --images"),
        ([trained, "--image", "a.png", "--texts", tmp_path / "no.txt"], "no.txt: there is no such file"),
        ([trained, "--image", "a.png", "--texts", tmp_path / "empty.txt"], "empty.txt: holds no text"),
        ([trained, "a dome", "--images", tmp_path / "no"], "there is no such folder of pictures"),
        ([trained, "a dome", "--images", pictures, "--html", "page"], "page: is not the name of a page"),
        ([trained, "a dome", "--images", pictures, "--html", tmp_path / "mine.html"], "was not written by crossmodal"),
        ([tmp_path, "a dome", "--images", pictures], "holds no trained model"),
    ):
        outcome = crossmodal("retrieve", *arguments)
        assert (outcome.code, outcome.err.count("\n")) == (2, 1), outcome.err
        assert problem in outcome.err
    assert (tmp_path / "mine.html").read_text() == "mine"


def test_evaluate_counts_a_read_of_the_models_own_test_split(
    crossmodal: CommandLine, final: Path, demo: Path, tmp_path: Path
) -> None:
    measure = ["evaluate", final, "--annotations", demo / "test.json", "--images", demo / "images"]
    refused = crossmodal(*measure, "--output-dir", tmp_path / "out")
    assert refused.code == 2
    assert "the test split was read for this model once" in refused.err
    assert not (tmp_path / "out").exists()
    outcome = crossmodal(*measure, "--output-dir", tmp_path / "out", "--again")
    assert outcome.code == 0, outcome.err
    assert "it was read 2 times" in outcome.out
    assert "left out, since they need the training split: " in outcome.out
    assert read_json(tmp_path / "out" / "metrics.json")["test_reads"] == 2

    entries = json.loads((demo / "train.json").read_text())[:6]
    (tmp_path / "other.json").write_text(json.dumps(entries))
    measure[3] = tmp_path / "other.json"
    outcome = crossmodal(*measure, "--output-dir", tmp_path / "other")
    assert outcome.code == 0, outcome.err
    assert "of the images are in the model's training annotations" in outcome.out
    assert "other split, relevance by" in outcome.out
    assert read_json(tmp_path / "other" / "metrics.json")["test_reads"] == 0


def test_an_export_of_a_final_model_keeps_counting(
    crossmodal: CommandLine, final: Path, demo: Path, tmp_path: Path
) -> None:
    (final / "model_card.md").write_text("# Model card: demo\n\nAn introduction.\n\n## Data\n")
    outcome = crossmodal("export", final, "--output-dir", tmp_path / "exported")
    assert outcome.code == 0, outcome.err
    assert "# Model card: demo" in (tmp_path / "exported" / "README.md").read_text()
    assert read_model(tmp_path / "exported" / "model.safetensors").test_digest is not None
    measure = ["evaluate", tmp_path / "exported", "--annotations", demo / "test.json", "--images", demo / "images"]
    refused = crossmodal(*measure, "--output-dir", tmp_path / "out")
    assert "the test split was read for this model once" in refused.err

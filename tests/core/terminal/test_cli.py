import json
import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from core.config import TrainConfig
from core.files import digests
from core.files.json_files import read_json, read_json_lines
from core.model.checkpoints import load_checkpoint
from core.sections import dump_yaml
from core.training.runs import hold_run, hold_two_stage
from tests.commands import CommandLine, finish, hold, start, wait_until_held
from tests.wandb_files import read_run

ROOT = Path(__file__).parents[3]


@pytest.fixture
def config(demo_config: TrainConfig, tmp_path: Path) -> Path:
    path = tmp_path / "train.yaml"
    path.write_text(dump_yaml(demo_config))
    return path


def edited(config: Path, change: Callable[[dict[str, Any]], object]) -> Path:
    content = yaml.safe_load(config.read_text())
    change(content)
    config.write_text(yaml.safe_dump(content))
    return config


def test_info_prints_health_and_parameters(crossmodal: CommandLine, config: Path) -> None:
    outcome = crossmodal("features", "info", "--config", config)
    assert outcome.code == 0
    for expected in ("images by tower.mean", "texts by lm.last", "distinct", "trainable in all"):
        assert expected in outcome.out


@pytest.mark.parametrize("option", ["--output-dir", "--output_dir"])
def test_train_writes_its_run_and_continues(crossmodal: CommandLine, config: Path, tmp_path: Path, option: str) -> None:
    arguments = ["train", "--config", config, option, tmp_path / "run", "--bs", 8, "--epochs", 3, "--seed", 5]
    first = crossmodal(*arguments)
    assert first.code == 0, first.err
    assert "re-ranking, chosen on validation: " in first.out
    log = read_json_lines(tmp_path / "run" / "log.txt")
    assert len(log) == 3
    written = yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())
    assert (written["optimizer"]["batch_size"], written["recipe"]["epochs"], written["seed"]) == (8, 3, 5)
    (tmp_path / "run" / "checkpoint_2.pth").unlink()
    assert crossmodal(*arguments).code == 0
    again = read_json_lines(tmp_path / "run" / "log.txt")
    assert [row["recall_mean"] for row in again] == [row["recall_mean"] for row in log]


def test_two_stages_from_one_command(crossmodal: CommandLine, config: Path, tmp_path: Path) -> None:
    edited(config, lambda content: content["recipe"].update(stage1_epochs=1))
    outcome = crossmodal("train-two-stage", "--config", config, "--output_dir", tmp_path / "two")
    assert outcome.code == 0, outcome.err
    assert (tmp_path / "two" / "stage1" / "checkpoint_0.pth").exists()
    assert set(read_json(tmp_path / "two" / "experiment_summary.json")) >= {"stage1", "stage2"}


MISTAKES: dict[str, tuple[Callable[[dict[str, Any]], object], str]] = {
    "misspelt key": (lambda c: c["loss"].update(itmm=1.0), "loss.itmm is not a setting; did you mean loss.itm?"),
    "unknown section": (lambda c: c.update(optimiser={}), "optimiser is not a setting; did you mean optimizer?"),
    "out of range": (lambda c: c["model"].update(dropout=1.5), "model.dropout: Input should be less than 1"),
    "not a number": (lambda c: c["optimizer"].update(learning_rate="fast"), "optimizer.learning_rate"),
    "batch of none": (lambda c: c["optimizer"].update(batch_size=0), "optimizer.batch_size"),
    "fraction of an epoch": (lambda c: c["recipe"].update(epochs=2.5), "recipe.epochs"),
    "more stage 1 than epochs": (
        lambda c: c["recipe"].update(stage1_epochs=9),
        "stage1_epochs 9 is more than epochs 2",
    ),
    "no such annotations": (lambda c: c["data"].update(train_annotations="gone.json"), "gone.json: there is no such"),
    "no such backbone": (lambda c: c["features"].update(backbone="./gone"), "gone: there is no such backbone folder"),
    "first token": (lambda c: c["features"].update(text="lm.first"), "sees nothing of the text"),
    "tiny pictures": (lambda c: c["features"].update(image_size=8), "features.image_size"),
}


@pytest.mark.parametrize(("change", "message"), MISTAKES.values(), ids=MISTAKES.keys())
def test_a_mistake_in_the_configuration_is_one_line_and_writes_nothing(
    crossmodal: CommandLine,
    config: Path,
    tmp_path: Path,
    change: Callable[[dict[str, Any]], object],
    message: str,
) -> None:
    outcome = crossmodal("train", "--config", edited(config, change), "--output-dir", tmp_path / "run")
    assert outcome.code == 2
    assert message in outcome.err
    assert len(outcome.err.strip().splitlines()) == 1
    assert not (tmp_path / "run").exists()


def break_record(demo: Path, tmp_path: Path, change: Callable[[dict[str, Any]], object]) -> str:
    records = read_json(demo / "train.json")
    change(records[2])
    return json.dumps(records)


ANNOTATIONS: dict[str, tuple[Callable[[Path, Path], str], str]] = {
    "malformed": (lambda demo, tmp: '[{"image_id": ', "is not valid JSON"),
    "empty": (lambda demo, tmp: "[]", "train.json"),
    "missing image": (
        lambda demo, tmp: break_record(demo, tmp, lambda r: r.update(image="train/0000/gone.jpeg")),
        "gone.jpeg",
    ),
    "no caption": (lambda demo, tmp: break_record(demo, tmp, lambda r: r.pop("caption")), "entry 2"),
    "three numbers": (
        lambda demo, tmp: break_record(demo, tmp, lambda r: r["bboxes"].__setitem__(0, [0.1, 0.2, 0.3])),
        "entry 2",
    ),
    "half a surrogate pair": (
        lambda demo, tmp: break_record(demo, tmp, lambda r: r.update(caption="\ud83d")),
        "entry 2",
    ),
    "pixels": (
        lambda demo, tmp: break_record(demo, tmp, lambda r: r["bboxes"].__setitem__(0, [30, 20, 100, 80])),
        "looks like pixels",
    ),
    "another image of the same image_id": (
        lambda demo, tmp: break_record(demo, tmp, lambda r: r.update(image="train/0001/image-00.jpeg")),
        "entry 2 (0000/image-00.jpeg): names the image",
    ),
    "nested deeply": (lambda demo, tmp: "[" * 100_000, "is nested too deeply"),
    "a key given twice": (lambda demo, tmp: '[{"image_id": "a", "image_id": "b"}]', "the key image_id is given twice"),
    "out of the image root": (
        lambda demo, tmp: break_record(demo, tmp, lambda r: r.update(image="../../etc/passwd")),
        "entry 2",
    ),
}


@pytest.mark.parametrize(("write", "message"), ANNOTATIONS.values(), ids=ANNOTATIONS.keys())
def test_a_mistake_in_the_annotations_names_file_and_entry(
    crossmodal: CommandLine,
    config: Path,
    demo: Path,
    tmp_path: Path,
    write: Callable[[Path, Path], str],
    message: str,
) -> None:
    broken = tmp_path / "train.json"
    broken.write_text(write(demo, tmp_path))
    edited(config, lambda content: content["data"].update(train_annotations=str(broken)))
    outcome = crossmodal("train", "--config", config, "--output-dir", tmp_path / "run")
    assert outcome.code == 2
    assert "train.json" in outcome.err
    assert message in outcome.err
    assert len(outcome.err.strip().splitlines()) == 1
    assert not (tmp_path / "run").exists()
    assert not (tmp_path / "store").exists() or not any((tmp_path / "store").glob("*/manifest.json"))


def test_valid_but_unusual_content_is_reported_once(
    crossmodal: CommandLine, config: Path, demo: Path, tmp_path: Path
) -> None:
    records = read_json(demo / "train.json")
    numbers = {name: number for number, name in enumerate(dict.fromkeys(record["image_id"] for record in records))}
    (tmp_path / "train.json").write_text(json.dumps([{**r, "image_id": numbers[r["image_id"]]} for r in records]))
    edited(config, lambda content: content["data"].update(train_annotations=str(tmp_path / "train.json")))
    said = "image_id without a folder, so that its image is a building of its own, 36 times"
    assert said in crossmodal("features", "extract", "--config", config).out
    assert said not in crossmodal("features", "info", "--config", config).out


def test_a_backbone_that_is_no_internvl_is_refused(
    crossmodal: CommandLine, config: Path, demo: Path, tmp_path: Path
) -> None:
    other = tmp_path / "bert"
    shutil.copytree(demo / "tiny-internvl", other)
    (other / "config.json").write_text('{"model_type": "bert"}')
    edited(config, lambda content: content["features"].update(backbone=str(other)))
    outcome = crossmodal("features", "extract", "--config", config)
    assert outcome.code == 2
    assert "is a bert checkpoint, not InternVL" in outcome.err


def test_scientific_notation_is_a_number(crossmodal: CommandLine, config: Path, tmp_path: Path) -> None:
    text = config.read_text().replace("learning_rate: 0.001", "learning_rate: 1e-4")
    assert "1e-4" in text
    config.write_text(text)
    assert crossmodal("train", "--config", config, "--output-dir", tmp_path / "run", "--epochs", 1).code == 0
    assert read_json(tmp_path / "run" / "receipt.json")["optimizer_groups"][0]["learning_rate"] == 1e-4


def test_evaluate_writes_every_metric_and_the_embeddings(crossmodal: CommandLine, config: Path, tmp_path: Path) -> None:
    run = ["train", "--config", config, "--output_dir", tmp_path / "run"]
    assert crossmodal(*run).code == 0
    measured = crossmodal(
        *("train", "--evaluate", "--config", config, "--checkpoint", tmp_path / "run" / "checkpoint_1.pth"),
        *("--output_dir", tmp_path / "eval", "--save_embeddings", "--use_wandb"),
    )
    assert measured.code == 0, measured.err
    for expected in ("relevance by building", "relevance by geotext-official", "re-ranked", "box_iou", "images/s"):
        assert expected in measured.out
    card = read_json(tmp_path / "eval" / "metrics.json")
    assert len(card["evaluations"]) == 6
    assert card["regions_split"] == "validation"
    assert (tmp_path / "eval" / "embeddings.npz").exists()
    (offline,) = (tmp_path / "eval").glob("wandb/offline-run-*/*.wandb")
    assert read_run(offline)["summary"]["building/t2i_r1"] == card["evaluations"][2]["metrics"]["t2i_r1"]


def test_data_without_boxes_or_buildings_say_so_once_and_equal_texts_count_as_one_on_request(
    crossmodal: CommandLine, config: Path, demo: Path, tmp_path: Path
) -> None:
    for name in ("train", "test"):
        records = read_json(demo / f"{name}.json")
        bare = [
            {"image": r["image"], "image_id": r["image"].replace("/", "-"), "caption": r["caption"]} for r in records
        ]
        bare += [{**bare[-1], "caption": bare[0]["caption"]}]  # a caption of two images
        (tmp_path / f"{name}.json").write_text(json.dumps(bare))
    annotations = {f"{name}_annotations": str(tmp_path / f"{name}.json") for name in ("train", "test")}
    edited(config, lambda content: content["data"].update(annotations))
    run = ["train", "--config", config, "--output-dir", tmp_path / "run"]
    said = "the training data contain no boxes: box and relation losses are off"
    trained = crossmodal(*run)
    assert trained.code == 0, trained.err
    assert trained.out.count(said) == 1
    assert "relevance by building is relevance by image" in trained.out
    epochs = [json.loads(line) for line in (tmp_path / "run" / "log.txt").read_text().splitlines()]
    assert {(epoch["loss_box"], epoch["box_iou"], epoch["steps_without_regions"]) for epoch in epochs} == {
        (None, None, 0)
    }
    evaluate = [*run[:3], "--evaluate", "--checkpoint", tmp_path / "run" / "checkpoint_best.pth"]
    shown = crossmodal(*evaluate, "--output-dir", tmp_path / "eval")
    assert shown.code == 0, shown.err
    assert shown.out.count("relevance by") == 1
    assert not any(word in shown.out for word in ("box_iou", "nan", "relations"))
    once = crossmodal(*evaluate, "--output-dir", tmp_path / "once", "--unique_texts")
    texts = {text for record in read_json(tmp_path / "test.json") for text in record["caption"]}
    assert len(texts) < read_json(tmp_path / "eval" / "metrics.json")["evaluations"][0]["queries_text"]
    assert f"{len(texts)} distinct texts" in " ".join(once.out.split())
    assert all(each["unique_texts"] for each in read_json(tmp_path / "once" / "metrics.json")["evaluations"])
    assert "--unique-texts goes with --evaluate" in crossmodal(*run, "--unique-texts").err


def test_evaluate_reranks_as_the_run_chose_unless_the_configuration_gives_a_weight(
    crossmodal: CommandLine, config: Path, tmp_path: Path
) -> None:
    assert crossmodal("train", "--config", config, "--output-dir", tmp_path / "run").code == 0
    best = tmp_path / "run" / "checkpoint_best.pth"
    chosen = load_checkpoint(best).reranking
    assert chosen is not None
    evaluate = ["train", "--evaluate", "--config", config, "--checkpoint", best, "--output-dir", tmp_path / "eval"]
    assert f"re-ranked as chosen on validation: {chosen.in_words()}" in crossmodal(*evaluate).out
    order = reranked_by(tmp_path / "eval" / "metrics.json")
    assert order == (chosen.depth, chosen.weight)
    edited(config, lambda content: content["evaluation"].update(rerank_weight=0.5, k_test=7))
    assert "best 7 re-ranked with weight 0.5, as configured" in crossmodal(*evaluate).out
    assert reranked_by(tmp_path / "eval" / "metrics.json") == (7, 0.5)


def reranked_by(metrics: Path) -> tuple[int, float]:
    (order,) = {(each["rerank"], each["rerank_weight"]) for each in read_json(metrics)["evaluations"] if each["rerank"]}
    return order


def test_evaluate_needs_a_checkpoint_that_fits(crossmodal: CommandLine, config: Path, tmp_path: Path) -> None:
    evaluate = ["train", "--evaluate", "--config", config, "--output_dir", tmp_path / "eval"]
    assert "--evaluate needs --checkpoint" in crossmodal(*evaluate).err
    assert "there is no such checkpoint" in crossmodal(*evaluate, "--checkpoint", tmp_path / "gone.pth").err
    assert crossmodal("train", "--config", config, "--output_dir", tmp_path / "run").code == 0
    edited(config, lambda content: content["model"].update(embed_dim=64))
    outcome = crossmodal(*evaluate, "--checkpoint", tmp_path / "run" / "checkpoint_1.pth")
    assert outcome.code == 2
    assert "was trained with model.embed_dim 256, but the configuration says 64" in outcome.err
    assert not (tmp_path / "eval").exists()


def test_training_with_wandb_leaves_an_offline_run_beside_it(
    crossmodal: CommandLine, config: Path, tmp_path: Path
) -> None:
    edited(config, lambda content: content["recipe"].update(stage1_epochs=1))
    assert crossmodal("train-two-stage", "--config", config, "--output_dir", tmp_path / "t", "--use_wandb").code == 0
    runs = [read_run(path) for path in (tmp_path / "t").glob("wandb/offline-run-*/*.wandb")]
    assert sorted(run["name"] for run in runs) == ["stage1", "stage2"]
    assert all(len(run["rows"]) == 1 for run in runs)
    assert [(run["job_type"], run["tags"][-1]) for run in runs] == [("train", "complete")] * 2
    assert all(run["summary"]["recall_mean"] == run["rows"][0]["recall_mean"] for run in runs)


def test_stages_by_hand_equal_the_two_stage_command(crossmodal: CommandLine, config: Path, tmp_path: Path) -> None:
    """As the methodology writes it: stage 1 with its own file, stage 2 from its checkpoint."""
    edited(config, lambda content: content["recipe"].update(epochs=3, stage1_epochs=2, stage2_lr_scale=0.5))
    assert crossmodal("train-two-stage", "--config", config, "--output_dir", tmp_path / "two").code == 0
    edited(config, lambda content: content["recipe"].update(epochs=2, stage1_epochs=2, stage2_lr_scale=1.0))
    assert crossmodal("train", "--config", config, "--output_dir", tmp_path / "one").code == 0
    edited(config, lambda content: content["recipe"].update(epochs=1, stage1_epochs=0))
    edited(config, lambda content: content["optimizer"].update(learning_rate=5e-4))
    second = ["train", "--config", config, "--checkpoint", tmp_path / "one" / "checkpoint_1.pth"]
    assert crossmodal(*second, "--output_dir", tmp_path / "hand").code == 0
    by_hand = load_checkpoint(tmp_path / "hand" / "checkpoint_0.pth").weights
    together = load_checkpoint(tmp_path / "two" / "stage2" / "checkpoint_0.pth").weights
    assert all(torch.equal(by_hand[name], together[name]) for name in together)


def images_of_another(config: Path, demo: Path, tmp_path: Path) -> Path:
    """A copy of the images that the configuration reads from now on."""
    shutil.copytree(demo / "images", tmp_path / "images", dirs_exist_ok=True)
    return edited(config, lambda content: content["data"].update(image_root=str(tmp_path / "images")))


@pytest.mark.parametrize("arguments", [["train", "--evaluate"], ["train"]])
def test_a_checkpoint_of_other_features_is_refused_before_any_extraction(
    crossmodal: CommandLine, config: Path, tmp_path: Path, arguments: list[str]
) -> None:
    assert crossmodal("train", "--config", config, "--output-dir", tmp_path / "run").code == 0
    edited(config, lambda content: content["features"].update(max_tokens=16))
    checkpoint = ["--checkpoint", tmp_path / "run" / "checkpoint_1.pth"]
    outcome = crossmodal(*arguments, "--config", config, *checkpoint, "--output-dir", tmp_path / "other")
    assert outcome.code == 2
    assert "was trained on features" in outcome.err
    assert "extracting" not in outcome.out
    assert len(list((tmp_path / "store").glob("*/manifest.json"))) == 1
    assert not (tmp_path / "other").exists()


def test_verify_reads_what_is_remembered(
    crossmodal: CommandLine, config: Path, demo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images_of_another(config, demo, tmp_path)
    first = crossmodal("features", "extract", "--config", config)
    read: list[Path] = []
    digest = digests._piece_digest

    def noted(place: tuple[Path, int]) -> str:
        read.append(place[0])
        return digest(place)

    monkeypatch.setattr(digests, "_piece_digest", noted)
    assert crossmodal("features", "extract", "--config", config).out == first.out.splitlines(keepends=True)[-1]
    assert 0 < len(set(read)) <= 2 * digests.SAMPLED_PIECES
    for command in ("extract", "info"):
        read.clear()
        assert crossmodal("features", command, "--config", config, "--verify").code == 0
        assert len({path for path in read if path.suffix == ".jpeg"}) == 66
    assert "--verify" in crossmodal("features", "extract", "--help").out


def test_a_damaged_store_is_one_line(crossmodal: CommandLine, config: Path, tmp_path: Path) -> None:
    assert crossmodal("features", "extract", "--config", config).code == 0
    (manifest,) = (tmp_path / "store").glob("*/manifest.json")
    for raw in ("", "[]", '{"counts": 3}'):
        manifest.write_text(raw)
        for command in (["features", "info"], ["train", "--output-dir", tmp_path / "run"]):
            outcome = crossmodal(*command, "--config", config)
            assert outcome.code == 2
            assert outcome.err.strip().splitlines() == [
                f"error: {manifest}: cannot be read as features (it is not what was written); "
                f"remove {manifest.parent} and extract again"
            ]
    manifest.unlink()
    assert f"remove {manifest.parent} and extract again" in crossmodal("features", "extract", "--config", config).err


def test_what_may_be_unintended_is_reported_when_features_are_extracted(
    crossmodal: CommandLine, config: Path, demo: Path, tmp_path: Path
) -> None:
    records = read_json(demo / "test.json")
    records[0]["image_id"] = "0003/elsewhere.jpeg"
    (tmp_path / "test.json").write_text(json.dumps(records))
    edited(config, lambda content: content["data"].update(test_annotations=str(tmp_path / "test.json")))
    outcome = crossmodal("features", "extract", "--config", config)
    assert "noted in the annotations: test building that is a training building, too (the first: 0003)" in outcome.out
    assert "noted" not in crossmodal("features", "extract", "--config", config).out


def test_an_interrupted_extraction_prints_how_to_continue(
    crossmodal: CommandLine, config: Path, tmp_path: Path
) -> None:
    command = ("features", "extract", "--config", config, "--shard", 8)
    with start(*command, cwd=tmp_path, command=hold(".shard_images", 4)) as process:
        wait_until_held(process)
        shards = sorted((tmp_path / "store").glob(".*.partial/shard_*"))
        process.send_signal(signal.SIGINT)
        process.send_signal(signal.SIGCONT)
        stopped = finish(process)
    assert len(shards) == 3
    assert (stopped.code, stopped.err) == (130, "interrupted; run the same command to continue\n")
    assert sorted((tmp_path / "store").glob(".*.partial/shard_*")) == shards
    assert crossmodal(*command).code == 0
    assert not list((tmp_path / "store").glob(".*.partial"))


@pytest.mark.parametrize(
    ("command", "work"),
    [
        (["data", "synth", "drawn"], "core.data.synthetic.write_synthetic_dataset"),
        (["data", "check", "."], "core.data.checks.check_file"),
        (["train", "--config", "train.yaml", "--output-dir", "run"], "core.training.runs.run"),
        (["leaderboard", "."], "analysis.boards.read_boards"),
    ],
)
def test_any_interrupted_command_prints_how_to_continue(
    crossmodal: CommandLine,
    config: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    command: list[str],
    work: str,
) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.chdir(tmp_path)
    (tmp_path / "train.json").write_text("[]")
    monkeypatch.setattr(work, interrupted)
    outcome = crossmodal(*command)
    assert (outcome.code, outcome.err) == (130, "interrupted; run the same command to continue\n")


def snapshot(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("command", ["train", "train-two-stage"])
def test_a_second_command_in_a_folder_is_refused_by_name_before_it_does_anything(
    crossmodal: CommandLine, config: Path, tmp_path: Path, command: str
) -> None:
    edited(config, lambda content: content["recipe"].update(stage1_epochs=1))
    keep = hold_run if command == "train" else hold_two_stage
    with keep(tmp_path / "run"):
        before = snapshot(tmp_path)
        outcome = crossmodal(command, "--config", config, "--output-dir", tmp_path / "run", "--use-wandb")
        assert outcome.code == 2
        assert f"process {os.getpid()} on " in outcome.err
        assert len(outcome.err.strip().splitlines()) == 1
        assert snapshot(tmp_path) == before  # nor were features extracted
    assert crossmodal(command, "--config", config, "--output-dir", tmp_path / "run").code == 0


OUTPUTS: dict[str, tuple[str, list[str]]] = {
    "config.yaml": ("train", []),
    "checkpoint_3.pth": ("train", []),
    "wandb/debug.log": ("train", ["--use-wandb"]),
    "identity.json": ("train", []),
    "stage2/log.txt": ("train-two-stage", []),
    "experiment_summary.json": ("train-two-stage", []),
    "metrics.json": ("train", ["--evaluate", "--checkpoint", "nowhere.pth"]),
    "embeddings.npz": ("train", ["--evaluate", "--checkpoint", "nowhere.pth", "--save-embeddings"]),
}


@pytest.mark.parametrize(("name", "command"), OUTPUTS.items(), ids=OUTPUTS.keys())
def test_a_folder_with_a_foreign_file_is_refused_before_features_are_extracted(
    crossmodal: CommandLine, config: Path, tmp_path: Path, name: str, command: tuple[str, list[str]]
) -> None:
    edited(config, lambda content: content["recipe"].update(stage1_epochs=1))
    theirs = tmp_path / "run" / name
    theirs.parent.mkdir(parents=True)
    theirs.write_text("mine")
    before = snapshot(tmp_path)
    outcome = crossmodal(command[0], "--config", config, "--output-dir", tmp_path / "run", *command[1])
    assert outcome.code == 2
    assert name.split("/")[0] in outcome.err
    assert len(outcome.err.strip().splitlines()) == 1
    assert snapshot(tmp_path) == before


def test_an_evaluation_may_go_into_the_runs_own_folder(crossmodal: CommandLine, config: Path, tmp_path: Path) -> None:
    run = ["train", "--config", config, "--output-dir", tmp_path / "run"]
    assert crossmodal(*run).code == 0
    evaluate = [*run, "--evaluate", "--checkpoint", tmp_path / "run" / "checkpoint_best.pth"]
    assert [crossmodal(*evaluate).code, crossmodal(*evaluate).code, crossmodal(*run).code] == [0, 0, 0]


def test_a_checkpoint_of_other_features_is_refused_before_any_are_extracted(
    crossmodal: CommandLine, config: Path, tmp_path: Path
) -> None:
    assert crossmodal("train", "--config", config, "--output-dir", tmp_path / "run").code == 0
    edited(config, lambda content: content["features"].update(image_size=56, store=str(tmp_path / "other")))
    using = ["train", "--config", config, "--output-dir", tmp_path / "new"]
    using += ["--checkpoint", tmp_path / "run" / "checkpoint_1.pth"]
    for arguments in (using, [*using, "--evaluate"]):
        outcome = crossmodal(*arguments)
        assert outcome.code == 2
        assert "checkpoint_1.pth: was trained on features" in outcome.err
    assert not list((tmp_path / "other").rglob("*.npy"))
    assert not (tmp_path / "new").exists()


def test_a_run_that_diverges_is_one_line(crossmodal: CommandLine, config: Path, tmp_path: Path) -> None:
    explosive = {
        "learning_rate": 1.0,
        "weight_decay": 10.0,
        "batch_size": 2,
    }  # -9 times a step
    edited(config, lambda content: content["optimizer"].update(explosive))
    edited(config, lambda content: content["recipe"].update(epochs=4))
    outcome = crossmodal("train", "--config", config, "--output-dir", tmp_path / "run")
    assert outcome.code == 2
    assert "lower optimizer.learning_rate" in outcome.err
    assert len(outcome.err.strip().splitlines()) == 1


def test_folders_of_one_name_hold_different_wandb_runs_and_a_run_keeps_its_own(
    crossmodal: CommandLine, config: Path, tmp_path: Path
) -> None:
    for parent in ("A", "B"):
        arguments = ["train", "--config", config, "--output-dir", tmp_path / parent / "my run", "--use-wandb"]
        assert crossmodal(*arguments).code == 0
        (tmp_path / parent / "my run" / "checkpoint_1.pth").unlink()
        assert crossmodal(*arguments).code == 0
    ids = [
        {path.stem for path in (tmp_path / parent / "my run").glob("wandb/offline-run-*/*.wandb")} for parent in "AB"
    ]
    assert [len(found) for found in ids] == [1, 1]
    assert ids[0] != ids[1]

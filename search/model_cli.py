"""Commands that use a trained model: ask it, measure it on other data, export it."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from core.terminal.cli import AgainOption, JsonOption, UniqueTextsOption
from core.terminal.console import FeatureDisplay, print_json, progress_bar, say, show

if TYPE_CHECKING:
    from core.inference.image_index import ImageIndex
    from core.inference.retrieval_model import Match, RetrievalModel

app = typer.Typer()

ModelArgument = Annotated[
    str,
    typer.Argument(metavar="MODEL", help="Folder of a final model, a run or an export; a checkpoint; or owner/name."),
]
BackboneOption = Annotated[
    str | None, typer.Option(help="Folder or hub id of the frozen backbone; default: where it was for training.")
]
CacheOption = Annotated[
    Path | None,
    typer.Option("--cache-dir", "--cache_dir", help="Folder of what is computed once; default: below ~/.cache."),
]


@app.command(
    epilog='Example: crossmodal retrieve output/demo/final "a red dome on sand" --images output/demo-data/images/test'
)
def retrieve(
    model: ModelArgument,
    text: Annotated[str | None, typer.Argument(metavar="[TEXT]", help="What to find pictures of.")] = None,
    images: Annotated[Path | None, typer.Option(help="Folder of pictures to find; they are indexed once.")] = None,
    image: Annotated[Path | None, typer.Option(help="Picture to find texts for, instead of TEXT and --images.")] = None,
    texts: Annotated[Path | None, typer.Option(help="File with a text on each line, for --image.")] = None,
    top: Annotated[int, typer.Option(min=1, help="Number of answers.")] = 10,
    html: Annotated[
        Path | None, typer.Option(help="Also write a page with the pictures and boxes to this file.")
    ] = None,
    as_json: JsonOption = False,
    backbone: BackboneOption = None,
    cache_dir: CacheOption = None,
) -> None:
    """Find the pictures of a folder that a text describes, or the texts that describe a picture."""
    from analysis.own_pages import require_free_page
    from core.errors import UserError
    from core.inference.loading import load_model

    by_text, by_image = text is not None and images is not None, image is not None and texts is not None
    if by_text == by_image or (by_text and (image or texts)) or (by_image and (text is not None or images)):
        raise UserError("a TEXT goes with --images, and --image with --texts", how="give one of these pairs")
    if html is not None:
        require_free_page(html)
    loaded = load_model(model, backbone=backbone)
    if image is not None and texts is not None:
        from core.inference.text_index import TextIndex

        lines = read_texts(texts)
        found = loaded.search(image, TextIndex.of(loaded, lines), top)
        searched = f"{len(set(lines)):,} texts of {texts}"
    else:
        assert images is not None
        assert text is not None
        index = open_index(loaded, images, cache_dir)
        found = loaded.search(text, index, top)
        searched = f"{len(index):,} pictures in {images}"
    notes = [*loaded.notes(), *_reranked(loaded)]
    query = text if text is not None else str(image)
    if as_json:
        print_json(_as_json(query, found, notes))
    else:
        _show_matches(searched, found, notes)
    if html is not None:
        _write_page(html, query, image, f"{searched}, searched with {loaded.name}", (found, notes))
        say(f"page: {html}")


def open_index(model: "RetrievalModel", images: Path, cache_dir: Path | None) -> "ImageIndex":
    """Index a folder, with a bar only if something has to be encoded."""
    from core.errors import UserError
    from core.inference.image_index import ImageIndex

    if cache_dir is not None and cache_dir.exists() and not cache_dir.is_dir():
        raise UserError("is a file, not a folder", where=cache_dir, how="name another --cache-dir")
    cache = None if cache_dir is None else cache_dir / "index"
    with progress_bar() as bar:
        task = bar.add_task("pictures", total=None)
        index = ImageIndex.open(
            model, images, cache=cache, on_progress=lambda done, total: bar.update(task, completed=done, total=total)
        )
    if not len(index):
        what = f"holds no picture that can be read; the first: {index.problems[0]}"
        raise UserError(what, where=images, how="name another folder")
    for problem in index.problems[:3]:
        say(f"skipped: {problem}", style="yellow")
    if len(index.problems) > 3:
        say(f"skipped in all: {len(index.problems)} pictures that cannot be read", style="yellow")
    return index


def read_texts(texts: Path) -> list[str]:
    """The lines of a file that are not blank."""
    from core.errors import UserError
    from core.files.text_files import read_text

    try:
        lines = [line.strip() for line in read_text(texts).splitlines()]
    except FileNotFoundError:
        raise UserError("there is no such file", where=texts) from None
    except OSError as error:
        raise UserError(f"cannot be read ({error.strerror})", where=texts, how="name a file of texts") from None
    if not any(lines):
        raise UserError("holds no text", where=texts, how="write one text on each line")
    return [line for line in lines if line]


def _reranked(model: "RetrievalModel") -> list[str]:
    if model.order is None:
        return []
    return [f"the best {model.order.depth} by similarity are re-ranked by the matching head, as in evaluation"]


def _as_json(query: str, found: "list[Match]", notes: list[str]) -> dict[str, Any]:
    answers = [
        {
            "path": None if match.path is None else str(match.path),
            "text": match.text,
            "score": match.score,
            "match": match.match,
            "box": match.box,
            "relation": match.relation,
        }
        for match in found
    ]
    return {"query": query, "answers": answers, "notes": notes}


def _show_matches(searched: str, found: "list[Match]", notes: list[str]) -> None:
    from core.terminal.tables import answers_table

    show(answers_table(searched, [(str(m.path or m.text), m.score, m.match, m.box, m.relation) for m in found]))
    for note in notes:
        say(note)


def _write_page(
    html: Path, query: str, image: Path | None, searched: str, found: "tuple[list[Match], list[str]]"
) -> None:
    from analysis.retrieval_page import Answer, Answers, write_retrieval_page

    matches, notes = found
    answers = [Answer(m.path, m.text, m.score, m.box, m.relation, m.match) for m in matches]
    write_retrieval_page(html, Answers(query, image, searched, answers, notes))


@app.command(
    epilog="Example: crossmodal evaluate output/demo/final --annotations output/demo-data/test.json "
    "--images output/demo-data/images --output-dir output/measured"
)
def evaluate(
    model: ModelArgument,
    annotations: Annotated[Path, typer.Option(help="Annotations of the test set, in GeoText-1652 format.")],
    images: Annotated[Path, typer.Option(help="Folder that the image paths of the annotations start from.")],
    output_dir: Annotated[Path, typer.Option("--output-dir", "--output_dir", help="Folder for metrics.json.")],
    backbone: BackboneOption = None,
    cache_dir: CacheOption = None,
    unique_texts: UniqueTextsOption = False,
    again: AgainOption = False,
    as_json: JsonOption = False,
) -> None:
    """Measure a model on any annotations; needs neither its training data nor its features."""
    from dataclasses import replace

    from core.evaluation.read_count import read_by
    from core.evaluation.scorecard import measure_alone
    from core.files.folders import cache_folder
    from core.files.json_files import write_json
    from core.files.ownership import claim_folder, require_ours
    from core.inference.exported import digest_of
    from core.inference.loading import find_model, load_model, read_model
    from core.inference.measuring import LEFT_OUT, open_test_set, read_test_set, shared_images
    from core.terminal.tables import scorecard_tables

    require_ours(output_dir, ["metrics.json"])
    path = find_model(model)
    loaded, store = load_model(path, backbone=backbone), (cache_dir or cache_folder()) / "features"
    inputs = read_test_set(loaded, annotations, images, store)
    shared = shared_images(loaded, inputs.images["test"])
    own_test = bool(shared.own_test) or digest_of(annotations) == read_model(path).test_digest
    with read_by(path, on_test=own_test, again=again) as reads:
        with FeatureDisplay() as display:
            tested = open_test_set(loaded, inputs, store, name=annotations.stem, display=display)
        measured = measure_alone(loaded.checkpoint, loaded.model, tested, name=loaded.name, unique_texts=unique_texts)
        card = replace(measured.scorecard, test_reads=reads)
        claim_folder(output_dir, ["metrics.json"])
        write_json(output_dir / "metrics.json", card.to_json())
    if as_json:
        print_json(card.to_json())
        return
    for table in scorecard_tables(card):
        show(table)
    say(LEFT_OUT)
    if shared.trained_on:
        say(f"{shared.trained_on} of the images are in the model's training annotations", style="yellow")
    if reads:
        times = "once" if reads == 1 else f"{reads} times"
        say(f"this is the test split of the model's own campaign; it was read {times}", style="yellow")
    say(f"metrics.json in {output_dir}")


@app.command(epilog="Example: crossmodal export output/demo/final --output-dir output/exported")
def export(
    model: ModelArgument,
    output_dir: Annotated[Path, typer.Option("--output-dir", "--output_dir", help="Folder of the exported model.")],
    onnx: Annotated[bool, typer.Option("--onnx", help="Also write the adapters as ONNX.")] = False,
    push: Annotated[
        str | None, typer.Option(metavar="OWNER/NAME", help="Also upload it to this repository of the hub.")
    ] = None,
    backbone: BackboneOption = None,
) -> None:
    """Write a model in the layout of the Hugging Face hub: safetensors, configuration and model card."""
    from core.files.ownership import require_ours
    from core.inference.card import export_card
    from core.inference.exported import FILES, write_export
    from core.inference.loading import find_model, load_model, read_model

    if onnx:
        from core.inference.onnx_export import require_onnx

        require_onnx()
    if push is not None:
        from core.inference.model_hub import require_hub_id

        require_hub_id(push)
    require_ours(output_dir, FILES)
    path = find_model(model)
    loaded = load_model(path, backbone=backbone)
    card = export_card(loaded, place=push or str(output_dir), written=_model_card(path))
    write_export(output_dir, read_model(path), card, source=path)
    say(f"{path}, epoch {loaded.checkpoint.epoch}, exported to {output_dir}")
    if onnx:
        from core.inference.onnx_export import write_onnx

        for name, difference in write_onnx(loaded, output_dir).items():
            say(f"{name}: differs from the model by at most {difference:.1e} under onnxruntime")
    if push is not None:
        from core.inference.model_hub import push as upload

        say(f"pushed to {upload(output_dir, push)}")


def _model_card(path: Path) -> str | None:
    """Of the final model that a checkpoint belongs to."""
    from core.files.text_files import read_text

    for folder in (path.parent, path.parent.parent):
        if (card := folder / "model_card.md").is_file():
            return read_text(card, how="write it again by crossmodal retrain, or move it away")
    return None

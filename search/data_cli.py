"""Commands on data sets. Each imports what it runs only when it is called."""

from collections.abc import Callable
from dataclasses import asdict, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from rich.progress import Progress, TaskID
from rich.table import Table

from core.data.other_formats import Format
from core.terminal.cli import JsonOption
from core.terminal.console import console, print_json, progress_bar, say, show

if TYPE_CHECKING:
    from analysis.contact_sheet import SheetImage
    from core.data.annotations import AnnotatedImage
    from core.data.checks import CheckedFile
    from core.formats.importing import Imported

NAMED = 3
"""Shared buildings and images that are printed."""
app = typer.Typer(
    help="Draw, import or check a data set.",
    no_args_is_help=True,
    epilog="Example: crossmodal data synth output/demo-data",
)


@app.command(epilog="Example: crossmodal data synth output/demo-data")
def synth(
    out: Annotated[Path, typer.Argument(help="Folder to write to; created if it is missing.")],
    buildings: Annotated[int, typer.Option(min=2, help="Number of training buildings.")] = 400,
    images_per_building: Annotated[int, typer.Option(min=1, help="Images per building.")] = 6,
    seed: Annotated[int, typer.Option(min=0, max=2**32 - 1)] = 0,
) -> None:
    """Draw a synthetic data set in GeoText-1652 format, and a tiny random InternVL to go with it."""
    from core.data.synthetic import write_synthetic_dataset

    with progress_bar() as progress:
        task = progress.add_task("drawing synthetic scenes", total=None)
        write_synthetic_dataset(
            out,
            buildings=buildings,
            images_per_building=images_per_building,
            seed=seed,
            on_progress=_shown_in(progress, task),
        )
    checkpoint = out / "tiny-internvl"
    if not (checkpoint / "config.json").exists():
        _build_tiny_checkpoint(checkpoint, out, seed)
    say(f"{out}: synthetic scenes in GeoText-1652 format, and a tiny random InternVL in {checkpoint.name}/")


def _build_tiny_checkpoint(checkpoint: Path, dataset: Path, seed: int) -> None:
    from core.backbone.tiny import build_tiny_checkpoint
    from core.data.annotations import read_annotations
    from core.errors import UserError
    from core.files.ownership import scratch_folder

    if checkpoint.exists():
        raise UserError("is no checkpoint of ours, since it has no config.json", where=checkpoint, how="move it away")
    images = read_annotations(dataset / "train.json", dataset / "images").images
    texts = [text for image in images for text in (*image.captions, *(region.sentence for region in image.regions))]
    with scratch_folder(dataset) as partial:
        build_tiny_checkpoint(partial / checkpoint.name, texts, seed=seed)
        (partial / checkpoint.name).rename(checkpoint)


@app.command("import", epilog="Example: crossmodal data import rsicd/dataset_rsicd.json data/rsicd")
def import_(
    source: Annotated[Path, typer.Argument(help="File or folder of a published data set.")],
    out: Annotated[Path, typer.Argument(help="Folder to write; must be empty or missing.")],
    format_: Annotated[Format | None, typer.Option("--format", help="Default: recognised.")] = None,
    images: Annotated[
        Path | None, typer.Option(help="Folder that the paths of images start from; default: looked for.")
    ] = None,
    boxes: Annotated[
        Literal["xyxy", "xywh", "cxcywh"] | None,
        typer.Option(help="Corners; corner and size; centre and size. Default: the format's, or recognised."),
    ] = None,
    box_unit: Annotated[
        Literal["pixels", "fractions"] | None, typer.Option(help="Default: the format's, or recognised.")
    ] = None,
    group: Annotated[
        str | None,
        typer.Option(help="What belongs together: none, column:NAME, or folder:N of the image's path (-1: the last)."),
    ] = None,
    split_column: Annotated[str | None, typer.Option(help="Column that names the split of a record.")] = None,
    test_fraction: Annotated[
        float | None,
        typer.Option(min=0, max=0.9, help="Share of the groups to test on, if the source has no test split; 0: none."),
    ] = None,
    copy: Annotated[bool, typer.Option("--copy", help="Copy the image files instead of linking them.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Convert a published data set into GeoText-1652's format: train.json, test.json and images/."""
    from core.formats.conversion import Choices
    from core.formats.grouping import Grouping
    from core.formats.importing import Options, prepare

    grouping = None if group is None else Grouping.parse(group)
    choices = Choices(grouping, split_column, test_fraction, boxes, box_unit)
    planned = prepare(source, out, Options(format_, images, copy, choices))
    for line in planned.plan():
        say(line)
    with progress_bar() as progress:
        task = progress.add_task("reading records", total=None)
        imported = planned.run(lambda done: progress.update(task, completed=done))
    _print_import(imported)
    say(f"next: crossmodal data check {out}")
    if as_json:
        found = imported.findings
        splits = {split: asdict(counts) for split, counts in imported.splits.items()}
        print_json({"splits": splits, "repaired": found.repaired, "dropped": found.dropped, "messages": found.messages})


def _print_import(imported: "Imported") -> None:
    table = Table()
    for heading in ("split", "images", "captions", "regions", "groups"):
        table.add_column(heading, justify="left" if heading == "split" else "right", no_wrap=True)
    for split, counts in imported.splits.items():
        numbers = (counts.images, counts.captions, counts.regions, counts.groups)
        table.add_row(split, *(f"{number:,}" for number in numbers))
    show(table)
    for kind, count in imported.findings.repaired.items():
        if count:
            say(f"repaired: {kind}: {count:,}")
    for kind, count in imported.findings.dropped.items():
        say(f"dropped: {kind}: {count:,}", style="yellow")
    for message in imported.findings.messages:
        say(f"  {message}")
    if imported.shared_groups:
        say(f"note: {imported.shared_groups:,} groups are in both train and test", style="yellow")


@app.command(epilog="Example: crossmodal data check data/GeoText1652 --sheet sheet.html")
def check(
    paths: Annotated[
        list[Path], typer.Argument(help="Annotation files, or folders that hold train.json and test.json.")
    ],
    image_root: Annotated[
        Path | None,
        typer.Option(
            "--image-root", "--image_root", help="Folder of the images; default: images/ beside the annotations."
        ),
    ] = None,
    sheet: Annotated[
        Path | None, typer.Option(help="Also write a page with some of the images, their boxes and captions.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Read complete data sets, images included: count contents, repairs and errors, and compare train with test."""
    from analysis.contact_sheet import write_sheet
    from analysis.own_pages import require_free_page
    from core.errors import UserError, shown

    files = _annotation_files(paths)
    if sheet is not None:
        require_free_page(sheet)
    checked = [_check_file(file, image_root) for file in files]
    problems = (
        [f"{rejected} entries were rejected"] if (rejected := sum(f.counts.rejected.total() for f in checked)) else []
    )
    problems += _say_overlaps(checked)
    if sheet is not None:
        write_sheet(sheet, {shown(str(file.path)): list(map(_on_sheet, file.images)) for file in checked})
        say(f"contact sheet: {sheet}")
    if as_json:
        print_json({"files": list(map(_as_json, checked)), "problems": problems})
    if problems:
        raise UserError(", ".join(problems), where=paths[0] if len(paths) == 1 else None, how="fix or remove them")


def _as_json(file: "CheckedFile") -> dict[str, Any]:
    """What was counted in a file."""
    from core.data.checks import doubts, statistics

    found = {"statistics": dict(statistics(file.images)), "doubts": list(doubts(file))}
    counts = {field.name: getattr(file.counts, field.name) for field in fields(file.counts)}
    return {"file": file.path, "split": file.split, **counts, **found}


def _on_sheet(image: "AnnotatedImage") -> "SheetImage":
    """An image as plain data."""
    from analysis.contact_sheet import SheetImage, SheetRegion
    from core.data.annotations import NO_RELATION
    from core.data.geometry import RELATIONS

    regions = [
        SheetRegion(each.sentence, each.box, None if each.relation == NO_RELATION else RELATIONS[each.relation])
        for each in image.regions
    ]
    return SheetImage(image.path, image.image_id, image.group, image.captions, regions)


def _annotation_files(paths: list[Path]) -> list[Path]:
    """The files named, and those in the folders named, each once."""
    from core.errors import UserError
    from core.files.folders import SYNTHETIC
    from core.files.ownership import IDENTITY

    found: dict[Path, Path] = {}
    for path in paths:
        files = [path] if path.is_file() else sorted(path.glob("*.json"))
        files = [file for file in files if path.is_file() or file.name not in (SYNTHETIC, IDENTITY)]
        if not files:
            raise UserError("holds no annotation file", where=path, how="name a GeoText-format JSON file or its folder")
        for file in files:
            found.setdefault(file.resolve(), file)
    return list(found.values())


def _check_file(path: Path, image_root: Path | None) -> "CheckedFile":
    from core.data.checks import check_file, doubts, statistics
    from core.errors import shown

    with progress_bar() as progress:
        task = progress.add_task(f"checking {shown(path.name)}", total=None)
        file = check_file(path, image_root or path.parent / "images", on_progress=_shown_in(progress, task))
    say(shown(str(path)), style="bold")
    table = Table(show_header=False)
    table.add_column(overflow="fold")  # wraps on a narrow terminal instead of being cut off
    table.add_column(justify="right", no_wrap=True)
    table.add_row("split, by the file's name", file.split or "unknown")
    for name, value in file.counts.rows():
        table.add_row(name, f"{value:,}")
    for name, figure in statistics(file.images):
        table.add_row(name, figure)
    console.print(table)
    for message in file.counts.messages:
        say(message, style="red")
    for doubt in doubts(file):
        console.print(doubt, style="yellow", highlight=False, markup=False)  # wrapped, as the table is
    return file


def _say_overlaps(checked: "list[CheckedFile]") -> list[str]:
    """Print what splits share; returns what of that is an error, in words."""
    from core.data.checks import overlaps
    from core.errors import shown

    problems = []
    for overlap in overlaps(checked):
        first, second = overlap.splits
        serious = overlap.splits == ("train", "test")
        found = {
            "buildings": overlap.groups,
            "images": [str(a) if a == b else f"{a} is {b}" for a, b in overlap.images],
        }
        for what, names in found.items():
            if names:
                listed = ", ".join(map(shown, names[:NAMED])) + (", …" if len(names) > NAMED else "")
                line = f"{what} of {second} that are in {first}, too: {len(names):,} ({listed})"
                say(line, style="red" if serious else "yellow")
                problems += [f"{what} shared by train and test: {len(names):,}"] if serious else []
    if len(checked) > 1 and (unknown := [file.path.name for file in checked if file.split is None]):
        names = ", ".join(map(shown, unknown))
        say(f"not compared with others, since the name does not say train, val or test: {names}", style="yellow")
    return problems


def _shown_in(progress: Progress, task: TaskID) -> Callable[[int, int], None]:
    return lambda done, total: progress.update(task, completed=done, total=total)

"""Synthetic aerial scenes in GeoText-1652 format, for demos, tests and benchmarks. Not the real data set.

A building is a layout of objects on a ground; its images are views of it: shifted, turned by a few degrees,
scaled, under different light. Views are never mirrored, since captions say left and right.
"""

import json
import math
import random
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw, ImageEnhance

from core.errors import UserError
from core.files.folders import SYNTHETIC
from core.files.json_files import read_json, write_json
from core.files.ownership import scratch_folder

SIZE = 112
"""Side of an image in pixels."""
SUPERSAMPLING = 2
NOTICE = "Synthetic data drawn by crossmodal-search; not GeoText-1652."
OnProgress = Callable[[int, int], None]
Point = tuple[float, float]

COLOURS = {
    "red": (196, 48, 43), "blue": (48, 84, 190), "green": (52, 150, 70), "yellow": (222, 200, 60),
    "white": (236, 236, 232), "orange": (226, 132, 40), "purple": (130, 60, 160), "brown": (112, 74, 44),
}  # fmt: skip
GROUNDS = {
    "grass": (96, 130, 74), "sand": (196, 176, 130), "asphalt": (110, 110, 114), "bare soil": (140, 112, 88),
    "gravel": (164, 160, 152),
}  # fmt: skip
ROWS, COLUMNS = ("upper", "middle", "lower"), ("left", "center", "right")
CELLS = [(row, column) for row in range(3) for column in range(3)]


def _polygon(corners: int, turn: float = 0.0) -> list[Point]:
    angles = [turn + 2 * math.pi * corner / corners for corner in range(corners)]
    return [(math.cos(angle), math.sin(angle)) for angle in angles]


SHAPES: dict[str, list[Point]] = {
    "rectangular building": [(-1, -0.7), (1, -0.7), (1, 0.7), (-1, 0.7)],
    "round pool": _polygon(24),
    "hexagonal tower": _polygon(6),
    "triangular hall": _polygon(3, -math.pi / 2),
    "L-shaped block": [(-1, -1), (-0.2, -1), (-0.2, 0.2), (1, 0.2), (1, 1), (-1, 1)],
    "cross-shaped library": [
        (-0.35, -1), (0.35, -1), (0.35, -0.35), (1, -0.35), (1, 0.35), (0.35, 0.35),
        (0.35, 1), (-0.35, 1), (-0.35, 0.35), (-1, 0.35), (-1, -0.35), (-0.35, -0.35),
    ],
}  # fmt: skip
"""Outlines within the square -1..1."""


@dataclass(frozen=True, slots=True)
class _Thing:
    """An object of a scene; lengths are fractions of the image's side."""

    kind: str
    colour: str
    centre: Point
    radius: float
    cell: tuple[int, int]

    @property
    def name(self) -> str:
        return f"{self.colour} {self.kind}"

    @property
    def place(self) -> str:
        row, column = ROWS[self.cell[0]], COLUMNS[self.cell[1]]
        return "in the center" if (row, column) == ("middle", "center") else f"on the {row} {column} side"


@dataclass(frozen=True, slots=True)
class _Scene:
    """Content of all images of one building: things[1] is on top of things[0] if `nested`."""

    ground: str
    road: float | None
    """Horizontal position of a road from top to bottom."""
    things: tuple[_Thing, ...]
    nested: bool


def write_synthetic_dataset(
    folder: Path,
    *,
    buildings: int,
    images_per_building: int,
    seed: int,
    on_progress: OnProgress = lambda done, total: None,
) -> None:
    """Draw train.json, test.json and images/ into a folder; does nothing if they are already there.

    Args:
        buildings: buildings of the training set; the test set has a quarter as many different ones, at least ten.
    Raises:
        UserError: the folder holds other files.
    """
    parameters = {"notice": NOTICE, "buildings": buildings, "images_per_building": images_per_building, "seed": seed}
    if (folder / SYNTHETIC).exists():
        if read_json(folder / SYNTHETIC) != parameters:
            raise UserError("holds synthetic data drawn with other parameters", where=folder, how="name another folder")
        return
    if folder.exists() and not folder.is_dir():
        raise UserError("is a file, not a folder", where=folder, how="name another folder")
    if folder.exists() and any(folder.iterdir()):
        raise UserError("is not empty", where=folder, how="name another folder")
    was_there = folder.exists()
    try:
        with scratch_folder(folder) as partial:
            _draw(partial, parameters, on_progress)
            for name in (
                "images",
                "train.json",
                "test.json",
                SYNTHETIC,
            ):  # written last: it marks the data set as complete
                (partial / name).rename(folder / name)
    except BaseException:
        if not was_there:
            with suppress(OSError):  # it is no longer empty
                folder.rmdir()
        raise


def _draw(folder: Path, parameters: dict[str, Any], on_progress: OnProgress) -> None:
    buildings, images = parameters["buildings"], parameters["images_per_building"]
    test_buildings = max(10, buildings // 4)
    total = (buildings + test_buildings) * images
    generator = random.Random(parameters["seed"])
    train = _draw_split("train", range(buildings), images, folder, generator)
    test = _draw_split("test", range(buildings, buildings + test_buildings), images, folder, generator)
    records: dict[str, list[Any]] = {"train": [], "test": []}
    done = 0
    for name, images in (("train", train), ("test", test)):
        for record in images:
            records[name].extend(record)
            done += 1
            on_progress(done, total)
        (folder / f"{name}.json").write_text(json.dumps(records[name], indent=1), encoding="utf-8")
    write_json(folder / SYNTHETIC, parameters)


def _draw_split(split: str, numbers: range, images: int, root: Path, generator: random.Random) -> Any:
    """Draw the images one by one; yields the entries of each."""
    for number in numbers:
        scene = _random_scene(generator)
        folder = root / "images" / split / f"{number:04d}"
        folder.mkdir(parents=True)
        for view in range(images):
            image, outlines = _draw_view(scene, generator)
            name = f"{number:04d}/image-{view:02d}.jpeg"
            image.save(root / "images" / split / name, quality=88)
            captions = [_caption(scene, generator, opening) for opening in range(3)]
            record = {"image_id": name, "image": f"{split}/{name}"}
            if split == "test":
                yield [{**record, "caption": captions}]
                continue
            sentences, bboxes = _regions(scene, outlines, generator)
            yield [{**record, "caption": text, "sentences": sentences, "bboxes": bboxes} for text in captions]


def _random_scene(generator: random.Random) -> _Scene:
    cells = generator.sample(CELLS, 3)
    things = [_random_thing(cell, generator) for cell in cells]
    nested = generator.random() < 0.4
    if nested:
        host = replace(things[0], radius=0.16)
        roof = _random_thing(host.cell, generator)
        others = [colour for colour in COLOURS if colour != host.colour]
        roof = replace(roof, centre=host.centre, radius=0.06, colour=generator.choice(others))
        things = [host, roof, *things[1:]]
    road = generator.choice([None, generator.uniform(0.2, 0.8)])
    return _Scene(generator.choice(list(GROUNDS)), road, tuple(things), nested)


def _random_thing(cell: tuple[int, int], generator: random.Random) -> _Thing:
    row, column = cell
    centre = (
        0.24 + 0.26 * column + generator.uniform(-0.03, 0.03),
        0.24 + 0.26 * row + generator.uniform(-0.03, 0.03),
    )
    kind, colour = generator.choice(list(SHAPES)), generator.choice(list(COLOURS))
    return _Thing(kind, colour, centre, generator.uniform(0.09, 0.13), cell)


def _draw_view(scene: _Scene, generator: random.Random) -> tuple[Image.Image, list[list[Point]]]:
    """One image of a scene, and the outline of each thing in it, in fractions of the side."""
    turn, scale = math.radians(generator.uniform(-8, 8)), generator.uniform(0.88, 1.1)
    shift = (generator.uniform(-0.06, 0.06), generator.uniform(-0.06, 0.06))

    def view(point: Point) -> Point:
        x, y = point[0] - 0.5, point[1] - 0.5
        return (
            0.5 + shift[0] + scale * (x * math.cos(turn) - y * math.sin(turn)),
            0.5 + shift[1] + scale * (x * math.sin(turn) + y * math.cos(turn)),
        )

    side = SIZE * SUPERSAMPLING
    image = Image.new("RGB", (side, side), GROUNDS[scene.ground])
    canvas = ImageDraw.Draw(image)
    if scene.road is not None:
        edges = [
            (scene.road - 0.03, -1.0),
            (scene.road + 0.03, -1.0),
            (scene.road + 0.03, 2.0),
            (scene.road - 0.03, 2.0),
        ]
        canvas.polygon([(x * side, y * side) for x, y in map(view, edges)], fill=(70, 70, 74))
    outlines = []
    for thing in scene.things:
        corners = [
            view((thing.centre[0] + thing.radius * x, thing.centre[1] + thing.radius * y))
            for x, y in SHAPES[thing.kind]
        ]
        shadow = [((x + 0.015) * side, (y + 0.015) * side) for x, y in corners]
        canvas.polygon(shadow, fill=(50, 50, 50))
        canvas.polygon([(x * side, y * side) for x, y in corners], fill=COLOURS[thing.colour], outline=(40, 40, 40))
        outlines.append(corners)
    return _relight(image.resize((SIZE, SIZE), Image.Resampling.BOX), generator), outlines


def _relight(image: Image.Image, generator: random.Random) -> Image.Image:
    image = ImageEnhance.Brightness(image).enhance(generator.uniform(0.75, 1.2))
    image = ImageEnhance.Color(image).enhance(generator.uniform(0.75, 1.2))
    return ImageEnhance.Contrast(image).enhance(generator.uniform(0.85, 1.15))


def _caption(scene: _Scene, generator: random.Random, opening: int) -> str:
    things = list(scene.things)
    generator.shuffle(things)
    phrases = [f"{_article(thing.name)} {thing.place}" for thing in things]
    if generator.random() < 0.3 and len(phrases) > 2:
        phrases = phrases[:-1]
    listed = ", ".join(phrases[:-1]) + f" and {phrases[-1]}"
    road = (
        "" if scene.road is None else generator.choice([" A road crosses the area.", " There is a road as well.", ""])
    )
    match opening:
        case 0:
            return f"The image shows an area of {scene.ground} with {listed}.{road}"
        case 1:
            return f"The image shows a campus from above. There is {listed}. The ground is {scene.ground}.{road}"
        case _:
            first, rest = phrases[0], phrases[1:]
            following = " ".join(f"{generator.choice(['Next comes', 'One sees', 'There is'])} {text}." for text in rest)
            return f"Seen from above, there is {first} on {scene.ground}. {following}{road}"


def _regions(scene: _Scene, outlines: list[list[Point]], generator: random.Random) -> tuple[list[Any], list[Any]]:
    """Three sentences and boxes, some of them null as in the real files."""
    order = list(range(len(scene.things)))
    if scene.nested and generator.random() < 0.5:
        order[:2] = [1, 0]  # the nested thing first: its host is `outside` of it
    elif not scene.nested:
        generator.shuffle(order)
    sentences: list[str | None] = []
    bboxes: list[list[float] | None] = []
    for index in order[:3]:
        thing = scene.things[index]
        absent = generator.random()
        sentences.append(None if absent < 0.05 else _sentence(thing, generator))
        bboxes.append(None if absent > 0.95 else _box(outlines[index]))
    return sentences, bboxes


def _sentence(thing: _Thing, generator: random.Random) -> str:
    place = thing.place[0].upper() + thing.place[1:]
    size = "small " if thing.radius < 0.08 else "large " if thing.radius > 0.15 else ""
    verb = generator.choice(["there is", "one sees", "stands"])
    return f"{place} of the image, {verb} {_article(size + thing.name)}."


def _article(name: str) -> str:
    return f"{'an' if name[0] in 'aeiou' else 'a'} {name}"


def _box(outline: list[Point]) -> list[float]:
    xs, ys = [x for x, _ in outline], [y for _, y in outline]
    left, right, top, bottom = min(xs), max(xs), min(ys), max(ys)
    return [round(value, 4) for value in ((left + right) / 2, (top + bottom) / 2, right - left, bottom - top)]

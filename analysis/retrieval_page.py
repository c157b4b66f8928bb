"""The page of `crossmodal retrieve --html`: pictures that answer a text with their boxes, or texts of a picture.

One file that needs no network: pictures are small JPEGs inside it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from analysis.own_pages import write_page
from analysis.report_pictures import boxed_picture
from core.errors import UserError
from core.records import Corners


@dataclass(frozen=True, slots=True)
class Answer:
    """A picture that answers a text, or a text that answers a picture."""

    path: Path | None
    text: str | None
    score: float
    box: Corners | None
    relation: str | None
    match: float | None


@dataclass(frozen=True, slots=True)
class Answers:
    """A query with its answers, best first."""

    query: str
    """The text, or the path of the picture."""
    picture: Path | None
    """The picture that asks; None if a text does."""
    searched: str
    """What was searched, and with which model, in words."""
    found: Sequence[Answer]
    notes: Sequence[str] = ()


def write_retrieval_page(path: Path, answers: Answers) -> None:
    """Write the page; a picture that cannot be read any more is left out.

    Raises:
        UserError: as `require_free_page`.
    """
    cards = [
        {
            "number": number,
            "source": _source(each.path or answers.picture, each.box),
            "title": each.text if each.path is None else str(each.path),
            "facts": ", ".join(facts_of(each)),
        }
        for number, each in enumerate(answers.found, start=1)
    ]
    content = {"title": answers.query, "searched": answers.searched, "cards": cards, "notes": answers.notes}
    write_page(path, "retrieval.html", content)


def facts_of(answer: Answer) -> list[str]:
    """What is known of an answer, in words."""
    facts = [f"similarity {answer.score:.3f}"]
    if answer.match is not None:
        facts.append(f"match {answer.match:.1%}")
    if answer.relation is not None:
        facts.append(f"relation {answer.relation}")
    return facts


def _source(path: Path | None, box: Corners | None) -> str | None:
    try:
        return None if path is None else boxed_picture(path, box)
    except UserError:
        return None

"""Pages in a file that the user names: written over nothing but a page of ours, which a mark in it says."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from markupsafe import Markup

from analysis.report import render
from core.errors import UserError
from core.files.atomic import write_atomically

MARK = '<meta name="generator" content="crossmodal-search">'
HEAD_BYTES = 1000


def require_free_page(path: Path) -> None:
    """Check that a page can be written there; call it before long work.

    Raises:
        UserError: the name is not that of a page, there is a file that is no page of ours, or no folder to write it to.
    """
    if path.suffix.lower() not in (".html", ".htm"):
        raise UserError("is not the name of a page", where=path, how="let it end in .html")
    if not path.parent.is_dir():
        raise UserError("there is no such folder", where=path.parent, how="create it, or name another file")
    if path.is_dir():
        raise UserError("is a folder", where=path, how="name a file")
    if path.exists() and not (path.is_file() and _is_ours(path)):
        raise UserError("was not written by crossmodal, and is kept", where=path, how="name another file")


def write_page(path: Path, template: str, content: Mapping[str, Any]) -> None:
    """Write a page that needs nothing else.

    Args:
        template: name of a template that extends base.html.
    Raises:
        UserError: as `require_free_page`.
    """
    require_free_page(path)
    write_atomically(path, render(template, {**content, "mark": Markup(f"{MARK}\n")}))


def _is_ours(path: Path) -> bool:
    with path.open("rb") as stream:
        return MARK.encode() in stream.read(HEAD_BYTES)

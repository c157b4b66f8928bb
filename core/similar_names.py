"""Suggestions for a misspelt setting."""

from collections.abc import Iterable, Sequence
from difflib import SequenceMatcher


def similar_names(path: str, settings: Sequence[str], sections: Iterable[str] = ()) -> list[str]:
    """Suggest settings for an unknown one: at most two with the same last part, else the most similar name.

    A name in the same section counts as similar from a likeness of 0.6, any other from 0.8.

    Args:
        path: dotted path that is not a setting.
        settings, sections: all valid dotted paths.
    Source: `difflib.SequenceMatcher.ratio` (Ratcliff and Obershelp).
    """
    path = path.lower().replace("-", "_")
    section, _, word = path.rpartition(".")
    if same := [key for key in settings if key.rpartition(".")[2] == word]:
        return same[:2]
    candidates: list[tuple[float, str]] = []
    for key in [*settings, *sections]:
        key_section, _, name = key.rpartition(".")
        likeness = _likeness(word, name)
        if key_section != section and key in settings:
            likeness = max(likeness, _likeness(path, key))
        if likeness >= (0.6 if key_section == section else 0.8):
            candidates.append((likeness, key))
    return [max(candidates)[1]] if candidates else []


def _likeness(one: str, other: str) -> float:
    return SequenceMatcher(None, one, other).ratio()

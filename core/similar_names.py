"""Which setting somebody meant who wrote a name that is none."""

from collections.abc import Iterable, Sequence
from difflib import SequenceMatcher


def similar_names(path: str, settings: Sequence[str], sections: Iterable[str] = ()) -> list[str]:
    """The same last word anywhere; else the most similar name beside it, or a very similar one elsewhere.

    Args:
        settings, sections: the dotted paths of those that there are.
    """
    path = path.lower().replace("-", "_")
    section, _, word = path.rpartition(".")
    if same := [key for key in settings if key.rpartition(".")[2] == word]:
        return same[:2]
    found: list[tuple[float, str]] = []
    for key in [*settings, *sections]:
        place, _, name = key.rpartition(".")
        likeness = _likeness(word, name)
        if place != section and key in settings:
            likeness = max(likeness, _likeness(path, key))
        if likeness >= (0.6 if place == section else 0.8):
            found.append((likeness, key))
    return [max(found)[1]] if found else []


def _likeness(one: str, other: str) -> float:
    return SequenceMatcher(None, one, other).ratio()

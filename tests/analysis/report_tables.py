"""Small tables of trials and epochs, as a campaign's folder gives them, and its space."""

from typing import Any

import pandas as pd

from core.campaign.space import Space
from core.records import RETRIEVAL_KEYS


def trials(*changes: dict[str, Any]) -> pd.DataFrame:
    """One row a trial, as `load_trials` returns them; the first is the baseline."""
    rows = []
    for number, change in enumerate(changes):
        row = {
            "number": number, "origin": number, "state": "complete", "value": 0.1, "epochs": 4, "best_epoch": 3,
            "reason": None, "retry_of": None, "session": 1, "seconds": 10.0, "parameters": 1000, "box_iou": 0.5,
            "relation_accuracy": 0.6, "gallery_images": 20, "gallery_texts": 60, "broken": "", "on_front": False,
            **dict.fromkeys(RETRIEVAL_KEYS, 0.2), **change,
        }  # fmt: skip
        rows.append({"recall_mean": row["value"], **row})
    return pd.DataFrame(rows)


def space(**settings: dict[str, Any]) -> Space:
    """A space; `__` in a name is a dot."""
    return Space({name.replace("__", "."): content for name, content in settings.items()})


def history(*epochs: tuple[int, int, float]) -> pd.DataFrame:
    """Rows of (number, epoch, recall_mean), as `load_history` returns them; the first of two epochs aligns."""
    return pd.DataFrame(
        {
            "number": number, "epoch": epoch, "recall_mean": recall, "stage": 1 if epoch == 0 else 2,
            "loss_itc": 2.0, "loss_itm": 1.0, "loss_box": None if epoch == 0 else 4.0,
            "loss_spatial": None if epoch == 0 else 10.0,
        }
        for number, epoch, recall in epochs
    )  # fmt: skip

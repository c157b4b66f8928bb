"""Figures of comparisons: a data frame in, a plotly figure out. Recall is drawn in percent."""

import pandas as pd
import plotly.graph_objects as go

from core.records import RETRIEVAL_KEYS

TEMPLATE = "plotly_white"


def learning_curves(epochs: pd.DataFrame, *, against: str = "epoch") -> go.Figure:
    """Validation recall_mean of several runs.

    Args:
        epochs: columns label, recall_mean and `against` (epoch or seconds).
    """
    figure = go.Figure()
    for label, rows in epochs.groupby("label", sort=False):
        figure.add_scatter(x=rows[against], y=100 * rows["recall_mean"], name=str(label), mode="lines+markers")
    return _finish(figure, f"Validation recall by {against}", against, "recall_mean, %")


def differences(table: pd.DataFrame) -> go.Figure:
    """Differences with their 95 % intervals; an interval that crosses 0 is not distinguishable.

    Args:
        table: as returned by `comparison.comparison_table`; rows without an interval are left out.
    """
    rows = table[table["low"].notna()]
    error = {
        "type": "data",
        "symmetric": False,
        "array": 100 * (rows["high"] - rows["difference"]),
        "arrayminus": 100 * (rows["difference"] - rows["low"]),
    }
    figure = go.Figure(go.Scatter(x=100 * rows["difference"], y=rows["metric"], error_x=error, mode="markers"))
    figure.add_vline(x=0, line_dash="dot")
    figure.update_yaxes(autorange="reversed")
    return _finish(figure, "Two-stage minus single-stage", "difference, percentage points (boxes: × 100)", "")


def recall_bars(models: pd.DataFrame) -> go.Figure:
    """Recall of several models side by side.

    Args:
        models: columns label and the recalls, as returned by `comparison.benchmark_table`.
    """
    figure = go.Figure()
    for _, row in models.iterrows():
        heights = [100 * row[name] for name in RETRIEVAL_KEYS]
        figure.add_bar(x=list(RETRIEVAL_KEYS), y=heights, name=str(row["label"]))
    return _finish(figure, "Recall by building", "", "recall, %")


def _finish(figure: go.Figure, title: str, x: str, y: str) -> go.Figure:
    return figure.update_layout(title=title, xaxis_title=x, yaxis_title=y, template=TEMPLATE, height=420)

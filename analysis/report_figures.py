"""Figures of a campaign's report: tables in, plotly figures out. Recall is in percent.

Headings and explanations belong to the page, so that they wrap on a narrow screen.
"""

import math
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from analysis.report_settings import Searched, choice_labels, values_of
from core.campaign.dimensions import Choice, IntRange
from core.campaign.trials import BASELINE
from core.config import LossConfig
from core.records import JOINT

COMPLETE, PRUNED, BEST, REFERENCE = "#0072B2", "#B0B0B0", "#D55E00", "#222222"
"""Colours that colour-blind readers tell apart (Okabe and Ito)."""
STATES = {"complete": ("complete", COMPLETE), "pruned": ("stopped early", PRUNED)}
LOSSES = {"itc": "contrastive", "itm": "matching", "box": "boxes", "spatial": "relations"}
LOSS_COLOURS = {"itc": "#0072B2", "itm": "#56B4E9", "box": "#E69F00", "spatial": "#009E73"}
HEIGHT, SMALL_HEIGHT = 380, 240
LABEL_LENGTH = 11


def optimisation_history(trials: pd.DataFrame, objective: str) -> go.Figure:
    """The objective of each trial in order, the best complete trial so far, and the baseline as a line.

    Args:
        trials: as returned by `load_trials`.
    """
    rows = trials[trials["value"].notna()].sort_values("number")
    figure = go.Figure()
    for state, (name, colour) in STATES.items():
        group = rows[rows["state"] == state]
        figure.add_scatter(
            x=group["number"], y=100 * group["value"], mode="markers", name=name, marker_color=colour,
            hovertemplate="trial %{x}: %{y:.1f} %<extra></extra>",
        )  # fmt: skip
    complete = rows[rows["state"] == "complete"]
    best = 100 * complete["value"].cummax()
    figure.add_scatter(
        x=complete["number"], y=best, mode="lines", line={"shape": "hv", "color": BEST}, name="best so far"
    )
    baseline = _baseline_value(trials)
    if baseline is not None and len(rows):
        ends = [rows["number"].iloc[0], rows["number"].iloc[-1]]
        line = {"color": REFERENCE, "dash": "dash"}
        figure.add_scatter(x=ends, y=[baseline, baseline], mode="lines", line=line, name="baseline")
    return _finish(figure, "trial", f"{objective}, %")


def importance(shares: Mapping[str, float]) -> go.Figure:
    """Bars of the importance of settings, the largest on top.

    Args:
        shares: as returned by `read_importance`, the largest first.
    """
    names, values = list(shares), [100 * share for share in shares.values()]
    figure = go.Figure(go.Bar(x=values, y=names, orientation="h", marker_color=COMPLETE, texttemplate="%{x:.0f}"))
    figure.update_yaxes(autorange="reversed", automargin=True)
    return _finish(figure, "importance, %", "", height=110 + 24 * len(names))


def parallel_coordinates(trials: pd.DataFrame, settings: Sequence[Searched], objective: str) -> go.Figure:
    """One line for each complete trial through its settings, in the colour of its objective.

    A setting that a trial did not draw is at the mark `–` below the axis.
    """
    rows = trials[(trials["state"] == "complete") & trials["value"].notna()].sort_values("value")
    values = 100 * rows["value"]
    reached = {"label": f"{objective}, %", "values": values.tolist(), "tickformat": ".0f"}
    axes = [reached, *(_axis(setting, rows) for setting in settings)]
    line = {"color": values, "colorscale": "Viridis", "showscale": False}
    figure = go.Figure(
        go.Parcoords(dimensions=axes, line=line, labelangle=-25, labelfont={"size": 11}, tickfont={"size": 10})
    )
    return _finish(figure, "", "").update_layout(margin={"l": 80, "r": 90, "t": 110, "b": 30}, height=460)


def _axis(setting: Searched, rows: pd.DataFrame) -> dict[str, object]:
    """An axis of `parallel_coordinates`, logarithms for logarithmic settings."""
    places = values_of(setting, rows)
    if isinstance(setting.dimension, Choice):
        marks = {float(place): _shortened(label) for place, label in enumerate(choice_labels(setting))}
    else:
        marks = _ticks(setting, 5)
    if setting.is_logarithmic:
        places = places.map(math.log10, na_action="ignore")
        marks = {math.log10(place): label for place, label in marks.items()}
    low, high = min(marks), max(marks)
    if places.isna().any():
        absent = low - (high - low) / 6
        places = places.fillna(absent)
        marks = {absent: "–", **marks}
    shown = {"range": [min(marks), high], "tickvals": list(marks), "ticktext": list(marks.values())}
    return {"label": setting.name, "values": places.tolist(), **shown}


def _shortened(label: str) -> str:
    """A label with room between two axes: the end of a long one, where names of readings differ."""
    return label if len(label) <= LABEL_LENGTH else f"…{label[1 - LABEL_LENGTH :]}"


def _ticks(setting: Searched, count: int) -> dict[float, str]:
    """Values that divide the range of a setting evenly, on its own scale, and how they are written."""
    assert not isinstance(setting.dimension, Choice)
    low, high = setting.dimension.bounds
    if isinstance(setting.dimension, IntRange):
        steps = np.unique(np.linspace(low, high, min(count, int(high - low) + 1)).round())
    else:
        steps = np.geomspace(low, high, count) if setting.is_logarithmic else np.linspace(low, high, count)
    return {float(step): f"{step:.2g}" if abs(step) < 100 else f"{step:.0f}" for step in steps}


def setting_slice(trials: pd.DataFrame, setting: Searched, best: int | None, objective: str) -> go.Figure:
    """The objective over one setting, only of trials that drew it.

    Args:
        best: number of the trial to mark.
    """
    rows = trials[trials["value"].notna() & trials[setting.column].notna()]
    places = values_of(setting, rows)
    figure = go.Figure()
    for state, (name, colour) in STATES.items():
        _add_points(figure, rows[rows["state"] == state], places, name, colour)
    _add_points(figure, rows[rows["origin"] == BASELINE], places, "baseline", REFERENCE)
    _add_points(figure, rows[rows["number"] == best], places, "best trial", BEST)
    if isinstance(setting.dimension, Choice):
        labels = [label.replace("+", "+<br>") for label in choice_labels(setting)]
        figure.update_xaxes(tickvals=list(range(len(labels))), ticktext=labels, range=[-0.5, len(labels) - 0.5])
    else:
        ticks = _ticks(setting, 4)
        low, high = (math.log10(end) if setting.is_logarithmic else end for end in (min(ticks), max(ticks)))
        pad = 0.06 * (high - low)
        scale = "log" if setting.is_logarithmic else "linear"
        figure.update_xaxes(
            type=scale, tickvals=list(ticks), ticktext=list(ticks.values()), range=[low - pad, high + pad]
        )
    return _finish(figure, "", f"{objective}, %", height=SMALL_HEIGHT).update_layout(showlegend=False)


def _add_points(figure: go.Figure, rows: pd.DataFrame, places: "pd.Series[float]", name: str, colour: str) -> None:
    symbol, size = ("diamond", 11) if name in ("baseline", "best trial") else ("circle", 7)
    figure.add_scatter(
        x=places.loc[rows.index], y=100 * rows["value"], mode="markers", name=name, text=rows["number"],
        marker={"color": colour, "symbol": symbol, "size": size}, cliponaxis=False,
        hovertemplate=f"trial %{{text}} ({name}): %{{y:.1f}} %<extra></extra>",
    )  # fmt: skip


def learning_curves(history: pd.DataFrame, trials: pd.DataFrame, best: int | None, objective: str) -> go.Figure:
    """The objective of every trial by epoch; the baseline and the best trial stand out.

    Args:
        history: as returned by `load_history`.
    """
    states = dict(zip(trials["number"], trials["state"], strict=True))
    of_baseline = trials.loc[trials["origin"] == BASELINE, "number"].tolist()
    marked: list[tuple[str, list[int | None], dict[str, object]]] = [
        ("baseline", of_baseline, {"color": REFERENCE, "dash": "dash", "width": 2.5}),
        ("best trial", [best], {"color": BEST, "width": 2.5}),
    ]
    figure = go.Figure()
    for state, (name, colour) in reversed(STATES.items()):
        rows = history[history["number"].map(states) == state]
        epochs, values, labels = _in_one_line(rows, objective)
        line = {"color": colour, "width": 1}
        figure.add_scatter(
            x=epochs, y=values, text=labels, mode="lines", line=line, name=name, opacity=0.55,
            hovertemplate="trial %{text}, epoch %{x}: %{y:.1f} %<extra></extra>",
        )  # fmt: skip
    for name, drawn, line in marked:
        rows = history[history["number"].isin(drawn)]
        figure.add_scatter(x=rows["epoch"] + 1, y=100 * rows[objective], mode="lines", line=line, name=name)
    return _finish(figure, "epoch", f"{objective}, %")


def _in_one_line(history: pd.DataFrame, objective: str) -> tuple[list[float], list[float], list[int]]:
    """Epochs, values and trial numbers of many curves, with a gap after each."""
    epochs: list[float] = []
    values: list[float] = []
    numbers: list[int] = []
    for _, rows in history.groupby("number"):
        epochs += [*(rows["epoch"] + 1), math.nan]
        values += [*(100 * rows[objective]), math.nan]
        numbers += [*rows["number"], int(rows["number"].iloc[0])]
    return epochs, values, numbers


def epochs_reached(trials: pd.DataFrame) -> go.Figure:
    """Epochs that each scored trial was trained for, by how it ended."""
    figure = go.Figure()
    for state, (name, colour) in STATES.items():
        rows = trials[trials["state"] == state]
        hover = "trial %{x}: %{y} epochs<extra></extra>"
        figure.add_bar(x=rows["number"], y=rows["epochs"], name=name, marker_color=colour, hovertemplate=hover)
    return _finish(figure, "trial", "epochs").update_layout(barmode="overlay", bargap=0.2)


def stage_split(splits: pd.DataFrame, objective: str) -> go.Figure:
    """The objective over the number of alignment epochs, and its mean for each.

    Args:
        splits: columns number, stage1_epochs, value and state.
    """
    figure = go.Figure()
    for state, (name, colour) in STATES.items():
        rows = splits[splits["state"] == state]
        figure.add_scatter(
            x=rows["stage1_epochs"], y=100 * rows["value"], text=rows["number"], mode="markers", name=name,
            marker_color=colour, hovertemplate="trial %{text}: %{y:.1f} %<extra></extra>",
        )  # fmt: skip
    means = splits[splits["state"] == "complete"].groupby("stage1_epochs")["value"].mean()
    figure.add_scatter(
        x=means.index, y=100 * means, mode="lines+markers", name="mean of complete trials",
        line_color=BEST, marker={"symbol": "line-ew-open", "size": 14},
    )  # fmt: skip
    figure.update_xaxes(dtick=1 if splits["stage1_epochs"].max() <= 12 else None)
    return _finish(figure, "alignment epochs (0: a single stage)", f"{objective}, %")


def loss_shares(history: pd.DataFrame, weights: LossConfig) -> go.Figure:
    """Share of each weighted loss in the sum that a trial minimised, by epoch.

    Args:
        history: rows of one trial of `load_history`.
    """
    logged = {name: history[f"loss_{name}"].astype(float) for name in LOSSES}
    weighted = {name: getattr(weights, name) * loss.fillna(0.0) for name, loss in logged.items() if loss.notna().any()}
    total = sum(weighted.values(), start=pd.Series(0.0, index=history.index))
    stages = np.where(history["stage"] == JOINT, "joint stage", "alignment")
    figure = go.Figure()
    for name, loss in weighted.items():
        figure.add_bar(
            x=history["epoch"] + 1, y=100 * loss / total, name=LOSSES[name], marker_color=LOSS_COLOURS[name],
            text=stages, textposition="none",
            hovertemplate="epoch %{x}, %{text}: %{y:.1f} %<extra>" + LOSSES[name] + "</extra>",
        )  # fmt: skip
    return _finish(figure, "epoch", "share of the weighted sum, %").update_layout(barmode="stack")


def pareto(trials: pd.DataFrame, cost: str, best: int | None, objective: str) -> go.Figure:
    """The objective of complete trials over a cost, and the front: no other trial is better and as cheap.

    Args:
        cost: column of `load_trials` of which less is better.
    """
    rows = trials[(trials["state"] == "complete") & trials["value"].notna() & trials[cost].notna()]
    figure = go.Figure()
    _add_points(figure, rows, rows[cost], "complete", COMPLETE)
    edge = front(rows, cost)
    line = {"shape": "hv", "color": COMPLETE, "dash": "dot"}
    figure.add_scatter(x=edge[cost], y=100 * edge["value"], mode="lines", line=line, name="front", hoverinfo="skip")
    _add_points(figure, rows[rows["origin"] == BASELINE], rows[cost], "baseline", REFERENCE)
    _add_points(figure, rows[rows["number"] == best], rows[cost], "best trial", BEST)
    return _finish(figure, {"parameters": "trainable parameters"}.get(cost, cost), f"{objective}, %")


def front(trials: pd.DataFrame, cost: str) -> pd.DataFrame:
    """Trials that no other one dominates: better and not dearer, or as good and cheaper; the cheapest first."""
    ordered = trials.sort_values([cost, "value"], ascending=[True, False])
    return ordered[ordered["value"] > ordered["value"].astype(float).cummax().shift(fill_value=-math.inf)]


def _baseline_value(trials: pd.DataFrame) -> float | None:
    values = trials.loc[(trials["origin"] == BASELINE) & (trials["state"] == "complete"), "value"]
    return None if values.empty else 100 * float(values.iloc[0])


def _finish(figure: go.Figure, x: str, y: str, *, height: int = HEIGHT) -> go.Figure:
    legend = {"orientation": "h", "yanchor": "bottom", "y": 1.02, "x": 0}
    margin = {"l": 48, "r": 12, "t": 16, "b": 44}
    figure.update_layout(template="plotly_white", height=height, margin=margin, legend=legend)
    figure.update_layout(xaxis_title=x, yaxis_title=y, font={"size": 12}, hovermode="closest")
    figure.update_yaxes(automargin=True)
    figure.update_xaxes(automargin=True)
    return figure

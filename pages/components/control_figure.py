"""The figure of a control chart, and its numbers in words.

Told apart by shape before colour: a point beyond the limits is a diamond, one of a run a hollow diamond, one that is not judged a ring, one
left out of the period a cross.
Limits are dashed, provisional ones dotted. `customdata`: the key of a point.
"""

from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from backend.jobs.control import Watched
from pages.components import charts, text

READ = {kind: f"Each point: {what} since the defect before; few are bad. " for kind, what in (("g", "good parts"), ("t", "hours"))}


def figure(w: Watched, last: int = 0) -> go.Figure:
    """The newest `last` points, or all; of single values with their moving range."""
    frame = w.frame.iloc[-last:] if last else w.frame
    ranges = _ranges(w, frame)
    figure = make_subplots(1 + (ranges is not None), 1, shared_xaxes=True, vertical_spacing=0.06,
                           row_heights=[0.72, 0.28] if ranges is not None else [1.0])
    x = _x(w, frame)
    _limits(figure, w, frame, x)
    _points(figure, w, frame, x)
    _marks(figure, w, frame, x)
    if ranges is not None:
        _changes(figure, w, frame, x, ranges)
    if _is_share(w):
        figure.update_yaxes(tickformat=".1~%")
    figure.update_yaxes(nticks=6, rangemode="tozero" if w.chart.weight == 1 else "normal", row=1, col=1)
    return charts.layout(figure, 410 if ranges is not None else 350, hovermode="closest").update_layout(margin_t=22)


def _x(w: Watched, frame: pd.DataFrame) -> Any:
    """Time; of rare defects their number, or a quiet month would take all the room."""
    return frame["bucket"] if w.chart.subgroup != "defect" else pd.Series(frame.index + 1, frame.index)


def _limits(figure: go.Figure, w: Watched, frame: pd.DataFrame, x: Any) -> None:
    """Of each stage its own; a gap between stages, so that no line leads from one model to the next."""
    for number, stage in enumerate(w.stages):
        rows = frame[frame["stage"] == number]
        at = x.loc[rows.index]
        for name, dash, width in (("center", "solid", 1.2), ("low", "", 1.4), ("high", "", 1.4)):
            figure.add_scatter(x=at, y=rows[name], mode="lines", hoverinfo="skip", row=1, col=1, connectgaps=False,
                               line=dict(color=charts.GREY, width=width, shape="hvh",
                                         dash=dash or ("2px,4px" if stage.provisional else "7px,4px")))


def _points(figure: go.Figure, w: Watched, frame: pd.DataFrame, x: Any) -> None:
    judged, aside = frame[frame["stage"] >= 0], frame[(frame["stage"] < 0) & frame["value"].notna()]
    crossed, beyond, out = judged["key"].isin(left_out(w)), outside(judged), judged["out"]
    chosen, size = [crossed, beyond, out], 7 if len(frame) <= 90 else 5
    look = dict(symbol=np.select(chosen, ["x", "diamond", "diamond-open"], "circle"), size=np.select(chosen, [8, 12, 10], size),
                color=np.select(chosen, [charts.GREY, charts.RED, charts.RED], charts.BLUE),
                line=dict(width=np.select(chosen, [0, 0, 2], 0)))
    common: dict[str, Any] = dict(row=1, col=1, hovertemplate="%{text}<extra></extra>")
    figure.add_scatter(x=x.loc[judged.index], y=judged["value"], mode="lines+markers", line=dict(color=charts.BLUE, width=1.5), marker=look,
                       customdata=judged["key"], text=_said(w, judged), selected=dict(marker=dict(size=15)),
                       unselected=dict(marker=dict(opacity=0.5)), **common)
    top = 1.25 * np.nanmax(judged[["value", "high"]].to_numpy(float)) if len(judged) else np.inf      # a shift of seven parts is no scale
    figure.add_scatter(x=x.loc[aside.index], y=aside["value"].clip(upper=top), mode="markers", customdata=aside["key"],
                       text=_said(w, aside), marker=dict(symbol="circle-open", size=8, color=charts.GREY), **common)


def left_out(w: Watched) -> dict[str, str]:
    """Points that a person left out of a period, and why."""
    return {key: why for save in w.saves for key, why in save.chart.excluded.items()}


def outside(frame: pd.DataFrame) -> "pd.Series[bool]":
    """Which points lie beyond a limit."""
    return (frame["value"] > frame["high"]) | (frame["value"] < frame["low"])


def _said(w: Watched, rows: pd.DataFrame) -> list[str]:
    return [f"{when}<br>{found}" + (f"<br>{aside}" if aside else "")
            for when, found, aside in zip(whens(w, rows), amounts(w, rows), rows["aside"], strict=True)]


def _marks(figure: go.Figure, w: Watched, frame: pd.DataFrame, x: Any) -> None:
    """Where another model took over, where rules changed, and the period that the newest limits come from."""
    for promotion in w.promotions:
        rows = frame[frame["key"] >= promotion.at]
        if len(rows) and len(rows) < len(frame):
            _line(figure, x.loc[rows.index[0]], "new model", charts.VIOLET, "solid", "right")
    for at in w.changes["local"] if w.chart.subgroup != "defect" else ():
        if len(frame) and frame["bucket"].iloc[0] <= at:
            _line(figure, at, "rules changed", charts.AMBER, "dot", "right")
    chart = w.chart
    inside = frame[(frame["key"] >= chart.since) & (frame["key"] <= chart.until)] if chart.limits else frame[:0]
    if len(inside):
        begin, end = (x.loc[inside.index[i]] for i in (0, -1))
        figure.add_vrect(x0=begin, x1=end, fillcolor=charts.GREY, opacity=0.1, line_width=0, row=1, col=1)
        _label(figure, begin, "limits come from here", charts.GREY, "left")


def _line(figure: go.Figure, at: Any, words: str, color: str, dash: str, side: str) -> None:
    figure.add_vline(x=at, line=dict(color=color, width=1.5, dash=dash), row=1, col=1)
    _label(figure, at, words, color, side)


def _label(figure: go.Figure, at: Any, words: str, color: str, side: str) -> None:
    """Above the points, where it hides none of them."""
    figure.add_annotation(x=at, y=1, yref="y domain", text=words, showarrow=False, yanchor="bottom", xanchor=side,
                          font=dict(color=color, size=11), row=1, col=1)


def _changes(figure: go.Figure, w: Watched, frame: pd.DataFrame, x: Any, ranges: Any) -> None:
    """From each single value to the next, below the values, with the most that chance explains."""
    figure.add_scatter(x=x, y=ranges, mode="lines+markers", marker=dict(size=4), line=dict(color=charts.GREY, width=1.5), hoverinfo="skip",
                       row=2, col=1)
    for number, stage in enumerate(w.stages):
        at = x.loc[frame.index[frame["stage"] == number]]
        if stage.chart and stage.chart.range_high and len(at):
            figure.add_scatter(x=[at.iloc[0], at.iloc[-1]], y=[stage.chart.range_high] * 2, mode="lines", hoverinfo="skip", row=2, col=1,
                               line=dict(color=charts.GREY, width=1.4, dash="2px,4px" if stage.provisional else "7px,4px"))
    figure.update_yaxes(nticks=3, rangemode="tozero", title_text="change", row=2, col=1)


def _ranges(w: Watched, frame: pd.DataFrame) -> Any:
    """From point to point, of single values; None for any other kind."""
    if w.chart.kind != "i" or w.chart.weight < 1:
        return None
    return w.frame["value"].where(w.frame["stage"] >= 0).diff().abs().loc[frame.index]


# numbers in words ----------------------------------------------------------------------------------------------------------


def whens(w: Watched, rows: pd.DataFrame) -> list[str]:
    """When each point was, as Trends names it."""
    return [charts.bucket(b, w.chart.subgroup) for b in rows["bucket"]]


def amounts(w: Watched, rows: pd.DataFrame) -> list[str]:
    """What was found at each point."""
    return [amount(w, count, size) for count, size in zip(rows["count"], rows["size"], strict=True)]


def amount(w: Watched, count: float, size: float) -> str:
    """What was found at a point, whatever its chart makes of it: '7.1 % (54 of 760)', '0.048 per part (36 on 760)', '1,046 good parts',
    '30.9 hours'."""
    match w.chart.kind[0]:
        case "p":
            return text.share(count, size)
        case "u":
            return f"{count / size:.3f} per part ({text.count(count)} on {text.count(size)})"
        case _:
            return _plainly(w, count)


def one(w: Watched, value: float) -> str:
    """A value on the chart's scale. Averages are of standard errors, but for those of single values."""
    if not np.isfinite(value) or (w.chart.kind == "i" and value < 0):                         # no share lies below 0
        return "none"
    return f"{value:+.1f} standard errors" if w.chart.weight < 1 and w.chart.kind != "i" else _plainly(w, value)


def _is_share(w: Watched) -> bool:
    """Whether the chart's scale is one of shares."""
    return w.chart.kind == "i" or w.chart.kind[0] == "p" and w.chart.weight == 1


def _plainly(w: Watched, value: float) -> str:
    forms = {"p": text.percent, "i": text.percent, "u": lambda v: f"{v:.3f} per part", "g": lambda v: f"{v:,.0f} good parts",
             "t": lambda v: f"{v:,.1f} hours"}
    return str(forms[w.chart.kind[0]](value))


def usual(w: Watched) -> str:
    """The centre of the newest stage that has one; '' without, and of averages, whose centre says nothing."""
    judged = w.frame["center"].dropna()
    return one(w, float(judged.iloc[-1])) if len(judged) and w.chart.weight == 1 else ""


def said(w: Watched) -> str:
    """'Usual: 3.2 %. By chance alone: from 0.4 % to 6.4 %.'"""
    judged = w.frame[w.frame["center"].notna()]
    reading = READ.get(w.chart.kind[0], "") if w.chart.weight == 1 else "Each point carries those before it along: small changes add up. "
    if judged.empty:
        return reading
    low, high = judged["low"].iloc[-1], judged["high"].iloc[-1]
    between = f"up to {one(w, high)}" if one(w, low) == "none" else f"from {one(w, low)} on" if not np.isfinite(high) \
        else f"from {one(w, low)} to {one(w, high)}"
    return f"{reading}{f'Usual: {usual(w)}. ' if usual(w) else ''}By chance alone: {between}."

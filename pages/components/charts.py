"""Plotly figures of the store's tables, and the one call that shows them.

Takes data frames as `jobs.results` gives them. Knows nothing of filters or pages: a chosen bar or point comes back as its `customdata`.
Plotly reads names as HTML, so what is shown of them passes `text.html`; `customdata` is as it came.
Only bars and markers are selectable (lines and heat maps return nothing), so every figure here carries one of the two.
"""

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import streamlit as st
from plotly.subplots import make_subplots

from pages.components import text

# Mid tones that keep 3:1 on the light and on the dark page; told apart by every common kind of colour vision (after Okabe and Ito).
BLUE, AMBER, RED, GREEN, VIOLET, GREY = "#2E7EBB", "#C98500", "#D1602B", "#159A7D", "#B565A7", "#8A9299"
SERIES = (BLUE, AMBER, GREEN, VIOLET, RED, GREY)

MOST_BARS = 24            # all hours of a day; more are told in the table
LEGEND = {"orientation": "h", "x": 0, "y": 1.02, "yanchor": "bottom"}       # grows upwards, so that two rows on a phone hide no line
CONFIG = {"displayModeBar": False, "scrollZoom": False, "doubleClick": False, "showAxisDragHandles": False}

# Plotly swallows a finger's drag wherever points can be chosen, so a phone could not scroll past a chart. Kept from Plotly, the touch
# scrolls the page; a tap still arrives, as the mouse click that the browser makes of it.
_TOUCH = """<script>if (!window.chartsLetTouchScroll) { window.chartsLetTouchScroll = true;
document.addEventListener("touchstart", e => { if (e.target.closest && e.target.closest(".stPlotlyChart")) e.stopPropagation(); },
{capture: true, passive: true}); }</script>"""


def show(figure: go.Figure, key: str, alt: str, on_select: Callable[[], None] | None = None) -> list[Any]:
    """Show a figure. With `on_select`, a tap on a bar or marker calls it and reruns the page; the `customdata` chosen comes back."""
    if on_select is None:
        st.plotly_chart(figure, key=key, alt=alt, config=CONFIG)
        return []
    state = st.plotly_chart(figure, key=key, alt=alt, config=CONFIG, on_select=on_select, selection_mode="points")
    return [p["customdata"] for p in state["selection"]["points"] if p.get("customdata") is not None]


def kept(build: Callable[..., go.Figure], *of: Any) -> go.Figure:
    """`build(*of)`, made once for equal inputs and shown to all: Plotly checks each word of a figure, 20 to 60 ms, where comparing the rows
    that it shows takes 2. Nobody may change it afterwards."""
    return _kept(f"{build.__module__}.{build.__qualname__}", build, of)


@st.cache_resource(max_entries=100, show_spinner=False)
def _kept(name: str, _build: Callable[..., go.Figure], of: tuple[Any, ...]) -> go.Figure:
    return _build(*of)


def let_touch_scroll() -> None:
    """Once a page, at its end, where selectable charts are: see `_TOUCH`."""
    st.html(_TOUCH, unsafe_allow_javascript=True)


def layout(figure: go.Figure, height: int, **more: Any) -> go.Figure:
    """The look all figures share: still under wheel and finger, room only where there are labels."""
    figure.update_layout(height=height, margin=dict(l=0, r=4, t=8, b=0), showlegend=False, bargap=0.25, **more)
    figure.update_xaxes(fixedrange=True)
    figure.update_yaxes(fixedrange=True)
    return figure


def mark(figure: go.Figure, lines: Iterable[dict[str, Any]] = (), words: Iterable[dict[str, Any]] = ()) -> None:
    """Add many shapes and annotations at once. One by one, each is checked against all that are there: 60 notes took a second."""
    figure.update_layout(shapes=[*figure.layout.shapes, *lines], annotations=[*figure.layout.annotations, *words])


def trend(frame: pd.DataFrame, by: str, what: str = "defective", color: str = BLUE, beside: pd.Series | None = None) -> go.Figure:
    """Share of `what` over time with its 95 % band; below it how many were inspected. `customdata`: the bucket, ISO.

    `beside`: buckets of another chart, to stand over the same days.
    """
    frame = _with_gaps(frame, what)
    when = [bucket(b, by) for b in frame["bucket"]]
    said = [f"{w}<br>{text.share(d, n)}" if n else w for w, d, n in zip(when, frame[what], frame["inspected"], strict=True)]
    iso = [b.isoformat() for b in frame["bucket"]]
    figure = make_subplots(2, 1, shared_xaxes=True, row_heights=[0.78, 0.22], vertical_spacing=0.05)
    _band(figure, frame, color)
    figure.add_scatter(x=frame["bucket"], y=frame["rate"], mode="lines+markers", line=dict(color=color, width=2), row=1, col=1,
                       marker=dict(size=9 if len(frame) <= 60 else 6), customdata=iso, text=said, hovertemplate="%{text}<extra></extra>",
                       unselected=dict(marker=dict(opacity=0.45)), selected=dict(marker=dict(size=14, color=AMBER)))
    figure.add_bar(x=frame["bucket"], y=frame["inspected"], marker_color=GREY, opacity=0.55, customdata=iso, row=2, col=1,
                   text=None, hovertext=said, hovertemplate="%{hovertext}<extra></extra>")
    figure.update_xaxes(range=_room(frame["bucket"] if beside is None else beside, by, beside is not None))
    figure.update_yaxes(tickformat=".1~%", rangemode="tozero", nticks=5, row=1, col=1)
    figure.update_yaxes(tickformat=",~s", nticks=2, row=2, col=1)
    return layout(figure, 340, hovermode="closest")


def _room(buckets: pd.Series, by: str, told: bool) -> list[pd.Timestamp] | None:
    """A week at least (a day by hour), so that a plant's first day is a point on a calendar and not a microsecond; enough: None,
    Plotly's own choice, unless it is to be told."""
    least, step = {"hour": (pd.Timedelta("1D"), pd.Timedelta("1h")), "week": (pd.Timedelta("56D"), pd.Timedelta("7D"))}.get(
        by, (pd.Timedelta("7D"), pd.Timedelta("1D")))
    first, last = buckets.min(), buckets.max()
    if last - first >= least:
        return [first - 0.6 * step, last + 0.6 * step] if told else None
    return [last - least, last + step]


def _with_gaps(frame: pd.DataFrame, what: str) -> pd.DataFrame:
    """An empty row where buckets are missing, so that the line breaks instead of telling a story about a shift nobody inspected."""
    step = frame["bucket"].diff()
    missing = frame.loc[step > 1.5 * step.median(), ["bucket"]] - step.median()
    return pd.concat([frame, missing.assign(**{"inspected": 0, what: 0})]).sort_values("bucket") if len(missing) else frame


def _band(figure: go.Figure, frame: pd.DataFrame, color: str) -> None:
    edge = dict(x=frame["bucket"], mode="lines", line=dict(width=0), hoverinfo="skip")
    figure.add_scatter(y=frame["high"], row=1, col=1, **edge)
    figure.add_scatter(y=frame["low"], fill="tonexty", fillcolor=f"{color}29", row=1, col=1, **edge)


def bucket(when: pd.Timestamp, by: str) -> str:
    return {"day": text.day(when), "week": f"Week from {text.day(when)}"}.get(by, f"{text.day(when)}, {when:%H:%M}")


def bars(frame: pd.DataFrame, chosen: str = "") -> go.Figure:
    """Share of defective per value, the frame's first on top, with its 95 % interval and its number in words. `customdata`: the value.

    One that is `chosen` is marked, the others step back.
    """
    frame = frame.head(MOST_BARS).iloc[::-1]
    said = [text.share(d, n) for d, n in zip(frame["defective"], frame["inspected"], strict=True)]
    names = [f"{'▶ ' if chosen and str(v) == chosen else ''}{text.html(v) or '(none)'}" for v in frame["value"]]
    figure = go.Figure(go.Bar(
        x=frame["rate"], y=names, orientation="h", customdata=frame["value"].astype(str), hovertext=said,
        marker=dict(color=BLUE, opacity=[0.4 if chosen and str(v) != chosen else 1.0 for v in frame["value"]]),
        hovertemplate="%{y}<br>%{hovertext}<extra></extra>", unselected=dict(marker=dict(opacity=0.45)),
        error_x=dict(array=frame["high"] - frame["rate"], arrayminus=frame["rate"] - frame["low"], color=GREY, thickness=1.5)))
    most = float(frame["high"].max()) if len(frame) else 0.0
    mark(figure, words=(dict(x=high, y=name, text=share, showarrow=False, xanchor="left", xshift=6, font=dict(size=11))
                        for name, share, high in zip(names, said, frame["high"], strict=True)))
    figure.update_xaxes(tickformat=".1~%", rangemode="tozero", nticks=4, range=[0, (most or 0.01) * 1.75])
    figure.update_yaxes(type="category")
    return layout(figure, max(110, 50 + (34 if len(frame) <= 12 else 24) * len(frame)))


def pareto(frame: pd.DataFrame, chosen: str = "") -> go.Figure:
    """Kinds of defect by number, largest first, and their running share; minor ones after, hatched. `customdata`: the kind.

    Numbers stand below bars and at the line. One that is `chosen` is marked, the others step back.
    """
    frame = frame.sort_values(["minor", "defects"], ascending=[True, False])
    names = [f"{'▶ ' if chosen == c else ''}{text.html(f'{c} (minor)' if m else c)}"
             for c, m in zip(frame["class_name"], frame["minor"], strict=True)]
    figure = make_subplots(specs=[[{"secondary_y": True}]])
    figure.add_bar(x=names, y=frame["defects"], customdata=frame["class_name"], marker_color=np.where(frame["minor"], GREY, BLUE),
                   marker_opacity=[0.4 if chosen and c != chosen else 1.0 for c in frame["class_name"]],
                   marker_pattern_shape=np.where(frame["minor"], "/", ""), unselected=dict(marker=dict(opacity=0.45)),
                   hovertext=[f"{text.count(d)} defects on {text.count(u)} parts"
                              for d, u in zip(frame["defects"], frame["units"], strict=True)],
                   hovertemplate="%{x}<br>%{hovertext}<extra></extra>")
    major = frame[~frame["minor"].astype(bool)]
    shares = ["", *(f"{c:.0%}" for c in major["cumulative"][1:])] if len(major) <= 8 else None
    figure.add_scatter(x=names[:len(major)], y=major["cumulative"], mode="lines+markers+text", line=dict(color=AMBER, width=2),
                       marker=dict(size=5), hoverinfo="skip", text=shares,
                       textposition="top center", textfont=dict(size=11), cliponaxis=False, secondary_y=True)
    numbered = [f"{name}<br><b>{text.count(n)}</b>" for name, n in zip(names, frame["defects"], strict=True)]
    figure.update_xaxes(tickvals=names, ticktext=numbered)
    figure.update_yaxes(tickformat=",~s", nticks=4, secondary_y=False)
    figure.update_yaxes(tickformat=".0%", range=[0, 1.12], showgrid=False, tickvals=[0, 0.5, 1], secondary_y=True)
    return layout(figure, 300)


def curves(frame: pd.DataFrame, names: list[str] | None = None, height: int = 260) -> go.Figure:
    """Metrics over steps (columns step, name, value), one line each."""
    figure = go.Figure()
    for i, (name, rows) in enumerate(frame.groupby("name", sort=True)):
        if names is None or name in names:
            figure.add_scatter(x=rows["step"], y=rows["value"], mode="lines+markers", name=text.html(str(name)), marker=dict(size=4),
                               line=dict(color=SERIES[i % len(SERIES)], width=2), hovertemplate="%{y:.4g}")
    return layout(figure, height, hovermode="x unified").update_layout(showlegend=True, legend=LEGEND)


def stacked(frame: pd.DataFrame, x: str, y: str, group: str, height: int = 280) -> go.Figure:
    """Counts as bars, one colour per group. `customdata`: [x, group]."""
    figure = go.Figure()
    for i, (name, rows) in enumerate(frame.groupby(group, sort=False)):
        figure.add_bar(x=[text.html(v) for v in rows[x]], y=rows[y], name=text.html(str(name)), marker_color=SERIES[i % len(SERIES)],
                       customdata=rows[[x, group]],
                       hovertemplate="%{x}: %{y:,}<extra>" + text.html(str(name)) + "</extra>")
    return layout(figure, height, barmode="stack").update_layout(showlegend=True, legend=LEGEND)


def scatter(frame: pd.DataFrame, x: str, y: str, group: str, height: int = 280) -> go.Figure:
    """One marker per row, one colour per group."""
    figure = go.Figure()
    for i, (name, rows) in enumerate(frame.groupby(group, sort=True)):
        figure.add_scatter(x=rows[x], y=rows[y], mode="markers", name=text.html(str(name)),
                           marker=dict(size=5, opacity=0.6, color=SERIES[i % len(SERIES)]))
    return layout(figure, height).update_layout(showlegend=True, legend=LEGEND)

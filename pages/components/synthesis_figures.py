"""Figures of synthetic sets: distances kind by kind beside what real pictures get, and the map of a search.

Takes rows of a result. Knows nothing of runs or of pages.
"""

from typing import Any

import plotly.graph_objects as go

from pages.components import charts, heat, text

WHAT = ("strength", "guidance", "steps")


def distances(rows: list[dict[str, Any]], key: str) -> None:
    """Each kind a row, the nearest on top: made pictures, real ones, and what chance makes of these."""
    rows = sorted(rows, key=lambda r: -r["kid"])                                # Plotly counts from the bottom
    names = [text.html(r["class_name"]) for r in rows]
    figure = go.Figure()
    floored = [r for r in rows if r["floor"] is not None]
    _points(figure, floored, ("floor", "floor_low", "floor_high"), "Other real pictures", charts.GREY, "diamond")
    _points(figure, rows, ("kid", "low", "high"), "Made pictures", charts.BLUE, "circle")
    chance = [r for r in rows if r["chance"] is not None]
    figure.add_scatter(x=[r["chance"] for r in chance], y=[text.html(r["class_name"]) for r in chance], mode="markers", name="Chance",
                       offsetgroup="Made pictures", orientation="h",
                       marker=dict(symbol="line-ns", size=20, line=dict(width=2, color=charts.AMBER)),
                       hovertemplate="%{y}: by chance up to %{x:.1f}<extra></extra>")
    figure.update_yaxes(type="category", categoryorder="array", categoryarray=names)
    figure.update_xaxes(title="KID × 1,000: 0 is no difference", zeroline=True, nticks=6)
    charts.layout(figure, 120 + 46 * len(rows), scattermode="group", scattergap=0.55).update_layout(showlegend=True, legend=charts.LEGEND)
    charts.show(figure, key, "Distance of made and of real pictures from real ones, by kind of defect")


def _points(figure: go.Figure, rows: list[dict[str, Any]], names: tuple[str, str, str], label: str, color: str, symbol: str) -> None:
    value, low, high = names
    figure.add_scatter(
        x=[r[value] for r in rows], y=[text.html(r["class_name"]) for r in rows], mode="markers", name=label, offsetgroup=label,
        orientation="h", marker=dict(size=11, color=color, symbol=symbol), hovertemplate="%{y}: %{x:.1f}<extra>" + label + "</extra>",
        error_x=dict(array=[r[high] - r[value] for r in rows], arrayminus=[r[value] - r[low] for r in rows], color=color, thickness=2))


def searched(rows: list[dict[str, Any]], best: dict[str, Any] | None, key: str) -> None:
    charts.show(map_of(rows, best), key, "Distance from real pictures for each setting; a smaller one is better")


def map_of(rows: list[dict[str, Any]], best: dict[str, Any] | None) -> go.Figure:
    """Distance by strength (across) and by steps and guidance (down); a frame round the best."""
    across = sorted({r["strength"] for r in rows})
    down = sorted({(r["steps"], r["guidance"]) for r in rows})
    at = {(r["strength"], r["steps"], r["guidance"]): r["kid"] for r in rows}
    values = [[at.get((strength, *row)) for strength in across] for row in down]
    figure = go.Figure(heat.cells(values, [f"strength {s:g}" for s in across], [f"guidance {g:g}, {n} steps" for n, g in down], digits=1))
    if best and (place := (best["steps"], best["guidance"])) in down and best["strength"] in across:
        heat.frame(figure, across.index(best["strength"]), down.index(place), charts.AMBER)
    figure.update_yaxes(autorange="reversed", type="category").update_xaxes(type="category", side="top")
    return charts.layout(figure, 60 + 40 * len(down)).update_layout(margin=dict(l=0, r=4, t=32, b=0))

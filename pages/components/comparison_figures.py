"""Figures of a comparison: a difference with its interval, seeds as dots, kinds of defect.

Take what `comparison.json` says and give Plotly figures, which the page shows and the export writes down. Differences are told in points
of a hundred. An arm has a colour and a sign of its own, so that nothing hangs on colour alone. Knows nothing of runs or of pages.
"""

from collections.abc import Sequence
from textwrap import wrap
from typing import Any

import plotly.graph_objects as go

from pages.components import charts, text, words

COLORS = (charts.GREY, charts.BLUE, charts.AMBER, charts.GREEN, charts.VIOLET, charts.RED)      # grey for the baseline, which comes first
SIGNS = ("circle", "diamond", "square", "triangle-up", "cross", "star")
DASHES = ("solid", "dash", "dot", "dashdot", "longdash", "longdashdot")
MEANS = {"better": ("Better", "green", ":material/trending_up:", charts.GREEN, "triangle-right"),
         "worse": ("Worse", "red", ":material/trending_down:", charts.RED, "triangle-left"),
         "no difference": ("No difference", "blue", ":material/equal:", charts.BLUE, "square"),
         "not enough evidence": ("Not enough evidence", "orange", ":material/question_mark:", charts.AMBER, "circle-open")}
HOVER = "%{hovertext}<extra></extra>"
METRICS = {"map50": "mAP50", "map50_95": "mAP50–95"}


def style(at: int) -> tuple[str, str, str]:
    """Colour, sign and dash of the arm at this place."""
    return COLORS[at % len(COLORS)], SIGNS[at % len(SIGNS)], DASHES[at // len(COLORS) % len(DASHES)]


def tick(name: str, width: int = 15) -> str:
    """A name as a label beside an axis: three short lines at most, so that a long one leaves a phone room for its chart."""
    return "<br>".join(text.html(line) for line in wrap(words.short(name, 2 * width), width)[:3])


def points(value: float, digits: int = 1) -> str:
    """A difference of shares as people say it: '+4.1'. The sign of what rounds to nothing is left out."""
    said = f"{100 * value:+.{digits}f}"
    return said.lstrip("+-") if float(said) == 0 else said.replace("-", "−")


def span(low: float, high: float) -> str:
    return f"{points(low)} to {points(high)}"


def differences(rows: Sequence[dict[str, Any]], margin: float, chosen: int = 0) -> go.Figure:
    """Each difference a row with its interval, against zero and against what is smaller than we would act on; the chosen one bold."""
    names = [tick(f"{r['a']} − {r['b']}" if len({x["b"] for x in rows}) > 1 else r["a"]) for r in rows]
    figure = go.Figure()
    for n, row in enumerate(rows):
        _, _, _, color, sign = MEANS[row["verdict"]]
        _whisker(figure, row, n, color, sign, bold=n == chosen)
    figure.add_vrect(x0=-100 * margin, x1=100 * margin, fillcolor=charts.GREY, opacity=0.18, line_width=0, layer="below")
    figure.add_vline(x=0, line=dict(color=charts.GREY, width=1.5))
    reach = 1.08 * max(100 * margin * 1.5, *(100 * abs(r[k]) for r in rows for k in ("low", "high")))
    figure.update_xaxes(range=[-reach, reach], zeroline=False, nticks=7, ticksuffix="", title=_points_of(rows[0]["metric"]))
    figure.update_yaxes(tickmode="array", tickvals=list(range(len(rows))), ticktext=names, range=[len(rows) - 0.5, -0.75], showgrid=False,
                        zeroline=False)
    return charts.layout(figure, 90 + 50 * len(rows), hovermode="closest")


def _points_of(metric: str) -> str:
    return f"points of {METRICS.get(metric, metric)}"


def _whisker(figure: go.Figure, row: dict[str, Any], at: int, color: str, sign: str, bold: bool) -> None:
    said = f"{points(row['difference'])}, 95 % between {points(row['low'])} and {points(row['high'])}"
    middle = 100 * row["difference"]
    figure.add_scatter(
        x=[middle], y=[at], mode="markers+text",
        marker=dict(size=15 if bold else 11, color=color, symbol=sign, line=dict(width=2, color=color)),
        text=[points(row["difference"])], textposition="top center", textfont=dict(size=15 if bold else 12),
        hovertemplate=f"{text.html(row['a'])} − {text.html(row['b'])}: {said}<extra></extra>",
        error_x=dict(array=[100 * row["high"] - middle], arrayminus=[middle - 100 * row["low"]], color=color, width=7,
                     thickness=4 if bold else 2.5))


def seeds(arms: dict[str, dict[str, Any]], order: Sequence[str], metric: str) -> go.Figure:
    """Each run a dot in the row of its arm, the mean a line; the same seed stands at the same height in each row."""
    figure = go.Figure()
    for at, arm in enumerate(order):
        color, sign, _ = style(at)
        runs = [r for r in arms[arm]["runs"] if r.get(metric) is not None]
        heights = [at + _shift(n, len(runs)) for n in range(len(runs))]
        said = [f"{text.html(arm)}, seed {r['seed']}: {r[metric]:.3f}" for r in runs]
        figure.add_scatter(x=[r[metric] for r in runs], y=heights, mode="markers", hovertext=said, hovertemplate=HOVER,
                           marker=dict(size=10, color=color, symbol=sign, opacity=0.85))
        if (mean := (arms[arm].get("mean") or {}).get(metric)) is not None:
            figure.add_scatter(x=[mean, mean], y=[at - 0.36, at + 0.36], mode="lines", line=dict(color=color, width=3),
                               hovertemplate=f"{text.html(arm)}, mean: {mean:.3f}<extra></extra>")
            figure.add_annotation(x=mean, y=at - 0.36, text=f"{mean:.3f}", showarrow=False, yshift=9, font=dict(size=12))
    figure.update_yaxes(tickmode="array", tickvals=list(range(len(order))), ticktext=[tick(a) for a in order],
                        range=[len(order) - 0.4, -0.75], showgrid=False, zeroline=False)
    figure.update_xaxes(nticks=6, title=METRICS.get(metric, metric))
    return charts.layout(figure, 70 + 58 * len(order), hovermode="closest")


def _shift(n: int, of: int) -> float:
    return 0.0 if of < 2 else 0.44 * (n / (of - 1) - 0.5)


def classes(row: dict[str, Any]) -> go.Figure:
    """Each kind of defect a bar with the interval that holds for all kinds together; the most helped on top."""
    listed = sorted(row["classes"].items(), key=lambda item: -item[1]["difference"])
    edge = max([*(100 * abs(c[k]) for _, c in listed for k in ("low_all", "high_all")), 1.0])
    figure = go.Figure()
    for said, color, pattern in MOVES:
        _bars(figure, [(at, name, c) for at, (name, c) in enumerate(listed) if _moved(name, row) == said], color, pattern)
    figure.add_scatter(x=[1.04 * edge] * len(listed), y=list(range(len(listed))), mode="text", textposition="middle right",
                       cliponaxis=False, text=[_moved(name, row) for name, _ in listed], hoverinfo="skip")
    figure.add_vline(x=0, line=dict(color=charts.GREY, width=1.5))
    figure.update_xaxes(range=[-1.08 * edge, 1.55 * edge], nticks=6, zeroline=False,
                        title="points of AP50" if row["metric"] == "map50" else "points of AP")
    figure.update_yaxes(tickmode="array", tickvals=list(range(len(listed))), ticktext=[tick(name) for name, _ in listed], showgrid=False,
                        zeroline=False, range=[len(listed) - 0.4, -0.6])
    return charts.layout(figure, 70 + 36 * len(listed), hovermode="closest", barmode="overlay")


# what it is called, its colour, its pattern: hatched where the interval holds zero
MOVES = (("▲ helps", charts.GREEN, ""), ("▼ hurts", charts.RED, ""), ("not shown", charts.GREY, "/"))


def _moved(name: str, row: dict[str, Any]) -> str:
    return MOVES[0 if name in row["helps"] else 1 if name in row["hurts"] else 2][0]


def _bars(figure: go.Figure, listed: list[tuple[int, str, dict[str, float]]], color: str, pattern: str) -> None:
    values = [100 * c["difference"] for _, _, c in listed]
    said = [f"{text.html(name)}: {points(c['difference'])} ({span(c['low_all'], c['high_all'])})" for _, name, c in listed]
    figure.add_bar(
        x=values, y=[at for at, _, _ in listed], orientation="h", marker=dict(color=color, pattern=dict(shape=pattern)),
        hovertemplate=HOVER, hovertext=said,
        error_x=dict(array=[100 * c["high_all"] - v for (_, _, c), v in zip(listed, values, strict=True)], color=charts.GREY, thickness=2,
                     arrayminus=[v - 100 * c["low_all"] for (_, _, c), v in zip(listed, values, strict=True)], width=5))

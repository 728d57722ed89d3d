"""A comparison to take away: one HTML file that needs nothing from outside, prints well, and says all that the verdict rests on; and a CSV.

The figures are those of the page. Plotly's code is written into the file, 4.8 MB of it, so that it opens years later without a network.
Knows nothing of how an interval is reached.
"""

import re
from collections.abc import Callable
from datetime import UTC, datetime
from html import escape
from typing import Any

import pandas as pd
import plotly.graph_objects as go
import streamlit as st
from plotly.offline import get_plotlyjs

from backend import jobs
from backend.jobs import spreadsheet
from pages.components import (
    charts,
    comparison_curves,
    comparison_dose,
    comparison_proof,
    comparison_settings,
    comparison_table,
    comparison_verdict,
    person,
    text,
)
from pages.components import comparison_figures as figures
from pages.components.comparison_subject import Subject

# Nothing may be fetched, whatever a name in it says.
_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy"
 content="default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data: blob:">
<title>{title}</title><style>{style}</style><script>{plotly}</script></head><body><main>{body}</main></body></html>"""
_STYLE = """
:root {color-scheme: light;}
body {font: 16px/1.5 system-ui, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif; color: #22282C; background: #FBFBFA; margin: 0;}
main {max-width: 940px; margin: 0 auto; padding: 28px 20px 60px;}
h1 {font-size: 1.15rem; font-weight: 600; color: #5A646B; margin: 0 0 .2rem;}
h2 {font-size: 1.6rem; line-height: 1.25; margin: 1.4rem 0 .5rem;}
h3 {font-size: 1.05rem; margin: 1.8rem 0 .3rem;} p {margin: .35rem 0;} .quiet {color: #5A646B; font-size: .92em;}
.warning {border-left: 4px solid #C98500; background: #FBEFD2; padding: .5rem .8rem; margin: .6rem 0;}
.badge {display: inline-block; border: 1px solid #8A9299; border-radius: 1rem; padding: 0 .6rem; font-size: .85rem; margin-right: .4rem;}
table {border-collapse: collapse; width: 100%; font-size: .86em; margin: .5rem 0;} th, td {text-align: left; padding: .28rem .5rem;
  border-bottom: 1px solid #D5DADD;} td {white-space: nowrap;} td {font-variant-numeric: tabular-nums;} .wide {overflow-x: auto;}
section {break-inside: avoid;} .two {display: grid; grid-template-columns: 1fr 1fr; gap: 1rem;}
@media (max-width: 700px) {.two {grid-template-columns: 1fr;}}
@media print {body {background: #FFF; font-size: 12px;} main {max-width: none; padding: 0;} .wide {overflow: visible;}
  td {white-space: normal; overflow-wrap: anywhere;} @page {margin: 14mm;}
  .plotly-graph-div, .js-plotly-plot {max-width: 100% !important;}}
"""
# Charts are drawn for the window; for paper, for the paper.
_PRINT = """<script>for (const when of ["beforeprint", "afterprint"]) addEventListener(when, () =>
  document.querySelectorAll(".js-plotly-plot").forEach(plot => Plotly.Plots.resize(plot)));</script>"""


def offer(subject: Subject) -> None:
    """Both files behind one button; made when asked for."""
    stem = re.sub(r"[^\w.-]+", "-", subject.name).strip("-.")[:60] or "comparison"
    with st.popover("Export", icon=":material/download:", key="comparison_export"):
        st.download_button("One page (HTML)", later(html, subject), f"{stem}.html", "text/html", icon=":material/description:",
                           on_click="ignore", key="export_html", width="stretch",
                           help="Opens and prints anywhere, without this program and without a network.")
        st.download_button("Figures (CSV)", later(csv, subject), f"{stem}.csv", "text/csv", icon=":material/table:", on_click="ignore",
                           key="export_csv", width="stretch")


def later(make: Callable[[Subject], bytes], subject: Subject) -> Callable[[], bytes]:
    def made() -> bytes:
        jobs.exported(f"comparison {subject.name}")
        return make(subject)
    return person.keeping(made)


# ---- HTML

def html(subject: Subject) -> bytes:
    body = [f"<h1>{escape(subject.name)}</h1>", f"<p class='quiet'>{_about(subject)}</p>"]
    body += _verdicts(subject) if subject.result else ["<p>No verdict has been worked out for these runs.</p>"]
    body += _curves(subject)
    body += [_section("What the arms were told, where they differ", _table(_told(subject))), _section("Every run", _table(runs(subject)))]
    run = escape(subject.run_id or "–")
    body += [f"<p class='quiet'>Written by Diffspect on {datetime.now(UTC):%d %B %Y, %H:%M} UTC. Run {run}.</p>", _PRINT]
    return _PAGE.format(title=escape(subject.name), style=_STYLE, plotly=get_plotlyjs(), body="\n".join(body)).encode()


def _about(subject: Subject) -> str:
    found = subject.result
    if not found:
        return escape(", ".join(subject.arms))
    good = f"{found['good_images']:,}" if found["good_images"] else "none"
    return escape(f"{', '.join(subject.arms)}, on the same {found['images']:,} locked test pictures of {found['dataset']}, {good} of them "
                  f"good; this test was looked at {text.counted(found['looks'], 'time')}. Test set {found['test_set_id']}.")


def _verdicts(subject: Subject) -> list[str]:
    found, parts, margin = subject.result, [], subject.result["margin"]
    told = [f"<div class='warning'>{escape(w['text'])}</div>" for w in found["warnings"]]
    whisker = [_plot(figures.differences(found["differences"], margin), "whisker"),
               f"<p class='quiet'>Bar: where the true difference lies, 19 times of 20. Grey: smaller than we would act on "
               f"({100 * margin:g} points either way).</p>"]
    for at, row in enumerate(found["differences"]):
        parts += [f"<section><h2>{escape(row['sentence'])}</h2><p>{_badges(row, found)}</p>", *([*told, *whisker] if not at else [])]
        parts += [f"<p>{escape(line)}</p>" for line in comparison_proof.plain(row)]
        parts += [f"<h3>Kind by kind, {escape(row['a'])} against {escape(row['b'])}</h3>", _plot(figures.classes(row), f"kinds{at}")]
        parts.append("<p class='quiet'>The intervals hold for all kinds together. Hatched: it may be chance.</p></section>")
    dots = _plot(figures.seeds(found["arms"], list(subject.arms), found["metric"]), "seeds")
    more = [_section("Each seed a dot, the mean a line", dots)]
    if found.get("dose"):
        same = found["dose"].get("equivalent")
        worth = f"<p>{escape(same['sentence'])}</p>" if same else ""
        more.append(_section("Dose and response", _plot(comparison_dose.figure(found["dose"], found["metric"]), "dose") + worth))
    rows = comparison_table.table(found, subject)
    for name in comparison_table.SHARES:
        rows[name] = ["–" if v is None or v != v else text.percent(v) for v in rows[name]]
    return [*parts, *more, _section("Figures", _table(rows))]


def _badges(row: dict[str, Any], found: dict[str, Any]) -> str:
    told = [figures.MEANS[row["verdict"]][0], *(["Provisional"] if row["provisional"] else []), comparison_verdict.drawn(row, found)]
    return "".join(f"<span class='badge'>{escape(t)}</span>" for t in told)


def _curves(subject: Subject) -> list[str]:
    shown = comparison_curves.curves(tuple(subject.rows["run_id"]), "map50", jobs.results.revision())
    if shown.empty:
        return []
    made = comparison_curves.figure(comparison_curves.along(shown, subject.rows, "epoch"), subject, "map50", "epoch", 0.0, None)
    return [_section("mAP50 on validation pictures, pass by pass", _plot(made, "curves"))]


def _section(title: str, body: str) -> str:
    return f"<section><h3>{escape(title)}</h3>{body}</section>"


def _plot(figure: go.Figure, name: str) -> str:
    figure = go.Figure(figure).update_layout(template="plotly_white", paper_bgcolor="rgba(0,0,0,0)", plot_bgcolor="rgba(0,0,0,0)")
    drawn: str = figure.to_html(full_html=False, include_plotlyjs=False, div_id=name, config=charts.CONFIG,
                                default_height=f"{figure.layout.height}px")
    return drawn


def _table(frame: pd.DataFrame) -> str:
    def said(value: Any) -> Any:
        if value is None or value != value:
            return "–"
        return (f"{value:.3f}" if abs(value) < 10 else f"{value:,.0f}") if isinstance(value, float) else value

    shown = frame.map(said)
    return f"<div class='wide'>{shown.to_html(index=False, border=0, escape=True)}</div>"


def _told(subject: Subject) -> pd.DataFrame:
    rows = comparison_settings.table(subject)
    return rows[rows["differs"]].drop(columns="differs")


def runs(subject: Subject) -> pd.DataFrame:
    """Every run by name and id, so that the figures can be found again."""
    if subject.result:
        told = [(arm, r) for arm in subject.arms for r in subject.result["arms"][arm]["runs"]]
    else:
        told = [(r["arm"], r) for r in subject.rows.to_dict("records")]
    return pd.DataFrame([{"Arm": arm, "Seed": r["seed"], **{label: r[m] for m, label in figures.METRICS.items()}, "Run": r["run_id"],
                          "Model": r["model_id"]} for arm, r in told])


# ---- CSV

COLUMNS = ("what", "arm", "against", "kind_of_defect", "metric", "seed", "value", "low", "high", "verdict", "run_id", "model_id")


def csv(subject: Subject) -> bytes:
    """One row per figure: of each run, and of each difference over all kinds and kind by kind."""
    rows = [dict(what="run", arm=r["Arm"], metric=m, seed=r["Seed"], value=r[label], run_id=r["Run"], model_id=r["Model"])
            for r in runs(subject).to_dict("records") for m, label in figures.METRICS.items()]
    for d in subject.result.get("differences", []):
        common = dict(arm=d["a"], against=d["b"], metric=d["metric"])
        rows.append(dict(what="difference", value=d["difference"], low=d["low"], high=d["high"], verdict=d["verdict"], **common))
        rows += [dict(what="difference of a kind", kind_of_defect=k, value=c["difference"], low=c["low_all"], high=c["high_all"], **common)
                 for k, c in d["classes"].items()]
    return spreadsheet.csv(pd.DataFrame(rows, columns=list(COLUMNS)).astype({"seed": "Int64"}))



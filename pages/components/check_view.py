"""Is whoever inspects still sound? The software check and the master parts, in plain words first, then as charts with their tables.

For the view "Checks" of the control charts. What is compared and how, the figures below say for quality engineers.
"""

from typing import Any

import pandas as pd
import plotly.graph_objects as go
import streamlit as st
from plotly.subplots import make_subplots

from backend import jobs
from pages.components import charts, plant, text, words
from pages.components.cached import cached

CAUSES = {"none": ":green[:material/check_circle:]", "process": ":material/precision_manufacturing:", "camera": ":material/photo_camera:",
          "model": ":material/memory:", "unclear": ":material/help:"}
UNITS = {"score": "score", "brightness": "brightness", "sharpness": "sharpness"}


def show(shown: str) -> None:
    watched = cached("imaging", shown)
    checks = cached("software_checks", 30)
    _headline(watched, checks)
    software(checks)
    st.markdown("### Imaging check: master parts")
    if not watched:
        nothing()
    for line in watched:
        _line(line)


def _headline(watched: list[Any], checks: list[Any]) -> None:
    failed = bool(checks) and next((c.passed is False for c in checks if c.passed is not None), False)
    moved = [f"{w.line}: {s.measure}" for w in watched for s in w.moved]
    if failed or moved:
        said = "; ".join(["The software check fails"] * failed + [f"Master parts look different ({', '.join(moved)})"] * bool(moved))
        st.markdown(f"### :red[:material/error:] {words.plain(said, 200)}")
    elif watched and checks:
        st.markdown("### :green[:material/check_circle:] Nothing speaks against camera and software")
    else:
        sound = "Nothing speaks against the software. " if checks else "Nothing speaks against the camera. " if watched else ""
        st.markdown(f"### :material/help: {sound}{'The software was not checked yet' if watched else 'Nobody watches the camera yet'}")


def hint(shown: str, line: str) -> None:
    """Process, camera or model? For whoever looks at an alarm of a line."""
    found = cached("hint", shown, line)
    with st.container(border=True, key="hint", gap="xsmall"):
        st.markdown(f"{CAUSES[found.cause]} **{words.plain(found.words, 120)}**")
        for reason in found.reasons:
            st.caption(f"· {words.plain(reason, 300)}")


# ---- software check


def software(checks: list[Any]) -> None:
    with st.container(horizontal=True, vertical_alignment="center"):
        st.markdown("### Software check", width="content")
        st.button("Check now", key="check_now", icon=":material/play_arrow:", type="tertiary", on_click=_begin)
    st.caption("Pictures that were stored with their scores are scored again: at each start, each day and after a change of model.")
    if not checks:
        return
    newest = checks[0]
    icon = {True: ":green[:material/check_circle:]", False: ":red[:material/error:]", None: ":material/hourglass_empty:"}[newest.passed]
    at = plant.local(newest.at)
    st.markdown(f"{icon} **{words.plain(newest.model, 60) or 'The model in use'}**, {text.day(at)}, {at:%H:%M}: "
                f"{words.plain(newest.words, 300)}")
    last = f"The last {len(checks)} checks" if len(checks) > 1 else "The check in figures"
    with st.expander(last, icon=":material/table_rows:"):
        said = {True: "Passed", False: "Failed", None: "–"}
        st.dataframe(pd.DataFrame({
            "When": [f"{plant.local(c.at):%d %b %H:%M}" for c in checks], "Outcome": [said[c.passed] for c in checks],
            "Model": [c.model for c in checks], "What": [c.words for c in checks],
            "Largest deviation": [c.check.worst if c.check else None for c in checks],
            "Allowed": [c.check.tolerance if c.check else None for c in checks], "Runtime": [c.runtime for c in checks]}),
            hide_index=True, alt="Software checks, the newest first", placeholder="–")


def _begin() -> None:
    try:
        jobs.submit(jobs.Check())
    except jobs.DiffspectError as error:
        st.toast(words.plain(error, 600), icon=":material/error:")


# ---- imaging check


def nothing() -> None:
    st.markdown("Keep one or two known parts, photograph them each shift, and inspect the pictures as master parts: they never count, and "
                "they tell a change of camera or light from a change of the process.")
    plant.link("inspection", "Inspect master parts", icon=":material/image_search:")


def _line(line: Any) -> None:
    with st.container(border=True, key=f"imaging_{''.join(c if c.isalnum() else '-' for c in line.line)}"):
        with st.container(horizontal=True, vertical_alignment="center", gap="small"):
            st.markdown(f"#### {words.plain(line.line, 60)}", width="content")
            st.badge("Moved" if line.moved else "Steady" if any(s.chart for s in line.found) else "Too early",
                     icon=":material/error:" if line.moved else ":material/check_circle:", color="red" if line.moved else "green")
        for steady in line.found:
            mark = ":red[:material/error:]" if steady.now else ":material/check:" if steady.chart else ":material/hourglass_empty:"
            st.markdown(f"{mark} {words.plain(steady.words, 200)}")
        st.caption(f"{text.counted(line.pieces, 'master part')}, the last picture {text.ago(line.last)}. ◆ beyond the limits.")
        if line.moved:
            st.caption("Was it changed on purpose, a lamp, a lens, a part? Give the parts new names, such as A2 for A: their charts begin "
                       "anew.")
        charts.show(figure(line), f"imaging_chart_{line.line}",
                    f"Score, brightness and sharpness of the master parts of {line.line} by shift")
        with st.expander("As a table", icon=":material/table_rows:"):
            st.dataframe(line.measured[::-1], hide_index=True, alt="Readings of the master parts",
                         column_config={"bucket": st.column_config.DatetimeColumn("Shift from", format="D MMM HH:mm")})


def figure(line: Any) -> go.Figure:
    """Three single-value charts over the same shifts: points, centre and limits; a gap in one is a shift without its value."""
    made = make_subplots(len(line.found), 1, shared_xaxes=True, vertical_spacing=0.07)
    for n, steady in enumerate(line.found, 1):
        rows = line.measured[["bucket", steady.measure]].dropna()
        x, y = rows["bucket"], rows[steady.measure]
        out = [False] * len(rows)
        if steady.chart is not None:
            for name, dash in (("center", "solid"), ("low", "7px,4px"), ("high", "7px,4px")):
                made.add_scatter(x=x, y=getattr(steady.chart, name), mode="lines", hoverinfo="skip", row=n, col=1,
                                 line=dict(color=charts.GREY, width=1.3, dash=dash))
            for v in steady.violations:
                out[v.first:v.last + 1] = [True] * (v.last - v.first + 1)
        made.add_scatter(x=x, y=y, mode="lines+markers", line=dict(color=charts.BLUE, width=1.5), row=n, col=1,
                         marker=dict(symbol=["diamond" if o else "circle" for o in out], size=[11 if o else 6 for o in out],
                                     color=[charts.RED if o else charts.BLUE for o in out]),
                         hovertemplate="%{x}<br>%{y:.4g}<extra></extra>")
        made.update_yaxes(title_text=UNITS[steady.measure], nticks=4, row=n, col=1)
    return charts.layout(made, 440, hovermode="closest")

"""One control chart in full: the figure, its points as a table, the pictures behind a point, what stood out, and what lies behind it.

Takes a `Watched` chart. Making charts and limits is `control_form`'s.
"""

from datetime import date, datetime, timedelta
from typing import Any

import pandas as pd
import streamlit as st

from backend import jobs
from backend.jobs import signals
from backend.jobs.control import Watched
from pages.components import annotation_marks, charts, check_view, control_alarms, control_details, control_figure, gallery, words
from pages.components.cached import cached

WINDOWS = {"Last 60": 60, "Last 200": 200, "All": 0}


def show(w: Watched, shown: str) -> None:
    with st.container(border=True, key="control_chart"):
        with st.container(horizontal=True, horizontal_alignment="distribute", vertical_alignment="center"):
            st.markdown(f"#### {words.plain(signals.title(w), 120)}", width="content")
            last = WINDOWS[st.segmented_control("Window", list(WINDOWS), default="Last 60", required=True, key="window",
                                                bind="query-params", label_visibility="collapsed")]
        frame = w.frame.iloc[-last:] if last else w.frame
        key = f"{w.chart_id}_{last}_{st.session_state.get('control_turn', 0)}"
        figure, notes = control_figure.figure(w, last), _noted(w, frame, shown)
        annotation_marks.draw(figure, notes)
        tapped = charts.show(figure, f"control_figure_{key}", signals.sentence(w), _touched)
        st.caption(f"{control_figure.said(w)} Tap a point for its pictures.".strip())
        _legend(w, frame)
        row = _table(w, frame, f"control_rows_{key}")
        annotation_marks.table(notes, shown, w.chart.line, "control")
    picked = str(tapped[0]) if tapped else row or str(st.session_state.get("control_alarm") or "")
    near = st.container()
    if w.state == "act":
        check_view.hint(shown, w.chart.line)
    control_alarms.show(w, shown)
    control_details.show(w, shown)
    with near:
        _pictures(w, picked, shown)


def _noted(w: Watched, frame: pd.DataFrame, shown: str) -> pd.DataFrame:
    """Notes within the points shown; none where the axis is no time."""
    notes = annotation_marks.inside(shown, w.chart.line, frame["bucket"].min() if len(frame) else None)
    return notes[:0] if w.chart.subgroup == "defect" else notes


def _touched() -> None:
    """A point that is tapped speaks louder than an alarm that was opened before."""
    st.session_state.pop("control_alarm", None)


def _legend(w: Watched, frame: pd.DataFrame) -> None:
    """What the marks mean that are on the chart, and no others."""
    provisional = any(w.stages[int(n)].provisional and w.stages[int(n)].limits for n in frame["stage"].unique() if n >= 0)
    left_out, beyond = control_figure.left_out(w), control_figure.outside(frame)
    parts = ["◆ beyond the limits" if beyond.any() else "", "◇ part of an unlikely run" if (frame["out"] & ~beyond).any() else "",
             "○ not judged" if (frame["stage"] < 0).any() else "",
             "✕ left out of the period" if frame["key"].isin(left_out).any() else "",
             "dashes: limits" if frame["center"].notna().any() else "", "dots: provisional limits" if provisional else ""]
    if any(parts):
        st.caption(" · ".join(filter(None, parts)))


def _table(w: Watched, frame: pd.DataFrame, key: str) -> str:
    """The same points, the newest first; the key of the one that was picked, '' for none."""
    frame = frame.iloc[::-1]
    left_out = control_figure.left_out(w)
    remarks = [aside or (f"left out: {left_out[k]}" if k in left_out else "stands out" if out else "")
               for k, aside, out in zip(frame["key"], frame["aside"], frame["out"], strict=True)]
    rows = pd.DataFrame({
        "When": control_figure.whens(w, frame), "Found": control_figure.amounts(w, frame),
        **{name: [control_figure.one(w, v) for v in frame[column]] for name, column in
           (("at least", "low"), ("usual", "center"), ("at most", "high"))}, "Remark": remarks})
    with st.expander("As a table", icon=":material/table_rows:"):
        state = st.dataframe(rows, hide_index=True, key=key, on_select=_touched, selection_mode="single-row", alt="The points of the chart")
    chosen = state["selection"]["rows"]
    return str(frame["key"].iloc[int(chosen[0])]) if chosen else ""


def _pictures(w: Watched, picked: str, shown: str) -> None:
    rows = w.frame[w.frame["key"] == picked]
    if rows.empty:
        return
    bucket = rows["bucket"].iloc[0]
    with st.container(horizontal=True, vertical_alignment="center", border=True, key="picked"):
        said = control_figure.amount(w, rows["count"].iloc[0], rows["size"].iloc[0])
        st.markdown(f":material/ads_click: **{charts.bucket(bucket, w.chart.subgroup)}**: {said}", width="content")
        st.button("Close", icon=":material/close:", type="tertiary", key="control_unpick", on_click=_clear)
    asked = jobs.Filters(shown, w.chart.line, w.chart.product, class_name=w.chart.characteristic)
    whole = " of its shift" if w.chart.subgroup in ("hour", "defect") else ""
    gallery.behind(asked.but(**span(bucket, w.chart.subgroup)), f"Pictures{whole}")


def _clear() -> None:
    st.session_state["control_turn"] = st.session_state.get("control_turn", 0) + 1
    _touched()


def span(bucket: datetime, by: str) -> dict[str, Any]:
    """The filters of a subgroup. An hour, and a single defect, are looked at with their shift: there is no filter as fine as that."""
    if by in ("day", "week"):
        return dict(since=bucket.date(), until=bucket.date() + timedelta(days=6 if by == "week" else 0))
    day, name = shift_of(bucket, cached("calendar"))
    return dict(since=day, until=day, shift=name)


def shift_of(moment: datetime, calendar: dict[str, Any]) -> tuple[date, str]:
    """Production day and shift of a moment on the plant's clock; '' outside all shifts."""
    def minutes(clock: str) -> int:
        return int(clock[:2]) * 60 + int(clock[3:])

    now = moment.hour * 60 + moment.minute
    for shift in calendar["shifts"]:
        gone = (now - minutes(shift["start"])) % 1440
        if gone < (minutes(shift["end"]) - minutes(shift["start"]) - 1) % 1440 + 1:
            return (moment - timedelta(minutes=gone + minutes(calendar["day_start"]))).date(), shift["name"]
    return (moment - timedelta(minutes=minutes(calendar["day_start"]))).date(), ""

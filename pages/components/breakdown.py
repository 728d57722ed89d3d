"""The charts of Trends with their tables, and what was picked in them.

A point in time narrows the pictures below it; a bar narrows all of the page (`filters.narrow`). The same rows stand in a table below, for
keyboards and for what a finger cannot hit.
"""

import calendar
from collections.abc import Callable
from datetime import date, datetime, timedelta
from functools import partial
from typing import Any

import pandas as pd
import plotly.graph_objects as go
import streamlit as st

from backend import jobs
from pages.components import annotation_marks, charts, filters, model_marks, target_list, text, words
from pages.components.cached import cached

STEPS = {"day": "Day", "shift": "Shift", "week": "Week"}
SPLITS = {"line": "Line", "product": "Product", "shift": "Shift", "camera": "Camera", "lot": "Lot", "weekday": "Weekday", "hour": "Hour"}
FILTERABLE = {"line", "product", "shift", "camera", "lot"}
Picked = dict[str, Any]


def trend(asked: jobs.Filters) -> Picked:
    """The rate over time; what was picked in it as since, until and shift."""
    with st.container(border=True, key="trend_card"):
        with st.container(horizontal=True, horizontal_alignment="distribute", vertical_alignment="center"):
            st.markdown("#### Defect rate", width="content")
            by = st.segmented_control("By", list(STEPS), default="day", required=True, format_func=STEPS.get, key="by",
                                      bind="query-params", label_visibility="collapsed")
        frame = cached("trend", asked, by)
        notes = annotation_marks.inside(asked.plant, asked.line, asked.since, asked.until)
        models = model_marks.inside(asked.plant, frame["bucket"], by)
        figure = charts.kept(_over_time, frame, by, notes[["at", "number"]], models[["at", "number"]], target_list.shares(asked))
        chosen = charts.show(figure, _key("trend", asked, by),
                             "Share of defective parts over time, with its interval", partial(_touched, "trend"))
        st.caption("Tap a point for its pictures. Band: how exactly it is known, 19 times out of 20. Grey bars: how many were inspected.")
        model_marks.told(models)
        table = frame.assign(when=[charts.bucket(b, by) for b in frame["bucket"]])
        row = _table(table, "when", STEPS[by], _key("trend_rows", asked, by), partial(_touched, "trend"))
        annotation_marks.table(notes, asked.plant, asked.line, "trend")
    return _picked(frame, by, chosen, row)


def _over_time(frame: pd.DataFrame, by: str, notes: pd.DataFrame, models: pd.DataFrame, targets: list[float]) -> go.Figure:
    figure = charts.trend(frame, by)
    annotation_marks.draw(figure, notes)
    model_marks.draw(figure, models)
    target_list.draw(figure, targets, frame["bucket"])
    return figure


def _unusual_over_time(frame: pd.DataFrame, by: str, beside: pd.Series) -> go.Figure:
    return charts.trend(frame, by, "unusual", charts.VIOLET, beside).update_layout(height=260)


def unusual(asked: jobs.Filters) -> Picked:
    """Beside it, and never part of it: the share of parts that look unlike good ones. Nothing where no anomaly model has looked."""
    by = str(st.session_state.get("by") or "day")
    frame = cached("unusual_trend", asked, by)
    if frame.empty:
        return {}
    with st.container(border=True, key="unusual_card"):
        st.markdown("#### Unknown defects")
        kinds = " The chosen kind of defect does not narrow them." if asked.class_name else ""
        st.caption("Share of parts that look unlike good ones, whether or not a known defect was found in them. They are not part of the "
                   f"defect rate. Tap a point for its pictures.{kinds}")
        figure = charts.kept(_unusual_over_time, frame, by, cached("trend", asked, by)["bucket"])
        chosen = charts.show(figure, _key("unusual", asked, by), "Share of unusual parts over time, with its interval",
                             partial(_touched, "unusual"))
        table = frame.assign(when=[charts.bucket(b, by) for b in frame["bucket"]])
        row = _table(table, "when", STEPS[by], _key("unusual_rows", asked, by), partial(_touched, "unusual"))
    picked = _picked(frame, by, chosen, row)
    return {**picked, "verdict": "unusual", "class_name": ""} if picked else {}


def _picked(frame: pd.DataFrame, by: str, chosen: list[Any], row: int | None) -> Picked:
    bucket = chosen[0] if chosen else frame["bucket"].iloc[row].isoformat() if row is not None else None
    return _span(bucket, by) if bucket else {}


def _span(bucket: str, by: str) -> Picked:
    """The filters of one bucket. A shift's bucket is its start on the plant's clock, which also tells its day and name."""
    start = datetime.fromisoformat(bucket)
    if by == "week":
        return dict(since=start.date(), until=start.date() + timedelta(days=6))
    if by == "day":
        return dict(since=start.date(), until=start.date())
    day, name = _shift_of(start)
    return dict(since=day, until=day, shift=name)


def _shift_of(start: datetime) -> tuple[date, str]:
    clocks = cached("calendar")
    clock = f"{start:%H:%M}"
    name = next((s["name"] for s in clocks["shifts"] if s["start"] == clock), "")
    return start.date() - timedelta(days=clock < clocks["day_start"]), name


def parts(asked: jobs.Filters) -> None:
    """What the rate is made of: by place or time, and by kind of defect. A tap on a bar narrows all of the page."""
    left, right = st.columns(2)
    with left, st.container(border=True, height="stretch", key="split_card"):
        _split(asked)
    with right, st.container(border=True, height="stretch", key="kind_card"):
        _kinds(asked)


def _split(asked: jobs.Filters) -> None:
    """All bars stay where one of them is chosen, so that another can be."""
    with st.container(horizontal=True, horizontal_alignment="distribute", vertical_alignment="center"):
        st.markdown("#### Where and when", width="content")
        by = st.selectbox("By", list(SPLITS), format_func=SPLITS.get, key="where", bind="query-params", label_visibility="collapsed",
                          width=150)
    mine = by in FILTERABLE
    frame = cached("breakdown", asked.but(**{by: ""}) if mine else asked, by)
    if by == "weekday":
        frame = frame.assign(value=[calendar.day_name[int(n) - 1] for n in frame["value"]])
    keys = _key("split", asked, by), _key("split_rows", asked, by)
    narrowed = [partial(_narrow, by, key, frame["value"].astype(str).tolist()) if mine else None for key in keys]
    figure = charts.kept(charts.bars, frame, getattr(asked, by) if mine else "")
    charts.show(figure, keys[0], f"Share of defective parts by {SPLITS[by].lower()}", narrowed[0])
    more = f" The first {charts.MOST_BARS} of {len(frame):,}; all of them in the table." if len(frame) > charts.MOST_BARS else ""
    st.caption((f"Tap a bar to see that {SPLITS[by].lower()} alone, on all of the page." if mine else "") + more)
    _table(frame, "value", SPLITS[by], keys[1], narrowed[1])


def _kinds(asked: jobs.Filters) -> None:
    st.markdown("#### Kinds of defect")
    frame = cached("pareto", asked.but(class_name=""))
    if frame.empty:
        st.caption(":material/check_circle: No defect found.")
        return
    keys = _key("kinds", asked), _key("kind_rows", asked)
    charts.show(charts.kept(charts.pareto, frame, asked.class_name), keys[0], "Kinds of defect by number, with their running share",
                partial(_narrow, "kind", keys[0], []))
    hatched = " Hatched: minor, they reject nothing." if frame["minor"].any() else ""
    st.caption(f"Orange line: running share of all defects.{hatched} Tap a bar to see that kind alone, on all of the page.")
    _table(frame, "class_name", "Kind", keys[1], partial(_narrow, "kind", keys[1], frame["class_name"].tolist()))


def _narrow(name: str, key: str, values: list[str]) -> None:
    """What was tapped in a chart, or picked in its table, whose rows are `values`, becomes a filter.

    A run that is overtaken by the next one calls this twice for one tap: what the chart's key has said once is not said again.
    """
    chosen = st.session_state[key]["selection"]
    tapped = [p["customdata"] for p in chosen.get("points", []) if p.get("customdata")] or [values[n] for n in chosen.get("rows", [])]
    if tapped and tapped[0] and not filters.heard(key):
        filters.narrow(**{name: str(tapped[0])})


def _table(frame: pd.DataFrame, first: str, label: str, key: str, picked: Callable[[], None] | None) -> int | None:
    """The same rows as a table; the number of the one that was picked. None: nothing to pick."""
    shares = [c for c in ("rate", "low", "high", "share", "cumulative") if c in frame]
    percent = partial(st.column_config.NumberColumn, format="%.2f %%")
    whole = partial(st.column_config.NumberColumn, format="localized")
    config = {first: label, "inspected": whole("Inspected"), "defective": whole("Defective"), "unusual": whole("Unusual"),
              "disagree": whole("of these without a known defect"), "rate": percent("Rate"),
              "low": percent("at least"), "high": percent("at most"), "defects": whole("Defects"), "units": whole("Parts"),
              "share": percent("Share"), "cumulative": percent("Running share")}
    with st.expander("As a table", icon=":material/table_rows:"):
        state = st.dataframe(frame.assign(**{c: 100 * frame[c] for c in shares}), hide_index=True, column_config=config, key=key,
                             column_order=[c for c in config if c in frame], on_select=picked or "ignore",
                             selection_mode="single-row", alt=f"The numbers of the chart by {label.lower()}")
    rows = state["selection"]["rows"] if picked else []
    return int(rows[0]) if rows else None


def _key(chart: str, *asked: Any) -> str:
    """New filters, new chart: what was picked under the old ones does not linger. `clear` turns the page for all."""
    turns = [st.session_state.get(name, 0) for name in ("picks", f"turn_{chart.split('_')[0]}")]
    return f"{chart}|{'|'.join(map(str, asked))}|{turns}"


def _touched(name: str) -> None:
    """Of two charts over time, the one tapped last speaks: the other lets go of its point."""
    st.session_state["picked_in"] = name
    if other := {"trend": "unusual", "unusual": "trend"}.get(name):
        st.session_state[f"turn_{other}"] = st.session_state.get(f"turn_{other}", 0) + 1


def last_touched() -> str:
    return str(st.session_state.get("picked_in", ""))


def clear() -> None:
    st.session_state["picks"] = st.session_state.get("picks", 0) + 1


def said(asked: jobs.Filters, picked: Picked) -> None:
    """What was picked, its number, and the way back."""
    if not picked:
        return
    with st.container(horizontal=True, vertical_alignment="center", border=True, key="picked"):
        st.markdown(f":material/ads_click: **{_label(picked)}**: {_share(asked.but(**picked))}", width="content")
        st.button("This alone", icon=":material/filter_alt:", type="tertiary", key="pick_alone", on_click=filters.narrow,
                  kwargs={n: picked[n] for n in ("since", "until", "shift") if n in picked}, help="Narrow all of the page to it")
        st.button("Show all again", icon=":material/close:", type="tertiary", key="unpick", on_click=clear)


def _share(asked: jobs.Filters) -> str:
    """'12 % (6 of 50)': defective, or unusual where those were asked for."""
    if asked.verdict == "unusual":
        days = cached("unusual_trend", asked)
        return f"{text.share(days['unusual'].sum(), days['inspected'].sum())} unusual"
    seen = cached("totals", asked)
    return text.share(seen["defective"], seen["units"])


def _label(picked: Picked) -> str:
    picked = {k: v for k, v in picked.items() if v and k != "verdict"}
    days = [text.day(d) for d in dict.fromkeys(picked[k] for k in ("since", "until") if k in picked)]
    return ", ".join([" to ".join(days)] * bool(days) + [*(words.plain(v, 40) for k, v in picked.items() if k not in ("since", "until"))])

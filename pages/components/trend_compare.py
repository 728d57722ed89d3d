"""Two periods beside one another: the chosen one against the one before it, or any other; what surely changed, in words.

Which two stands in the URL. Every number has its interval; nothing is called a change that chance alone explains.
"""

from datetime import date
from typing import Any

import pandas as pd
import plotly.graph_objects as go
import streamlit as st

from backend import jobs
from backend.jobs import two_periods
from pages.components import charts, text, trend_figures, words
from pages.components.cached import cached

AGAINST = {"none": "Nothing", "before": "The days before", "other": "Another period"}
BY = {"class_name": "Kind of defect", "line": "Line", "product": "Product", "shift": "Shift", "camera": "Camera"}


def ask() -> str:
    """What the chosen period is compared with: none, before or other."""
    return str(st.segmented_control("Compare with", list(AGAINST), default="none", required=True, format_func=AGAINST.get, key="against",
                                    bind="query-params"))


def show(asked: jobs.Filters, choices: dict[str, Any]) -> None:
    """The card; nothing where nothing is compared."""
    against = ask()
    if against == "none":
        return
    last = choices["last_day"]
    with st.container(border=True, key="compare_card"):
        st.markdown("#### Two periods")
        then = _other(asked, choices) if against == "other" else two_periods.before(asked, last) if asked.since else None
        if then is None:
            st.info("Choose a shorter period above, or name both days of another one." if against == "before" else
                    "Name both days of the other period.", icon=":material/date_range:")
            return
        _compared(asked, then, last)


def _other(asked: jobs.Filters, choices: dict[str, Any]) -> jobs.Filters | None:
    with st.container(horizontal=True, key="compare_days"):
        days = [st.date_input(label, None, min_value=choices["first_day"], max_value=choices["last_day"], key=name, bind="query-params",
                              width=190) for label, name in (("Compared with, from", "then_since"), ("to", "then_until"))]
    return asked.but(since=min(days), until=max(days)) if all(days) else None


def _compared(now: jobs.Filters, then: jobs.Filters, last: date) -> None:
    open_ones = [by for by in BY if not getattr(now, by)]
    with st.container(horizontal=True, horizontal_alignment="distribute", vertical_alignment="center"):
        st.markdown(f"**{_days(now, last)}** against **{_days(then, last)}**", width="content")
        by = st.selectbox("By", open_ones, format_func=BY.get, key="compare_by", bind="query-params", label_visibility="collapsed",
                          width=170)
    found = cached("compared", now, then, by, _called(now, then, last))
    _headline(found)
    if found.found.before.n and found.found.now.n and found.sides:
        charts.show(figure(found, _short(now, last), _short(then, last)), f"compare_{by}",
                    f"Share of defective parts by {BY[by].lower()} in both periods")
        st.caption("Upper bar: the chosen period; hatched: the other one. ▲ surely more, ▼ surely fewer; all others may be chance.")
        _table(found, by)


def _called(now: jobs.Filters, then: jobs.Filters, last: date) -> str:
    """'the 7 days before', where they lie right before."""
    assert then.since is not None and then.until is not None
    right_before = now.since is not None and then == two_periods.before(now, last)
    return f"the {(then.until - then.since).days + 1} days before" if right_before else "in the other period"


def _headline(found: two_periods.Compared) -> None:
    """The answer in one line, with an icon and a word that say what the colour says."""
    one = found.found
    said = words.plain(found.sentence, 300)
    rate = f"{text.share(one.now.k, one.now.n)}: " if one.now.n else ""
    st.markdown(f"{trend_figures.icon(found)}{rate}{said}.")


def figure(found: two_periods.Compared, now: str, then: str) -> go.Figure:
    """Two bars for each, with their numbers in words."""
    sides = found.sides[::-1]
    names = [f"{_mark(s)}{text.html(s.name) or '(none)'}" for s in sides]
    drawn = go.Figure()
    for label, rates, color, pattern in ((then, [s.found.before for s in sides], charts.GREY, "/"),
                                         (now, [s.found.now for s in sides], charts.BLUE, "")):
        drawn.add_bar(x=[r.rate or 0 for r in rates], y=names, orientation="h", name=text.html(label), marker_color=color,
                      marker_pattern_shape=pattern, text=[text.percent(r.rate) if r.rate is not None else "–" for r in rates],
                      textposition="outside", cliponaxis=False, hoverinfo="skip")
    most = max(r.rate or 0 for s in sides for r in (s.found.now, s.found.before))
    drawn.update_xaxes(tickformat=".1~%", rangemode="tozero", nticks=5, range=[0, 1.18 * most or 0.01])
    drawn.update_yaxes(type="category")
    return charts.layout(drawn, 90 + 46 * len(sides), barmode="group").update_layout(
        showlegend=True, legend={**charts.LEGEND, "traceorder": "reversed"})


def _mark(side: two_periods.Side) -> str:
    return "" if not side.found.sure else "▲ " if side.found.low > 0 else "▼ "


def _table(found: two_periods.Compared, by: str) -> None:
    rows = pd.DataFrame([dict(name=f"{_mark(s)}{s.name or '(none)'}", now=_share(s.found.now), then=_share(s.found.before), said=s.sentence)
                         for s in found.sides])
    with st.expander("As a table, with what is sure", icon=":material/table_rows:"):
        st.dataframe(rows, hide_index=True, key=f"compare_rows_{by}", alt="Both periods, row by row",
                     column_config={"name": BY[by], "now": "Now", "then": "Then", "said": "In words"})
        if found.left_out:
            st.caption(f"And {found.left_out:,} smaller ones.")


def _share(rate: Any) -> str:
    return text.share(rate.k, rate.n)


def _days(of: jobs.Filters, last: date) -> str:
    return f"{text.day(of.since) if of.since else 'the beginning'} to {text.day(of.until or last)}"


def _short(of: jobs.Filters, last: date) -> str:
    until = of.until or last
    return f"{of.since.day} {of.since:%b} to {until.day} {until:%b}" if of.since else f"to {until.day} {until:%b}"

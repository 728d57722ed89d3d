"""Control charts at a glance: whether all is calm in one line, then a card for each chart, the worst first.

Takes `Watched` charts. States are never told by colour alone.
"""

from collections.abc import Sequence

import streamlit as st

from backend import jobs
from backend.jobs import signals
from backend.jobs.control import Watched
from pages.components import control_figure, plant, text, words
from pages.components.cached import cached, lately

STATES = {"act": ("Act", ":material/error:", "red"), "look": ("Look", ":material/visibility:", "orange"),
          "unjudged": ("Too early", ":material/hourglass_empty:", "gray"), "calm": ("Calm", ":material/check_circle:", "green")}
SHOWN = 6                      # cards in sight: two rows; a plant with more charts sees the worst ones first


def headline(watched: Sequence[Watched]) -> None:
    """The answer to 'is the process calm?' in one sentence."""
    act, look = ([w for w in watched if w.state == s] for s in ("act", "look"))
    if not act and not look:
        early = sum(w.state == "unjudged" for w in watched)
        st.markdown("### :green[:material/check_circle:] All calm: nothing but chance" if not early else
                    f"### :material/hourglass_empty: {early} of {len(watched)} still too early to judge, the rest calm")
        return
    parts = [f":red[:material/error:] {_names(act)}: {_worse(act)}" if act else "",
             f":orange[:material/visibility:] {_names(look)}: look" if look else ""]
    calm = sum(w.state == "calm" for w in watched)
    st.markdown(f"### {' · '.join(p for p in parts if p)}" + (f" · {calm} calm" if calm else ""))


def _names(watched: Sequence[Watched]) -> str:
    return ", ".join(dict.fromkeys(words.plain(w.chart.line, 40) for w in watched))


def _worse(watched: Sequence[Watched]) -> str:
    rare = all(w.chart.subgroup == "defect" for w in watched)
    return "defects come closer together than chance explains" if rare else "more defects than chance explains"


def cards(watched: Sequence[Watched], chosen: Watched) -> None:
    grid = st.grid(3, min_column_width=290)
    for w in watched[:SHOWN]:
        with grid.cell():
            card(w, w is chosen)
    if watched[SHOWN:]:
        with st.expander(f"{len(watched) - SHOWN} more"):
            more = st.grid(3, min_column_width=290)
            for w in watched[SHOWN:]:
                with more.cell():
                    card(w, w is chosen)


def card(w: Watched, chosen: bool) -> None:
    """One chart: what it watches, how it stands, the newest figure with its n."""
    word, icon, color = STATES[w.state]
    with st.container(border=True, height="stretch", gap="xsmall", key=f"control_{w.chart_id}"):
        with st.container(horizontal=True, horizontal_alignment="distribute", vertical_alignment="center"):
            st.markdown(f"**{words.plain(signals.title(w), 80)}**", width="content")
            st.badge(word, icon=icon, color=color)
        st.markdown(words.plain(signals.sentence(w), 300))
        st.caption(words.plain(newest(w), 300))
        if w.now and w.now.text:
            st.markdown(f":material/how_to_reg: {words.plain(w.now.text, 200)}")
        if chosen:
            st.caption(":material/arrow_downward: Shown below")
        else:
            st.button("See the chart", key=f"see_{w.chart_id}", type="tertiary", icon=":material/monitoring:",
                      on_click=st.query_params.__setitem__, args=("chart", w.chart_id))


def newest(w: Watched) -> str:
    """'Last 7.1 % (54 of 760), usually 3.1 %'; '' where nothing was judged yet. Says so where limits are provisional."""
    judged = w.frame[w.frame["stage"] >= 0]
    if judged.empty:
        return ""
    row = judged.iloc[-1]
    share = text.share(row["defective"], row["units"]) if w.chart.kind[0] in "pi" else control_figure.amount(w, row["count"], row["size"])
    stage = w.stages[-1]
    usual = f", usually {control_figure.usual(w)}" if stage.limits and control_figure.usual(w) else ""
    return f"Last {share}{usual}" + (f". Provisional limits: {stage.note}" if stage.provisional and stage.limits else "")


def of(asked: jobs.Filters) -> None:
    """The way from a trend to the chart that watches just this selection; nothing where none does."""
    watched = cached("control_charts", asked.plant, lately()) if asked.line and not (asked.shift or asked.camera or asked.lot) else []
    own = (asked.line, asked.product, asked.class_name)
    if found := [w for w in watched if (w.chart.line, w.chart.product, w.chart.characteristic) == own]:
        with st.container(horizontal=True, vertical_alignment="center", key="control_of"):
            word, icon, color = STATES[found[0].state]
            st.badge(word, icon=icon, color=color)
            st.markdown(words.plain(signals.sentence(found[0]), 300), width="content")
            plant.link("control", "Control chart", icon=":material/monitoring:", chart=found[0].chart_id)


def nothing() -> None:
    """No chart yet: what one is for, and the way to make it."""
    with st.container(border=True, key="no_chart"):
        st.markdown("### :material/monitoring: No control chart yet")
        st.markdown("A control chart tells chance from change: it learns from a calm period how much a line's defects come and go by "
                    "themselves, and calls when there are more, or fewer, than that explains.")
        st.button("Make one", type="primary", icon=":material/add:", key="make_first",
                  on_click=st.session_state.__setitem__, args=("charts_view", "New chart"))

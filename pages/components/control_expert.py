"""What a quality engineer sets of a control chart: extra spread, averages, rules; with the evidence, and a way to follow it in one tap.

Closed at first: the usual answers do for most charts.
"""

from typing import Any

import streamlit as st

from backend import jobs
from backend.jobs.trial import Trial
from pages.components import words
from pages.components.cached import cached

WEIGHTS = {1.0: "Each point by itself", **{w: f"Average, newest weighs {w}" for w in (0.4, 0.2, 0.1)}}
USUAL = ["beyond", "nine"]


def settings(what: str) -> dict[str, Any]:
    """kind, rules and weight of a chart that counts this."""
    rules = cached("control_choices")["rules"]
    with st.expander("For quality engineers", icon=":material/square_foot:", key="control_settings"):
        spread = what in ("p", "u") and st.toggle("Allow for extra spread from one point to the next (Laney p′, u′)", key="watch_spread")
        weight = st.selectbox("Points", list(WEIGHTS), format_func=WEIGHTS.get, key="watch_weight", width=320)
        if weight < 1:
            st.caption("For small changes that last (EWMA). An average carries earlier points along, so runs are no sign of anything: it "
                       "knows one rule, the limits.")
            return dict(kind=what + "'" * spread, rules=["beyond"], weight=weight)
        st.session_state.setdefault("watch_rules", USUAL)
        asked = st.multiselect("Rules", list(rules), format_func=rules.get, key="watch_rules")
        if not asked:
            st.caption("Without any the usual two hold.")
    return dict(kind=what + "'" * spread, rules=asked or USUAL, weight=weight)


def open_with(chart: jobs.SavedChart) -> None:
    """A callback: a chart's own answers."""
    weight = chart.weight if chart.weight in WEIGHTS else 1.0
    st.session_state.update(watch_spread="'" in chart.kind, watch_weight=weight, watch_rules=list(chart.rules))


def evidence(trial: Trial) -> None:
    """What the period says of the choice, and what follows."""
    if trial.rare:
        st.warning(words.plain(trial.rare, 400), icon=":material/lightbulb:")
        st.button("Count the good parts between two", key="count_gaps", on_click=st.session_state.__setitem__, args=("watch_what", "g"))
    if trial.evidence:
        st.caption(f":material/square_foot: {words.plain(trial.evidence, 400)}")
    if trial.spread and "'" not in trial.chart.kind:
        st.button("Allow for it", key="allow_spread", on_click=st.session_state.__setitem__, args=("watch_spread", True))

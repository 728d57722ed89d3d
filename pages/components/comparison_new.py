"""A new comparison: of runs that have finished, or an experiment that is planned and run for it. A link may say which."""

import streamlit as st

from pages.components import comparison_pick, comparison_plan
from pages.components.cached import cached

WAYS = {"plan": "Plan an experiment", "runs": "Compare finished runs"}
ABOUT = {"plan": "Arms that differ in one thing alone, trained on the same dataset with the same seeds and equal steps, judged on the same "
                 "locked test. Slower, and the answer can be trusted.",
         "runs": "Trainings that are there already, scored on the same test. Quick; what else differs between them is for you to know."}


def show() -> None:
    linked = st.query_params.get("new", "")
    start = linked if linked in WAYS else "runs" if len(cached("scored_runs")) > 1 and not linked else "plan"
    way = str(st.segmented_control("How", list(WAYS), default=start, required=True, format_func=WAYS.get, key="new_way",
                                   label_visibility="collapsed"))
    st.caption(ABOUT[way])
    {"plan": comparison_plan.show, "runs": comparison_pick.show}[way]()

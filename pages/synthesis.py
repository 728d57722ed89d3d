"""Synthesis: make pictures of defects, judge them, measure them, add them to a dataset. The set looked at stands in the URL as `set`."""

import streamlit as st

from pages.components import plant, run_panel, synthesis_form, synthesis_priors, synthesis_search, synthesis_view
from pages.components.cached import cached

st.title("Synthesis", anchor=False)


def learning(run_id: str) -> None:
    """A prior that is being trained or adapted, or was; or a search of its settings."""
    live = synthesis_search.live if "-search-synthesis-" in run_id else synthesis_priors.live
    with st.container(border=True, key="learning"):
        run_panel.show(run_id, live, every=2.0)
        st.button("Close", icon=":material/close:", type="tertiary", key="learn_close", on_click=st.query_params.pop, args=("learn", None))


def nothing_to_learn_from() -> None:
    st.info("There is no dataset yet to make pictures from.", icon=":material/database:")
    plant.link("datasets", "Import a dataset", icon=":material/arrow_forward:")


with plant.sound():
    run_id, learn = st.query_params.get("set", ""), st.query_params.get("learn", "")
    if cached("datasets").empty and run_panel.awaited("import"):
        st.stop()
    if cached("datasets").empty:
        nothing_to_learn_from()
    else:
        if not run_id:
            st.caption("Where real pictures of a defect are few, make more: look them over, measure them, and let a model learn from them. "
                       "They stay marked as made, and never enter a test.")
        with st.expander("Make pictures", icon=":material/auto_awesome:", expanded=not run_id, key=f"new_{run_id}"):
            synthesis_form.show()
    if learn:
        learning(learn)
    if run_id:
        synthesis_view.show(run_id)
    synthesis_view.before(run_id)

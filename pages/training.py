"""Training: choose what to train, start, and watch stages and curves. The training looked at stands in the URL as `run`."""

import streamlit as st

from backend import jobs
from pages.components import plant, run_panel, training_form, training_view, words
from pages.components.cached import cached

st.title("Training", anchor=False)


def start() -> None:
    """The form; Start goes on to the live view."""
    config = training_form.config()
    if config is None:
        return
    training_form.promise(config)
    if st.button("Start training", type="primary", icon=":material/play_arrow:", disabled=not config.name, key="train_go"):
        run_panel.start(config, "run")


def before(current: str) -> None:
    runs = [r for r in jobs.recent(limit=12, recipes=words.TRAININGS) if r.run_id != current]
    if runs:
        st.subheader("Earlier trainings", anchor=False)
    for run in runs:
        with st.container(horizontal=True, vertical_alignment="center", key=f"before_{run.run_id}"):
            words.pill(run)
            if st.button(words.title_of(run), type="tertiary", key=f"see_{run.run_id}"):
                st.query_params["run"] = run.run_id
                st.rerun()
            st.caption(f"{words.when(run.created_at)} · {words.span(words.lasted(run))}", width="content")


with plant.sound():
    run_id = st.query_params.get("run", "")
    if cached("datasets").empty and run_panel.awaited("import"):
        st.stop()
    if cached("datasets").empty:
        st.info("There is no dataset to learn from yet.", icon=":material/database:")
        plant.link("datasets", "Import a dataset", icon=":material/arrow_forward:")
    else:
        with st.expander("New training", icon=":material/model_training:", expanded=not run_id, key=f"new_{run_id}"):
            start()
    if run_id:
        run_panel.show(run_id, training_view.live, every=2.0)
    before(run_id)

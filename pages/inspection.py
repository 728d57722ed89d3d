"""Inspect a batch: hand pictures over, watch what is found, decide what counts. The batch stands in the URL as `batch`."""

import streamlit as st

from backend import jobs
from pages.components import batch, batch_actions, plant, shelf, undo, upload, watch_view, words
from pages.components.cached import cached

st.title("Inspection", anchor=False)


def start() -> None:
    """The form of a new batch."""
    files = upload.drop_zone("batch", "pictures")
    values, (path, more) = upload.details("real"), upload.advanced()
    with st.container(horizontal=True, vertical_alignment="center"):
        go = st.button(f"Inspect {upload.counted(len(files))}" if files and not path else "Inspect", type="primary", key="go",
                       icon=":material/search:", disabled=not (files or path))
        if (samples := upload.samples()) and st.button(f"Use {len(samples)} sample pictures", icon=":material/science:", key="go_samples"):
            opened(upload.submit_samples(samples))
    if go and (run_id := upload.submit(jobs.Inspect(**values, **more, images=path), files.files() if files and not path else ())):
        shelf.clear("batch")
        opened(run_id)


def opened(run_id: str | None) -> None:
    if run_id:
        forget()
        st.query_params["batch"] = run_id
        st.rerun()


def forget() -> None:
    """What was chosen for the batch before does not suit the next one."""
    for key in ("try_on", "try_at", "try_kind", "odd_on", "odd_at",
                *(f"batch_{of}" for of in ("open", "page", "kind", "verdict", "order", "heat", "large_heat"))):
        st.session_state.pop(key, None)


def model_note() -> None:
    jobs.caught_up(wait_s=5)                    # at a first start the bundled model takes a moment: "none in use" would be untrue
    used = cached("models").query("promoted")
    if used.empty:
        st.warning("No model is in use yet. Train one, then put it to use on the Models page.", icon=":material/model_training:")
    else:
        one = used.iloc[0]
        demo = "" if one["run_id"] else " It learned from drawn demo pictures; for your own parts, train one of your own."
        beside = "".join(f" Beside it {words.plain(n)} marks what is unlike good parts." for n in upload.looks_beside())
        st.caption(f"Model in use: {words.plain(one['name'])}, which finds {words.plain(', '.join(one['classes']))}.{demo}{beside}")


def before() -> None:
    """The last batches, to come back to."""
    runs = jobs.recent(limit=6, recipes=("inspect", "watch"))
    if not runs:
        st.info("Nothing has been inspected yet. Drop pictures above, or try the sample pictures.", icon=":material/add_photo_alternate:")
        return
    st.subheader("Last batches", anchor=False)
    for run in runs:
        with st.container(horizontal=True, vertical_alignment="center", key=f"before_{run.run_id}"):
            words.pill(run)
            if st.button(words.title_of(run), type="tertiary", key=f"see_{run.run_id}"):
                opened(run.run_id)
            size = f" · {run.result['inspected']:,} pictures" if "inspected" in run.result else ""
            st.caption(words.when(run.created_at) + size + (" · demo" if run.plant == "demo" else ""), width="content")


run_id = st.query_params.get("batch", "")
undo.bar()
with plant.sound():
    new = st.expander("New batch", icon=":material/upload:", expanded=not run_id, key=f"new_{run_id}")
    if run_id:                                  # before the form, though below it: somebody waits for the first picture
        st.button("All batches", icon=":material/arrow_back:", type="tertiary", on_click=st.query_params.clear, key="all_batches")
        batch.show(run_id, batch_actions.bar)
    with new:
        model_note()
        start()
    if not run_id:
        watch_view.show(opened)
        before()

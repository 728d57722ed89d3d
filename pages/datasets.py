"""Datasets: bring labelled pictures in, and look at what came. The dataset looked at stands in the URL as `dataset`."""

import re
from pathlib import PurePath

import streamlit as st

from backend import jobs
from pages.components import dataset_view, form, plant, run_panel, shelf, upload, words
from pages.components.cached import cached

st.title("Datasets", anchor=False)


def start() -> None:
    """The form of an import: a zip from here or a path on the machine, and a name."""
    files = upload.drop_zone("set", "pictures with their labels")
    path = st.text_input("or a folder or zip on this machine", key="set_path", placeholder="/data/steel or /data/steel.zip").strip()
    suggested = suggest(path or (files.names[0] if files else ""))
    name = st.text_input("Name of the dataset", suggested, key=f"set_name_{suggested}", max_chars=80).strip()
    with st.expander("Advanced", icon=":material/tune:"):
        more = form.fields(jobs.Import, key="set")
    if st.button("Import", type="primary", icon=":material/download:", disabled=not ((path or files) and name), key="set_go"):
        run_id = upload.submit(jobs.Import(path=path, name=name, **more), files.files() if files and not path else ())
        if run_id:
            shelf.clear("set")
            st.query_params.from_dict({"run": run_id})
            st.rerun()


def suggest(source: str) -> str:
    """A name from the file or folder: 'NEU-DET' from '/data/NEU-DET.zip'."""
    source = source.replace("\\", "/")
    first = PurePath(source).name if source.endswith(".zip") or source.startswith("/") else source.split("/")[0] if "/" in source else ""
    return re.sub(r"[^\w .-]+", "-", first.removesuffix(".zip")).strip("-. ")


def arriving(run_id: str) -> bool:
    """The import that was just started, until its dataset is in. Is it still on its way?"""
    try:
        status = jobs.status(run_id)
    except jobs.NotFoundError as error:
        words.sorry(error)
        return False
    if status.state != "completed" or run_panel.unsettled(status):
        with st.container(border=True):
            run_panel.show(run_id, lambda status: run_panel.log(status.run_id))
        return True
    st.session_state["dataset_chosen"] = ""                  # the newest is the one to look at
    st.query_params.clear()
    return False


def choose() -> str:
    """The list, newest first; the chosen one's snapshot id."""
    rows, key = cached("datasets"), "dataset_chosen"
    names = {r.snapshot_id: f"{words.short(r.name)} · {r.images:,} pictures · {words.when(r.created_at)}" for r in rows.itertuples()}
    asked = st.session_state.get(key, st.query_params.get("dataset"))
    st.session_state[key] = asked if asked in names else next(iter(names))
    chosen = str(st.selectbox("Dataset", list(names), format_func=names.__getitem__, key=key))
    st.query_params["dataset"] = chosen
    return chosen


run_id = st.query_params.get("run", "")
with plant.sound():
    sets = cached("datasets")
with st.expander("Import a dataset", icon=":material/upload:", expanded=sets.empty and not run_id, key=f"new_{run_id}"):
    start()
underway = bool(run_id) and arriving(run_id)
if sets.empty and not underway and not run_panel.awaited("import"):
    st.info("No dataset yet. Import a folder or a zip of pictures; Pascal VOC, YOLO, COCO, MVTec AD and a mask beside each picture are "
            "recognized. Pictures in a folder called unlabelled are learnt from without labels.", icon=":material/database:")
elif len(sets):
    chosen = choose()
    dataset_view.show(next(sets[sets["snapshot_id"] == chosen].itertuples(index=False)))

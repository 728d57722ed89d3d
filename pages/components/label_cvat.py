"""Pictures with their boxes to CVAT, as a COCO zip, and back: what came is shown first, and taken over by one click.

Takes a source of pictures as `label_view` has it. What is in the zip, and what is understood of what comes back, is the backend's.
"""

from typing import Any

import streamlit as st

from backend import jobs
from pages.components import review_answer, text, words


def show(shown: str, source: str, snapshot_id: str, kinds: list[str], there: bool) -> None:
    """`there`: whether pictures wait; those of a dataset go all."""
    which = "all pictures of this dataset" if snapshot_id else "these pictures"
    st.markdown(f"Take {which}, {text.count(jobs.labelling.MOST)} at most, with their boxes to CVAT, and bring them back. File names must "
                "stay as they are.")
    if st.button("Make a zip", icon=":material/folder_zip:", key="cvat_zip", disabled=not (there or snapshot_id)):
        with st.spinner("Packing …"):
            path, told = jobs.labelling.to_cvat(shown, source, kinds, bool(st.session_state.get("label_again")))
        st.session_state["cvat_out"] = (source, path, told)
    of, path, told = st.session_state.get("cvat_out", ("", None, {}))
    if of == source and path is not None and path.exists():              # not another source's; and one lasts an hour
        lost = f"; {told['missing']:,} are gone" if told["missing"] else ""
        st.download_button(f"Download {told['pictures']:,} pictures, {told['boxes']:,} boxes{lost}", lambda: open(path, "rb"),
                           "diffspect-coco.zip", "application/zip", key="cvat_download", icon=":material/download:", on_click="ignore")
    back = st.file_uploader("What CVAT gave back (“COCO 1.0”, zip or JSON)", ["zip", "json"],
                            key=f"cvat_back_{st.session_state.get('cvat_taken', 0)}")          # a new one, empty, once this is taken over
    if back is not None:
        _take_over(shown, back, snapshot_id)


def _take_over(shown: str, file: Any, snapshot_id: str) -> None:
    try:
        found = _read(shown, file, file.file_id, snapshot_id)
    except jobs.DiffspectError as error:
        words.sorry(error)
        return
    st.markdown(f"**{text.counted(len(found.pictures), 'picture')}** came back, {text.count(found.changed)} with other boxes than known "
                + (f"here; {text.count(found.bare)} without a box." if found.bare else "here."))
    for note in found.notes[:8]:
        st.caption(f":material/info: {words.plain(note, 300)}")
    bare = not found.bare or st.toggle("Pictures without a box show no defect", True, key="cvat_bare",
                                       help="Turn it off if nobody has looked at them in CVAT; they then stay as they were.")
    taken = [one for one in found.pictures if bare or one["boxes"]]
    st.button(f"Take over {text.counted(len(taken), 'picture')}", type="primary", icon=":material/check:", key="cvat_take",
              disabled=not taken, on_click=_keep, args=(shown, taken))


@st.cache_data(max_entries=3, show_spinner="Reading …")
def _read(shown: str, _file: Any, file_id: str, snapshot_id: str) -> Any:
    """Once, not at every run: each of its pictures is opened to see its size."""
    return jobs.labelling.from_cvat(shown, _file, _file.name, snapshot_id)


def _keep(shown: str, taken: list[dict[str, Any]]) -> None:
    if review_answer.keep(f"{text.counted(len(taken), 'picture')} taken over from CVAT.",
                          lambda: jobs.labelling.save(shown, taken, review_answer.name(), "CVAT")):
        st.session_state["cvat_taken"] = st.session_state.get("cvat_taken", 0) + 1

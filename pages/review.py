"""Pictures worth a second look, one at a time: the person's verdict is kept beside the model's and changes no counted rate."""

from typing import Any

import streamlit as st

from backend import jobs
from pages.components import gallery, plant, text, undo, words
from pages.components.cached import cached, picture

SITTING = 30       # as many as a person judges with care in one go; the doubtful ones hardly ever end


def review(shown: str) -> None:
    st.caption("Your verdict is kept beside the automatic one, to judge and improve it. The counted defect rate stays as it is.")
    undo.bar()
    waiting = cached("review_queue", shown, 4 * SITTING)
    ids = st.session_state.setdefault(f"sitting_{shown}", waiting["inspection_id"].head(SITTING).tolist())
    queue = waiting[waiting["inspection_id"].isin(set(ids) - st.session_state.get("skipped", set()))]
    if queue.empty:
        finished(shown, len(waiting))
        return
    row = next(queue.itertuples())
    left, right = st.columns([3, 2])
    with left:
        show(row)
    with right:
        st.markdown(f"#### {text.count(len(queue))} to look at")
        decide(row, shown)
        gallery.details(row)


def finished(shown: str, more: int) -> None:
    with st.container(border=True, key="all_seen"):
        st.markdown("### :material/task_alt: Nothing left to look at")
        st.markdown("That was all for now; others wait, less doubtful." if more else "New doubtful pictures come with the next batch.")
        if more:
            st.button("Look at more", type="primary", icon=":material/skip_next:", key="again", on_click=again, args=(shown,))


def again(shown: str) -> None:
    """The next sitting; skipped ones come back in it."""
    st.session_state.pop(f"sitting_{shown}", None)
    st.session_state.pop("skipped", None)


def show(row: Any) -> None:
    try:
        st.image(picture(int(row.inspection_id), 1280), width="stretch", alt=words.short(row.file_name, 120))
    except jobs.DiffspectError as error:           # not kept, or kept and damaged: the next one can be judged
        st.info(words.plain(error, 300), icon=":material/hide_image:")


def decide(row: Any, shown: str) -> None:
    """The verdict first, within reach of a thumb; what it is about and who gives it stand below and are remembered."""
    with st.container(horizontal=True):
        st.button("Defective", icon=":material/cancel:", shortcut="D", key="say_defective", on_click=say, args=(row, "defective", shown))
        st.button("Good", icon=":material/check_circle:", shortcut="G", key="say_good", on_click=say, args=(row, "good", shown))
        st.button("Skip", icon=":material/skip_next:", shortcut="S", type="tertiary", key="skip", on_click=skip, args=(row.inspection_id,))
    kinds = sorted({*cached("choices", shown)["classes"], row.top_class or ""} - {""})
    st.selectbox("Kind, if defective", kinds, kinds.index(row.top_class) if row.top_class else None, key=f"kind_{row.inspection_id}",
                 width=260, accept_new_options=True)
    before = cached("reviews", shown)
    known = str(before.iloc[0]["reviewer"]) if len(before) else ""
    st.text_input("Your name", known, key="reviewer", max_chars=60, persist_state="session", width=260)


def say(row: Any, verdict: str, shown: str) -> None:
    kind = st.session_state.get(f"kind_{row.inspection_id}") if verdict == "defective" else ""
    reviewer = str(st.session_state.get("reviewer", "")).strip()
    config = dict(inspection_id=int(row.inspection_id), verdict=verdict, class_name=kind or "", reviewer=reviewer)
    undo.record(f"{words.short(row.file_name, 40)}: {verdict}.", "review", [config], shown)


def skip(inspection_id: int) -> None:
    st.session_state["skipped"] = st.session_state.get("skipped", set()) | {inspection_id}


with plant.sound():
    review(plant.begin("Review"))

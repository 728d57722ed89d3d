"""Pictures worth a second look, one at a time: the person's verdict is kept beside the model's and changes no counted rate.

Two queues, of which one stands in the URL: what the detector was in doubt about, and what it found nothing in though it looks unusual.
"""

from dataclasses import dataclass

import streamlit as st

from backend import jobs
from pages.components import gallery, judging, new_class, plant, text, undo
from pages.components.cached import cached

SITTING = 30       # as many as a person judges with care in one go; the doubtful ones hardly ever end


@dataclass(frozen=True)
class Queue:
    """`kind` as `results.review_queue` has it, and what is said while it is empty."""

    kind: str
    about: str
    more: str
    empty: str


QUEUES = {
    "Doubtful": Queue("doubtful", "Pictures that were nearly called otherwise.", "others wait, less doubtful.",
                      "New doubtful pictures come with the next batch."),
    "Unknown defects": Queue("disagreement", "No known defect was found in these pictures, but they look unlike good parts. If it is one "
                             "of a new kind, name it.", "others wait, less unusual.", "No other picture of the last seven days looks so.")}


def review(shown: str) -> None:
    name = st.segmented_control("Queue", list(QUEUES), default="Doubtful", required=True, key="queue", bind="query-params",
                                label_visibility="collapsed")
    queue = QUEUES[name]
    st.caption(f"{queue.about} Your verdict is kept beside the automatic one; the counted defect rate stays as it is.")
    undo.bar()
    one_by_one(shown, queue)
    if queue.kind == "disagreement":
        new_class.show(shown)


def one_by_one(shown: str, queue: Queue) -> None:
    waiting = cached("review_queue", shown, 4 * SITTING, queue.kind)
    ids = st.session_state.setdefault(f"sitting_{shown}_{queue.kind}", waiting["inspection_id"].head(SITTING).tolist())
    left_over = waiting[waiting["inspection_id"].isin(set(ids) - st.session_state.get("skipped", set()))]
    if left_over.empty:
        finished(shown, queue, len(waiting))
        return
    row, unknown = next(left_over.itertuples()), queue.kind == "disagreement"
    left, right = st.columns([3, 2])
    with left:
        judging.show(row, unknown)
    with right:
        st.markdown(f"#### {text.count(len(left_over))} to look at")
        judging.decide(row, shown, unknown)
        gallery.details(row)


def finished(shown: str, queue: Queue, more: int) -> None:
    if queue.kind == "disagreement" and not more and cached("unusual_trend", jobs.Filters(plant=shown, counted=False)).empty:
        new_class.nobody_looks()
        return
    with st.container(border=True, key="all_seen"):
        st.markdown("### :material/task_alt: Nothing left to look at")
        st.markdown(f"That was all for now; {queue.more}" if more else queue.empty)
        if more:
            st.button("Look at more", type="primary", icon=":material/skip_next:", key="again", on_click=again, args=(shown, queue.kind))


def again(shown: str, kind: str) -> None:
    """The next sitting; skipped ones come back in it."""
    st.session_state.pop(f"sitting_{shown}_{kind}", None)
    st.session_state.pop("skipped", None)


with plant.sound():
    review(plant.begin("Review"))

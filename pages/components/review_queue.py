"""Pictures worth a second look, one at a time, with what the detector said of them: what it was in doubt about, and what looks unusual.

Verdicts given here serve training and later looks. They were not drawn at random, so they never enter the true rate (`review_sample`).
Only this fragment runs at a key press; the next picture is handed to the browser while a person looks at this one.
"""

from dataclasses import dataclass

import streamlit as st

from backend import jobs
from pages.components import gallery, judging, new_class, review_answer, text
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


def show(shown: str, queue: Queue) -> None:
    st.caption(f"{queue.about} Your verdict is kept beside the automatic one; the counted defect rate stays as it is.")
    one_by_one(shown, queue)
    if queue.kind == "disagreement":
        new_class.show(shown)


def one_by_one(shown: str, queue: Queue) -> None:
    waiting = cached("review_queue", shown, 4 * SITTING, queue.kind)
    key = f"sitting_{shown}_{queue.kind}"
    if key not in st.session_state:
        st.session_state[key] = waiting["inspection_id"].head(SITTING).tolist()
        st.session_state["drawn_at"] = jobs.results.revision()         # boxes as they were when this sitting began
    left_over = waiting[waiting["inspection_id"].isin(set(st.session_state[key]) - st.session_state.get("skipped", set()))]
    if left_over.empty:
        finished(shown, queue, len(waiting))
        return
    row, unknown = next(left_over.itertuples()), queue.kind == "disagreement"
    left, right = st.columns([5, 3])
    with left:
        judging.show(row, unknown)
    with right:
        st.markdown(f"#### {text.count(len(left_over))} to look at")
        judging.decide(row, shown, unknown)
        review_answer.line()
        gallery.details(row)
    if len(left_over) > 1:
        judging.ahead(left_over["inspection_id"].iloc[1], unknown)


def finished(shown: str, queue: Queue, more: int) -> None:
    if queue.kind == "disagreement" and not more and cached("unusual_trend", jobs.Filters(plant=shown, counted=False)).empty:
        new_class.nobody_looks()
        return
    with st.container(border=True, key="all_seen"):
        st.markdown("### :material/task_alt: Nothing left to look at")
        st.markdown(f"That was all for now; {queue.more}" if more else queue.empty)
        if more:
            st.button("Look at more", type="primary", icon=":material/skip_next:", key="again", on_click=again, args=(shown, queue.kind))
        review_answer.line()
    if not more:
        st.fragment(_look, run_every=5.0)(jobs.results.revision())


def _look(seen: int) -> None:
    """Nobody presses a key here: show what the next batch brings."""
    if jobs.results.revision() != seen:
        st.rerun()


def again(shown: str, kind: str) -> None:
    """The next sitting; skipped ones come back in it."""
    st.session_state.pop(f"sitting_{shown}_{kind}", None)
    st.session_state.pop("skipped", None)
    st.session_state.pop(f"kinds_{shown}", None)

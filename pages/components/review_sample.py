"""The random sample, a part at a time, without what the model said of it; and what follows from the answers: true rate, agreement.

Neither verdict nor boxes nor colours are shown before all are answered: whoever saw them after each answer would learn to say the same.
Nor are the rates, which move with an answer that the model did not give, unless a person asks for them. Some parts come a second time,
and nothing says so. The other queues are chosen by doubt and never enter here (`review_queue`).
"""

from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pandas as pd
import streamlit as st

from backend import jobs
from pages.components import gallery, image_viewer, judging, review_answer, review_rate, text, words
from pages.components.cached import cached

if TYPE_CHECKING:
    from backend.jobs.sampling import Sampled

Views = tuple[int, ...]
WIDE = 1280
MOST = 24                  # parts of which people said otherwise, shown when the sample is done
HOW = {"missed": ":red[:material/visibility_off:] Missed", "rejected": ":orange[:material/undo:] Rejected, but good"}
PERIODS = {"Last 7 days": 7, "Last 28 days": 28, "Last 90 days": 90}
ABOUT = ("Parts drawn at random. What the model said of them is hidden until you have answered for all, so that your answers tell how "
         "often it is right. They stand beside the counted rate and change nothing in it.")


def show(shown: str) -> None:
    st.caption(ABOUT)
    found = review_rate.sampled(shown)
    if found is None:
        _begin(shown)
        return
    queue = _in_turn(found)
    if queue:
        _one(found, queue, shown)
        if not st.toggle("Show the rates so far", key="rates_so_far", help="A rate that moves with your answer tells what the model said."):
            return
    else:
        _done(found)
    _rates(found, shown)


def _rates(found: "Sampled", shown: str) -> None:
    review_rate.cards(found, shown)
    review_rate.people(found)
    with st.container(horizontal=True, vertical_alignment="center", key="sample_more"):
        with st.popover("New sample", icon=":material/casino:"):
            _form(shown)
        with st.popover("Model measured elsewhere", icon=":material/straighten:"):
            review_rate.ability_form(found, shown)
    review_rate.before(shown)


def _begin(shown: str) -> None:
    with st.container(border=True, key="no_sample"):
        st.markdown("### :material/casino: How often is the automatic verdict right?")
        st.markdown("The counted defect rate is what the model says. Let people look at 60 to 80 parts drawn at random, and the true rate "
                    "stands beside it: how many defects are missed, and how many good parts are rejected. It takes about half an hour.")
        _form(shown)


def _form(shown: str) -> None:
    choices = _choices(shown, st.session_state.setdefault("choices_at", jobs.results.revision()))
    if choices["last_day"] is None:
        st.info("No part counts in the trends yet, so there is none to draw from.", icon=":material/info:")
        return
    with st.container(horizontal=True, vertical_alignment="bottom"):
        period = st.selectbox("Period", list(PERIODS), index=1, key="sample_period", width=170)
        line = st.selectbox("Line", ["", *choices["lines"]], format_func=lambda v: words.short(v) or "All lines", key="sample_line",
                            width=200)
        st.button("Draw the sample", type="primary", icon=":material/casino:", key="draw_sample", on_click=_draw,
                  args=(shown, choices["last_day"], PERIODS[period], line))


@st.cache_data(max_entries=10, show_spinner=False)
def _choices(shown: str, at: int) -> Any:
    """Lines and days as they were when the page was opened: an answer does not change them."""
    return jobs.results.choices(shown)


def _draw(shown: str, last: Any, days: int, line: str) -> None:
    review_answer.keep("A sample was drawn.", lambda: jobs.sampling.draw_sample(shown, last - timedelta(days=days - 1), last, line,
                                                                                review_answer.name()))


def _in_turn(found: "Sampled") -> list[Views]:
    """Those that this person put off come last."""
    put_off = st.session_state.get("put_off", [])
    return sorted(found.queue, key=lambda views: put_off.index(views) if views in put_off else -1)


def _one(found: "Sampled", queue: list[Views], shown: str) -> None:
    views = queue[0]
    left, right = st.columns([5, 3])
    with left:
        _picture(views, False)
    with right:
        st.markdown(f"#### {text.count(found.left)} to look at")
        with st.container(horizontal=True):
            for word, icon, key in (("Defective", "cancel", "D"), ("Good", "check_circle", "G")):
                st.button(word, icon=f":material/{icon}:", shortcut=key, key=f"say_{word.lower()}", on_click=_say,
                          args=(found.sample_id, views, word.lower(), shown))
            st.button("Later", icon=":material/skip_next:", shortcut="S", type="tertiary", key="skip", on_click=_put_off, args=(views,),
                      help="It comes again at the end. Parts that nobody answers for leave the true rate less certain.")
        st.selectbox("Kind, if defective", review_answer.kinds(shown), None, key=f"kind_{views[0]}", width=260, accept_new_options=True,
                     placeholder="Choose or type")
        review_answer.reviewer(shown)
        review_answer.line()
    if len(queue) > 1:
        judging.unseen(lambda: _picture(queue[1], False))


def _picture(views: Views, boxes: bool, width: int = WIDE) -> None:
    try:
        st.image(_drawn(views, boxes, width, jobs.results.revision() if boxes else 0), width="stretch", alt="A part, drawn at random")
    except jobs.DiffspectError as error:
        st.caption(f":material/hide_image: {words.plain(error)}")


@st.cache_data(max_entries=200, show_spinner=False)
def _drawn(views: Views, boxes: bool, width: int, at: int) -> bytes:
    return jobs.sampling.picture(views, boxes, width)


def _say(sample_id: str, views: Views, verdict: str, shown: str) -> None:
    if st.session_state.get("said_of") == views and ((now := review_rate.sampled(shown)) is None or views not in now.queue):
        return                                                 # the key was pressed twice; one whose answer was taken back waits again
    kind = str(st.session_state.get(f"kind_{views[0]}") or "").strip() if verdict == "defective" else ""
    review_answer.kinds(shown, kind)
    review_answer.keep(f"You said {verdict}{f', {kind}' if kind else ''}.",
                       lambda: jobs.sampling.read(shown, sample_id, views, verdict, kind, review_answer.name()))
    st.session_state["said_of"] = views
    st.session_state["put_off"] = [v for v in st.session_state.get("put_off", []) if v != views]


def _put_off(views: Views) -> None:
    before = [v for v in st.session_state.get("put_off", []) if v != views]
    st.session_state["put_off"] = [*before, views]


def _done(found: "Sampled") -> None:
    with st.container(border=True, key="all_seen"):
        st.markdown("### :material/task_alt: All parts of this sample were looked at")
        review_answer.line()
        if not found.wrong:
            st.markdown("People and the automatic verdict agree on every one.")
            return
        missed = sum(w == "missed" for w in found.wrong.values())
        st.markdown(f"On {text.counted(len(found.wrong), 'part')} people said otherwise than the model: {missed} "
                    f"{'was' if missed == 1 else 'were'} missed, {len(found.wrong) - missed} rejected though good.")
    rows = pd.DataFrame([cached("inspection", unit) | {"how": how} for unit, how in list(found.wrong.items())[:MOST]])
    look = image_viewer.Look("wrong", "inspection_id", lambda unit, width, boxes: _drawn((int(unit),), boxes, width or WIDE,
                             jobs.results.revision()), lambda row: HOW[row.how], gallery.details)
    image_viewer.gallery(rows, look, MOST)
    image_viewer.large(rows, look)

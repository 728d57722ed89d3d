"""Judging a synthetic set by eye: one picture large with what it was made from, its verdict at a key, and the sheet of all below.

A, R and G judge, the arrows move, U takes back. Everything here is one fragment, so that a key press draws nothing else anew. The
filter and the picture stand in the URL. Knows nothing of what becomes of a verdict.
"""

from functools import partial
from typing import Any

import streamlit as st

from backend import jobs
from pages.components import synthesis_form, synthesis_pictures, synthesis_quality, text, words
from pages.components.synthesis_pictures import VERDICTS, go

FILTERS = {"undecided": ("Undecided", ""), "accepted": ("Accepted", "accept"), "rejected": ("Rejected", "reject"),
           "again": ("Again", "again"), "missed": ("Label missed", None), "all": ("All", None)}
SAY = {"accept": ("Accept", "A"), "reject": ("Reject :gray[R]", None), "again": ("Make again", "G")}          # label, key; R: see below
KEEP = 200               # verdicts that can be taken back one by one

# Streamlit keeps R for itself (it runs the page again), so this key is listened for here, before it: it presses the button, where
# there is one to press: that of the large view, if it is open. Not while someone types. One listener, whatever is drawn anew.
_REJECT = """<script>(() => {
const press = e => {
  if ((e.key !== "r" && e.key !== "R") || e.ctrlKey || e.metaKey || e.altKey || e.repeat) return;
  const typing = e.target.closest && e.target.closest("input, textarea, select, [contenteditable=true]");
  const large = document.querySelector('[role="dialog"]');
  const button = (large || document).querySelector(large ? ".st-key-large_reject button" : ".st-key-say_reject button");
  if (!button || button.disabled || typing) return;
  e.preventDefault(); e.stopImmediatePropagation(); button.click();
};
if (window.diffspectReject) window.removeEventListener("keydown", window.diffspectReject, true);
window.diffspectReject = press;
window.addEventListener("keydown", press, true);
})();</script>"""


def show(run_id: str) -> None:
    """The pictures of a finished set. The large view stands outside the fragment."""
    st.fragment(_judge, key="judge")(run_id)
    synthesis_pictures.large(run_id, partial(_beside, run_id))


def _judge(run_id: str) -> None:
    if problem := st.session_state.pop("made_problem", ""):             # a callback of a fragment may show nothing itself
        st.toast(words.plain(problem, 600), icon=":material/error:")
    made, missed = jobs.synthetic(run_id), synthesis_quality.missed(run_id)
    for item in made["items"]:
        item["missed"] = missed.get(item["file"], 0)
    with st.container(horizontal=True, horizontal_alignment="distribute", vertical_alignment="center", key="made_head"):
        chosen = _filter(made["verdict_counts"], sum(i["missed"] > 0 for i in made["items"]))
        _many(run_id, made)
    shown = [i for i in made["items"] if _wanted(chosen, i)]
    if not shown:
        _none(chosen, made["verdict_counts"])
        _buttons(run_id, None, shown)
        return
    at = current(run_id, shown)
    with st.container(border=True, key="loupe"):
        _buttons(run_id, at, shown)
        synthesis_pictures.loupe(made, shown[at], [i["file"] for i in shown])
    synthesis_pictures.sheet(made, shown, at)
    st.html(_REJECT, unsafe_allow_javascript=True)


# ---- which pictures

def _wanted(chosen: str, item: dict[str, Any]) -> bool:
    verdict = FILTERS[chosen][1]
    return item["missed"] > 0 if chosen == "missed" else verdict is None or item["verdict"] == verdict


def _filter(counts: dict[str, int], missed: int) -> str:
    """Chosen by the person, else by the link, else what is left to judge, if anything is. `missed`: pictures with a label that a detector
    has not found; without one there is nothing to choose."""
    there = [name for name in FILTERS if name != "missed" or missed]

    def said(name: str) -> str:
        label, verdict = FILTERS[name]
        return f"{label} {text.count(missed if name == 'missed' else sum(counts.values()) if verdict is None else counts[verdict])}"

    linked = st.query_params.get("show", "")
    start = linked if linked in there else "undecided" if counts[""] else "all"
    chosen = str(st.segmented_control("Show", there, default=start, required=True, format_func=said, key="made_show", wrap=True,
                                      label_visibility="collapsed"))
    st.query_params["show"] = chosen
    return chosen


def current(run_id: str, shown: list[dict[str, Any]]) -> int:
    """The place of the picture looked at; the nearest where it has left the choice."""
    files = [i["file"] for i in shown]
    asked = st.session_state.get(f"at_{run_id}", st.query_params.get("picture", ""))
    at = files.index(asked) if asked in files else sum(f < asked for f in files) if asked else 0
    at = min(at, len(files) - 1)
    st.session_state[f"at_{run_id}"] = st.query_params["picture"] = files[at]
    return at


# ---- what a person says

def _buttons(run_id: str, at: int | None, shown: list[dict[str, Any]]) -> None:
    """Within reach of a thumb: verdicts, then the way through. The keys rest while the large view is open, which has its own."""
    keys = "made_open" not in st.session_state
    file = shown[at]["file"] if at is not None else ""
    with st.container(horizontal=True, vertical_alignment="center", gap="small", key="say"):
        if at is not None:
            for verdict, (label, shortcut) in SAY.items():
                st.button(label, icon=VERDICTS[verdict][2], shortcut=shortcut if keys else None, key=f"say_{verdict}",
                          type="primary" if shown[at]["verdict"] == verdict else "secondary", on_click=say,
                          args=(run_id, file, verdict, [i["file"] for i in shown]))
            for to, label, shortcut in ((at - 1, "Back", "Left"), (at + 1, "Next", "Right")):
                inside = 0 <= to < len(shown)
                st.button(label, shortcut=shortcut if keys else None, disabled=not inside, type="tertiary", key=f"made_to_{shortcut}",
                          on_click=go, args=(run_id, shown[to]["file"] if inside else file))
        stack = st.session_state.get(f"said_{run_id}", [])
        st.button("Undo", icon=":material/undo:", shortcut="U" if keys else None, disabled=not stack, type="tertiary", key="made_undo",
                  on_click=take_back, args=(run_id,), help=stack[-1][0] if stack else None)
        if at is not None:
            st.caption(f"{at + 1:,} of {len(shown):,}", width="content")


def _beside(run_id: str, item: dict[str, Any], files: list[str]) -> None:
    """The same beside the enlarged picture."""
    with st.container(horizontal=True, vertical_alignment="center", gap="small"):
        for verdict, (label, shortcut) in SAY.items():
            st.button(label, icon=VERDICTS[verdict][2], shortcut=shortcut, key=f"large_{verdict}", on_click=_say_large,
                      type="primary" if item["verdict"] == verdict else "secondary", args=(run_id, item["file"], verdict, files))
    st.markdown(synthesis_pictures.badge(item))


def _say_large(run_id: str, file: str, verdict: str, files: list[str]) -> None:
    say(run_id, file, verdict, files)
    st.session_state["made_open"] = st.session_state[f"at_{run_id}"]


def say(run_id: str, file: str, verdict: str, files: list[str]) -> None:
    """Record it and go on to the next."""
    at = files.index(file)
    if _record(run_id, {file: verdict}, f"{VERDICTS[verdict][0]}: {file}"):
        go(run_id, files[at + 1] if at + 1 < len(files) else files[at])


def rest(run_id: str) -> None:
    """Accept whatever nobody has judged."""
    left = [i["file"] for i in jobs.synthetic(run_id)["items"] if not i["verdict"]]
    _record(run_id, dict.fromkeys(left, "accept"), f"Accepted: {text.count(len(left))} pictures")


def _record(run_id: str, verdicts: dict[str, str], said: str) -> bool:
    try:
        made = jobs.judge(run_id, verdicts)
    except jobs.DiffspectError as error:
        st.session_state["made_problem"] = str(error)
        return False
    stack = st.session_state.get(f"said_{run_id}", [])
    st.session_state[f"said_{run_id}"] = [*stack, (said, made, next(iter(verdicts)))][-KEEP:]
    return True


def take_back(run_id: str) -> None:
    """The last one, and back to its picture."""
    _, made, file = st.session_state[f"said_{run_id}"][-1]
    try:
        jobs.undo(made)
    except jobs.DiffspectError as error:
        st.session_state["made_problem"] = str(error)
        return
    st.session_state[f"said_{run_id}"] = st.session_state[f"said_{run_id}"][:-1]
    go(run_id, file)


def _many(run_id: str, made: dict[str, Any]) -> None:
    """What can be done with many at once."""
    counts = made["verdict_counts"]
    with st.container(horizontal=True, width="content", key="made_many"):
        if counts[""]:
            rest_of = "the rest" if len(made["items"]) > counts[""] else "all"
            st.button(f"Accept {rest_of} ({text.count(counts[''])})", icon=":material/done_all:", key="accept_rest", on_click=rest,
                      args=(run_id,))
        if counts["again"]:
            st.button(f"Make {text.count(counts['again'])} again", icon=":material/refresh:", type="primary", key="make_again",
                      on_click=again, args=(run_id,),
                      help="Of the same kinds and from the same pictures, with other chance, as a set of its own. These stay out of a "
                           "dataset.")
        if counts["accept"]:
            st.button(f"Add {text.count(counts['accept'])} to a dataset", icon=":material/library_add:", key="to_add", on_click=to_add)


def _none(chosen: str, counts: dict[str, int]) -> None:
    if chosen == "undecided":
        with st.container(border=True, key="all_judged"):
            st.markdown("### :material/task_alt: Every picture is judged")
            st.markdown(f"{text.count(counts['accept'])} accepted, {text.count(counts['reject'])} rejected, "
                        f"{text.count(counts['again'])} to be made again.")
    else:
        st.caption("No picture among these.")


def again(run_id: str) -> None:
    """Hand over a run for those marked, and look at it."""
    made = jobs.synthetic(run_id)
    try:
        config = synthesis_form.again(made, [i for i in made["items"] if i["verdict"] == "again"])
        new = jobs.submit(config)
    except jobs.DiffspectError as error:
        st.session_state["made_problem"] = str(error)
        return
    st.query_params.from_dict({"set": new})
    st.rerun()


def to_add() -> None:
    st.session_state["view"] = "Add to a dataset"
    st.rerun()

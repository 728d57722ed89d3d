"""One synthetic set: how its making goes with what comes out so far; once it is made, its pictures, quality, and the way into a dataset.

The view stands in the URL beside the set. Knows nothing of how a picture is judged or measured.
"""

import streamlit as st

from backend import jobs
from pages.components import run_panel, synthesis_add, synthesis_judge, synthesis_quality, text, words
from pages.components.synthesis_means import PRESETS

VIEWS = ("Pictures", "Quality", "Add to a dataset", "About")
METHODS = {"perturb": "a masked part of a good picture was replaced", "prior": "drawn by a prior", "paste": "real defects set in elsewhere"}
SOURCES = {"ddpm": "perturbed by a diffusion model", "texture": "filled from another surface", "noise": "filled with noise"}


def show(run_id: str) -> None:
    try:
        status = jobs.status(run_id)
    except jobs.NotFoundError as error:
        words.sorry(error)
        return
    if status.recipe != "synthesize":
        st.error("This run has not made a synthetic set.", icon=":material/error:")
        return
    run_panel.show(run_id, _making)
    if status.state != "completed":
        return
    made = jobs.synthetic(run_id)
    asked = st.query_params.get("view", "")
    st.session_state.setdefault("view", asked if asked in VIEWS else VIEWS[0])          # no default beside it: a button sets it too
    view = st.segmented_control("View", VIEWS, required=True, key="view", bind="query-params", label_visibility="collapsed")
    {"Pictures": synthesis_judge.show, "Quality": synthesis_quality.show, "Add to a dataset": synthesis_add.show,
     "About": lambda run_id: _about(status, made)}[view](run_id)


def _making(status: jobs.RunStatus) -> None:
    """While it runs: the newest pictures. Where it ended badly: what there was, and the log."""
    if status.state == "completed":
        return
    try:
        picture = jobs.run_file(status.run_id, "samples.png").read_bytes()
    except jobs.NotFoundError:
        if status.is_open:
            st.skeleton(240)
            st.caption("The first pictures appear here as soon as they are made.")
    else:
        st.markdown("**The newest pictures:** original, where the defect goes, what was made")
        st.image(picture, width=480, alt="The newest pictures, a row each: original, mask, result")
    run_panel.log(status.run_id)


def _about(status: jobs.RunStatus, made: dict[str, object]) -> None:
    """How it was made, what was refused on the way, every setting."""
    result, settings = status.result, dict(status.config)
    refused = result.get("rejected") or {}
    st.markdown(f"**{text.count(result.get('images', 0))}** pictures from the dataset **{words.plain(made.get('dataset', ''))}**: "
                f"{how(settings)}.")
    if refused:
        kinds = ", ".join(f"{text.count(n)} {words.plain(why)}" for why, n in refused.items())
        st.caption(f"Of {text.count(result.get('attempts', 0))} attempts {text.count(sum(refused.values()))} were set aside by the "
                   f"program: {kinds}.")
    with st.expander("Every setting", icon=":material/tune:", expanded=True, key="every_setting"):
        rows = [{"Setting": k.replace("_", " "), "Value": words.short(v, 80)} for k, v in settings.items() if v not in ("", None)]
        st.dataframe(rows, hide_index=True, alt="Settings of this set")
    run_panel.log(status.run_id)
    st.caption(f"Run {status.run_id}")


def how(settings: dict[str, object]) -> str:
    """The way it was made, in words."""
    method = str(settings.get("method", "perturb"))
    if method == "perturb":
        return SOURCES.get(str(settings.get("source")), METHODS["perturb"])
    if method == "prior":
        start = {"image": "like", "noise": "free", "inpaint": "good"}.get(str(settings.get("start")), "like")
        return f"{METHODS['prior']}, {PRESETS[start].title.lower()}"
    return METHODS.get(method, words.plain(method))


def before(current: str) -> None:
    """Sets made earlier, to come back to."""
    runs = [r for r in jobs.recent(limit=20, recipes=("synthesize",)) if r.run_id != current]
    if not runs:
        return
    st.subheader("Earlier sets", anchor=False)
    for run in runs:
        with st.container(horizontal=True, vertical_alignment="center", key=f"before_{run.run_id}"):
            words.pill(run)
            st.button(words.plain(run.name, 60), type="tertiary", key=f"see_{run.run_id}", on_click=look_at, args=(run.run_id,))
            st.caption(" · ".join(filter(None, [judged(run), how(run.config), words.when(run.created_at)])), width="content")


def judged(run: jobs.RunStatus) -> str:
    """'60 pictures, 12 accepted'."""
    if run.state != "completed":
        return ""
    try:
        counts = jobs.synthetic(run.run_id)["verdict_counts"]
    except jobs.NotFoundError:
        return "gone from this machine"
    total = sum(counts.values())
    said = [f"{text.count(counts[v])} {name}" for v, name in (("accept", "accepted"), ("reject", "rejected")) if counts[v]]
    return ", ".join([f"{text.count(total)} pictures", *said] if said else [f"{text.count(total)} pictures, none judged yet"])


def look_at(run_id: str) -> None:
    """Another set: what was chosen in the one before does not suit it."""
    for key in ("view", "made_open"):
        st.session_state.pop(key, None)
    st.query_params.from_dict({"set": run_id})

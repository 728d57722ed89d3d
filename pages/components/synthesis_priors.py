"""The prior that draws: whether there is one, whether it knows this dataset's defects, the buttons that see to both, and watching it learn.

The run looked at stands in the URL as `learn`. Knows nothing of the sets that a prior makes.
"""

import dataclasses
from typing import Any

import pandas as pd
import streamlit as st

from backend import jobs
from pages.components import charts, form, run_panel, text, training_form, words
from pages.components import synthesis_means as means_of
from pages.components.cached import cached
from pages.components.synthesis_means import Made, Means

PRIOR = [f.name for f in dataclasses.fields(jobs.TrainPrior) if f.name not in ("name", "datasets", "preset")]
ADAPT = [f.name for f in dataclasses.fields(jobs.AdaptPrior) if f.name not in ("dataset", "name", "prior", "classes")]
SIZES = {"tiny": "Minutes. To try the way through; its pictures are poor.", "small": "The usual one, for a machine without a GPU.",
         "base": "Large; it wants a GPU."}
STAGES = {"autoencoder_loss": "Learning to see", "loss": "Learning to draw", "tokens_loss": "Learning words for the kinds",
          "lora_loss": "Changing the network"}
NAME = "surface prior"
EXAMPLE, ELSEWHERE = "/models/stable-diffusion or owner/name", "A folder on this machine, or a name on the hub, which is asked only then."


def offer(means: Means, preset: str, drawn: bool) -> None:
    """What is missing before the prior can draw, with the button to get it; once nothing is, the same again, out of the way.
    `preset`: the way chosen, '' while none can be gone; `drawn`: whether it needs the prior."""
    underway = jobs.recent(limit=5, recipes=("train-prior", "adapt-prior"), open_only=True)
    for run in underway:
        _underway(run)
    none = not means.priors and not means.adapters
    if none and not any(r.recipe == "train-prior" for r in underway):
        with st.expander("To draw defects, train the surface prior once", icon=":material/draw:", expanded=not preset, key="no_prior"):
            _first(means)
    elif drawn and not means.adapters and means.kinds and not any(_for(r, means) for r in underway):
        _next(means)
    elif drawn and not underway:
        with st.expander("The prior that draws", icon=":material/draw:", key="priors"):
            known(means)
            adapt, train = st.tabs(["Adapt it anew", "Train a new one"])
            with adapt:
                _adapt(means)
            with train:
                _train(means)


def _for(run: jobs.RunStatus, means: Means) -> bool:
    return run.recipe == "adapt-prior" and run.config.get("dataset") in (means.snapshot_id, means.name)


def _underway(run: jobs.RunStatus) -> None:
    if st.query_params.get("learn") != run.run_id:              # else it stands below, with its pictures
        with st.container(border=True, key=f"underway_{run.run_id}"):
            st.fragment(_line, run_every=3.0)(run.run_id, run.state)


def _line(run_id: str, seen: str) -> None:
    """How far it is; when that changes what the page offers, the page is drawn anew."""
    run = jobs.status(run_id)
    if run.state != seen:
        st.rerun()
    with st.container(horizontal=True, vertical_alignment="center"):
        words.pill(run)
        st.markdown(f"**{words.title_of(run)}** is being {'trained' if run.recipe == 'train-prior' else 'adapted'}.", width="content")
        st.caption(run_panel.progress_text(run), width="content")
        st.button("Watch it", key=f"watch_{run_id}", type="tertiary", icon=":material/visibility:", on_click=_watch_whole, args=(run_id,))


def _watch_whole(run_id: str) -> None:
    """Asked for inside a fragment: the whole page shows it."""
    st.query_params["learn"] = run_id
    st.rerun()


def _first(means: Means) -> None:
    st.markdown("The surface prior is a small network that learns to draw surfaces: from patterns that the program draws and, if you like, "
                "from other datasets. All datasets then share it. Nothing is downloaded.")
    _train(means)


def _next(means: Means) -> None:
    with st.container(border=True, key="no_adapter"):
        st.markdown(f"#### :material/draw: Show the prior the defects of {words.plain(means.name, 40)}")
        st.markdown(f"So far it draws surfaces in general. It learns your {text.count(len(means.kinds))} "
                    f"{'kind' if len(means.kinds) == 1 else 'kinds'} of defect from {text.count(sum(means.kinds.values()))} labelled "
                    "training pictures; the test pictures are never shown to it. You can go on without, but the defects will not be yours.")
        _adapt(means)


def _train(means: Means) -> None:
    preset = st.segmented_control("How large", list(SIZES), default="small", required=True, format_func=str.capitalize, key="prior_preset")
    st.caption(SIZES[preset])
    with st.expander("Advanced", icon=":material/tune:", key="prior_more"):
        others = [str(n) for n in dict.fromkeys(cached("datasets")["name"]) if n != means.name]
        chosen = st.multiselect("Datasets to learn from too", others, format_func=words.short, key="prior_datasets",
                                placeholder="None: drawn surfaces only",
                                help="Their training pictures. Leave out the dataset it is for, if its quality is to be judged.")
        values = form.fields(jobs.TrainPrior, PRIOR, "prior")
    config = jobs.TrainPrior(name=NAME, preset=preset, datasets=", ".join(chosen), **values)
    _start(config, "Train the surface prior", "prior_go")


def _adapt(means: Means) -> None:
    if not means.kinds:
        st.caption("No defect is labelled in this dataset, so there is nothing to show it.")
        return
    bases = {m.run_id: words.short(m.name) for m in means.priors}
    with st.expander("Advanced", icon=":material/tune:", key="adapt_more"):
        base = str(st.selectbox("Prior to start from", list(bases), format_func=bases.__getitem__, key="adapt_base") or "")
        base = st.text_input("or a Stable Diffusion checkpoint", key="adapt_elsewhere", placeholder=EXAMPLE, help=ELSEWHERE).strip() or base
        kinds = st.multiselect("Kinds to learn", list(means.kinds), format_func=words.short, key=f"adapt_kinds_{means.snapshot_id}",
                               placeholder="All of them")
        values = form.fields(jobs.AdaptPrior, ADAPT, "adapt")
    config = jobs.AdaptPrior(dataset=means.snapshot_id, name=means.name, prior=base, classes=", ".join(kinds), **values)
    _start(config, f"Adapt it to {words.plain(means.name, 40)}", "adapt_go")


def _start(config: jobs.Config, label: str, key: str) -> None:
    training_form.promise(config)
    if st.button(label, icon=":material/model_training:", key=key):
        run_panel.start(config, "learn")


def choose(means: Means) -> str:
    """Which prior draws: those adapted to this dataset first. Its run."""
    names = {m.run_id: f"{words.short(m.name)} · adapted to this dataset{_when(m)}" for m in means.adapters}
    names |= {m.run_id: f"{words.short(m.name)} · not adapted{_when(m)}" for m in means.priors}
    if len(names) < 2:
        return next(iter(names), "")
    return str(st.selectbox("Prior", list(names), format_func=names.__getitem__, key=f"make_prior_{means.snapshot_id}", width=420))


def elsewhere() -> str:
    """A checkpoint that this program did not make."""
    return str(st.text_input("Another Stable Diffusion checkpoint, instead of the prior above", key="make_elsewhere", placeholder=EXAMPLE,
                             help=ELSEWHERE)).strip()


def _when(one: Made) -> str:
    return f" · {words.when(jobs.status(one.run_id).finished_at)}"


def known(means: Means) -> None:
    """Which there are, a line each."""
    for one in (*means.adapters, *means.priors):
        head = one.head
        what = f"knows {', '.join(head.get('classes') or head.get('tokens') or [])}" if one in means.adapters else from_what(head)
        st.caption(f":material/draw: **{words.plain(one.name)}**{_when(one)} · {words.plain(what, 200)}")


def from_what(head: dict[str, Any]) -> str:
    """'learned from 2,000 drawn surfaces and the train pictures of NEU-DET'."""
    sets = [str(d.get("name", "")) for d in head.get("datasets") or []]
    drawn = f"{text.count(head.get('drawn') or 0)} drawn surfaces"
    return f"learned from {drawn}" + (f" and the training pictures of {', '.join(sets)}" if sets else "")


# ---- watching one learn

def live(status: jobs.RunStatus) -> None:
    """What it draws so far, its curves; in words what it came to."""
    if status.state == "completed":
        for line in came_to(status):
            st.markdown(line)
    _preview(status)
    points = jobs.live_metrics(status.run_id)
    if len(points):
        with st.expander("Curves", icon=":material/show_chart:", expanded=status.is_open, key=f"curves_{status.run_id}_{status.state}"):
            _curves(points, status.run_id)
    elif status.is_open:
        st.skeleton(160)
    run_panel.log(status.run_id)


def came_to(status: jobs.RunStatus) -> list[str]:
    """What it can do now, what it learned from, and how far it came."""
    result = status.result
    if status.recipe == "train-prior":
        return [f":material/check_circle: It can draw surfaces now, learned from {words.plain(result.get('learned_from', ''), 300)}",
                "Next, show it the defects of your dataset."]
    kinds = means_of.head(status.run_id, "adapter").get("classes") or []
    lines = [f":material/check_circle: It can draw {words.plain(', '.join(kinds), 300) or 'the defects of this dataset'} now, learned from "
             f"{text.count(result.get('images', 0))} pictures; {text.count(result.get('held', 0))} are kept apart to measure it by.",
             words.plain(result.get("about", ""), 300)]
    tried = result.get("held_loss") or {}
    if tried.get("before") and tried.get("after"):
        change = tried["after"] / tried["before"] - 1
        lines.append(f"On those its error {'fell' if change < 0 else 'rose'} by {text.percent(abs(change))}"
                     f"{'.' if change < 0 else ': more pictures, or fewer steps, may help.'}")
    return [line for line in lines if line]


def _curves(points: pd.DataFrame, key: str) -> None:
    """Stages follow each other and their losses do not compare: a chart for each."""
    grid = st.grid(2, min_column_width=280)
    for name, label in STAGES.items():
        shown = points[points["name"] == name].assign(name=label)
        if len(shown):
            with grid.container():
                st.markdown(f"**{label}:** the loss should fall")
                figure = charts.curves(shown).update_xaxes(title="Step", nticks=8).update_yaxes(rangemode="tozero")
                charts.show(figure.update_layout(showlegend=False), f"curve_{name}_{key}", f"Loss while it learns: {label.lower()}")


def _preview(status: jobs.RunStatus) -> None:
    try:
        picture = jobs.run_file(status.run_id, "samples.png").read_bytes()
    except jobs.NotFoundError:
        return
    what = "a kind of defect in each row: a real picture, the same drawn again, and one drawn from nothing" \
        if status.recipe == "adapt-prior" else "it should come to look like real surfaces"
    st.markdown(f"**What it draws:** {what}")
    st.image(picture, width=520, alt="Pictures drawn by the prior so far")

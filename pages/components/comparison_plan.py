"""Plan an experiment: a dataset, which arms, how many seeds; what each arm sees and how long it takes here, before anything starts.

Knows nothing of how arms are made comparable: `jobs.plan_experiment` says it, and why where they cannot be.
"""

from html import escape
from typing import Any

import pandas as pd
import streamlit as st

from backend import jobs
from pages.components import form, plant, synthesis_pictures, text, training_form, words
from pages.components.cached import cached

COUNTS = ("Real pictures", "Synthetic pictures", "Pictures seen", "Optimiser steps")
SEEDS = 5                # below it a verdict is provisional
FIRST = ("real", "both")
BASICS = ("epochs", "imgsz")
ADVANCED = ("labels", "batch", "size", "metric", "which", "first_seed", "optimizer", "learning_rate", "precision", "preset")
STYLE = """<style>
[class*="st-key-arm_"] {position: relative;}
[class*="st-key-arm_off_"] {opacity: .72;}
[class*="st-key-arm_on_"] {outline: 2px solid var(--st-primary-color, #2E7EBB); outline-offset: -1px; border-radius: .4rem;}
[class*="st-key-take_"] {position: absolute !important; inset: 0; width: 100% !important; z-index: 1;}
[class*="st-key-take_"] * {height: 100%; width: 100%;}
[class*="st-key-take_"] button {opacity: 0; cursor: pointer;}
[class*="st-key-take_"] button:focus-visible {opacity: .25;}
.arm {display: flex; flex-direction: column; gap: .3rem;}
.arm b {font-size: 1.02rem;} .arm span {font-size: .86rem; line-height: 1.35;} .arm .why {font-style: italic;}
.arm .mix {display: flex; height: .55rem; gap: 2px; border-radius: .3rem; overflow: hidden; width: 7rem;}
.arm .mix i {display: block; background: #8A9299;}
.arm .mix i.made {background: repeating-linear-gradient(45deg, #2E7EBB 0 4px, #7CB4DE 4px 8px);}
.arm .mix i.none {background: rgb(128 128 128 / 16%);}
</style>"""
# real and synthetic share of the bar on each card; what is left is empty
MIX = {"real": (50, 0), "both": (50, 50), "synthetic": (0, 50), "distilled": (50, 0), "both-distilled": (50, 50), "dose": (50, 35),
       "labels": (25, 0)}


def show() -> None:
    sets = cached("datasets")
    if sets.empty:
        st.info("There is no dataset to plan an experiment on yet.", icon=":material/database:")
        plant.link("datasets", "Import a dataset", icon=":material/arrow_forward:")
        return
    grid = st.grid(2, min_column_width=280)
    dataset, name = _dataset(grid, sets)
    made = _sets(grid, name)
    arms = _arms(bool(made) or _has_made(dataset))
    values = _numbers()
    title = str(grid.text_input("Name of the experiment", suggest(f"{name}: does synthetic help" if len(arms) > 1 else name), max_chars=80,
                                key=f"plan_name_{dataset}")).strip()
    try:
        config = jobs.Experiment(dataset=dataset, name=title, sets=", ".join(made), arms=", ".join(arms), **values)
        plan = jobs.plan_experiment(config)
    except jobs.DiffspectError as error:
        st.warning(words.plain(error, 600), icon=":material/info:")
        return
    told(plan)
    if st.button(f"Start {text.count(plan['runs'])} runs", type="primary", icon=":material/play_arrow:", key="plan_go"):
        start(config)


def start(config: Any) -> None:
    try:
        st.query_params.from_dict({"experiment": jobs.start_experiment(config)})
    except jobs.DiffspectError as error:
        words.sorry(error)
        return
    st.rerun()


# ---- what is asked

def _dataset(place: Any, sets: pd.DataFrame) -> tuple[str, str]:
    names = {r.snapshot_id: f"{words.short(r.name)} · {r.images:,} pictures · {words.when(r.created_at)}" for r in sets.itertuples()}
    asked = st.query_params.get("dataset", "")
    chosen = str(place.selectbox("Dataset", list(names), list(names).index(asked) if asked in names else 0, names.__getitem__,
                                 key="plan_dataset"))
    return chosen, str(sets.set_index("snapshot_id").loc[chosen, "name"])


def _sets(place: Any, dataset: str) -> list[str]:
    """Synthetic sets of this dataset that could join it."""
    runs = [r for r in jobs.recent(limit=100, recipes=("synthesize",)) if r.state == "completed"]
    known = list(dict.fromkeys(r.name for r in runs if _dataset_of(r.run_id) == dataset))
    if not known:
        return []
    chosen: list[str] = place.multiselect("Synthetic sets that join it", known, format_func=words.short, key=f"plan_sets_{dataset}",
                                          help="Their accepted pictures. None, where the dataset holds synthetic pictures already.")
    return chosen


def _dataset_of(run_id: str) -> str:
    try:
        return str(jobs.synthetic(run_id).get("dataset", ""))
    except jobs.NotFoundError:
        return ""


def _has_made(snapshot_id: str) -> bool:
    return bool((cached("dataset_images", snapshot_id, "train", "", synthesis_pictures.ALL)["origin"] == "synthetic").any())


def _arms(made: bool) -> list[str]:
    """Cards, several of which may be taken."""
    state = st.session_state
    linked = [a for a in st.query_params.get("arms", "").split(",") if a in jobs.PRESETS]
    taken = state.setdefault("plan_arms", linked or [a for a in FIRST if made or not jobs.PRESETS[a][2]])
    st.markdown("**What is compared?** Take two or more")
    st.html(STYLE)
    grid = st.grid(4, min_column_width=200)
    for name in jobs.PRESETS:
        _card(grid, name, name in taken, made)
    return [name for name in jobs.PRESETS if name in taken and (made or not jobs.PRESETS[name][2])]


def _card(place: Any, name: str, taken: bool, made: bool) -> None:
    title, about, needs = jobs.PRESETS[name]
    why = "Needs synthetic pictures: choose a set above, or make one." if needs and not made else ""
    state = "off" if why else "on" if taken else "to"
    with place.container(border=True, key=f"arm_{state}_{name}", height="stretch"):
        real, synthetic = MIX.get(name, (50, 50))
        bar = f'<i style="flex:{real}"></i>' * bool(real) + f'<i class="made" style="flex:{synthetic}"></i>' * bool(synthetic)
        bar += f'<i class="none" style="flex:{100 - real - synthetic}"></i>' * (real + synthetic < 100)
        st.html(f'<div class="arm"><div class="mix" aria-hidden="true">{bar}</div><b>{escape(title)}{" ✓" if state == "on" else ""}</b>'
                f'<span>{escape(about)}</span>{f"<span class=why>{escape(why)}</span>" if why else ""}</div>')
        if not why:
            st.button(f"{title}{', taken' if taken else ''}", key=f"take_{name}", on_click=_take, args=(name,))


def _take(name: str) -> None:
    taken = st.session_state["plan_arms"]
    st.session_state["plan_arms"] = [a for a in taken if a != name] if name in taken else [*taken, name]


def _numbers() -> dict[str, Any]:
    left, right = st.columns([1, 2])
    seeds = int(left.number_input("Seeds for each arm", 1, 50, SEEDS, key="plan_seeds",
                                  help="Fixed now, before anything is seen. Below five the verdict is provisional."))
    with right:
        values = form.fields(jobs.Experiment, BASICS, "plan")
    with st.expander("Advanced", icon=":material/tune:", key="plan_more"):
        values |= dict(weights=training_form.start(jobs.Experiment, "plan_start")) | form.fields(jobs.Experiment, ADVANCED, "plan_more")
    if seeds < SEEDS:
        st.caption(f":material/hourglass_empty: With {seeds} {'seed' if seeds == 1 else 'seeds'} the verdict will be provisional.")
    return dict(seeds=seeds, **values)


def suggest(stem: str) -> str:
    taken = {run.name for run in jobs.recent(limit=200, recipes=("experiment",))}
    return next(name for n in range(1, 1000) if (name := f"{stem} {n}" if n > 1 else stem) not in taken)


# ---- what comes of it

def told(plan: dict[str, Any]) -> None:
    """What each arm sees, that all take equal steps, and how long it takes here."""
    for warning in plan["warnings"]:
        st.warning(words.plain(warning, 600), icon=":material/info:")
    st.markdown("**What each arm sees**")
    st.dataframe(table(plan), hide_index=True, alt="What each arm sees", placeholder="–",
                 column_config={"Arm": st.column_config.TextColumn(pinned=True),
                                **dict.fromkeys(COUNTS, st.column_config.NumberColumn(format="localized"))})
    seconds, seeds = plan["seconds"], len(plan["seeds"])
    takes = "How long it takes here is known after a first run." if seconds is None else "All of it is trained already." if not seconds \
        else f"About {words.span(seconds)} on this machine in all."
    st.caption(f":material/timer: {text.count(plan['runs'])} runs: {len(plan['arms'])} arms of {text.counted(seeds, 'seed')}, all on one "
               f"locked test. {takes}{training_form.ahead()}")


def table(plan: dict[str, Any]) -> pd.DataFrame:
    return pd.DataFrame([{
        "Arm": words.short(arm["title"], 40), "Real pictures": arm["real_images"], "Synthetic pictures": arm["synthetic_images"],
        "Pictures seen": arm["images_seen"], "Optimiser steps": arm["steps"], "Takes": words.span(arm["seconds"])}
        for arm in plan["arms"].values()])

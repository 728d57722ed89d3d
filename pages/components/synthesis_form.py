"""The form of a synthetic set: a dataset, a way of making pictures, what that way needs to know; every other setting behind Advanced.

A link may say dataset, preset, and masks (the run that collected the outlines of a new defect). Knows nothing of sets already made.
"""

import dataclasses
import json
from typing import Any

import streamlit as st

from backend import jobs
from pages.components import form, plant, synthesis_cards, synthesis_priors, synthesis_search, text, training_form, words
from pages.components import synthesis_means as means_of
from pages.components.cached import cached
from pages.components.synthesis_means import PRESETS, Means

FILLS = {"prior": "The prior draws it", "ddpm": "A diffusion model", "texture": "Another surface", "noise": "Noise"}
ABOUT_FILL = {
    "prior": "A place on a good picture, with the outline of a real defect, is drawn anew by the prior as the kind you choose.",
    "ddpm": "A random shape is disturbed by a diffusion model that has learned this dataset: an irregularity in the surface's own manner.",
    "texture": "A random shape is filled from another surface. Quick; good for finding anything unusual, not for a certain kind.",
    "noise": "A random shape is filled with grain. Quickest and plainest."}
SHAPES = ("low_area", "high_area", "foreground")
ADVANCED = {"like": ("prompt", "steps", "seed"), "free": ("prompt", "steps", "seed"), "paste": ("same_class", "foreground", "seed"),
            "prior": ("prompt", "steps", "seed", "foreground"),
            "ddpm": ("steps", "depth", "variance", "low_opacity", "high_opacity", *SHAPES, "imgsz", "seed")}
PLAIN = ("low_opacity", "high_opacity", *SHAPES, "imgsz", "seed")          # filled by another surface or noise


def show() -> None:
    """The form; Make goes on to the set."""
    means = _dataset()
    linked = "good" if st.query_params.get("masks") else ""
    preset = synthesis_cards.choose(means, st.query_params.get("preset") or linked)          # a card clicked after the link says preset
    _lacking(means)
    above = st.container()
    fill = _fill(means, _linked_kind(means)) if preset == "good" else ""
    drawn = preset in ("like", "free") or fill == "prior"
    with above:
        synthesis_priors.offer(means, preset, drawn)
    if not preset:
        return
    try:
        config = jobs.Synthesize(**_asked(means, preset, fill, drawn))
    except jobs.ConfigError as error:
        words.sorry(error)
        return
    training_form.promise(config)
    if st.button(f"Make {text.count(config.count)} {'picture' if config.count == 1 else 'pictures'}", type="primary",
                 icon=":material/auto_awesome:", disabled=not config.name, key="make_go"):
        submit(config)


def _dataset() -> Means:
    sets = cached("datasets")
    names = {r.snapshot_id: f"{words.short(r.name)} · {r.images:,} pictures · {words.when(r.created_at)}" for r in sets.itertuples()}
    asked = st.query_params.get("dataset", "")
    chosen = str(st.selectbox("Dataset to learn from", list(names), list(names).index(asked) if asked in names else 0, names.__getitem__,
                              key="make_dataset", width=420))
    return means_of.of(chosen, str(sets.set_index("snapshot_id").loc[chosen, "name"]))


def _lacking(means: Means) -> None:
    """Where to get what a way of making pictures lacks; of the prior `synthesis_priors` speaks."""
    if not means.good:
        said = "Every picture to learn from carries a defect. Defects on good parts need pictures of good parts, imported with the others."
    elif not means.kinds:
        said = "No defect is labelled among the pictures to learn from. To draw or paste defects of a kind, label some."
    else:
        return
    with st.container(horizontal=True, vertical_alignment="center"):
        st.caption(f":material/info: {said}", width="content")
        plant.link("datasets", "Import pictures", icon=":material/arrow_forward:")


# ---- what one way asks

def _asked(means: Means, preset: str, fill: str, drawn: bool) -> dict[str, Any]:
    """Fields of `Synthesize`."""
    values: dict[str, Any] = dict(dataset=means.snapshot_id, **PRESETS[preset].settings)
    if preset == "good":
        values |= dict(method="prior", start="inpaint") if fill == "prior" else dict(method="perturb", source=fill)
    grid = st.grid(3, min_column_width=200)
    if preset == "good":
        values |= _shapes(grid, means, fill)
    values["class_name"] = _kind(grid, means, fill, str(values.get("masks", "")))
    values["count"] = int(grid.number_input("How many", 1, 100_000, 60, key="make_count"))
    values["name"] = _name(grid, means, preset)
    searched: dict[str, Any] = {}
    if drawn:
        above = st.container()
        values["prior"] = synthesis_priors.choose(means)
        with above:
            searched = synthesis_search.taken(means, values["prior"], values["class_name"])
            values |= _sliders(preset, searched)
    with st.expander("Advanced", icon=":material/tune:", key=f"make_more_{preset}"):
        values |= _advanced(preset, fill, means, searched)
        if drawn:
            values["prior"] = synthesis_priors.elsewhere() or values["prior"]
            synthesis_search.ask(means, values["prior"], values["class_name"])
    return values


def _kind(place: Any, means: Means, fill: str, masks: str) -> str:
    """Of the defects: known ones to choose from; where a shape is filled with something else, a name may be given."""
    if masks:
        named = next(m.name for m in means.masks if m.run_id == masks)
        place.selectbox("Kind of defect", [words.short(named)], key="make_kind_masks", disabled=True, help="That of the outlines.")
        return named
    names = {k: f"{words.short(k)} · {text.count(n)} {'picture' if n == 1 else 'pictures'}" for k, n in means.kinds.items()}
    if fill in ("", "prior"):
        return str(place.selectbox("Kind of defect", ["", *names], format_func=lambda k: names.get(k, "All kinds in turn"),
                                   key=f"make_kind_{means.snapshot_id}"))
    chosen = place.selectbox("Name of the defect", list(means.kinds), None, key=f"make_kind_new_{means.snapshot_id}",
                             accept_new_options=True, placeholder="defect", help="The shapes are of no kind of their own.")
    return (chosen or "").strip()


def _shapes(place: Any, means: Means, fill: str) -> dict[str, str]:
    """Outlines collected in production, where there are some."""
    usual = "Like real defects of the kind" if fill == "prior" else "Random shapes"
    names = {"": usual} | {m.run_id: f"Outlines of {words.short(m.name)}" for m in means.masks}
    if len(names) == 1:
        return {}
    linked = st.query_params.get("masks", "")
    return {"masks": str(place.selectbox("Shapes", list(names), list(names).index(linked) if linked in names else 0, names.__getitem__,
                                         key="make_masks"))}


def _linked_kind(means: Means) -> str:
    """Kind of the outlines that `_shapes`, which stands below, has chosen; '' of none."""
    chosen = st.session_state.get("make_masks", st.query_params.get("masks", ""))
    return next((m.name for m in means.masks if m.run_id == chosen), "")


def _fill(means: Means, kind: str) -> str:
    """What fills the shape: the best that is there comes first. Into outlines of a `kind` that no prior has learned none draws: it would
    draw one that it knows, and the label would say so."""
    new = bool(kind) and kind not in means.drawable
    there = [*(["prior"] if means.adapters and not new else []), *(["ddpm"] if means.denoisers else []), "texture", "noise",
             *(["prior"] if means.priors and not means.adapters and not new else [])]
    chosen = st.segmented_control("What fills the shape", there, default=there[0], required=True, format_func=FILLS.get,
                                  key=f"make_fill{'_new' if new else ''}")          # another set of options: its own default
    st.caption(ABOUT_FILL[chosen])
    if new and (means.adapters or means.priors):
        st.caption(f":material/info: No prior has learned {words.plain(kind, 40)} yet, so none can draw it in these outlines.")
    return str(chosen)


def _sliders(preset: str, found: dict[str, Any]) -> dict[str, float]:
    """How far from the picture, how close to the words. From noise there is no picture to stay near. `found`: what was taken over."""
    grid, values = st.grid(2, min_column_width=260), {}
    if preset != "free":
        start = PRESETS[preset].settings.get("strength", 1.0)          # in a masked part nothing need be kept
        start = found.get("strength", start) if preset == "like" else start
        values["strength"] = grid.slider("Strength", 0.05, 1.0, start, 0.05, key=f"make_strength_{preset}_{start}",
                                         help="How far the picture is noised before it is drawn again. Little keeps the defect nearly as "
                                              "it is; much leaves only where it lay.")
    start = found.get("guidance", 2.0)
    values["guidance"] = grid.slider("Guidance", 1.0, 10.0, start, 0.5, key=f"make_guidance_{start}",
                                     help="How strictly it keeps to the kind of defect. Much of it makes pictures hard and alike.")
    return values


def _advanced(preset: str, fill: str, means: Means, found: dict[str, Any]) -> dict[str, Any]:
    names = ADVANCED.get(fill or preset, PLAIN)
    start = dict(steps=found.get("steps", 20)) if "prompt" in names else {}
    values = form.fields(jobs.Synthesize, names, f"make_{fill or preset}_{start.get('steps', '')}", start)
    if fill == "ddpm":
        models = {m.run_id: words.short(m.name) for m in means.denoisers}
        values["denoiser"] = str(st.selectbox("Diffusion model", list(models), format_func=models.__getitem__, key="make_denoiser"))
        if st.toggle("Start from pure noise", key="make_from_noise", help="Else from the good picture, partly noised."):
            values["start"] = "noise"
    return values


def _name(place: Any, means: Means, preset: str) -> str:
    suggested = suggest(f"{means.name} {PRESETS[preset].title.lower()}")
    return str(place.text_input("Name of the set", suggested, key=f"make_name_{suggested}", max_chars=80)).strip()


def suggest(stem: str) -> str:
    """'tiles pasted', then 'tiles pasted 2': the first that no set has."""
    taken = {run.name for run in jobs.recent(limit=200, recipes=("synthesize",))}
    return next(name for n in range(1, 1000) if (name := f"{stem} {n}" if n > 1 else stem) not in taken)


# ---- handing over

def submit(config: jobs.Synthesize) -> None:
    """Queue it and look at it."""
    try:
        run_id = jobs.submit(config)
    except jobs.DiffspectError as error:
        words.sorry(error)
        return
    st.session_state.pop("view", None)
    st.query_params.from_dict({"set": run_id})
    st.rerun()


def again(made: dict[str, Any], items: list[dict[str, Any]]) -> jobs.Synthesize:
    """What makes `items` once more: the set's own settings, as many of each kind, from the same pictures, with the same models; only chance
    is another, by a seed that none of its kind had."""
    settings = {k: v for k, v in made["settings"].items() if k in {f.name for f in dataclasses.fields(jobs.Synthesize)}}
    before = [r.config for r in jobs.recent(limit=200, recipes=("synthesize",)) if _alike(r.config, settings)]
    seed = 1 + max([int(settings.get("seed", 0)), *(int(c.get("seed", 0)) for c in before)])
    first = json.loads(settings["again"])["seed"] if settings.get("again") else int(settings.get("seed", 0))
    name = suggest(f"{str(made['name']).removesuffix(' again')} again")
    return jobs.Synthesize(**{**settings, **_made_with(made), "again": json.dumps(dict(seed=first, attempts=_attempts(items))),
                              "count": len(items), "seed": seed, "name": name[:80], "dataset": made["snapshot_id"]})


def _made_with(made: dict[str, Any]) -> dict[str, str]:
    """What the set's head says that it was made with, by key: what the settings call it, be it nothing at all, may be a newer one by now.
    Sets of older programs say less."""
    about = made.get("prior") or {}
    prior = about.get("key") or about.get("adapter") or made["settings"].get("prior") or about.get("name")
    said = dict(prior=prior, apart=made.get("apart"), denoiser=made.get("denoiser"), masks=made.get("shapes"))
    return {k: str(v) for k, v in said.items() if v}


def _attempts(items: list[dict[str, Any]]) -> dict[str, list[int]]:
    """Numbers by kind: of what was made again itself, those that it was made from; of sets from before these were written down, any."""
    found: dict[str, list[int]] = {}
    for item in items:
        some, number = found.setdefault(item["class_name"], []), item.get("again")
        number = item["attempt"] if number is None else number
        some.append(len(some) if number is None else number)
    return found


def _alike(config: dict[str, Any], settings: dict[str, Any]) -> bool:
    """The same but for what a set is called, how many it holds, of which kind, and its seed; and for how the dataset, and what it was made
    with, were named: by a key when made again. To pass over the seed of one that was made with something else does no harm."""
    ignored = ("seed", "count", "name", "class_name", "dataset", "again", "prior", "apart", "denoiser", "masks")
    return all(config.get(k) == v for k, v in settings.items() if k not in ignored)

"""The search for strength, guidance and steps of an adapted prior: asking for it, its result as a map, and taking over the best.

Reads the result of a `search-synthesis` run. Knows nothing of how a setting is measured.
"""

from typing import Any

import pandas as pd
import streamlit as st

from backend import jobs
from pages.components import form, run_panel, synthesis_figures, text, training_form, words
from pages.components.synthesis_means import Means

FIELDS = ("strengths", "guidances", "steps", "images")
COPIED = 0.05            # of searches from before they said themselves whether a setting copies: more, and it is not the best


def ask(means: Means, prior: str, kind: str) -> None:
    """Part of the form: the newest search of this dataset, and asking for one; nothing while no adapted prior is chosen."""
    if prior not in {m.run_id for m in means.adapters}:
        return
    st.markdown("**Which settings?** Search strength, guidance and steps")
    st.caption("Small sets are made with every combination and measured against real pictures that the prior has not learned from. "
               "Validation and test pictures are never looked at.")
    values, key = form.fields(jobs.SearchSynthesis, FIELDS, "search"), key_of(means, prior)
    config = jobs.SearchSynthesis(dataset=means.snapshot_id, name=f"{means.name} settings", prior=prior, class_name=kind, **values)
    training_form.promise(config)
    with st.container(horizontal=True, vertical_alignment="center"):
        if st.button("Search", icon=":material/grid_on:", key="search_go"):
            run_panel.start(config, "learn")
        for run in found(means, key, kind)[:1]:
            best = run.result["best"]
            st.markdown(f"Best so far: {told(best)}", width="content")
            st.button("Use these", key="search_use", type="tertiary", on_click=use, args=(best, run.result, kind))
            st.button("See the map", key="search_see", type="tertiary", on_click=watch, args=(run.run_id,))


def key_of(means: Means, prior: str) -> str:
    """Of an adapted prior that is named by its run; of another, nothing."""
    return next((str(m.head.get("key", "")) for m in means.adapters if m.run_id == prior), "")


def found(means: Means, key: str, kind: str) -> list[jobs.RunStatus]:
    """Finished searches with this adapted prior for this kind ('' for all of them) that came to a best setting, newest first."""
    runs = [r for r in jobs.recent(limit=50, recipes=("search-synthesis",)) if r.state == "completed" and r.result.get("best")]
    return [r for r in runs if (r.result.get("snapshot_id"), r.result.get("adapter"), r.config.get("class_name", "")) ==
            (means.snapshot_id, key, kind)]


def told(setting: dict[str, Any]) -> str:
    return f"strength **{setting['strength']:g}**, guidance **{setting['guidance']:g}**, **{setting['steps']}** steps"


def watch(run_id: str) -> None:
    st.query_params["learn"] = run_id


def use(best: dict[str, Any], result: dict[str, Any], kind: str) -> None:
    """The form starts from it, for what was searched: this dataset, this adapted prior, this kind, which the form then shows."""
    st.session_state["searched"] = {k: best[k] for k in synthesis_figures.WHAT} | dict(
        dataset=result["snapshot_id"], adapter=result["adapter"], prior=result["prior"], kind=kind)
    st.session_state[f"make_kind_{result['snapshot_id']}"] = kind


def taken(means: Means, prior: str, kind: str) -> dict[str, Any]:
    """Settings taken over, where they were searched for what the form says; where for something else, a word, since they do not count."""
    held = st.session_state.get("searched", {})
    if not held or held["dataset"] != means.snapshot_id:
        return {}
    if (held["adapter"], held["kind"]) == (key_of(means, prior), kind):
        return dict(held)
    st.caption(f":material/info: The settings taken over were searched for {words.plain(held['kind'], 40) or 'all kinds'} with the prior "
               f"{words.plain(held['prior'], 40)}; here the usual ones stand.")
    return {}


def live(status: jobs.RunStatus) -> None:
    """The newest pictures while it runs; the map once it is done."""
    if status.state == "completed":
        _map(status)
    else:
        try:
            st.image(jobs.run_file(status.run_id, "samples.png").read_bytes(), width=360, alt="The newest pictures: original, made")
            st.caption("The newest pictures: what each started from, and what was made of it.")
        except jobs.NotFoundError:
            st.skeleton(160)
    run_panel.log(status.run_id)


def best_of(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """As the recipe chooses: the nearest of those that do not copy; where all do, the one that copies least."""
    honest = [r for r in rows if not r.get("copying", (r["copied"] or 0) > COPIED)]
    return min(honest, key=lambda r: r["kid"]) if honest else min(rows, key=lambda r: (r["copied"], r["kid"]))


def _map(status: jobs.RunStatus) -> None:
    result = status.result
    kinds = list(dict.fromkeys(r["class_name"] for r in result["rows"]))
    kind = st.selectbox("Kind of defect", ["", *kinds], format_func=lambda k: words.short(k) or "All kinds", width=260,
                        key=f"searched_kind_{status.run_id}") if len(kinds) > 1 else ""
    rows = [r for r in result["rows"] if r["class_name"] == kind] if kind else result["settings"]
    best = best_of(rows) if kind else result["best"]
    searched = str(status.config.get("class_name", "")) or kind
    st.markdown("**Distance from real pictures** (KID × 1,000), smaller is better")
    synthesis_figures.searched(rows, best, f"searched_{status.run_id}_{kind}")
    copied = f", with {text.percent(best['copied'])} copies" if best["copied"] is not None else ""
    with st.container(horizontal=True, vertical_alignment="center"):
        st.markdown(f":material/star: Best: {told(best)}: {best['kid']:.1f}{copied}.", width="content")
        st.button("Use these", key=f"use_{status.run_id}", on_click=use, args=(best, result, searched), icon=":material/tune:")
    st.caption("Little strength always looks near, for it leaves the real picture nearly as it is; so a setting with more than 5 % copies, "
               "and more than chance would make, is not the best while another has fewer.")
    with st.expander("All figures", icon=":material/table:", key=f"searched_rows_{status.run_id}"):
        st.dataframe(pd.DataFrame([{"Strength": r["strength"], "Guidance": r["guidance"], "Steps": r["steps"], "Distance": r["kid"],
                                    "Interval": f"{r['low']:.1f} to {r['high']:.1f}",
                                    "Copies": "–" if r["copied"] is None else text.percent(r["copied"]),
                                    "Variety": "–" if r["diversity"] is None else text.percent(r["diversity"])} for r in rows]),
                     hide_index=True, alt="Figures of each setting")

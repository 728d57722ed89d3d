"""Ask for a look-back: with which plant, how many days and pictures, and how long it will take here. Its answer is `shadow_view`'s."""

import dataclasses
from functools import partial
from typing import Any

import streamlit as st

from backend import jobs
from pages.components import ask, filters, plant, text, training_form, words
from pages.components.cached import cached

DAYS = {"7 days": 7, "14 days": 14, "28 days": 28, "90 days": 90}
SAMPLES = (1_000, 5_000, 20_000)
USUAL = 5_000                # as many in some minutes; the figures of most plants move by less than half a point beyond it


def button(model: Any) -> None:
    ask.question("look_back", "Look back …", "Look back with this model?", partial(_form, model), "medium", icon=":material/history:")


def _form(model: Any) -> None:
    st.markdown(f"**{words.plain(model.name)}** looks at the pictures that were kept of the last days. You see both trends, and the "
                "pictures whose verdict would change. Nothing is counted, and no trend changes.")
    shown = _plant()
    days = DAYS[st.segmented_control("How far back", list(DAYS), default="14 days", required=True, key="look_days",
                                     help="The last day is the newest one with pictures.")]
    known, place = cached("choices", shown), st.columns(2)
    line, product = (_one(place[n], name, known[f"{name}s"]) for n, name in enumerate(("line", "product")))
    there = cached("to_look_back_on", shown, line, product, days)
    if not there["kept"]:
        st.info(_nothing(there), icon=":material/image_not_supported:")
        return
    config = jobs.Shadow(model=model.model_id, name=model.name, days=days, line=line, product=product, plant=shown,
                         pictures=_sample(there["kept"]))
    _promise(config, there)
    if shown == "demo":
        st.caption(":material/science: Of the demo plant, whose record is made up.")
    if st.button("Look back", type="primary", icon=":material/history:", key="look_go"):
        try:
            st.query_params["look"] = jobs.submit(config, plant=shown)
        except jobs.DiffspectError as error:
            words.sorry(error)
            return
        ask.answered()
        st.rerun()


def _plant() -> str:
    """Yours, the demo's, or the one of these that there is."""
    have = cached("plants")
    there = [name for name in plant.NAMES if have.get(name)] or ["real"]
    if len(there) == 1:
        return there[0]
    return str(st.segmented_control("Plant", there, default=plant.current(have), required=True, format_func=plant.NAMES.get,
                                    key="look_plant"))


def _one(place: Any, name: str, known: list[str]) -> str:
    _, _, nothing = filters.FIELDS[name]
    return str(place.selectbox(filters.LABELS[name], ["", *known], format_func=lambda v: words.short(v) or nothing, key=f"look_{name}"))


def _sample(kept: int) -> int | None:
    """None: all of them."""
    sizes: dict[int, str] = {n: text.count(n) for n in SAMPLES if n < kept} | {0: f"All {text.count(kept)}"}
    chosen = st.segmented_control("How many pictures", list(sizes), default=USUAL if USUAL in sizes else 0, required=True,
                                  format_func=sizes.get, key=f"look_pictures_{kept}",
                                  help="Fewer are spread evenly over lines and days, and the interval is wider.")
    return chosen or None


def _promise(config: jobs.Shadow, there: dict[str, Any]) -> None:
    lost = there["pictures"] - there["kept"]
    of = f" of {text.count(there['pictures'])}; {text.count(lost)} were not kept" if lost else ""
    st.caption(f"{text.day(there['since'])} to {text.day(there['until'])}: {text.count(there['kept'])} pictures{of}.")
    training_form.promise(dataclasses.replace(config, pictures=min(config.pictures or there["kept"], there["kept"])))


def _nothing(there: dict[str, Any]) -> str:
    if there["pictures"]:
        return f"{text.count(there['pictures'])} pictures count in these days, but none of them was kept."
    return "No picture counts in the trends here yet. Inspect a batch and give it its line; then there is something to look back on."

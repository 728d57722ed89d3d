"""The ways of making pictures as cards to choose from, each with a drawing; what cannot be gone says why, in its place.

What is clicked stands in the URL as `preset`, as a link may have it, so that the later of the two counts. Knows nothing of what is asked
once one is chosen.
"""

from base64 import b64encode
from html import escape
from typing import Any

import streamlit as st

from pages.components import synthesis_means as means_of
from pages.components.charts import AMBER, BLUE, GREY
from pages.components.synthesis_means import PRESETS, Means

STYLE = """<style>
[class*="st-key-preset_"] {position: relative;}
[class*="st-key-preset_off_"] {opacity: .72;}
[class*="st-key-preset_on_"] {outline: 2px solid var(--st-primary-color, #2E7EBB); outline-offset: -1px; border-radius: .4rem;}
[class*="st-key-choose_"] {position: absolute !important; inset: 0; width: 100% !important; z-index: 1;}
[class*="st-key-choose_"] * {height: 100%; width: 100%;}
[class*="st-key-choose_"] button {opacity: 0; cursor: pointer;}
[class*="st-key-choose_"] button:focus-visible {opacity: .25;}
.preset {display: flex; flex-direction: column; gap: .35rem;}
.preset img {height: 58px; width: auto; align-self: flex-start;}
.preset b {font-size: 1.02rem;}
.preset span {font-size: .86rem; line-height: 1.35;}
.preset .why {font-style: italic;}
@media (max-width: 640px) {.preset {display: grid; grid-template-columns: 104px 1fr; column-gap: .8rem;}
  .preset img {grid-row: 1 / 4; width: 104px; height: auto; align-self: center;} .preset span, .preset b {grid-column: 2;}}
</style>"""
# Two plates side by side, what is taken left and what comes of it right; mid tones that read on the light and the dark page.
_PLATE = '<rect x="{0}" y="5" width="48" height="48" rx="5" fill="{1}" fill-opacity=".22" stroke="{1}" stroke-width="1.5"/>'
_ARROW = f'<path d="M57 29h10m-4-4l4 4-4 4" fill="none" stroke="{GREY}" stroke-width="2" stroke-linecap="round" stroke-linejoin="round"/>'
_CRACK = '<path d="M{0} 18l7 8-3 6 9 9" fill="none" stroke="{1}" stroke-width="3.2" stroke-linecap="round" stroke-linejoin="round"/>'
_NOISE = "".join(f'<rect x="{8 + 7 * (n % 6)}" y="{11 + 7 * (n // 6)}" width="4" height="4" fill="{GREY}" fill-opacity="{o}"/>'
                 for n, o in enumerate([.9, .3, .6, .2, .8, .5, .4, .7, .2, .9, .3, .6, .8, .2, .5, .4, .9, .3, .3, .8, .6, .7, .2, .5,
                                        .6, .4, .9, .3, .5, .8, .2, .7, .4, .8, .6, .3]))
_BLOB = ('<path d="M84 22c6-7 17-3 18 5s-5 16-12 15-12-13-6-20z" fill="{0}" fill-opacity="{1}" stroke="{0}" stroke-width="2" '
         'stroke-dasharray="{2}"/>')
_CUT = '<rect x="{0}" y="{1}" width="21" height="27" rx="2" fill="none" stroke="{2}" stroke-width="1.6" stroke-dasharray="3.5 2.5"/>'
DRAWINGS = {
    "like": _PLATE.format(3, GREY) + _CRACK.format(19, AMBER) + _ARROW + _PLATE.format(73, BLUE)
    + f'<path d="M88 17l8 7-4 7 10 11" fill="none" stroke="{AMBER}" stroke-width="3.2" stroke-linecap="round" stroke-linejoin="round"/>',
    "free": _NOISE + _ARROW + _PLATE.format(73, BLUE) + _BLOB.format(AMBER, .55, "none"),
    "good": _PLATE.format(3, GREY) + _ARROW + _PLATE.format(73, BLUE) + _BLOB.format(AMBER, .35, "4 3"),
    "paste": _PLATE.format(3, GREY) + _CRACK.format(12, AMBER) + _CUT.format(9, 15, GREY) + _ARROW + _PLATE.format(73, BLUE)
    + _CRACK.format(98, AMBER) + _CUT.format(95, 15, GREY)}


def choose(means: Means, linked: str) -> str:
    """The way chosen; '' while none can be gone. `linked`: what the URL asks for; where it asks for none, the last one stays."""
    open_ = [name for name in PRESETS if not means_of.missing(name, means)]
    if linked:
        st.session_state["preset"] = linked
    asked = st.session_state.get("preset", "")
    chosen = asked if asked in open_ else next(iter(open_), "")
    st.html(STYLE)
    grid = st.grid(4, min_column_width=210)
    for name in PRESETS:
        _card(grid, name, "on" if name == chosen else "to" if name in open_ else "off", means_of.missing(name, means))
    return chosen


def _card(place: Any, name: str, state: str, why: str) -> None:
    preset = PRESETS[name]
    with place.container(border=True, key=f"preset_{state}_{name}", height="stretch"):
        about = f'<span class="why">{escape(why)}</span>' if why else ""
        mark = " ✓" if state == "on" else ""
        st.html(f'<div class="preset"><img src="{_drawing(name)}" alt=""><b>{escape(preset.title)}{mark}</b>'
                f"<span>{escape(preset.about)}</span>{about}</div>")
        if not why:
            st.button(f"{preset.title}{', chosen' if state == 'on' else ''}", key=f"choose_{name}",
                      on_click=st.query_params.__setitem__, args=("preset", name))


def _drawing(name: str) -> str:
    """As an address: Streamlit takes drawings written into a page out of it."""
    drawn = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 124 58" width="124" height="58">{DRAWINGS[name]}</svg>'
    return f"data:image/svg+xml;base64,{b64encode(drawn.encode()).decode()}"

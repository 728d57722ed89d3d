"""The picture that a person draws boxes on: a component of ours, plain SVG and keys, nothing to build and nothing fetched.

Its script and style lie beside this file. It speaks once, when a person saves; until then what was drawn lives in the browser and outlasts
runs of the page. Knows nothing of where a picture comes from or of what is done with its boxes.
"""

import base64
from collections.abc import Callable
from pathlib import Path
from typing import Any

import streamlit as st

_HERE = Path(__file__)
_HTML = """
<div class="canvas">
  <svg tabindex="0" role="application" preserveAspectRatio="xMidYMid meet"><image x="0" y="0"></image><g class="boxes"></g></svg>
  <div class="side">
    <button type="button" class="save"></button>
    <div class="said" aria-live="polite"></div>
    <div class="kinds" role="group" aria-label="Kind"></div>
    <form class="fresh"><input type="text" maxlength="60" placeholder="New kind" aria-label="New kind">
      <button type="submit">Add</button></form>
    <div class="bar">
      <button type="button" class="undo">Undo <kbd>Ctrl Z</kbd></button>
      <button type="button" class="redo">Redo</button>
      <button type="button" class="add">New box <kbd>N</kbd></button>
      <button type="button" class="delete">Delete <kbd>Del</kbd></button>
      <button type="button" class="none">No defect <kbd>0</kbd></button>
      <span class="bar"><button type="button" class="closer" aria-label="Enlarge">+</button>
        <button type="button" class="wider" aria-label="Make smaller">−</button></span>
    </div>
  </div>
</div>
"""
_canvas = st.components.v2.component("diffspect_boxes", html=_HTML, css=_HERE.with_suffix(".css").read_text(),
                                     js=_HERE.with_suffix(".js").read_text())


def canvas(picture: bytes, about: dict[str, Any], saved: Callable[[], None], key: str) -> Any:
    """`about`: id, name, width, height (of the original, in whose pixels boxes are), boxes, kinds. `saved` is called when a person saves;
    st.session_state[key]["saved"] then holds id and boxes."""
    shown = f"data:image/jpeg;base64,{base64.b64encode(picture).decode()}"
    return _canvas(key=key, data=about | dict(picture=shown), on_saved_change=saved)

"""One test picture twice, side by side, with what each of two runs found in it and what is true; zoomed and moved together.

The picture is sent once and the boxes lie over it as elements of the page, so that a threshold moves boxes only and they stay thin at
any zoom. Zoom and place live in the browser, for both alike: nothing is asked of the server. Knows nothing of filters or thresholds.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from html import escape
from typing import Any

import pandas as pd
import streamlit as st

from pages.components import charts, words

MOST_SAID = 14           # boxes in a picture that carry their words; of more, words would hide what they speak of
STYLE = f"""<style>
.st-key-pair {{display: grid !important; grid-template-columns: repeat(2, minmax(0, 1fr)); gap: .7rem;}}
[class*="st-key-pane_"] {{position: relative; overflow: hidden; border-radius: .4rem; background: rgb(128 128 128 / 14%); cursor: zoom-in;
  width: min(100%, calc(60vh * var(--pair-ratio, 1.33))) !important; margin: 0 auto; aspect-ratio: var(--pair-ratio, 1.33); display: block;
  touch-action: pan-y;}}
:root[data-pair="in"] [class*="st-key-pane_"] {{cursor: grab; touch-action: none;}}
[class*="st-key-pane_"]:focus-within {{outline: 2px solid var(--st-primary-color, #2E7EBB);}}
[class*="st-key-stage_"] {{position: absolute !important; display: block; left: calc(var(--pair-x, 0) * 1%);
  top: calc(var(--pair-y, 0) * 1%); width: calc(100% * var(--pair-zoom, 1)) !important;
  max-width: none !important; height: calc(100% * var(--pair-zoom, 1));}}
[class*="st-key-stage_"] > div, [class*="st-key-stage_"] [data-testid="stFullScreenFrame"],
[class*="st-key-stage_"] [data-testid="stFullScreenFrame"] :is(div, img) {{position: absolute !important; inset: 0;
  width: 100% !important; height: 100% !important; max-width: none !important; border-radius: 0; pointer-events: none; user-select: none;}}
.marks i {{position: absolute; box-sizing: border-box; border: 2.5px solid; font-style: normal;
  pointer-events: none; border-radius: 2px;}}
.marks i.hit {{border-color: #1FB98F;}} .marks i.false {{border-color: #F2703A;}}
.marks i.true {{border-style: dashed; border-width: 1.5px; border-color: #FFFFFF;
  outline: 1px dashed rgb(0 0 0 / 70%);}}
.marks i.missed {{border-style: dashed; border-width: 3px; border-color: #FFC53D;}}
.marks b {{position: absolute; left: 0; bottom: 100%; white-space: nowrap; font-weight: 600; line-height: 1.35; color: #10181D;
  font-size: .74rem; padding: 0 4px; background: #1FB98F;
  border-radius: 3px 3px 0 0;}}
.marks .false b {{background: #F2703A;}} .marks .missed b {{background: #FFC53D;}}
.marks .low b {{bottom: auto; top: 0;}} .marks .right b {{left: auto; right: 0;}} .marks .missed b {{bottom: auto; top: 100%;}}
.marks .missed.floor b {{top: auto; bottom: 0;}}
.pair-tools {{display: inline-flex; gap: .3rem; align-items: center;}}
.pair-tools button {{min-width: 2.1rem; height: 2.1rem; border-radius: .4rem; border: 1px solid rgb(128 128 128 / 45%); background: none;
  color: inherit; font-size: 1rem; cursor: pointer;}}
.pair-tools button:hover, .pair-tools button:focus-visible {{border-color: {charts.BLUE}; color: {charts.BLUE}; outline: none;}}
.pair-tools output {{min-width: 2.6rem; text-align: center; font-variant-numeric: tabular-nums;}}
.pair-tools output::after {{content: counter(z) "×"; counter-reset: z var(--pair-said, 1);}}
@media (max-width: 640px) {{.st-key-pair {{grid-template-columns: minmax(0, 1fr);}}
  [class*="st-key-pane_"] {{width: min(100%, calc(34vh * var(--pair-ratio, 1.33))) !important;}}}}
</style>"""

# One set of listeners, whatever is drawn anew; a new picture begins whole. Zoom by double click, + - 0, ctrl and wheel, or two fingers;
# moved by drag, or by shift and an arrow. A plain wheel and one finger scroll the page, as long as nothing is enlarged. A choice made
# with the mouse gives the keyboard back, or the arrows would move that choice instead of the pictures; one reached by Tab keeps it.
_MOVE = """<script>(() => {
const root = document.documentElement, most = 16, fingers = new Map();
const now = window.diffspectPair || (window.diffspectPair = {z: 1, x: 0, y: 0, of: ""});
const put = (z, x, y) => {
  now.z = Math.min(most, Math.max(1, z));
  const least = -100 * (now.z - 1);
  now.x = Math.min(0, Math.max(least, x)); now.y = Math.min(0, Math.max(least, y));
  for (const [k, v] of [["zoom", now.z], ["x", now.x], ["y", now.y], ["said", Math.round(now.z)]]) root.style.setProperty("--pair-" + k, v);
  root.dataset.pair = now.z > 1 ? "in" : "whole";
};
const zoom = (factor, px = 50, py = 50) => {
  const z = Math.min(most, Math.max(1, now.z * factor)), f = z / now.z;
  put(z, px - f * (px - now.x), py - f * (py - now.y));
};
const pane = e => e.target.closest && e.target.closest('[class*="st-key-pane_"]');
const at = (e, box) => {
  const r = box.getBoundingClientRect();
  return [100 * (e.clientX - r.left) / r.width, 100 * (e.clientY - r.top) / r.height];
};
const release = () => {
  const a = document.activeElement;
  if (a && a.closest("[role=radiogroup]") && !a.matches(":focus-visible")) a.blur();
};
const STEPS = {"+": 2, "=": 2, "-": 0.5, "0": 0};
const WAYS = {ArrowLeft: [1, 0], ArrowRight: [-1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1]};
const step = s => STEPS[s] ? zoom(STEPS[s]) : put(1, 0, 0);
const on = {
  keydown: e => {
    const way = e.shiftKey && now.z > 1 && WAYS[e.key];
    if (!(way || e.key in STEPS) || e.ctrlKey || e.metaKey || e.altKey || !document.querySelector('[class*="st-key-pane_"]')) return;
    if (e.target.closest && e.target.closest("input, textarea, select, [contenteditable=true], [role=dialog]")) return;
    e.preventDefault(); e.stopPropagation();
    way ? put(now.z, now.x + 25 * way[0], now.y + 25 * way[1]) : step(e.key);
  },
  click: e => {
    const b = e.target.closest && e.target.closest("[data-pair]");
    if (b && b !== root) step(b.dataset.pair);
    setTimeout(release, 0);
  },
  dblclick: e => { const box = pane(e); if (box) { e.preventDefault(); now.z > 1 ? put(1, 0, 0) : zoom(4, ...at(e, box)); } },
  wheel: e => {
    const box = pane(e);
    if (box && (e.ctrlKey || e.metaKey)) { e.preventDefault(); zoom(Math.exp(-e.deltaY / 240), ...at(e, box)); }
  },
  pointerdown: e => { const box = pane(e); if (box) { fingers.set(e.pointerId, [e.clientX, e.clientY, box]); } },
  pointermove: e => {
    const was = fingers.get(e.pointerId);
    if (!was) return;
    const r = was[2].getBoundingClientRect(), others = [...fingers].filter(([id]) => id !== e.pointerId);
    if (others.length) {
      const o = others[0][1], d = (x, y) => Math.hypot(x - o[0], y - o[1]) || 1;
      zoom(d(e.clientX, e.clientY) / d(was[0], was[1]), 100 * ((e.clientX + o[0]) / 2 - r.left) / r.width,
           100 * ((e.clientY + o[1]) / 2 - r.top) / r.height);
    } else if (now.z > 1) {
      put(now.z, now.x + 100 * (e.clientX - was[0]) / r.width, now.y + 100 * (e.clientY - was[1]) / r.height);
    }
    fingers.set(e.pointerId, [e.clientX, e.clientY, was[2]]);
  },
  pointerup: e => fingers.delete(e.pointerId), pointercancel: e => fingers.delete(e.pointerId),
};
for (const [name, old] of Object.entries(now.on || {})) window.removeEventListener(name, old, {capture: true});
now.on = on;
for (const [name, fn] of Object.entries(on)) window.addEventListener(name, fn, {capture: true, passive: false});
release();
if (now.of !== "OF") { now.of = "OF"; put(1, 0, 0); } else put(now.z, now.x, now.y);
})();</script>"""
_TOOLS = ('<span class="pair-tools" role="group" aria-label="Zoom of both pictures"><button data-pair="-" aria-label="Zoom out">−</button>'
          '<output aria-label="Zoom"></output><button data-pair="+" aria-label="Zoom in">+</button>'
          '<button data-pair="0" aria-label="Whole picture">⤢</button></span>')


@dataclass(frozen=True)
class Side:
    """What lies over one of the two."""

    head: str                        # Markdown: whose it is, and what it makes of the picture
    found: pd.DataFrame              # class_name, confidence, x1, y1, x2, y2, hit, hit_box: those that count at its threshold
    truth: pd.DataFrame              # class_name, x1, y1, x2, y2; its index is what hit_box speaks of
    hit: set[int]                    # true boxes that are found, whether or not the finds are shown


def tools() -> None:
    """The buttons that enlarge both."""
    st.html(_TOOLS, width="content")


def show(picture: bytes, size: tuple[int, int], sides: Iterable[Side], name: str, of: str) -> None:
    """`size` in pixels, as the boxes count them; `of` tells one picture from the next."""
    st.html(STYLE)
    st.html(f"<style>:root {{--pair-ratio: {size[0] / size[1]:.4f};}}</style>")
    with st.container(key="pair"):
        for at, side in enumerate(sides):
            with st.container(key=f"half_{at}", gap="xsmall"):
                st.markdown(side.head)
                with st.container(key=f"pane_{at}"), st.container(key=f"stage_{at}"):
                    st.image(picture, width="stretch", alt=f"{words.short(name, 80)}: {said(side)}")
                    st.html(marks(side, size))
    st.html(_MOVE.replace("OF", "".join(c for c in of if c.isalnum())), unsafe_allow_javascript=True)


def marks(side: Side, size: tuple[int, int]) -> str:
    """Every box as an element: true ones dashed, those missed thick with their kind, found ones with kind and confidence."""
    quiet = len(side.found) + len(side.truth) > MOST_SAID
    boxes = [_mark(b, "true" if b.Index in side.hit else "missed", "" if b.Index in side.hit else f"missed: {b.class_name}", size, quiet)
             for b in side.truth.itertuples()]
    boxes += [_mark(b, "hit" if b.hit else "false", f"{'✓' if b.hit else '✗'} {b.class_name} {b.confidence:.2f}", size, quiet)
              for b in side.found.itertuples()]
    return f'<div class="marks">{"".join(boxes)}</div>'


def _mark(box: Any, kind: str, label: str, size: tuple[int, int], quiet: bool) -> str:
    left, top, wide, high = box.x1 / size[0], box.y1 / size[1], (box.x2 - box.x1) / size[0], (box.y2 - box.y1) / size[1]
    where = f"left:{left:.3%};top:{top:.3%};width:{wide:.3%};height:{high:.3%}"
    place = " low" * (top < 0.08) + " right" * (left > 0.6) + " floor" * (top + high > 0.92)
    told = f"<b>{escape(words.short(label, 40))}</b>" if label and not quiet else ""
    return f'<i class="{kind}{place}" style="{where}">{told}</i>'


def said(side: Side) -> str:
    """The same in words."""
    hits, false = int(side.found["hit"].sum()), int((~side.found["hit"].astype(bool)).sum())
    return f"{hits} of {len(side.truth)} found, {false} false"

"""One line on a model's page: which arithmetic of the processor, faster than float32, may inspect with it, and by which figures.

Where nobody has measured, a button does. Reads `precision.json` beside the model; see `evaluation.precision` for what it means.
"""

import json
from pathlib import Path
from typing import Any

import streamlit as st

from backend import jobs
from pages.components import run_panel, text

FILE, RECIPE = "precision.json", "measure-precision"
BUNDLED = Path(__file__).resolve().parents[2] / "data" / "demo" / "model"            # the model that comes with the program
FIGURES = {"map50": "mAP50", "map50_95": "mAP50–95", "verdicts": "the share of equal verdicts"}
ON = {"val": "val pictures", "kept": "pictures kept from inspections"}
UNMEASURED = ("Inspects in float32. Nobody has measured whether bf16 or int8, the faster arithmetics of many processors, change what this "
              "model finds.")


def line(model: Any) -> None:
    record, there = measured(model), jobs.arithmetics()
    open_to = [] if used(record, there) != "float32" else [a for a in there if not found(record, a)]
    if record and not open_to:
        st.caption(said(record, there))
        return
    underway = [r for r in jobs.recent(limit=5, recipes=(RECIPE,), open_only=True) if r.config.get("model") == model.model_id]
    if underway:
        run_panel.show(underway[0].run_id)                          # redraws the page when it ends
        return
    with st.container(horizontal=True, vertical_alignment="center"):
        st.caption(f"{said(record, there)} Nobody has measured {open_to[0]}." if record else UNMEASURED, width="content")
        st.button("Measure it", type="tertiary", icon=":material/speed:", key="measure_precision", on_click=run_panel.attempt,
                  args=(_ask, model.model_id))


def _ask(model_id: str) -> None:
    jobs.submit(jobs.RECIPES[RECIPE].from_json({"model": model_id}))


def measured(model: Any) -> dict[str, Any]:
    """What was measured of this very model; empty where nothing was."""
    try:
        path = jobs.run_file(model.run_id, f"model/{FILE}") if model.run_id else BUNDLED / FILE
        record = json.loads(path.read_bytes())
    except (jobs.NotFoundError, OSError, ValueError):
        return {}
    return dict(record) if record.get("model_id") == model.model_id else {}


def found(record: dict[str, Any], name: str) -> dict[str, Any]:
    """What was measured of one arithmetic: allowed, on, images, points; empty where nothing was."""
    part = dict(record, allowed=record.get("bf16")) if name == "bf16" else record.get(name, {})
    return part if "points" in part else {}


def used(record: dict[str, Any], there: list[str]) -> str:
    """The arithmetic that a processor which has these inspects in."""
    return next((a for a in there if found(record, a).get("allowed")), "float32")


def said(record: dict[str, Any], there: list[str]) -> str:
    """'Inspects in bf16 on this machine. bf16 changes next to nothing: on 135 val pictures mAP50 is 88.1 in float32 and 88.1 in bf16.'"""
    parts = [_one(name, found(record, name)) for name in ("bf16", "int8") if found(record, name)]
    return " ".join([f"Inspects in {used(record, there)} on this machine.", *parts])


def _one(name: str, part: dict[str, Any]) -> str:
    how = f"{name}, which is faster, changes next to nothing" if part["allowed"] else f"{name}, though faster, changes what it finds"
    figures = [f"{FIGURES[figure]} is {a:.1f} % in float32 and {b:.1f} % in {name}" for figure, (a, b) in part["points"].items()
               if figure in FIGURES]
    return f"{how}: on {text.count(part['images'])} {ON.get(part['on'], 'pictures')} {', '.join(figures)}."

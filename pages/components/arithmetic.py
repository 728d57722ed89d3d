"""One line on a model's page: whether bf16, the processor's faster arithmetic, may inspect with it, and by which figures.

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
UNMEASURED = ("Inspects in float32. Nobody has measured whether bf16, the faster arithmetic of some processors, changes what this model "
              "finds.")


def line(model: Any) -> None:
    if record := measured(model):
        st.caption(said(record))
        return
    underway = [r for r in jobs.recent(limit=5, recipes=(RECIPE,), open_only=True) if r.config.get("model") == model.model_id]
    if underway:
        run_panel.show(underway[0].run_id)                          # redraws the page when it ends
        return
    with st.container(horizontal=True, vertical_alignment="center"):
        st.caption(UNMEASURED, width="content")
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


def said(record: dict[str, Any]) -> str:
    """'Inspects in bf16 …: on 135 val pictures mAP50 is 88.1 in float32 and 88.1 in bf16.'"""
    how = ("Inspects in bf16 where the processor has it, which is faster and changes next to nothing" if record["bf16"] else
           "Inspects in float32, since bf16, though faster, changes what it finds")
    figures = [f"{FIGURES[name]} is {a:.1f} % in float32 and {b:.1f} % in bf16" for name, (a, b) in record["points"].items()
               if name in FIGURES]
    return f"{how}: on {text.count(record['images'])} {ON.get(record['on'], 'pictures')} {', '.join(figures)}."

"""What a person does with a finished batch: correct its details, take it out of the trends or put it in, rules, downloads.

Each change is an event that can be taken back; the pictures and scores stay as they are.
"""

import re
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

import streamlit as st

from backend import jobs
from pages.components import ask, person, plant, rules, undo, upload
from pages.components.cached import cached

FORMS = {"csv": ("CSV", "text/csv", "csv"), "parquet": ("Parquet", "application/vnd.apache.parquet", "parquet"),
         "coco": ("COCO", "application/json", "json"), "zip": ("Pictures with boxes", "application/zip", "zip")}


def bar(status: jobs.RunStatus) -> None:
    """Buttons in one wrapping row; nothing before the first picture is logged."""
    about = cached("batch", status.run_id)
    if not about["inspected"]:
        return
    with st.container(horizontal=True, vertical_alignment="center", key="batch_actions"):
        ask.question("correct", "Correct details", "Correct details of this batch", partial(correct, status), icon=":material/edit:")
        trends(status, about)
        ask.question("rules", "Rules", "What counts as a defect", icon=":material/rule:", width="large",
                     body=lambda: rules.editor(status.plant, today(status, "product")))
        with st.popover("Download", icon=":material/download:"):
            downloads(status)
        if about["counted"]:
            plant.link("trends", "See the trend", ":material/trending_up:", plant=status.plant)


def today(status: jobs.RunStatus, field: str) -> str:
    """What its pictures carry now, after earlier corrections; '' where they differ or carry nothing."""
    values = cached("breakdown", jobs.Filters(plant=status.plant, run_id=status.run_id, counted=False), field)["value"].tolist()
    return str(values[0] or "") if len(values) == 1 else ""


def correct(status: jobs.RunStatus) -> None:
    """Only fields that a person changed are recorded; they hold for the whole batch."""
    known, now = cached("choices", status.plant), {n: today(status, n) for n in ("line", "product", "camera", "lot")}
    with st.form("correct", border=False):
        fields: dict[str, Any] = {n: upload.one_of(st, n, known[f"{n}s"], now[n], "correct")
                                  for n in ("line", "product", "camera")}
        fields["lot"] = st.text_input("Lot", now["lot"], key="correct_lot").strip()
        at = st.datetime_input("Taken at (plant time), if it is wrong", value=None, key="correct_at")
        if st.form_submit_button("Save", type="primary"):
            fields = {n: v for n, v in fields.items() if v != now[n]} | ({"captured_at": at.isoformat()} if at else {})
            if fields:
                change("correct", status, "Details of this batch corrected.", fields=fields)
            ask.answered()
            st.rerun()


def trends(status: jobs.RunStatus, about: dict[str, Any]) -> None:
    if about["counted"]:
        st.button("Take out of trends", icon=":material/visibility_off:", on_click=change,
                  args=("exclude", status, "Taken out of the trends."), kwargs={"reason": "by hand"})
    if about["not_counted"]:
        lineless, master = "no line was given" in about["why"], "it shows a master part" in about["why"]
        st.button("Count them anyway", icon=":material/add_chart:", disabled=lineless or master, on_click=change,
                  args=("include", status, "Counted in the trends."),
                  help="Give them a line first, under Correct details." if lineless else "Master parts never count." if master else None)


def change(recipe: str, status: jobs.RunStatus, text: str, **more: Any) -> None:
    undo.record(text, recipe, [{"run_id": status.run_id, "inspection_ids": [], **more}], status.plant)


def downloads(status: jobs.RunStatus) -> None:
    stem = re.sub(r"[^\w.-]+", "-", status.name).strip("-.")[:40] or "batch"
    for form, (label, mime, ending) in FORMS.items():
        st.download_button(label, content(status.run_id, form), f"{stem}-{status.run_id[:15]}.{ending}", mime, key=f"download_{form}",
                           on_click="ignore", width="stretch")


def content(run_id: str, form: str) -> Callable[[], bytes | BinaryIO]:
    """Made when the button is clicked, not before."""
    return person.keeping(partial(_content, run_id, form))


def _content(run_id: str, form: str) -> bytes | BinaryIO:
    made = jobs.results.export(run_id, form)
    return made.open("rb") if isinstance(made, Path) else made

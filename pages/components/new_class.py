"""From unknown defects to a class of their own: pictures that people called defective under a new name, and the one click that keeps
their outlines for synthesis.

Reads reviews and finished `collect-masks` runs; what was handed over is told from those runs, so it is true after a restart too.
"""

from collections import Counter
from itertools import islice
from typing import Any

import pandas as pd
import streamlit as st

from backend import jobs
from pages.components import image_viewer, plant, run_panel, text, veil, words
from pages.components.cached import cached, picture

SHOWN = 6                # pictures of a kind beside its name
FAILED = ("failed", "interrupted")


def show(shown: str) -> None:
    """Each new kind with its pictures; nothing while nobody has named one."""
    named = gathered(shown)
    if named.empty:
        return
    st.subheader("New kinds of defect", anchor=False)
    st.caption("Named by people, on pictures that looked unusual and in which nothing known was found.")
    made = handed_over()
    st.html(image_viewer.STYLE)
    for number, (kind, rows) in enumerate(named.groupby("class_name", sort=True)):
        with st.container(border=True, key=f"new_kind_{number}"):
            _kind(number, str(kind), rows, made.get(str(kind)), shown)


def nobody_looks() -> None:
    """Where no model that could find them has looked at a picture yet."""
    with st.container(border=True, key="nobody_looks"):
        st.markdown("### :material/search_off: Nothing looks for unknown defects yet")
        st.markdown("They are found by a model that has learned what good parts look like. Train one on pictures of good parts, put it to "
                    "use, and it looks at every new batch beside the detector.")
        plant.link("training", "Train one", icon=":material/arrow_forward:", kind="anomaly")


def gathered(shown: str) -> pd.DataFrame:
    """Reviewed pictures of kinds that no model knows, unusual by today's limit: class_name, inspection_id, run_id (of the inspection),
    file_name."""
    named = cached("named_kinds", shown)
    known = {*cached("choices", shown)["classes"], *(c for classes in cached("models").query("promoted")["classes"] for c in classes)}
    return named[~named["class_name"].isin(known)]


def handed_over() -> dict[str, jobs.RunStatus]:
    """The newest run for each kind that has collected its outlines, is about to, or could not."""
    runs = jobs.recent(limit=100, recipes=("collect-masks",))
    return {run.name: run for run in reversed(runs) if run.state != "canceled"}


def _kind(number: int, kind: str, rows: pd.DataFrame, made: jobs.RunStatus | None, shown: str) -> None:
    pictures = f"{text.count(len(rows))} {'picture' if len(rows) == 1 else 'pictures'}"
    st.markdown(f"**{words.plain(kind, 60)}** · {pictures}")
    grid = st.grid("auto", min_column_width=150, gap="small")
    named = zip(rows["inspection_id"], rows["file_name"], strict=True)
    for n, (inspection_id, file_name) in enumerate(islice(named, SHOWN)):
        with grid.cell(), st.container(key=f"cell_new_{number}_{n}"):
            image_viewer.picture(veil.over(_draw, veil.USUAL, 0), int(inspection_id), image_viewer.SMALL, False,
                                 words.short(file_name, 120))
    wanted = sorted(f"{run_id}/{i}" for run_id, i in zip(rows["run_id"], rows["inspection_id"], strict=True))
    if made is None or made.state in FAILED or made.config["inspections"].split() != wanted:
        again = "Make it again from these" if made else "Make a new class from these"
        st.button(again, type="primary", icon=":material/category:", key=f"make_{kind}", on_click=hand_over, args=(kind, wanted, shown))
        st.caption("Their outlines are kept under this name, so that more pictures of the defect can be made for a detector to learn from.")
    if made is not None:
        _told(made)


def _draw(key: Any, width: int, boxes: bool) -> bytes:
    return picture(int(key), width, boxes)


def _told(made: jobs.RunStatus) -> None:
    """Where it went, or why it went nowhere; and what it had to leave out."""
    number = made.result.get("masks")
    kept = f"{text.count(number)} {'outline' if number == 1 else 'outlines'} kept" if number is not None else "on its way"
    kept = "not made" if made.state in FAILED else kept
    with st.container(horizontal=True, vertical_alignment="center"):
        words.pill(made)
        st.markdown(f"New class **{words.plain(made.name, 60)}**: {kept}, {words.when(made.created_at)}", width="content")
        if made.state == "completed":
            plant.link("synthesis", "Make pictures with them", icon=":material/arrow_forward:", masks=made.run_id)
        elif made.state in FAILED:
            plant.link("runs", "See it under Runs", icon=":material/arrow_forward:", run=made.run_id)
    if made.state == "failed":
        st.error(words.plain(made.message or "It ended without saying why; its log under Runs may tell.", 600), icon=":material/error:")
    elif said := left_out(made.result.get("left_out") or []):
        st.warning(words.plain(said, 600), icon=":material/info:")
    if made.is_open or run_panel.unsettled(made):
        st.fragment(_look, run_every=1.0)(made.run_id, made.state)


def left_out(without: list[dict[str, str]]) -> str:
    """'3 pictures gave no outline: ... (2); ... (1).'; '' where all did."""
    reasons = Counter(one["reason"] for one in without).most_common()
    said = "; ".join(f"{reason} ({text.count(n)})" for reason, n in reasons)
    return f"{text.count(len(without))} {'picture' if len(without) == 1 else 'pictures'} gave no outline: {said}." if without else ""


def _look(run_id: str, seen: str) -> None:
    if jobs.status(run_id).state != seen:
        st.rerun()


def hand_over(kind: str, inspections: list[str], shown: str) -> None:
    """Ask for the outlines; the page shows where they are."""
    try:
        jobs.submit(jobs.CollectMasks(name=kind, inspections=" ".join(inspections)), plant=shown)
    except jobs.DiffspectError as error:
        st.toast(words.plain(error, 600), icon=":material/error:")

"""Shift report: what a shift was like, on one page to read, print, or take along. Which shift stands in the URL.

What is shown is made now, from today's numbers; reports that were made by themselves after each shift are listed too, as they were.
"""

import streamlit as st

from pages.components import plant, report_made, report_view, undo
from pages.components.cached import cached


def report(shown: str) -> None:
    if cached("choices", shown)["last_day"] is None:
        plant.uncounted()
        return
    undo.bar()
    listed = cached("shifts", shown)
    if not listed:
        st.info("The plant's clock has no shifts. Set them in Trends, at \"Times in …\".", icon=":material/schedule:")
        return
    with st.container(horizontal=True, vertical_alignment="bottom", key="report_head"):
        chosen = report_view.choose(listed)
        download = st.container(width="content")
        if shown == "real":
            report_made.plan()
    if shown == "real":
        report_made.table(shown)
    if kept := report_made.chosen(shown):
        report_view.show(*kept, download)
    else:
        report_view.show(*report_view.made(shown, chosen), download)


with plant.sound():
    report(plant.begin("Shift report"))

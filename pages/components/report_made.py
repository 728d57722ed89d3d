"""Reports that were made by themselves: whether they are, to whom they go, and those of the last days as they were made."""

from datetime import UTC, datetime

import pandas as pd
import streamlit as st

from backend import jobs
from backend.jobs import channels, report_runs
from pages.components import person, plant, text, undo, words

STATES = {"act": "Act", "look": "Look", "normal": "Normal"}


def plan() -> None:
    """After each shift, or not; and where each report is sent."""
    now = report_runs.plan()
    with st.popover("After each shift", icon=":material/schedule_send:", key="report_plan"), st.form("report_plan_form", border=False):
        on = st.toggle("Make a report ten minutes after each shift", now.on)
        ways = sorted({k.channel.name for k in channels.usable()} | set(now.channels))
        chosen = st.multiselect("Send it to", ways, now.channels, placeholder="Nobody: it waits here",
                                help="Mail carries the report, a folder gets the file, a webhook is told.") if ways else []
        st.caption("Where the number of parts changes afterwards, as by late pictures, the report is made and sent again, and says so. "
                   "Where verdicts alone change, as by a new threshold, it is made again, and waits here."
                   + ("" if ways else " To send reports by mail or into a folder, first add a way in the settings of alarms."))
        if st.form_submit_button("Save", type="primary", disabled=not person.told("settings")):
            wanted = report_runs.Plan(on, chosen).to_json()
            said = "Shift reports are made after each shift." if on else "No shift reports by themselves."
            undo.record(said, "report-plan", [wanted], "real")


def chosen(shown: str) -> tuple[str, str, str] | None:
    """The kept report that was picked: file name, HTML, and since when it is so."""
    run_id = st.session_state.get("report_kept")
    one = next((m for m in report_runs.reports(shown) if m.run_id == run_id), None) if run_id else None
    if one is None:
        return None
    st.button("Show today's numbers instead", key="report_unkeep", icon=":material/close:", on_click=st.session_state.pop,
              args=("report_kept", None))
    html = jobs.run_file(one.run_id, "report.html").read_text(encoding="utf-8")
    return f"shift-report-{one.day}-edition-{one.edition}.html", html, f"As it was made on {_when(one.at)}. "


def table(shown: str) -> None:
    """Those that the schedule made, to be shown as they were made."""
    made = [m for m in report_runs.reports(shown) if m.scheduled]
    st.session_state["report_listed"] = [m.run_id if m.state == "completed" else "" for m in made]
    with st.expander(f"Made by themselves: {len(made) or 'none so far'}", icon=":material/folder_open:"):
        if not made:
            st.caption("Ten minutes after the next shift has ended its report stands here." if report_runs.plan().on
                       else "Switched off: see \"After each shift\".")
            return
        rows = pd.DataFrame([dict(
            shift=f"{words.short(m.shift, 30)}, {text.day(m.day) if m.day else ''}", state=STATES.get(m.status, ""),
            said=words.short(m.sentence or words.STATES[m.state][0], 120), edition=m.edition, at=_when(m.at)) for m in made])
        st.dataframe(rows, hide_index=True, key="report_rows", on_select=_keep, selection_mode="single-row", alt="Reports made so far",
                     column_config={"shift": "Shift", "state": "State", "said": "In short", "edition": "Edition", "at": "Made at"})


def _keep() -> None:
    rows = st.session_state["report_rows"]["selection"]["rows"]
    st.session_state["report_kept"] = st.session_state["report_listed"][rows[0]] if rows else ""


def _when(at: datetime) -> str:
    local = plant.local(at.astimezone(UTC))
    return f"{local.day} {local:%b, %H:%M}"

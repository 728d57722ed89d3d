"""What was changed, by whom, and the way back; and the plant's clock: its time zone and shifts."""

from datetime import time
from functools import partial
from typing import Any
from zoneinfo import available_timezones

import pandas as pd
import streamlit as st

from pages.components import person, plant, undo, words
from pages.components.cached import cached


def changes(shown: str) -> None:
    """The latest decisions that can be taken back."""
    with st.popover("Recent changes", icon=":material/history:", type="tertiary", key="changes"):
        rows = cached("changes", shown, 20)
        if rows.empty:
            st.caption("Nobody has changed anything yet.")
        for row in rows.itertuples():
            with st.container(horizontal=True, vertical_alignment="center", horizontal_alignment="distribute", key=f"change_{row.run_id}"):
                by = f" · {words.plain(row.by, 40)}" if row.by else ""
                st.markdown(f"{words.plain(row.text, 200)}  \n:small[{plant.local(row.at):%d %b %H:%M}{by}]", width="stretch")
                if row.undone:
                    st.caption("taken back", width="content")
                else:
                    st.button("Undo", key=f"undo_{row.run_id}", on_click=undo.take_back, args=([row.run_id],))


def clock() -> None:
    """'Times in Europe/Berlin', and the dialog behind it."""
    if st.button(f"Times in {plant.zone()}", icon=":material/schedule:", type="tertiary", key="clock"):
        _calendar(cached("calendar"))


@st.dialog("The plant's clock")
def _calendar(now: dict[str, Any]) -> None:
    st.markdown("Days, shifts and hours follow this clock. A night shift belongs to the day on which it began. "
                "All numbers are sorted anew when you save.")
    zones = sorted(available_timezones())
    chosen = st.selectbox("Time zone", zones, zones.index(now["time_zone"]) if now["time_zone"] in zones else None)
    start = st.time_input("The day starts at", time.fromisoformat(now["day_start"]), step=900)
    clock = partial(st.column_config.TimeColumn, format="HH:mm", required=True)
    shifts = st.data_editor(_hours(now["shifts"]), num_rows="dynamic", hide_index=True, key="shifts", column_config={
        "name": st.column_config.TextColumn("Shift", required=True), "start": clock("from"), "end": clock("to")})
    if wrong := _wrong(shifts):
        st.warning(wrong, icon=":material/schedule:")
    if st.button("Save", type="primary", disabled=not person.told("settings") or bool(wrong) or not chosen or start is None):
        listed = [dict(name=s.name.strip(), start=f"{s.start:%H:%M}", end=f"{s.end:%H:%M}") for s in shifts.itertuples()]
        setting = dict(time_zone=chosen, day_start=f"{start:%H:%M}", shifts=listed)
        undo.record(f"The plant's clock is {chosen}.", "calendar", [setting], "real")


def _hours(shifts: list[dict[str, str]]) -> pd.DataFrame:
    return pd.DataFrame([dict(name=s["name"], start=time.fromisoformat(s["start"]), end=time.fromisoformat(s["end"])) for s in shifts],
                        columns=["name", "start", "end"])


def _wrong(shifts: pd.DataFrame) -> str:
    """Why these shifts cannot be used; '' where they can: named, complete, and each minute of the day in at most one."""
    if shifts.isna().any(axis=None) or not all(str(n).strip() for n in shifts["name"]):
        return "Each shift needs a name, a start and an end."
    if shifts["name"].duplicated().any():
        return "Two shifts have the same name."
    minutes = [m % 1440 for start, end in zip(shifts["start"], shifts["end"], strict=True) for m in _minutes(start, end)]
    return "Two shifts overlap." if len(minutes) != len(set(minutes)) else ""


def _minutes(start: time, end: time) -> range:
    begin, finish = start.hour * 60 + start.minute, end.hour * 60 + end.minute
    return range(begin, finish if finish > begin else finish + 1440)

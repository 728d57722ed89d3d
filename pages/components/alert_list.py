"""Alarms on their page: open ones with what a person can do about each, then those that are over.

Acknowledge (by name, with a note), let its cause rest for some hours, see its pictures. An alarm closes by itself, when it is normal again.
"""

from datetime import UTC, datetime, timedelta

import pandas as pd
import streamlit as st

from backend.jobs.alarms import Alarm
from pages.components import alert_strip, person, plant, text, undo, words
from pages.components.cached import cached

MOST_SAID = 500
RESTS = {"1 hour": 1, "8 hours": 8, "24 hours": 24, "7 days": 168}
PROCESS = ("target", "chart", "rise")
PAST = 200                             # as many are listed that are over


def show(shown: str) -> None:
    alarms = cached("alarms", shown)
    open_ = sorted((a for a in alarms if a.is_open), key=lambda a: (a.seen_at is not None, -a.opened.timestamp()))
    if not open_:
        _calm(shown)
    for alarm in open_:
        card(alarm, shown)
    past([a for a in alarms if not a.is_open])


def _calm(shown: str) -> None:
    rules = cached("alert_rules", shown)
    st.markdown("### :green[:material/check_circle:] No open alarm" if rules else "### :material/notifications_off: Nobody is told yet")
    if not rules:
        st.markdown("Say under *Rules and targets* what you want to be told of: a line that sends nothing, a target that is missed, a "
                    "control chart that stands out, a sudden rise.")


def card(alarm: Alarm, shown: str) -> None:
    with st.container(border=True, key=f"alarm_{alarm.short}", gap="small"):
        with st.container(horizontal=True, vertical_alignment="center", gap="small"):
            st.markdown(f"{alert_strip.ICONS.get(alarm.kind, '')} **{words.plain(alarm.text, 300)}**", width="content")
            _badges(alarm)
        st.caption(f"{alert_strip.since(alarm)[:1].upper()}{alert_strip.since(alarm)[1:]}")
        if alarm.kind in PROCESS:
            hint = cached("hint", shown, alarm.line)             # as it is today; what was known at first went out with the message
            with st.expander(f"Process, camera or model? {words.plain(hint.words, 200)}", icon=":material/troubleshoot:"):
                for reason in hint.reasons:
                    st.markdown(f"· {words.plain(reason, 300)}")
        if alarm.seen_at:
            st.markdown(f":material/how_to_reg: {words.plain(alarm.seen_text, MOST_SAID)} "
                        f":small[{words.plain(alarm.seen_by, 40)}, {text.ago(alarm.seen_at)}]")
        with st.container(horizontal=True, vertical_alignment="center"):
            _acknowledge(alarm, shown)
            _rest(alarm, shown)
            alert_strip.see(alarm)
            if alarm.seen_run:
                st.button("Undo", key=f"unsee_{alarm.short}", icon=":material/undo:", type="tertiary", on_click=undo.take_back,
                          args=([alarm.seen_run],))


def _badges(alarm: Alarm) -> None:
    if not alarm.seen_at:
        st.badge("Nobody has seen it", icon=":material/error:", color="red")
    else:
        st.badge("Acknowledged", icon=":material/how_to_reg:", color="orange")
    if alarm.rests(datetime.now(UTC)):
        until = plant.local(alarm.rests_until or alarm.since)
        st.badge(f"At rest until {until:%a %H:%M}", icon=":material/snooze:", color="gray")


def _acknowledge(alarm: Alarm, shown: str) -> None:
    with st.popover("Acknowledge" if not alarm.seen_at else "Say more", type="primary" if not alarm.seen_at else "tertiary",
                    icon=":material/how_to_reg:", key=f"see_{alarm.short}"), \
            st.form(f"seen_{alarm.short}_{alarm.seen_at}", border=False):       # another once it is said, so empty then and only then
        said = st.text_area("What is being done about it?", height=90, max_chars=MOST_SAID).strip()
        who = person.your_name(st.session_state.get("who", ""), key=f"seen_by_{alarm.short}")
        sent = st.form_submit_button("Acknowledge", type="primary")
        if sent and said and who:
            st.session_state["who"] = who
            undo.record("The alarm is acknowledged.", "alarm-seen",
                        [dict(alarm=alarm.alarm_id, cause=alarm.cause, line=alarm.line, text=said, by=who)], shown)
        if sent:
            st.caption("Write a word on what is being done, and your name.")


def _rest(alarm: Alarm, shown: str) -> None:
    now = datetime.now(UTC)
    if alarm.rests(now) and alarm.rest_run:
        st.button("Wake it", key=f"wake_{alarm.short}", icon=":material/alarm:", type="tertiary", on_click=undo.take_back,
                  args=([alarm.rest_run],))
        return
    with st.popover("Let it rest", type="tertiary", icon=":material/snooze:", key=f"rest_{alarm.short}"), \
            st.form(f"resting_{alarm.short}", border=False):
        st.caption("It stays on the page, out of the way; nothing is sent of this cause until the rest is over.")
        hours = RESTS[st.selectbox("For", list(RESTS), 1)]
        who = person.your_name(st.session_state.get("who", ""), key=f"rest_by_{alarm.short}")
        if st.form_submit_button("Let it rest", type="primary"):
            st.session_state["who"] = who
            undo.record("The alarm rests.", "alarm-rest", [dict(alarm=alarm.alarm_id, cause=alarm.cause, line=alarm.line, by=who,
                                                               until=(now + timedelta(hours=hours)).isoformat())], shown)


def past(alarms: list[Alarm]) -> None:
    if not alarms:
        return
    st.markdown("#### Over")
    rows = alarms[:PAST]
    frame = pd.DataFrame({
        "What": [a.text for a in rows], "Since": [_clock(a.since) for a in rows],
        "Over": [_clock(a.over) for a in rows], "How it ended": [a.over_text for a in rows],
        "Seen by": [a.seen_by for a in rows], "What was said": [a.seen_text for a in rows]})
    column = st.column_config.TextColumn
    st.dataframe(frame, hide_index=True, alt="Alarms that are over", column_config={"What": column(width="large")})


def _clock(at: datetime | None) -> str:
    return f"{plant.local(at):%d %b %H:%M}" if at else ""

"""What stood out of a control chart, in plain words, with what people say it was: written down, shown to all, taken back.

An alarm that nobody has explained stays open, whatever the process does since.
"""

import streamlit as st

from backend.jobs import signals
from backend.jobs.control import Alarm, Watched
from pages.components import person, undo, words

SHOWN, MOST_SAID = 5, 500                        # alarms in sight; characters of what is said of one
SIDES = {"above": "More than chance explains", "below": "Fewer than chance explains", "": "An unlikely pattern"}
RARE = {"above": "Further apart than chance explains", "below": "Closer together than chance explains", "": "An unlikely pattern"}


def show(w: Watched, shown: str) -> None:
    st.markdown("### What stood out")
    if not w.alarms:
        st.caption(":material/check_circle: Nothing so far." if w.frame["center"].notna().any() else "Nothing is judged yet.")
        return
    listed = sorted(w.alarms, key=lambda a: (not a.current, not a.open, _backwards(a)))
    for alarm in listed[:SHOWN]:
        _one(w, alarm, shown)
    if rest := listed[SHOWN:]:
        with st.expander(f"{len(rest)} earlier"):
            for alarm in rest:
                _one(w, alarm, shown)


def _backwards(alarm: Alarm) -> list[int]:
    """The newest first."""
    return [-ord(c) for c in alarm.at]


def _one(w: Watched, alarm: Alarm, shown: str) -> None:
    by, name = w.chart.subgroup, f"{w.chart_id}_{alarm.at}_{alarm.side}"
    with st.container(border=True, key=f"alarm_{''.join(c if c.isalnum() else '-' for c in name)}", gap="xsmall"):
        with st.container(horizontal=True, vertical_alignment="center", gap="small"):
            st.markdown(f"**{(RARE if by == 'defect' else SIDES)[alarm.side]}**, {_when(alarm, by)}", width="content")
            _badge(alarm)
        began = f" The first of them was {signals.when(alarm.first, by)}." if alarm.first != alarm.at else ""
        st.caption(f"{'; '.join(alarm.words)}.{began}")
        if alarm.text:
            by_whom = f" ({words.plain(alarm.by, 40)})" if alarm.by else ""
            st.markdown(f":material/how_to_reg: {words.plain(alarm.text, MOST_SAID)}{by_whom}")
        with st.container(horizontal=True, vertical_alignment="center"):
            _say(w, alarm, shown, name)
            if alarm.run_id:
                st.button("Undo", key=f"unsay_{name}", icon=":material/undo:", type="tertiary", on_click=undo.take_back,
                          args=([alarm.run_id],))
            st.button("See its pictures", key=f"pictures_{name}", icon=":material/photo_library:", type="tertiary",
                      on_click=st.session_state.__setitem__, args=("control_alarm", alarm.at))


def _when(alarm: Alarm, by: str) -> str:
    """From the point at which somebody would have been called; on one day its name stands once."""
    begin, end = (signals.when(key, by) for key in (alarm.at, alarm.last))
    if alarm.current:
        return f"since {begin}"
    day, _, clock = end.partition(", ")
    until = clock if clock and begin.startswith(f"{day}, ") else end
    return f"{begin} to {until}" if alarm.at != alarm.last else begin


def _badge(alarm: Alarm) -> None:
    if alarm.current:
        st.badge("Going on", icon=":material/error:", color="red")
    if alarm.open:
        st.badge("Not explained yet", icon=":material/help:", color="orange")
    elif not alarm.text:
        st.badge("Before the chart was made", icon=":material/history:", color="gray")


def _say(w: Watched, alarm: Alarm, shown: str, name: str) -> None:
    with st.popover("Say what it was" if not alarm.text else "Say more", type="tertiary", icon=":material/edit_note:"), \
            st.form(undo.form(f"explain_{name}"), border=False):
        said = st.text_area("What was it?", height=90, max_chars=MOST_SAID).strip()
        who = person.your_name(st.session_state.get("control_who", ""), key=f"who_{name}")
        if st.form_submit_button("Save", type="primary") and said:
            st.session_state["control_who"] = who
            _record(w, alarm, shown, said, who)


def _record(w: Watched, alarm: Alarm, shown: str, said: str, who: str) -> None:
    config = dict(chart=w.chart_id, line=w.chart.line, characteristic=w.chart.characteristic, key=alarm.at, side=alarm.side, text=said,
                  by=who)
    undo.record(f"What stood out on {words.short(w.chart.line, 40)} is explained.", "explain", [config], shown)

"""Open alarms in a few lines on top of a page: what, since when, where its pictures are, who has seen it. Nothing where there is none.

`show` is for Overview and for whoever else wants to say it first; acting on one is `alert_list`'s. Shape and words tell, not colour alone.
"""

from datetime import UTC, datetime

import streamlit as st

from backend.jobs.alarms import Alarm
from pages.components import plant, text, words
from pages.components.cached import cached

SHOWN = 3
ICONS = {"silence": ":material/signal_disconnected:", "target": ":material/flag:", "chart": ":material/monitoring:",
         "rise": ":material/trending_up:", "software": ":material/memory:", "imaging": ":material/photo_camera:"}


def show(shown: str) -> None:
    """New ones first, then those that somebody has seen; those at rest are counted, not shown."""
    open_ = [a for a in cached("alarms", shown) if a.is_open]
    if not open_:
        return
    now = datetime.now(UTC)
    resting = [a for a in open_ if a.rests(now)]
    awake = sorted((a for a in open_ if not a.rests(now)), key=lambda a: a.seen_at is not None)
    with st.container(border=True, key="alarm_strip", gap="xsmall"):
        new = sum(a.seen_at is None for a in awake)
        st.markdown(f"**:material/notifications_active: {text.counted(new, 'open alarm')}**" if new else
                    ":material/notifications: **No alarm that nobody has seen**")
        for alarm in awake[:SHOWN]:
            line(alarm)
        more = [f"{len(awake) - SHOWN} more" if len(awake) > SHOWN else "", f"{len(resting)} at rest" if resting else ""]
        plant.link("alarms", f"All alarms{', '.join(filter(None, ['', *more]))}", icon=":material/arrow_forward:", plant=shown)


def of_no_line(shown: str) -> int:
    """How many are open that no line's card speaks of: of the whole plant, or of whoever inspects it. Not those at rest."""
    now = datetime.now(UTC)
    return sum(a.is_open and not a.line and not a.rests(now) for a in cached("alarms", shown))


def line(alarm: Alarm) -> None:
    """One alarm, and the way to its pictures."""
    with st.container(horizontal=True, vertical_alignment="center", gap="small"):
        seen = f" · :material/how_to_reg: {words.plain(alarm.seen_by or 'seen', 40)}: {words.plain(alarm.seen_text, 120)}" \
            if alarm.seen_at else ""
        st.markdown(f"{':red' if not alarm.seen_at else ':gray'}[{ICONS.get(alarm.kind, ':material/error:')}] "
                    f"{words.plain(alarm.text, 300)}{seen}", width="stretch")
        see(alarm)


def see(alarm: Alarm) -> None:
    label = {"control": "See the chart", "trends": "See its pictures"}.get(alarm.page, "See it")
    plant.link(alarm.page, label, icon=":material/photo_library:", **alarm.query)


def since(alarm: Alarm) -> str:
    """'since Mon 30 Nov 2026, 06:10 (3 h ago)'."""
    at = plant.local(alarm.since)
    return f"since {text.day(at)}, {at:%H:%M} ({text.ago(alarm.since)})"

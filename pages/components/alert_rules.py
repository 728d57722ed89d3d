"""What a plant is told of: one rule for each kind of alarm and line, when a line is planned to work, and when it stands still.

Checks of the inspector itself need no rule: they are always on.
"""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import streamlit as st

from backend.jobs.alarms import ALWAYS, KINDS, AlertRule
from pages.components import alert_strip, person, plant, undo, words
from pages.components.cached import cached

DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
ABOUT = {"silence": "A line is planned to work, and no picture has come for a while.",
         "target": "A shift is over and missed one of its targets.",
         "chart": "A saved control chart says that chance explains its newest point no longer.",
         "rise": "Defects of the last three shifts are far above what is usual for the line."}


def show(shown: str) -> None:
    st.markdown("### Tell somebody when")
    rules = cached("alert_rules", shown)
    for rule in rules:
        _row(rule, shown)
    st.caption(f"Always on: {'; '.join(what.lower() for what in ALWAYS.values())}.")
    if person.told("adjust"):
        _new(shown, rules)
    _standstills(shown)


def _new(shown: str, rules: list[AlertRule]) -> None:
    if missing := [kind for kind in KINDS if not any(r.kind == kind for r in rules)]:
        with st.popover("Add a rule", icon=":material/add_alert:", type="primary" if not rules else "secondary", key="new_rule"):
            _form(shown, missing[0])
    else:
        with st.popover("Add a rule for one line", icon=":material/add_alert:", key="new_rule"):
            _form(shown, "silence")


def _row(rule: AlertRule, shown: str) -> None:
    with st.container(border=True, horizontal=True, vertical_alignment="center", key=f"rule_{rule.rule_id}"):
        st.markdown(f"{alert_strip.ICONS[rule.kind]} **{KINDS[rule.kind]}**, {words.plain(rule.line, 40) or 'every line'}  \n"
                    f":small[{_details(rule)}]", width="stretch")
        if person.may("adjust"):
            with st.popover("Change", type="tertiary", icon=":material/edit:", key=f"edit_rule_{rule.rule_id}"):
                _form(shown, rule.kind, rule)


def _details(rule: AlertRule) -> str:
    sent = "sent to all channels" if rule.send else "shown here, not sent"
    match rule.kind:
        case "silence":
            planned = "; ".join(f"{words.plain(s, 30)} {', '.join(DAYS[d - 1] for d in days)}" for s, days in rule.planned.items() if days)
            return f"After {rule.minutes} minutes. Planned: {planned or 'as in the last four weeks'}. {sent.capitalize()}"
        case "target":
            which = "only where chance does not explain it" if rule.sure else "whether or not chance may explain it"
            return f"Shifts of {rule.least:,} parts or more, {which}; {sent}"
        case _:
            return f"{ABOUT[rule.kind]} {sent.capitalize()}"


def _form(shown: str, kind: str, rule: AlertRule | None = None) -> None:
    key = rule.rule_id if rule else "new"
    if rule is None:
        kind = str(st.selectbox("When", list(KINDS), list(KINDS).index(kind), format_func=KINDS.get, key="rule_kind"))
    st.caption(ABOUT[kind])
    with st.form(f"rule_form_{key}_{kind}", border=False):
        lines = ["", *cached("choices", shown)["lines"]]
        line = rule.line if rule else str(st.selectbox("Line", lines, format_func=lambda v: v or "Every line") or "")
        values = _settings(kind, rule or AlertRule(kind), shown)
        send = st.toggle("Send it to all channels", rule.send if rule else True)
        if st.form_submit_button("Save", type="primary"):
            made = AlertRule(kind, line, **values, send=send)
            undo.record(f"Somebody is told: {KINDS[kind].lower()}, {line or 'every line'}.", "alert", [made.to_json()], shown)
    if rule is not None and st.button("Take it away", key=f"drop_rule_{key}", icon=":material/delete:", type="tertiary"):
        undo.record("The rule is taken away.", "alert", [replace(rule, removed=True).to_json()], shown)


def _settings(kind: str, rule: AlertRule, shown: str) -> dict[str, Any]:
    if kind == "target":
        return dict(least=int(st.number_input("Only shifts of so many parts or more", 1, 1_000_000, rule.least)),
                    sure=st.toggle("Only where chance does not explain it", rule.sure))
    if kind != "silence":
        return {}
    minutes = int(st.number_input("Minutes without a picture", 5, 1440, rule.minutes, step=5, help="Longer than the longest break."))
    st.markdown("Planned to work", help="Leave all empty: planned is what was worked on that weekday in three of the last four weeks.")
    planned = {}
    for shift in [s["name"] for s in cached("calendar")["shifts"]]:
        days = st.pills(shift, range(1, 8), selection_mode="multi", default=rule.planned.get(shift), format_func=lambda d: DAYS[d - 1],
                        key=f"planned_{rule.rule_id}_{shift}")
        planned[shift] = sorted(int(d) for d in days)
    return dict(minutes=minutes, planned={s: d for s, d in planned.items() if d})


def _standstills(shown: str) -> None:
    """Holidays, repairs: nobody waits for pictures meanwhile."""
    st.markdown("#### Not planned to work")
    now = datetime.now(UTC)
    coming = [s for s in cached("standstills", shown) if s["until"] > now]
    if not coming:
        st.caption("Holidays, repairs: enter them, and nobody is told that nothing arrives meanwhile.")
    for still in coming:
        with st.container(horizontal=True, vertical_alignment="center"):
            begin, end = (plant.local(still[n]) for n in ("since", "until"))
            st.markdown(f"**{words.plain(still['line'], 40) or 'All lines'}**: {begin:%a %d %b %H:%M} to {end:%a %d %b %H:%M}"
                        f" {words.plain(still['text'], 200)}", width="stretch")
            if still["run_id"] and person.may("adjust"):
                st.button("Undo", key=f"works_{still['run_id']}", icon=":material/undo:", type="tertiary", on_click=undo.take_back,
                          args=([still["run_id"]],))
    if not person.may("adjust"):
        return
    with st.popover("Enter a standstill", type="tertiary", icon=":material/event_busy:", key="new_standstill"), \
            st.form(undo.form("standstill"), border=False):
        line = st.selectbox("Line", ["", *cached("choices", shown)["lines"]], format_func=lambda v: v or "All lines")
        local = plant.local(now).replace(tzinfo=None, second=0, microsecond=0)
        since = st.datetime_input("From, on the plant's clock", local)
        until = st.datetime_input("To", local + timedelta(days=1))
        why = st.text_input("Why", max_chars=200, placeholder="Holiday").strip()
        if st.form_submit_button("Save", type="primary") and since and until:
            if until <= since:
                st.warning("It ends before it begins.", icon=":material/schedule:")
            else:
                zone = ZoneInfo(plant.zone())
                undo.record(f"{line or 'All lines'}: not planned to work.", "standstill", [dict(
                    line=line or "", since=since.replace(tzinfo=zone).isoformat(), until=until.replace(tzinfo=zone).isoformat(),
                    text=why)], shown)

"""The audit log, for the admin: whether its chain holds, what was done when and by whom, by kind, person and day, and as CSV."""

from datetime import UTC, date, datetime, time
from typing import Any
from zoneinfo import ZoneInfo

import streamlit as st

from backend.jobs import people
from pages.components import person, plant, words

SHOWN = 500


def show() -> None:
    _chain()
    found, label = _asked()
    st.caption(f"{len(found):,} entries{label}" + (f"; the newest {SHOWN} are shown, the CSV has all." if len(found) > SHOWN else "."))
    rows = people.table(found[:SHOWN])
    rows["At"] = [f"{plant.local(datetime.fromisoformat(at)):%d %b %Y, %H:%M:%S}" for at in rows["At (UTC)"]]
    st.dataframe(rows[["Number", "At", "Who", "Role", "What", "On", "More", "Run"]], hide_index=True, alt="Entries of the audit log",
                 column_config={"On": st.column_config.TextColumn(width="medium")})
    st.download_button("CSV", person.keeping(lambda: people.csv(found)), f"audit-log-{datetime.now(UTC):%Y%m%d}.csv", "text/csv",
                       icon=":material/table:", key="audit_csv", on_click="ignore")


def _chain() -> None:
    """Read through when it is asked for: with 10,000 entries that is a second's work."""
    with st.container(horizontal=True, vertical_alignment="center", key="audit_chain"):
        if st.button("Does the chain hold?", icon=":material/link:", key="audit_verify"):
            st.session_state["audit_verdict"] = people.verify(st.session_state.get("audit_expected", "").strip())
        with st.popover("Hold a kept hash against it", type="tertiary", key="audit_keep"):
            st.text_input("number:hash, as you kept it", key="audit_expected", max_chars=90)
            st.caption("Keep the newest one outside of this machine now and then: a log that was made anew from its beginning shows by "
                       "nothing else.")
    said: people.Verdict | None = st.session_state.get("audit_verdict")
    if said is None:
        return
    if said.holds:
        st.success(f"It holds: {said.entries:,} entries, each follows from the one before. Newest: `{said.last or 'none'}`",
                   icon=":material/check_circle:")
    else:
        st.error("It does not hold:  \n" + "  \n".join(words.plain(p, 300) for p in said.problems[:20]), icon=":material/link_off:")
    for note in said.notes[:10]:
        st.caption(words.plain(note, 300))


def _asked() -> tuple[list[dict[str, Any]], str]:
    with st.container(horizontal=True, vertical_alignment="bottom", key="audit_filters"):
        what = st.selectbox("What", ["", *people.WORDS], format_func=lambda w: people.WORDS.get(w, "Everything"), key="audit_what",
                            width=240)
        names = ["", *(a.name for a in people.listed())]
        who = st.selectbox("Who", names, format_func=lambda n: n or "Everybody", key="audit_who", width=240)
        day: Any = st.date_input("Since", None, key="audit_since", width=180)
    since = datetime.combine(day, time(), ZoneInfo(plant.zone())) if isinstance(day, date) else None
    found = people.entries(what, who, since)
    return found, "" if not (what or who or since) else " of these"

"""Cards of the overview: how a line stands, in one icon, one word and one sentence; and where unusual parts have risen.

Takes rows of `lines_now` and `totals`. States are never told by colour alone.
"""

from datetime import UTC, date, datetime
from typing import Any

import pandas as pd
import streamlit as st

from pages.components import annotation_marks, plant, text, undo, words

STATES = {"act": ("Act", ":material/error:", "red"), "look": ("Look", ":material/visibility:", "orange"),
          "normal": ("Normal", ":material/check_circle:", "green")}

MOST_SAID = 500              # characters of a note

# The link of a card reaches over the whole card; what can be tapped by itself stays above it.
STYLE = """<style>
[class*="st-key-card_"] {position: relative;}
[class*="st-key-trend_of_"] a::after {content: ""; position: absolute; inset: 0; z-index: 1;}
[class*="st-key-trend_of_"], [class*="st-key-trend_of_"] * {position: static;}
[class*="st-key-tell_"] {position: relative; z-index: 2;}
</style>"""


def headline(lines: pd.DataFrame, whole: int = 0) -> None:
    """The answer to 'is today normal?' in one sentence. `whole`: so many alarms are open that are of no one line."""
    act, look = (lines[lines["state"] == s]["line"].tolist() for s in ("act", "look"))
    if not act and not look:
        but = f"{text.counted(whole, 'alarm')} of the whole plant {'is' if whole == 1 else 'are'} open"
        st.markdown(f"### :orange[:material/visibility:] All lines normal, but {but}" if whole else
                    "### :green[:material/check_circle:] All lines normal")
        return
    parts = [f":red[:material/error:] {_names(act)}: act" if act else "",
             f":orange[:material/visibility:] {_names(look)}: look" if look else ""]
    normal = len(lines) - len(act) - len(look)
    st.markdown(f"### {' · '.join(p for p in parts if p)}" + (f" · {normal} normal" if normal else ""))


def _names(lines: list[str]) -> str:
    return ", ".join(words.plain(name, 40) for name in lines)


def line(row: Any, days: pd.DataFrame, shown: str, day: date, marks: pd.DataFrame) -> None:
    """One line: state, reason, rate with its n, the usual rate, the last days, how old the data is, and the numbers of notes."""
    word, icon, color = STATES[row.state]
    with st.container(border=True, height="stretch", key=f"card_{_key(row.line)}"):
        with st.container(horizontal=True, horizontal_alignment="distribute", vertical_alignment="center"):
            st.markdown(f"### {words.plain(row.line, 40)}", width="content")
            st.badge(word, icon=icon, color=color)
        st.markdown(words.plain(row.reason, 300))
        st.metric(f"Last 3 shifts: {text.count(row.defective)} of {text.count(row.inspected)} defective", text.percent(row.rate),
                  chart_data=[round(100 * r, 2) for r in days["rate"].fillna(0)], chart_type="bar",
                  delta=f"usually {text.percent(row.usual_rate)}" if pd.notna(row.usual_rate) else None,
                  delta_color="off", delta_arrow="off")
        st.caption(f"The last {'day' if len(days) == 1 else f'{len(days)} days'}. Data {data_until(row.last_captured_at)}")
        annotation_marks.numbers(marks, row.line)
        _said(row)
        with st.container(horizontal=True, vertical_alignment="center", horizontal_alignment="distribute"):
            with st.container(width="content", key=f"trend_of_{_key(row.line)}"):
                plant.link("trends", "See the trend", icon=":material/trending_up:", line=row.line)
            if row.chart:
                with st.container(width="content", key=f"tell_chart_{_key(row.line)}"):
                    plant.link("control", "Control chart", icon=":material/monitoring:", chart=row.chart)
            _tell(row, shown, day)


def _key(name: str) -> str:
    """A widget key of a name: keys become CSS classes."""
    return "".join(c if c.isascii() and c.isalnum() else f"-{ord(c):x}" for c in name)


def data_until(when: datetime | None) -> str:
    """'until 06:42, 12 min ago', in the plant's zone as the calendar has it."""
    if when is None or pd.isna(when):
        return "not yet there"
    local = plant.local(when)
    clock = f"{local:%H:%M}" if local.date() == plant.local(datetime.now(UTC)).date() else f"{text.day(local)}, {local:%H:%M}"
    return f"until {clock}, {text.ago(when)}"


def _said(row: Any) -> None:
    if row.acknowledged:
        st.markdown(f":material/how_to_reg: {words.plain(row.acknowledged, 200)}")
    if row.note:
        st.markdown(f":material/sticky_note_2: {words.plain(row.note, 200)}")


def _tell(row: Any, shown: str, day: date) -> None:
    """Acknowledge what is not normal, or leave a note."""
    open_case = row.state != "normal" and not row.acknowledged
    with st.container(width="content", key=f"tell_{_key(row.line)}"), \
            st.popover("Acknowledge" if open_case else "Note", type="tertiary", icon=":material/edit_note:"), \
            st.form(undo.form(f"say_{_key(row.line)}"), border=False):
        said = st.text_area("What is being done about it?" if open_case else "Note for this line", height=90).strip()
        if st.form_submit_button("Save", type="primary") and said:
            _save(row.line, said[:MOST_SAID], open_case, shown, day)


def _save(name: str, said: str, open_case: bool, shown: str, day: date) -> None:
    if open_case:
        undo.record(f"Acknowledged: {name}.", "acknowledge", [dict(line=name, day=day.isoformat(), text=said)], shown)
    else:
        undo.record(f"Note on {name} saved.", "note", [dict(line=name, at=datetime.now(UTC).isoformat(), text=said)], shown)


def unusual(days: pd.DataFrame, day: date) -> None:
    """One quiet line where more parts than usual look unlike good ones; nothing where they do not, or nothing looked."""
    if said := risen(days, day):
        with st.container(horizontal=True, vertical_alignment="center", key="unusual_risen"):
            st.markdown(f":violet[:material/help:] {said}", width="content")
            plant.link("review", "Look at them", icon=":material/fact_check:", queue="Unknown defects")


def risen(days: pd.DataFrame, day: date) -> str:
    """'More parts than usual look unlike good ones: ...'; '' unless the day has three unusual parts or more and its whole interval lies
    above half as much again as the share of the days before. Our choice: surely more than chance, and no alarm about one picture."""
    at = days["bucket"].dt.date == day
    now, before = (days.loc[which, ["unusual", "inspected"]].sum() for which in (at, ~at))
    if now["unusual"] < 3 or not before["inspected"]:
        return ""
    usual = before["unusual"] / before["inspected"]
    said = f"{text.share(now['unusual'], now['inspected'])} against usually {text.percent(usual)}"
    risen_ = float(days.loc[at, "low"].iloc[0]) > 1.5 * usual
    return f"More parts than usual look unlike good ones: {said}. They are not part of the defect rate." if risen_ else ""

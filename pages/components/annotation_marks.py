"""What people noted at a moment ("roll changed"): numbered marks on charts over time, the same numbers in a table beside, and the ways to
add, change and take away.

    frame = annotation_marks.inside(shown, line, since, until)      rows of `results.annotations` in plant time, numbered as they are drawn
    annotation_marks.draw(figure, frame)                            dotted lines with their numbers on top
    annotation_marks.table(frame, shown, line, key)                 the table below the chart, with the form

Nothing is told by hover or colour alone. Every change is a later event that can be taken back.
"""

from datetime import UTC, date, datetime, time
from typing import Any
from zoneinfo import ZoneInfo

import pandas as pd
import plotly.graph_objects as go
import streamlit as st

from pages.components import charts, person, plant, text, undo, words
from pages.components.cached import cached

MOST_SAID = 500                        # characters of a note
SHOWN = 6                              # in sight; the rest behind "earlier"


def inside(shown: str, line: str = "", since: date | datetime | None = None, until: date | datetime | None = None) -> pd.DataFrame:
    """number, note_id, at (plant time, without zone), line, text, by, edited; days and moments are the plant's, both ends included."""
    frame = cached("annotations", shown, line)
    zone = ZoneInfo(plant.zone())                                # asked once, not for each
    frame = frame.assign(at=[text.moment(at).astimezone(zone).replace(tzinfo=None) for at in frame["at"]])
    first, last = _edge(since, time.min), _edge(until, time.max)
    keep = pd.Series([(first is None or at >= first) and (last is None or at <= last) for at in frame["at"]], dtype=bool)
    frame = frame[keep.to_numpy()] if len(frame) else frame
    return frame.assign(number=range(1, len(frame) + 1)).reset_index(drop=True)


def _edge(of: date | datetime | None, clock: time) -> datetime | None:
    return of if of is None or isinstance(of, datetime) else datetime.combine(of, clock)


def draw(figure: go.Figure, frame: pd.DataFrame) -> None:
    """A dotted line at each moment, its number in a box at its top; `at` is plant time, and so must the first axis be."""
    place = dict(xref="x", yref="y domain")
    line, box = dict(color=charts.AMBER, width=1.5, dash="dot"), dict(font=dict(color="white", size=11), bgcolor="#8A5B00", borderpad=2)
    charts.mark(figure, [dict(type="line", x0=at, x1=at, y0=0, y1=1, line=line, **place) for at in frame["at"]],
                [dict(x=at, y=1, text=f"<b>{number}</b>", showarrow=False, yanchor="top", **box, **place)
                 for at, number in zip(frame["at"], frame["number"], strict=True)])


def numbers(frame: pd.DataFrame, line: str) -> None:
    """The marks of one line where its days are bars without an axis: the number and the day of each; nothing where there is none."""
    own: list[Any] = list(frame[frame["line"].isin(["", line])].tail(SHOWN).itertuples())
    if own:
        st.markdown(" ".join(f":orange-badge[{row.number}] :small[{text.day(row.at)}]" for row in own))


def table(frame: pd.DataFrame, shown: str, line: str, key: str, title: str = "") -> None:
    """What the numbers mean, the newest first, and a note to add."""
    rows = list(frame.itertuples())[::-1]
    with st.container(key=f"notes_{key}", gap="xsmall"):
        if title and rows:
            st.markdown(f"##### {title}")
        for row in rows[:SHOWN]:
            _row(row, shown, key)
        if rows[SHOWN:]:
            _earlier(rows[SHOWN:], shown, key)
        with st.popover("Note something on the charts", type="tertiary", icon=":material/add_comment:", key=f"add_note_{key}"):
            _form(shown, line, f"{key}_new", None)


def _earlier(rows: list[Any], shown: str, key: str) -> None:
    """In one piece, and one of them to change: a form for each of a hundred takes longer than all else on a page."""
    with st.expander("1 earlier note" if len(rows) == 1 else f"{len(rows)} earlier notes"):
        st.markdown("\n\n".join(map(_said, rows)))
        known = {row.note_id: row for row in rows}
        chosen = st.selectbox("Change an earlier note", list(known), None, key=f"earlier_note_{key}", placeholder="Choose one",
                              format_func=lambda note: f"{known[note].number}: {words.short(known[note].text, 60)}")
        if chosen in known:
            _row(known[chosen], shown, key)


def _said(row: Any) -> str:
    where, by = words.plain(row.line, 40) or "All lines", f" · {words.plain(row.by, 40)}" if row.by else ""
    changed = " · changed" if row.edited else ""
    return (f":orange-badge[{row.number}] **{words.plain(row.text, MOST_SAID)}**  \n"
            f":small[{text.day(row.at)}, {row.at:%H:%M} · {where}{by}{changed}]")


def _row(row: Any, shown: str, key: str) -> None:
    with st.container(horizontal=True, vertical_alignment="center", gap="small"):
        st.markdown(_said(row), width="stretch")
        with st.popover("Change", type="tertiary", icon=":material/edit:", key=f"edit_note_{key}_{row.note_id}"):
            _form(shown, row.line, f"{key}_{row.note_id}", row)


def _form(shown: str, line: str, key: str, row: Any) -> None:
    lines = ["", *cached("choices", shown)["lines"]]
    now = plant.local(datetime.now(UTC)).replace(tzinfo=None, second=0, microsecond=0)
    with st.form(f"note_{key}" if row is not None else undo.form(f"note_{key}"), border=False):
        said = st.text_area("What happened?", row.text if row is not None else "", height=90, max_chars=MOST_SAID,
                            placeholder="Roll 3 changed").strip()
        at = st.datetime_input("When, on the plant's clock", row.at if row is not None else now)
        where = st.selectbox("Line", lines, lines.index(line) if line in lines else 0, format_func=lambda v: v or "All lines")
        who = person.your_name(row.by if row is not None else st.session_state.get("who", ""))
        if st.form_submit_button("Save", type="primary") and said and at:
            st.session_state["who"] = who
            moment = at.replace(tzinfo=ZoneInfo(plant.zone())).isoformat()
            of = {"of": row.note_id} if row is not None else {}
            undo.record("The note is changed." if of else "The note is on the charts.", "note",
                        [dict(line=where, at=moment, text=said, by=who, **of)], shown)
    if row is not None and st.button("Take it away", key=f"drop_note_{key}", icon=":material/delete:", type="tertiary"):
        undo.record("The note is taken away.", "note", [dict(of=row.note_id, line=row.line, removed=True)], shown)

"""The pictures whose verdict another model would change, in either direction, with the boxes of both.

Below a look-back. A small picture shows the boxes of the one that rejects; the large one both, the record first, or one alone.
"""

from typing import Any

import pandas as pd
import streamlit as st

from backend import jobs
from pages.components import gallery, image_viewer, text, words
from pages.components.cached import cached

TURNS = {"reject": "Would be rejected", "pass": "Would pass"}
WHOSE = {"both": "Both", "was": "As recorded", "would": "With the model"}
PAGE, MOST = 12, 480
NAME = "turned"


def show(run_id: str, figures: dict[str, Any]) -> None:
    """Which way, narrowed by line and kind, then the pictures."""
    numbers = {"reject": figures["more"], "pass": figures["fewer"]}
    if not any(numbers.values()):
        return
    st.markdown("#### Pictures whose verdict would change")
    with st.container(horizontal=True, vertical_alignment="bottom", key="turned_head"):
        turn = st.segmented_control("Which way", list(TURNS), default="reject" if numbers["reject"] else "pass", required=True,
                                    format_func=lambda t: f"{TURNS[t]} ({text.count(numbers[t])})", key=f"turned_turn_{run_id}",
                                    label_visibility="collapsed")
        found = cached("look_back", run_id)
        for label, of, every in (("Line", "lines", "All lines"), ("Kind of defect", "kinds", "All kinds")):
            st.selectbox(label, ["", *found[of]["value"]], format_func=lambda v, every=every: words.short(v) or every,
                         key=f"turned_{of}_{run_id}", width=180)
    rows = _rows(run_id)
    if rows.empty:
        st.caption(":material/check_circle: None, of these.")
        return
    if len(rows) == MOST:
        st.caption(f"The surest {text.count(MOST)} are shown.")
    image_viewer.gallery(rows, _look(run_id, turn), PAGE)
    _table(rows)


def large(run_id: str) -> None:
    """The large view of the opened picture, if one is open. From the page's body: it does not belong to a fragment that polls."""
    if st.session_state.get(f"{NAME}_open") is not None:
        image_viewer.large(_rows(run_id), _look(run_id, _chosen(run_id, "turn") or "reject"))


def _chosen(run_id: str, what: str) -> str:
    return str(st.session_state.get(f"turned_{what}_{run_id}") or "")


def _rows(run_id: str) -> pd.DataFrame:
    """What the switches above ask for."""
    turn, line, kind = (_chosen(run_id, what) for what in ("turn", "lines", "kinds"))
    try:
        found: pd.DataFrame = cached("changed", run_id, turn or "reject", line, kind, MOST)
    except jobs.NotFoundError:
        return pd.DataFrame({"inspection_id": []})
    return found


def _look(run_id: str, turn: str) -> image_viewer.Look:
    def of(whose: str) -> image_viewer.Draw:
        return lambda key, width, boxes: _drawn(run_id, int(key), whose, width, boxes, jobs.results.revision())

    def tools() -> image_viewer.Draw:
        return of(st.segmented_control("Boxes of", list(WHOSE), default="both", required=True, format_func=WHOSE.get, key="turned_whose",
                                       label_visibility="collapsed"))

    return image_viewer.Look(NAME, "inspection_id", of("would" if turn == "reject" else "was"), verdict,
                             lambda row: _details(row, run_id), tools)


@st.cache_data(max_entries=300, show_spinner=False)
def _drawn(run_id: str, inspection_id: int, whose: str, width: int, boxes: bool, revision: int) -> bytes:
    drawn: bytes = jobs.results.looked_back(run_id, inspection_id, whose, boxes, width)
    return drawn


def verdict(row: Any) -> str:
    """'Good → pits': the record, and what would be."""
    was, would = (f":red[{words.plain(kind or 'defective', 24)}]" if rejects else ":green[good]"
                  for rejects, kind in ((row.was, row.top_class), (row.would, row.would_class)))
    return f"{was} :material/arrow_forward: {would}"


def _details(row: Any, run_id: str) -> None:
    """Beside the large picture: what the other model found, then the record and where it is from."""
    st.markdown(verdict(row))
    st.caption("Boxes of both: the record first, then the model.")
    st.markdown("**With the model**")
    found = cached("anew", run_id, int(row.inspection_id))
    counts = found["passes"].astype(bool)
    for box in (found[counts] if counts.any() else found.drop_duplicates("class_name")).itertuples():       # else how near each kind came
        st.markdown(f"{':material/crop_free:' if box.passes else ':material/remove:'} {words.plain(box.class_name, 40)} · "
                    f"{text.percent(box.confidence)} sure" + (f", counts from {text.percent(box.threshold)}" if not box.passes else ""))
    if found.empty:
        st.caption("It found nothing.")
    st.markdown("**As recorded**")
    gallery.details(row)


def _table(rows: pd.DataFrame) -> None:
    """The same pictures as rows; the table can be searched, and saved as CSV."""
    frame = pd.DataFrame({
        "Picture": [words.short(n, 60) for n in rows["file_name"]], "Day": rows["production_day"], "Line": rows["line"],
        "Product": rows["product"],
        "Recorded": [k or "defective" if w else "good" for w, k in zip(rows["was"], rows["top_class"], strict=True)],
        "With it": [k or "defective" if w else "good" for w, k in zip(rows["would"], rows["would_class"], strict=True)],
        "Sure (%)": 100 * rows["would_confidence"], "A person said": rows["review"], "Stands for": rows["weight"]})
    with st.expander("As a table", icon=":material/table_rows:"):
        st.dataframe(frame, hide_index=True, alt="Pictures whose verdict would change", placeholder="–",
                     column_config={"Sure (%)": st.column_config.NumberColumn(format="%.0f"),
                                    "Stands for": st.column_config.NumberColumn(format="%.3g")})

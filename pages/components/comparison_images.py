"""Picture by picture: what one run finds and the other misses, and back; both side by side, each at a threshold of its own.

The thresholds act on stored scores, so nothing is inspected again. All of it is one fragment; runs, thresholds, filter and picture stand
in the URL. Knows nothing of verdicts; how two pictures are drawn and moved is `comparison_pair`'s.
"""

from contextlib import suppress
from typing import Any

import pandas as pd
import streamlit as st

from backend import jobs
from pages.components import comparison_pair as pairs
from pages.components import comparison_players, text, words
from pages.components.comparison_players import Player
from pages.components.comparison_subject import Subject

KINDS = {"a_only": "A found, B missed", "b_only": "B found, A missed", "neither": "Missed by both", "both": "All found by both",
         "a_false": "False find of A", "b_false": "False find of B", "all": "All"}
MOST = 5_000             # pictures of one filter that the arrows walk through
STRIP = 8                # small ones below
WIDE, SMALL = 1440, 200  # pixels at most; enlarged, the browser scales up


def show(subject: Subject) -> None:
    st.fragment(_browse, key="contest")(subject)


def _browse(subject: Subject) -> None:
    scored = subject.rows[subject.rows["scored"].astype(bool)]
    if scored["arm"].nunique() < 2:
        comparison_players.unscored()
        return
    players = comparison_players.choose(scored)
    a, b = players
    with st.container(horizontal=True, vertical_alignment="center", key="contest_filters"):
        kind, now = _class(scored), _chosen()
        rows, counts = _contest(a.run_id, b.run_id, a.threshold, b.threshold, now or "all", kind)
        chosen = _filter(counts, now)
    if chosen != now:
        rows, _ = _contest(a.run_id, b.run_id, a.threshold, b.threshold, chosen, kind)
    if rows.empty:
        st.caption("No picture is of this kind at these thresholds.")
        return
    _walk(players, rows, kind)


@st.cache_data(max_entries=40, show_spinner=False)      # scores never change, so no revision
def _contest(a: str, b: str, at_a: float | None, at_b: float | None, kind: str, class_name: str) -> tuple[pd.DataFrame, dict[str, int]]:
    found: tuple[pd.DataFrame, dict[str, int]] = jobs.results.contest(a, b, at_a, at_b, kind, class_name, MOST)
    return found


# ---- which pictures

def _class(scored: pd.DataFrame) -> str:
    known = sorted({c for listed in scored["classes"] for c in listed})
    linked = st.query_params.get("of", "")
    chosen = str(st.selectbox("Kind of defect", ["", *known], known.index(linked) + 1 if linked in known else 0,
                              lambda k: words.short(k) or "All kinds of defect", key="contest_class", width=240,
                              label_visibility="collapsed"))
    comparison_players.in_url("of", chosen)
    return chosen


def _chosen() -> str:
    """By the person, else by the link; '' before anybody has."""
    asked = str(st.session_state.get("contest_kind") or st.query_params.get("show", ""))
    return asked if asked in KINDS else ""


def _filter(counts: dict[str, int], now: str) -> str:
    start = now or next((k for k in KINDS if counts.get(k)), "all")
    chosen = str(st.pills("Show", list(KINDS), default=start, required=True, key="contest_kind", label_visibility="collapsed",
                          format_func=lambda k: f"{KINDS[k]} {text.count(counts.get(k, 0))}", wrap=True))
    comparison_players.in_url("show", chosen)
    return chosen


# ---- one, large, and its neighbours

def _walk(players: list[Player], rows: pd.DataFrame, kind: str) -> None:
    ids = rows["image_id"].tolist()
    at = _place(ids)
    row: Any = next(rows.iloc[at:at + 1].itertuples())
    with st.container(border=True, key="contest_pair"):
        with st.container(horizontal=True, vertical_alignment="center", gap="small", key="contest_tools"):
            _step(ids, at - 1, "Back", "Left")
            _step(ids, at + 1, "Next", "Right")
            st.caption(f"{at + 1:,} of {len(ids):,}" + (f" (the first {MOST:,})" if len(ids) == MOST else ""), width="content")
            pairs.tools()
            st.toggle("Boxes", True, key="contest_boxes")
            st.toggle("Truth", True, key="contest_truth")
        _pair(players, row, kind)
    _strip(rows, at)


def _place(ids: list[str]) -> int:
    asked = st.session_state.get("contest_at") or st.query_params.get("picture", "")
    at = next((n for n, i in enumerate(ids) if i == asked), 0)
    st.session_state["contest_at"] = st.query_params["picture"] = ids[at]
    return at


def _step(ids: list[str], to: int, label: str, key: str) -> None:
    inside = 0 <= to < len(ids)
    st.button(label, shortcut=key, disabled=not inside, key=f"contest_{key}", on_click=go, args=(ids[to] if inside else "",))


def go(image_id: str) -> None:
    st.session_state["contest_at"] = image_id


def _pair(players: list[Player], row: Any, kind: str) -> None:
    name = words.short(row.file_name, 80)
    try:
        picture = drawn(row.image_id, min(WIDE, int(row.width)))
    except jobs.DiffspectError as error:
        st.caption(f":material/hide_image: {words.plain(error)}")
        return
    sides = [_side(p, row, kind) for p in players]
    pairs.show(picture, (int(row.width), int(row.height)), sides, name, row.image_id)
    labelled = "no defect" if row.is_good else f"{text.count(row.boxes)} {'defect' if row.boxes == 1 else 'defects'}"
    st.caption(f"{words.plain(name)} · {labelled} · ✓ found where a defect is, ✗ found where none is, dashed: true, found or missed. "
               "Double click or + − 0 enlarges both, a drag moves them.")


def _side(player: Player, row: Any, kind: str) -> pairs.Side:
    boxes, truth = boxes_of(player.run_id, row.image_id)
    found = player.counts(boxes)
    found = found[found["class_name"] == kind] if kind else found
    told = truth if not kind else truth[truth["class_name"] == kind]
    hits, false = int(found["hit"].astype(bool).sum()), int((~found["hit"].astype(bool)).sum())
    head = (f"**{player.letter}** {words.plain(player.arm, 40)} · " + (f"{hits} of {len(told)} found" if len(told) else "nothing to find")
            + (f", :orange[{false} false]" if false else ""))
    shown = found if st.session_state.get("contest_boxes", True) else found.head(0)
    return pairs.Side(head, shown, told if st.session_state.get("contest_truth", True) else told.head(0), set(found["hit_box"]))


@st.cache_data(max_entries=300, show_spinner=False)     # neither scores nor pictures change
def boxes_of(run_id: str, image_id: str) -> tuple[pd.DataFrame, pd.DataFrame]:
    found: tuple[pd.DataFrame, pd.DataFrame] = jobs.results.boxes_of(run_id, image_id)
    return found


@st.cache_data(max_entries=120, show_spinner=False)     # as JPEG and no wider: whatever else it gets, Streamlit encodes anew each time
def drawn(image_id: str, width: int) -> bytes:
    picture: bytes = jobs.results.picture(image_id=image_id, width=width, boxes=False, format="jpeg")
    return picture


def _strip(rows: pd.DataFrame, at: int) -> None:
    """The pictures before and after, to go to with a click; the next one is on its way before it is asked for."""
    first = max(0, min(at - STRIP // 2, len(rows) - STRIP))
    shown: list[Any] = list(rows.iloc[first:first + STRIP].itertuples())
    st.html(STYLE)
    with st.container(key="contest_strip"):
        for n, row in enumerate(shown):
            with st.container(key=f"thumb_{'now' if first + n == at else 'to'}_{n}", gap="xsmall"):
                try:
                    st.image(drawn(row.image_id, SMALL), width="stretch", alt=words.short(row.file_name, 80))
                except jobs.DiffspectError:
                    st.caption(":material/hide_image:")
                st.caption(f"A {row.found_a}, B {row.found_b} of {row.boxes}" if row.boxes else f"false: A {row.false_a}, B {row.false_b}")
                st.button(f"Look at {words.plain(row.file_name)}", key=f"thumb_go_{n}_{row.image_id}", on_click=go, args=(row.image_id,))
    ahead: list[Any] = list(rows.iloc[at + 1:at + 2].itertuples())
    for row in ahead:
        with st.container(key="contest_ahead"), suppress(jobs.DiffspectError):
            st.image(drawn(row.image_id, min(WIDE, int(row.width))), alt="")


STYLE = """<style>
.st-key-contest_strip {display: grid !important; gap: .4rem; grid-template-columns: repeat(8, minmax(0, 1fr));}
.st-key-contest_ahead {display: none !important;}
[class*="st-key-thumb_now"], [class*="st-key-thumb_to"] {position: relative; padding: .2rem; border-radius: .4rem;}
[class*="st-key-thumb_now"] {outline: 2px solid var(--st-primary-color, #2E7EBB);}
[class*="st-key-thumb_"] :is([data-testid="stImage"], [data-testid="stImageContainer"]) {width: 100%;}
[class*="st-key-thumb_"] img {width: 100%; height: 84px; object-fit: contain; background: rgb(128 128 128 / 12%); border-radius: .3rem;}
[class*="st-key-thumb_"] [data-testid="stCaptionContainer"] p {white-space: nowrap; overflow: hidden; text-overflow: ellipsis;}
[class*="st-key-thumb_go"] {position: absolute !important; inset: 0; width: 100% !important; z-index: 1;}
[class*="st-key-thumb_go"] * {height: 100%; width: 100%;}
[class*="st-key-thumb_go"] button {opacity: 0; cursor: pointer;}
[class*="st-key-thumb_go"] button:focus-visible {opacity: .35;}
@media (max-width: 640px) {.st-key-contest_strip {grid-template-columns: repeat(4, minmax(0, 1fr));}}
</style>"""

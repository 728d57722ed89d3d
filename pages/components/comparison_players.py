"""Two runs that meet: which of the arms' runs, and from which confidence the boxes of each count.

Runs and thresholds stand in the URL as a, b, at_a and at_b. A threshold acts on stored scores: nothing is inspected again. Knows nothing
of what is shown of the two.
"""

from dataclasses import dataclass
from statistics import median
from typing import Any

import pandas as pd
import streamlit as st

from pages.components import words

LOW, HIGH = 0.05, 0.95           # below it nothing is stored
UNKNOWN = 0.25                   # of a kind that the model sets no threshold for
STYLE = "<style>.st-key-player_a, .st-key-player_b {min-height: 9.6rem;}</style>"          # what is below stays where it is
LISTED = 4                       # thresholds that a line has room for


@dataclass(frozen=True)
class Player:
    """One of the two runs, and the confidence from which its boxes count."""

    letter: str
    arm: str
    run_id: str
    seed: Any
    own: dict[str, float]            # the model's thresholds, kind by kind
    threshold: float | None          # for all kinds alike; None: its own

    @property
    def at(self) -> float:
        """In one number, for charts: the middle of its own."""
        return middle(self.own) if self.threshold is None else self.threshold

    def counts(self, boxes: pd.DataFrame) -> pd.DataFrame:
        at = boxes["class_name"].map(self.own).astype(float).fillna(UNKNOWN) if self.threshold is None else self.threshold
        found: pd.DataFrame = boxes[boxes["confidence"] >= at]
        return found


def choose(scored: pd.DataFrame) -> list[Player]:
    """Two runs of different arms, the challenger left, each with its slider."""
    arms, runs = list(dict.fromkeys(scored["arm"])), scored[["run_id", "arm", "seed", "thresholds"]].to_dict("records")
    st.html(STYLE)
    grid = st.grid(2, min_column_width=300)
    left = _player(grid, "a", runs, arms[1:] + arms[:1])
    return [left, _player(grid, "b", runs, [arm for arm in arms if arm != left.arm])]


def _player(grid: Any, letter: str, runs: list[dict[Any, Any]], arms: list[str]) -> Player:
    """Of these arms, the first of them offered first."""
    linked = st.query_params.get(letter, "")
    known = {r["run_id"]: r for arm in arms for r in runs if r["arm"] == arm}
    names = {run_id: f"{words.short(r['arm'])} · seed {r['seed']}" for run_id, r in known.items()}
    start = list(names).index(linked) if linked in names else 0
    with grid.container(border=True, key=f"player_{letter}"):
        with st.container(horizontal=True, vertical_alignment="bottom", key=f"threshold_{letter}"):
            run_id = str(st.selectbox(letter.upper(), list(names), start, names.__getitem__, width=200,
                                      key=f"player_run_{letter}_{'_'.join(arms)}"))
            st.query_params[letter] = run_id
            row = known[run_id]
            own: dict[str, float] = dict(row["thresholds"] or {})
            threshold = _threshold(letter, run_id, own)
        _whose(letter, run_id, own, threshold)
    return Player(letter.upper(), row["arm"], run_id, row["seed"], own, threshold)


def _threshold(letter: str, run_id: str, own: dict[str, float]) -> float | None:
    """Moved, it holds for all kinds alike; untouched, each kind has the model's own. The slider starts in the middle of these."""
    name, key = f"at_{letter}", f"at_{letter}_{run_id}"
    linked = st.query_params.get(name, "")
    at = min(HIGH, max(LOW, float(linked))) if _is_number(linked) else middle(own)
    moved = st.slider("Counts from confidence", LOW, HIGH, at, 0.01, key=key, on_change=_moved, args=(name, key), width=190)
    return float(moved) if name in st.query_params else None


def _whose(letter: str, run_id: str, own: dict[str, float], threshold: float | None) -> None:
    """The model's own, or how to get back to them."""
    if threshold is None:
        st.caption(f"Its own thresholds: {_listed(own)}")
        return
    with st.container(horizontal=True, vertical_alignment="center"):
        st.caption("The same for all kinds.", width="content")
        st.button("Back to its own", key=f"own_{letter}", type="tertiary", icon=":material/undo:", on_click=_own,
                  args=(f"at_{letter}", f"at_{letter}_{run_id}"), help="The thresholds chosen on validation pictures, one for each kind.")


def _is_number(said: str) -> bool:
    try:
        return 0 < float(said) < 1
    except ValueError:
        return False


def _listed(own: dict[str, float]) -> str:
    if not own:
        return f"not known, {UNKNOWN} for all kinds."
    shown = ", ".join(f"{words.plain(k, 24)} {v:.2f}" for k, v in list(own.items())[:LISTED])
    return f"{shown} and {len(own) - LISTED} more." if len(own) > LISTED else f"{shown}."


def _moved(name: str, key: str) -> None:
    st.query_params[name] = f"{st.session_state[key]:.2f}"


def _own(name: str, key: str) -> None:
    st.query_params.pop(name, None)
    st.session_state.pop(key, None)


def in_url(name: str, value: str) -> None:
    if value:
        st.query_params[name] = value
    else:
        st.query_params.pop(name, None)


def middle(own: dict[str, float]) -> float:
    return min(HIGH, max(LOW, round(median(own.values() or [UNKNOWN]), 2)))


def unscored() -> None:
    st.info("What these runs found in each picture was not kept: they were trained by an earlier version. Score their models once more, "
            "on the command line with `python -m backend score --model NAME`; it counts as one more look at the test.",
            icon=":material/image_not_supported:")

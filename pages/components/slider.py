"""The what-if threshold: try one on the scores already logged, see how many parts it would turn, put it to use.

Stands between `whatif` (the arithmetic) and `batch` (the pictures). A threshold that is put to use is a rule, and can be taken back.
"""

from statistics import median
from typing import TYPE_CHECKING

import streamlit as st

from pages.components import rules, undo, whatif, words
from pages.components.cached import cached

if TYPE_CHECKING:
    from pages.components.batch import Batch

LOW, HIGH = rules.LEAST, 0.95


def controls(kinds: list[str], today: whatif.Rules) -> None:
    """The switch, and behind it kind and slider, which starts in the middle of today's thresholds."""
    on = st.toggle("Try another threshold", key="try_on", help="Uses the scores already logged; nothing is computed again.")
    if on:
        left, right = st.columns([1, 2])
        start = median([today.get(k, whatif.UNRULED)[1] for k in kinds] or [0.25])
        left.selectbox("Kind", ["", *kinds], format_func=lambda k: words.short(k) or "All kinds", key="try_kind")
        right.slider("Counts from confidence", LOW, HIGH, min(HIGH, max(LOW, round(start, 2))), 0.01, key="try_at")


def tried() -> whatif.Tried | None:
    """What stands on the slider; None while it is off."""
    state = st.session_state
    return whatif.Tried(state.get("try_kind") or "", float(state["try_at"])) if state.get("try_on") and "try_at" in state else None


def outcome(batch: "Batch") -> None:
    """What the tried threshold would change, and the button that makes it so."""
    if not batch.tried:
        return
    then, now = int(batch.rows["defective"].sum()), int(batch.rows["is_defective"].sum())
    seen, total = len(batch.rows), cached("batch", batch.run_id)["inspected"]
    part = f" This covers the newest {seen:,} of {total:,} pictures." if seen < total else ""
    with st.container(horizontal=True, vertical_alignment="center"):
        st.markdown(f"At **{batch.tried.at:.2f}**: {then:,} of {seen:,} defective; today {now:,}.{part}", width="content")
        st.button("Use this threshold", type="primary", key="try_use", on_click=use, args=(batch,))
    st.caption(f"It would hold for {words.plain(batch.product) or 'all products'}, past days included.")


def use(batch: "Batch") -> None:
    """Record the threshold as a rule for this product, with the action and size each kind has today."""
    assert batch.tried
    kinds = [batch.tried.kind] if batch.tried.kind else batch.kinds
    today = {k: batch.today.get(k, whatif.UNRULED) for k in kinds}
    configs = [rules.policy(batch.product, k, action, batch.tried.at, side) for k, (action, _, side) in today.items()]
    st.session_state["try_on"] = False
    undo.record(f"{words.short(batch.tried.kind) or 'All kinds'} now count from {batch.tried.at:.2f}.", "policy", configs, batch.plant)

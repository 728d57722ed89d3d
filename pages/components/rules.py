"""What counts as a defect, per product and kind: ignore, minor or reject; from which confidence; from which size.

A saved row is an event, so it can be taken back. It governs every inspection of that product, past ones included.
"""

from typing import Any

import pandas as pd
import streamlit as st

from pages.components import undo, words
from pages.components.cached import cached

ACTIONS = ("reject", "minor", "ignore")
EDITABLE = ["action", "threshold", "min_side"]
LEAST = 0.05               # below it nothing is logged


def editor(plant: str, product: str = "") -> None:
    """A table of today's rules and one Save; only rows that changed are recorded."""
    products = ["", *cached("choices", plant)["products"]]
    chosen = st.selectbox("Product", products, products.index(product) if product in products else 0, key="rules_product",
                          format_func=lambda p: words.short(p) or "All products")
    today = cached("rules", plant, chosen)
    if today.empty:
        st.caption("No model is in use yet, so there are no kinds of defect to rule on.")
        return
    edited = table(today, f"rules_{plant}_{chosen}_{_round()}")
    new = changed(today, edited)
    st.caption("Reject makes a part defective; minor is counted apart; ignore is as if it were not found. "
               "A rule changes past days too, and can be taken back.")
    if st.button("Save rules", type="primary", disabled=new.empty, key="rules_save"):
        st.session_state["rules_round"] = _round() + 1
        save(new, chosen, plant)


def _round() -> int:
    return int(st.session_state.get("rules_round", 0))


def table(today: pd.DataFrame, key: str) -> pd.DataFrame:
    column = st.column_config
    edited: pd.DataFrame = st.data_editor(
        today[["class_name", *EDITABLE, "source"]], key=key, hide_index=True, disabled=["class_name", "source"],
        alt="Rules per kind of defect",
        column_config={
            "class_name": column.TextColumn("Kind", pinned=True),
            "action": column.SelectboxColumn("What it means", options=ACTIONS, required=True),
            "threshold": column.NumberColumn("From confidence", min_value=LEAST, max_value=1.0, step=0.01, format="%.2f", required=True),
            "min_side": column.NumberColumn("From size (px)", min_value=0, max_value=10_000, step=1, required=True),
            "source": column.TextColumn("Set by"),
        })
    return edited


def changed(today: pd.DataFrame, edited: pd.DataFrame) -> pd.DataFrame:
    """The edited rows that differ."""
    differs = (edited[EDITABLE].to_numpy() != today[EDITABLE].to_numpy()).any(axis=1)
    rows: pd.DataFrame = edited.loc[differs]
    return rows


def save(rows: pd.DataFrame, product: str, plant: str) -> None:
    configs = [policy(product, *row) for row in rows[["class_name", *EDITABLE]].itertuples(index=False, name=None)]
    kinds = ", ".join(words.short(c["class_name"], 24) for c in configs)
    undo.record(f"New rules for {kinds}" + (f" on {words.short(product)}." if product else "."), "policy", configs, plant)


def policy(product: str, class_name: str, action: str, threshold: float | None, min_side: float) -> dict[str, Any]:
    return {"product": product, "class_name": class_name, "action": action,
            "threshold": None if threshold is None else round(float(threshold), 4), "min_side": int(min_side)}

"""The figures behind a verdict, arm by arm: means of the seeds, as `comparison.json` has them."""

from typing import Any

import pandas as pd
import streamlit as st

from pages.components import words
from pages.components.comparison_subject import Subject

SHARES = {"Missed defects": "missed_images", "False rejects": "false_rejects"}
FIGURES = {"mAP50 test": "map50", "mAP50–95 test": "map50_95", "mAP50 val": "val_map50", **SHARES}
COUNTS = {"Steps": "steps", "Pictures seen": "images_seen"}


def show(found: dict[str, Any], subject: Subject) -> None:
    with st.expander("All figures", icon=":material/table:", key="all_figures"):
        column = st.column_config
        st.dataframe(table(found, subject), hide_index=True, alt="Figures of each arm, means of its seeds", placeholder="–", column_config={
            "Arm": column.TextColumn(pinned=True), **{name: column.NumberColumn(format="localized") for name in COUNTS},
            **{name: column.NumberColumn(format="percent" if name in SHARES else "%.3f") for name in FIGURES}})
        said = "Means over the seeds. Missed and false rejects at each model's own thresholds, chosen on validation pictures."
        if best := found["best_on_val"]:
            said += f" Best on validation pictures: {words.plain(best, 60)}. Who chooses one arm of several chooses by that."
        st.caption(said)


def table(found: dict[str, Any], subject: Subject) -> pd.DataFrame:
    rows = []
    for arm in subject.arms:
        side = found["arms"][arm]
        rows.append({"Arm": words.short(arm, 40), "Seeds": len(side["runs"]), **{name: _mean(side, key) for name, key in FIGURES.items()},
                     "Real pictures": side.get("real_images"), "Synthetic pictures": side.get("synthetic_images"),
                     **{name: _mean(side, key) for name, key in COUNTS.items()}})
    return pd.DataFrame(rows)


def _mean(side: dict[str, Any], name: str) -> float | None:
    """Of the runs that know it."""
    known = [r[name] for r in side["runs"] if r.get(name) is not None]
    return sum(known) / len(known) if known else None

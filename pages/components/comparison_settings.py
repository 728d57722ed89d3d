"""What the arms were told: every setting side by side, or only those that differ. Knows nothing of what came of them."""

from typing import Any

import pandas as pd
import streamlit as st

from pages.components import form, plant, words
from pages.components.comparison_subject import Subject

# what a run is, beside its settings; in this order
FACTS = {"recipe": "Kind of training", "dataset": "Dataset", "snapshot_id": "Dataset version", "origin": "Pictures from",
         "real_images": "Real pictures", "synthetic_images": "Synthetic pictures", "labels": "Labelled pictures at most",
         "epochs": "Passes", "steps": "Optimiser steps",
         "images_seen": "Pictures seen", "seed": "Seed", "test_set_id": "Test set", "kind": "Kind of model"}
HERE = {*FACTS, "name", "shown", "synthetic"}          # settings that stand among the facts
SHORT = 60


def show(subject: Subject) -> None:
    rows = table(subject)
    alone = st.toggle("Only differences", True, key="only_differences")
    shown = rows[rows["differs"]] if alone else rows
    if shown.empty:
        st.info("These arms were told the same, in everything. What differs is chance, or the program.", icon=":material/equal:")
    else:
        st.dataframe(shown.drop(columns="differs"), hide_index=True, alt="Settings of each arm", height="content",
                     column_config={"Setting": st.column_config.TextColumn(pinned=True)})
    hidden = len(rows) - len(shown)
    st.caption((f"{hidden} settings are the same in all arms. " if alone and hidden else "")
               + "Where the seeds of an arm differ, all of their values stand in its cell.")
    _links(subject)


def table(subject: Subject) -> pd.DataFrame:
    """Setting, a column for each arm, and whether the arms differ in it; the seed differs within an arm and is not told apart."""
    told = {arm: _told(subject.runs(arm)) for arm in subject.arms}
    names = list(dict.fromkeys(name for of in told.values() for name in of))
    rows = []
    for name in names:
        values = [told[arm].get(name, "–") for arm in subject.arms]
        rows.append({"Setting": name, **dict(zip(subject.arms, values, strict=True)), "differs": len(set(values)) > 1})
    return pd.DataFrame(rows, columns=["Setting", *subject.arms, "differs"])


def _told(runs: pd.DataFrame) -> dict[str, str]:
    """Setting -> value of one arm."""
    settings = [dict(s or {}) for s in runs["settings"]]
    names = list(dict.fromkeys(k for s in settings for k in s if k not in HERE))
    facts = {label: _joined(runs[name]) for name, label in FACTS.items() if name in runs}
    facts[FACTS["recipe"]] = _joined(words.RECIPES.get(recipe, recipe) for recipe in runs["recipe"])
    return facts | {form.label(name): _joined(s.get(name) for s in settings) for name in names}


def _joined(values: Any) -> str:
    """Each value once, in the order of the runs."""
    return words.short(", ".join(dict.fromkeys(_plain(v) for v in values)), SHORT)


def _plain(value: Any) -> str:
    if value is None or value is pd.NA or value != value or value == "":
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return f"{value:,}" if isinstance(value, int) else str(value)


def _links(subject: Subject) -> None:
    with st.expander("All runs", icon=":material/list_alt:", key="all_runs"):
        for row in subject.rows.to_dict("records"):
            plant.link("training", f"{words.plain(row['arm'], 40)} · seed {row['seed']} · {words.plain(row['name'], 60)}",
                       icon=":material/show_chart:", run=str(row["run_id"]))

"""A classifier of whole images, looked at: how often it is right, what it takes for what. Stands in for what a detector has of boxes.

Knows nothing of how models are chosen or put to use.
"""

from typing import Any

import pandas as pd
import streamlit as st

from backend import jobs
from pages.components import text, training_curves, words

ACCURACY = "Share of the pictures whose likeliest class is the right one"


def live(status: jobs.RunStatus, points: pd.DataFrame) -> None:
    """A training: the curve of the loss, and what it takes pictures for by now."""
    if len(points):
        training_curves.show(points, status.run_id)
    elif status.is_open:
        st.skeleton(240)
        st.caption("Curves begin after the first steps.")
    try:
        picture = jobs.run_file(status.run_id, "samples.png").read_bytes()
    except jobs.NotFoundError:
        return
    st.markdown("**What it takes them for:** train pictures as they are shown to it, flipped, turned and cut; in orange where it is wrong")
    st.image(picture, width=672, alt="Grid of train pictures, each with the class it is taken for")


def overview(models: pd.DataFrame) -> dict[str, list[float | None]]:
    """Columns of the table of models that only classifiers fill; none where there is no classifier."""
    if not (models["kind"] == "classifier").any():
        return {}
    return {"Accuracy test": [(m.get("test") or {}).get("accuracy") for m in models["metrics"]]}


def accuracy(place: Any, test: dict[str, Any], val: dict[str, Any]) -> None:
    """Two cards beside those that every model has."""
    place.metric("Accuracy on test", _percent(test.get("accuracy")), border=True, help=f"{ACCURACY}, of the locked test pictures.")
    place.metric("Accuracy on val", _percent(val.get("accuracy")), border=True,
                 help=f"{ACCURACY}, of those that its thresholds were chosen on.")


def scored(test: dict[str, Any], dataset: str) -> str:
    return (f"{text.count(test.get('images', 0))} locked test pictures of the dataset {words.plain(dataset or '–')}. With every kind "
            f"counted alike it is right on {_percent(test.get('balanced_accuracy'))}. It says what a picture shows, not where.")


def confusion(test: dict[str, Any]) -> None:
    """What is taken for what, on the locked test."""
    found = test.get("confusion") or {}
    names = found.get("names") or []
    if not names:
        return
    head, *shown = _told_apart(["Shows", *(words.short(n, 24) for n in names)])
    table = pd.DataFrame(found["counts"], columns=shown)
    table.insert(0, head, shown)
    st.markdown("**What is taken for what:** a row for what pictures show, a column for what they are taken for")
    st.dataframe(table, hide_index=True, alt="Confusion on the locked test pictures", key="confusion",
                 column_config={"Shows": st.column_config.TextColumn(pinned=True)})


def _told_apart(names: list[str]) -> list[str]:
    """Columns need names of their own; those that are alike once shortened get spaces, which nobody sees."""
    return [name + " " * names[:i].count(name) for i, name in enumerate(names)]


def _percent(value: Any) -> str:
    return "–" if value is None else text.percent(float(value))

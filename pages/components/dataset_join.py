"""Pictures without labels join a dataset: which other datasets, under what name; and what came of it.

What learns without labels learns from them; what may join the recipe decides. Knows nothing of how a dataset is shown.
"""

from typing import Any

import streamlit as st

from backend import jobs
from pages.components import ask, run_panel, words
from pages.components.cached import cached


def button(head: Any) -> None:
    """For one dataset; nothing where there is no other."""
    if len(cached("datasets")) > 1:
        ask.question(f"join_{head.snapshot_id}", "Add pictures without labels", "Add pictures without labels",
                     lambda: _form(head), icon=":material/library_add:", type="tertiary")


def _form(head: Any) -> None:
    others = {r.snapshot_id: f"{words.short(r.name)} · {r.images:,} pictures · {words.when(r.created_at)}"
              for r in cached("datasets").itertuples() if r.snapshot_id != head.snapshot_id}
    st.caption("Diffusion models and taught backbones learn from pictures that nobody labelled. Import them as a dataset of their own, "
               "then add them here. Detectors never see them, and none that nearly equals a validation or test picture joins.")
    chosen = st.multiselect("Datasets whose pictures join", list(others), format_func=others.__getitem__, key=f"join_{head.snapshot_id}")
    name = st.text_input("Name of the new dataset", suggest(str(head.name)), max_chars=80, key=f"join_name_{head.snapshot_id}").strip()
    if st.button("Make the dataset", type="primary", disabled=not (chosen and name), key="join_go"):
        ask.answered()
        run_panel.start(jobs.Combine(dataset=head.snapshot_id, name=name, unlabelled=", ".join(chosen)), "run")


def suggest(dataset: str) -> str:
    """'tiles + unlabelled': the first that no dataset has."""
    taken, stem = set(cached("datasets")["name"]), f"{dataset[:60]} + unlabelled"
    return next(name for n in range(1, 1000) if (name := f"{stem} ({n})" if n > 1 else stem) not in taken)

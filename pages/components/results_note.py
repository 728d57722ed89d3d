"""What pages say where results are not all there: being read again after an update, or unreadable. Knows nothing of the page."""

import streamlit as st

from backend import jobs
from pages.components.cached import cached


def remade() -> None:
    """At the top of every page while the database is being made again after an update."""
    if jobs.remade() is not None:
        st.fragment(_follow, run_every=1.0)()


def _follow() -> None:
    """Figures grow until then, so the page is drawn anew once all are in."""
    at = jobs.remade()
    if at is None:
        st.rerun()
    assert at is not None
    done, total = at
    st.progress(done / total if total else 0.0, text="Diffspect was updated and is reading all results again. Until it has, figures here "
                                                     "are too low. Nothing is lost.")


def unread() -> None:
    """What could not be read, or is a newer program's: the rest goes on without it, and nobody should take it for missing."""
    found = cached("damaged")
    if len(found):
        with st.expander(f"{len(found):,} results could not be read", icon=":material/report:"):
            st.dataframe(found, hide_index=True, column_config={"run_id": "Run", "part": "What", "reason": "Why"}, alt="Unread results")

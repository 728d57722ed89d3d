"""Retention on the page: after how many days what goes, what that would be now, and the question before it goes indeed."""

from typing import Any

import streamlit as st

from backend import jobs
from pages.components import ask, run_panel, text, words

USUAL = {"pictures": 365, "logs": 365, "leftovers": 90, "synthetic": 180}
_KEY = "retention_outlook"


def show() -> None:
    st.markdown("What is older than so many days is let go, unless a model, a dataset, a review, a report, a comparison, a random sample "
                "or an open alarm refers to it. Counts and trends stay. Decisions and the audit log are never let go.")
    config = _form()
    if config is not None:
        st.session_state[_KEY] = _looked(config)
    if found := st.session_state.get(_KEY):
        _outlook(*found)
    for run in jobs.recent(limit=1, recipes=("retention",)):
        run_panel.show(run.run_id, _told)


def _form() -> "jobs.Retention | None":
    """The days that were asked for, once they are."""
    with st.form("retention_form", border=False):
        columns = st.columns(len(USUAL))
        days = {}
        for column, (kind, usual) in zip(columns, USUAL.items(), strict=True):
            with column:
                wanted = st.checkbox(jobs.system.KINDS[kind], key=f"retain_{kind}")
                value = st.number_input("after days", 7, 36_500, usual, key=f"days_{kind}", label_visibility="collapsed")
                days[kind] = int(value) if wanted else None
        asked = st.form_submit_button("See what would go", icon=":material/search:")
    return jobs.Retention.from_json(days) if asked else None


def _looked(config: "jobs.Retention") -> "tuple[jobs.Retention, dict[str, Any]] | None":
    try:
        with st.spinner("Looking what refers to what …"):
            return config, jobs.system.outlook(config)
    except jobs.DiffspectError as error:
        words.sorry(error)
        return None


def _outlook(config: "jobs.Retention", found: dict[str, Any]) -> None:
    asked = [kind for kind in jobs.system.KINDS if kind in found]
    st.dataframe({"What": [jobs.system.KINDS[k] for k in asked], "Would go": [found[k]["count"] for k in asked],
                  "MB": [found[k]["bytes"] / 1e6 for k in asked],
                  "Stay, and why": [_why(found["stays"][k]) for k in asked]}, hide_index=True, alt="What would be let go",
                 column_config={"MB": st.column_config.NumberColumn(format="%.1f"),
                                "Stay, and why": st.column_config.TextColumn(width="large")})
    count, size = (sum(found[k][what] for k in asked) for what in ("count", "bytes"))
    if count:
        ask.question("let_go", "Let go", "Let go of these for good?", lambda: _sure(config, count, size), type="primary",
                     icon=":material/delete:")
    else:
        st.caption("Nothing would go.")


def _why(stays: dict[str, int]) -> str:
    return "; ".join(f"{text.count(n)} {why}" for why, n in sorted(stays.items(), key=lambda item: -item[1])) or "–"


def _sure(config: "jobs.Retention", count: int, size: int) -> None:
    st.markdown(f"{text.counted(count, 'thing')} ({size / 1e6:,.1f} MB) will be removed from this machine. Only a backup brings them back. "
                "What is referred to by then stays.")
    if st.button("Let go for good", type="primary", icon=":material/delete:", key="let_go_now"):
        try:
            jobs.system.let_go(config)
        except jobs.DiffspectError as error:
            words.sorry(error)
            return
        st.session_state.pop(_KEY, None)
        ask.answered()
        st.rerun()


def _told(run: jobs.RunStatus) -> None:
    if run.state == "completed" and "freed" in run.result:
        after_all = run.result.get("stayed_after_all", 0)
        st.markdown(f"{run.result['freed'] / 1e6:,.1f} MB let go." + (f" {text.count(after_all)} stayed after all." if after_all else ""))
    for note in run.result.get("notes", []):
        st.caption(words.plain(note, 600))

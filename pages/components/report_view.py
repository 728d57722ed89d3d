"""A shift report on the page: which shift, the file to take along, and the report itself as it prints.

The report comes whole from `jobs.results`, with everything in it escaped; it runs no script and asks nobody for anything.
"""

import re
from datetime import date
from typing import Any

import streamlit as st
from streamlit.delta_generator import DeltaGenerator

from backend import jobs
from pages.components import person, text, words

# The preview is paper: white on any theme, as high as its content, so that the wheel moves the page and not the frame.
# Its measuring is a script of Streamlit's, which the file's own policy would forbid: the preview goes without that policy.
_POLICY = re.compile(r'<meta http-equiv="Content-Security-Policy"[^>]*>')
_STYLE = "<style>.st-key-report_paper {background: #fff; outline: 1px solid #8884; border-radius: .4rem;}</style>"


def choose(listed: list[dict[str, Any]]) -> dict[str, Any]:
    """The shift that the URL names, else the last one that has ended and brought something."""
    names = {_name(s): s for s in listed}
    usual = next((n for n, s in names.items() if s["units"] and not s["under_way"]), next(iter(names)))
    asked = st.query_params.get("shift", "")
    name = st.selectbox("Shift", list(names), list(names).index(asked if asked in names else usual), key="report_shift", width=330,
                        format_func=lambda n: _label(names[n]), on_change=_to_url)
    return names[name]


def _name(shift: dict[str, Any]) -> str:
    return f"{shift['day'].isoformat()} {shift['shift']}"


def _label(shift: dict[str, Any]) -> str:
    parts = "nothing came" if not shift["units"] else f"{text.count(shift['units'])} parts"
    return f"{words.short(shift['shift'], 30)}, {text.day(shift['day'])}: {parts}{' so far' if shift['under_way'] else ''}"


def _to_url() -> None:
    st.query_params["shift"] = st.session_state["report_shift"]
    st.session_state.pop("report_kept", None)


def made(shown: str, shift: dict[str, Any]) -> tuple[str, str, str]:
    """File name, HTML and a word on its age, of a report that is made now."""
    name, html = _made(jobs.results.revision(), shown, shift["day"], shift["shift"])
    return name, html, ""


@st.cache_data(max_entries=6, show_spinner="Making the report …")          # half a MB each
def _made(revision: int, shown: str, day: date, shift: str) -> tuple[str, str]:
    return jobs.results.shift_report(shown, day, shift)


def show(name: str, html: str, age: str, download: DeltaGenerator) -> None:
    download.download_button("Download", html, name, "text/html", icon=":material/download:", type="primary", key="report_download",
                             on_click=person.took_away, args=(f"shift report {name}",))
    st.caption(f"{age}The file holds everything: open it in any browser, print it on A4, or send it on.")
    st.html(_STYLE)
    with st.container(key="report_paper"):
        st.iframe(_POLICY.sub("", html, count=1), height="content", alt="The shift report")

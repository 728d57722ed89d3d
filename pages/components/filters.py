"""What a person is looking at: one row of filters that lives in the URL, so that a link shows the same numbers to a colleague.

Every widget is bound to a query parameter of its own name. A tap on a bar narrows them too (`narrow`), and each step can be taken back.
Knows nothing of the charts below it.
"""

from datetime import date, timedelta
from typing import Any
from urllib.parse import urlencode

import streamlit as st

from backend import jobs
from pages.components import text, words

# query parameter -> (field of Filters, list in `choices`, what stands there when nothing is chosen)
FIELDS = {
    "line": ("line", "lines", "All lines"),
    "kind": ("class_name", "classes", "All kinds of defect"),
    "product": ("product", "products", "All products"),
    "shift": ("shift", "shifts", "All shifts"),
    "camera": ("camera", "cameras", "All cameras"),
    "lot": ("lot", "lots", "All lots"),
}
LABELS = {"line": "Line", "kind": "Kind of defect", "product": "Product", "shift": "Shift", "camera": "Camera", "lot": "Lot"}
_DAYS = {"since": "From", "until": "To"}
_NOTHING: dict[str, Any] = {**dict.fromkeys(FIELDS, ""), "since": None, "until": None}
_PAST, MOST_PAST, _HEARD = "filters_before", 20, "filters_heard"
PERIODS = {"7 days": 7, "28 days": 28, "90 days": 90, "All": 0}
_ALWAYS = ("line", "kind")


def bar(plant: str, choices: dict[str, Any]) -> jobs.Filters:
    """Show the filters and return what they ask for. Line, kind and period are in sight, the rest one tap away."""
    with st.container(horizontal=True, vertical_alignment="bottom", key="filters"):
        asked = {name: _choose(name, choices) for name in _ALWAYS}
        days = st.segmented_control("Period", list(PERIODS), default="28 days", required=True, key="period", bind="query-params")
        with st.popover(_more_label(), icon=":material/tune:", key="more_filters"):
            asked |= {name: _choose(name, choices) for name in FIELDS if name not in _ALWAYS}
            since, until = _day("From day", "since", choices), _day("To day", "until", choices)
        st.button("Clear", icon=":material/filter_alt_off:", type="tertiary", key="clear_filters", on_click=clear)
    fields: dict[str, Any] = {FIELDS[name][0]: value for name, value in asked.items()}
    return jobs.Filters(plant=plant, since=since or _since(PERIODS[days], choices), until=until, **fields)


def _choose(name: str, choices: dict[str, Any]) -> str:
    """The whole value as its label, for the label is what stands in the URL: a shortened one would find nothing."""
    _, known, nothing = FIELDS[name]
    return st.selectbox(LABELS[name], ["", *choices[known]], format_func=lambda v: v or nothing, key=name,
                        bind="query-params", width=190) or ""


def _day(label: str, name: str, choices: dict[str, Any]) -> date | None:
    chosen: date | None = st.date_input(label, None, min_value=choices["first_day"], max_value=choices["last_day"], key=name,
                                        bind="query-params")
    return chosen


def _since(days: int, choices: dict[str, Any]) -> date | None:
    """The first day of a period that ends with the data, not with the clock: old data is still shown."""
    last: date = choices["last_day"]
    return last - timedelta(days=days - 1) if days else None


def _more_label() -> str:
    more = [n for n in (*FIELDS, "since", "until") if n not in _ALWAYS and st.session_state.get(n)]
    return f"More filters ({len(more)})" if more else "More filters"


def clear() -> None:
    """Back to everything; runs before the page does, so the URL follows."""
    st.session_state.pop(_HEARD, None)
    _remember()
    for name in FIELDS:
        st.session_state[name] = ""
    st.session_state.update(since=None, until=None, period="28 days")


def narrow(**wanted: Any) -> None:
    """What a tap on a bar means for all of the page, by query parameter; the same again lets go. In a callback, as `clear`."""
    _remember()
    for name, value in wanted.items():
        st.session_state[name] = _NOTHING[name] if st.session_state.get(name) == value else value


def drop(name: str) -> None:
    """Let go of one filter."""
    st.session_state.pop(_HEARD, None)
    _remember()
    st.session_state[name] = _NOTHING[name]


def heard(key: str) -> bool:
    """Whether the last thing that narrowed the page was this; from now on it is."""
    was, st.session_state[_HEARD] = st.session_state.get(_HEARD), key
    return bool(was == key)


def back() -> None:
    """As it was before the last tap, or before Clear."""
    st.session_state.pop(_HEARD, None)
    if st.session_state.get(_PAST):
        then = st.session_state[_PAST].pop()
        st.session_state.update({name: value for name, value in then.items() if st.session_state.get(name) != value})


def _remember() -> None:
    now = {name: st.session_state.get(name, nothing) for name, nothing in _NOTHING.items()}
    st.session_state[_PAST] = [*st.session_state.get(_PAST, []), now | {"period": st.session_state.get("period", "28 days")}][-MOST_PAST:]


def chips() -> None:
    """What narrows the page, each with the way to let go of it; and the step back. Nothing where nothing does."""
    chosen = {name: st.session_state.get(name) for name in _NOTHING if st.session_state.get(name)}
    if not chosen and not st.session_state.get(_PAST):
        return
    with st.container(horizontal=True, vertical_alignment="center", gap="small", key="chips"):
        st.caption("Narrowed to" if chosen else "Everything is shown.", width="content")
        for name, value in chosen.items():
            shown = text.day(value) if isinstance(value, date) else words.plain(value, 40)
            st.button(f"{(LABELS | _DAYS)[name]}: {shown}", icon=":material/close:", key=f"drop_{name}", help="Let go of it",
                      on_click=drop, args=(name,))
        if st.session_state.get(_PAST):
            st.button("Undo", icon=":material/undo:", type="tertiary", key="filters_back", on_click=back)


def share() -> None:
    """The address of just this view, to copy. Filters, and what is compared, stand in it."""
    with st.popover("Share", icon=":material/link:", type="tertiary", key="share"):
        st.caption("Whoever opens this address sees the same selection:")
        st.code(address(), language=None, wrap_lines=True)


def address() -> str:
    """As the browser has it, or will have it in a moment: what a tap just narrowed stands in it too."""
    now = {name: st.session_state.get(name) for name in (*_NOTHING, "period")}
    asked = {name: value for name, value in (st.query_params.to_dict() | now).items() if value}
    base = str(st.context.url or "").split("?")[0]
    return f"{base}{'?' if asked else ''}{urlencode(asked)}"


def said(filters: jobs.Filters) -> str:
    """'Line 2, pits, since Sat 24 Oct', for headings; escaped."""
    chosen = [getattr(filters, f) for f, _, _ in FIELDS.values()]
    return ", ".join(words.plain(v, 40) for v in chosen if v) or "the whole plant"

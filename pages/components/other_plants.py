"""Lines of plants that are looked after elsewhere and share their records with this one: one table, the worst line of each plant first."""

import streamlit as st

from pages.components import cards, text
from pages.components.cached import cached, lately


def lines() -> None:
    """Nothing where there is no other plant."""
    if not cached("elsewhere"):
        return
    found = cached("lines_elsewhere", lately())
    st.subheader("Other plants", anchor=False)
    st.dataframe({
        "Plant": found["plant"], "Line": found["line"], "State": [cards.STATES[state][0] for state in found["state"]],
        "Why": found["reason"], "Defective": [text.percent(rate) for rate in found["rate"].fillna(0.0)],
        "Newest picture": [f"{text.day(at)}, {at:%H:%M} UTC" for at in found["last_captured_at"]]}, hide_index=True)
    st.caption("Each plant's own page stands under its name, at the top.")

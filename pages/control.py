"""Is it chance, or has something changed? The charts that people saved, the worst first, one of them in full; and the making of another.

Which chart stands in the URL. What a manager reads first holds no word of statistics; those are further down, for quality engineers.
"""

import streamlit as st

from pages.components import charts, check_view, control_cards, control_form, control_view, person, plant, undo
from pages.components.cached import cached, lately

VIEWS = ("Charts", "New chart", "Checks")


def control(shown: str) -> None:
    if cached("choices", shown)["last_day"] is None:
        plant.uncounted()
        return
    view = st.segmented_control("View", VIEWS, default=VIEWS[0], required=True, key="charts_view", bind="query-params",
                                label_visibility="collapsed")
    undo.bar()
    if view == VIEWS[1]:
        if person.told("adjust"):
            control_form.show(shown)
    elif view == VIEWS[2]:
        check_view.show(shown)
    else:
        watch(shown)
    charts.let_touch_scroll()


def watch(shown: str) -> None:
    watched = cached("control_charts", shown, lately())
    if not watched:
        control_cards.nothing()
        return
    control_cards.headline(watched)
    asked = st.query_params.get("chart")
    chosen = next((w for w in watched if w.chart_id == asked), watched[0])
    control_cards.cards(watched, chosen)
    control_view.show(chosen, shown)


with plant.sound():
    control(plant.begin("Control charts"))

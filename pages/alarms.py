"""What somebody has to know now: open alarms, what the plant is told of, its targets, and where messages go. The view stands in the URL."""

import streamlit as st

from pages.components import alert_channels, alert_list, alert_rules, plant, target_list, undo
from pages.components.cached import cached

VIEWS = ("Alarms", "Rules and targets", "Messages")


def alarms(shown: str) -> None:
    if cached("choices", shown)["last_day"] is None:
        plant.uncounted()
        return
    view = st.segmented_control("View", VIEWS, default=VIEWS[0], required=True, key="alarms_view", bind="query-params",
                                label_visibility="collapsed")
    undo.bar()
    if view == "Messages":
        alert_channels.show(shown)
    elif view == "Alarms":
        alert_list.show(shown)
    else:
        target_list.show(shown)
        alert_rules.show(shown)


with plant.sound():
    alarms(plant.begin("Alarms"))

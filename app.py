"""The frame: what the window is called, and which pages there are, by role. Everything else is in the pages."""

from pathlib import Path

import streamlit as st

PAGES = {
    "Plant": [("overview", "Overview", ":material/dashboard:"), ("trends", "Trends", ":material/trending_up:"),
              ("control", "Control charts", ":material/monitoring:"), ("report", "Shift report", ":material/summarize:"),
              ("review", "Review", ":material/fact_check:"), ("alarms", "Alarms", ":material/notifications:")],
    "Engineering": [("inspection", "Inspection", ":material/image_search:"), ("datasets", "Datasets", ":material/photo_library:"),
                    ("synthesis", "Synthesis", ":material/auto_awesome:"), ("training", "Training", ":material/model_training:"),
                    ("comparison", "Comparison", ":material/balance:"),
                    ("models", "Models", ":material/deployed_code:"), ("runs", "Runs", ":material/list_alt:")],
}

st.set_page_config("Diffspect", "🔍", "wide")
st.navigation({
    group: [st.Page(f"pages/{name}.py", title=title, icon=icon, url_path=name, default=name == "overview")
            for name, title, icon in pages if Path(__file__).with_name("pages").joinpath(f"{name}.py").exists()]
    for group, pages in PAGES.items()
}).run()

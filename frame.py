"""The frame: what the window is called, who may come in, and which pages there are, by role. Everything else is in the pages.

A page that a role may not see stays reachable by its address, where a sentence says why it is not shown.
"""

from pathlib import Path

import streamlit as st

from pages.components import person, sign_in

PAGES = {
    "Plant": [("overview", "Overview", ":material/dashboard:"), ("trends", "Trends", ":material/trending_up:"),
              ("control", "Control charts", ":material/monitoring:"), ("report", "Shift report", ":material/summarize:"),
              ("review", "Review", ":material/fact_check:"), ("alarms", "Alarms", ":material/notifications:")],
    "Engineering": [("inspection", "Inspection", ":material/image_search:"), ("datasets", "Datasets", ":material/photo_library:"),
                    ("synthesis", "Synthesis", ":material/auto_awesome:"), ("training", "Training", ":material/model_training:"),
                    ("comparison", "Comparison", ":material/balance:"),
                    ("models", "Models", ":material/deployed_code:"), ("runs", "Runs", ":material/list_alt:")],
    "Machine": [("users", "Users", ":material/group:"), ("system", "System", ":material/dns:")],
}
# What a page needs where it is more than reading; everybody has an account to look after.
NEEDS = {"review": "review", "users": "", "system": "retention", **dict.fromkeys((name for name, _, _ in PAGES["Engineering"]), "run")}


def shown(name: str, title: str, icon: str, inside: bool) -> st.Page:
    seen = inside and person.may(NEEDS.get(name, "read"))
    title = "My account" if name == "users" and not (inside and person.may("users")) else title
    return st.Page(f"pages/{name}.py", title=title, icon=icon, url_path=name, default=name == "overview",
                   visibility="visible" if seen else "hidden")


st.set_page_config("Diffspect", "🔍", "wide")
inside = sign_in.passed()
found = {group: [shown(*page, inside) for page in pages if Path(__file__).with_name("pages").joinpath(f"{page[0]}.py").exists()]
         for group, pages in PAGES.items()}
chosen = st.navigation(found, position="sidebar" if inside else "hidden")      # asked before, too: who signs in gets the page of the link
if inside:
    if why := person.why_not(NEEDS.get(chosen.url_path or "overview", "read")):
        st.title(chosen.title, anchor=False)
        st.info(why, icon=":material/lock:")
    else:
        chosen.run()

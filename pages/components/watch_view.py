"""Folders that are watched: how each stands, stop, go on, see its pictures; and the form that starts one.

Redrawn every second while one is watched. Plain words; a run's id appears in links only.
"""

from datetime import datetime
from typing import Any

import streamlit as st

from backend import jobs
from pages.components import plant, run_panel, upload, words
from pages.components.cached import cached

HELP = ("Pictures that a camera writes into a folder on this machine, or on a share that it can reach, are inspected as they come, "
        "each once, until you stop it. It goes on by itself after a restart. Nothing in the folder is moved unless you name a folder "
        "for that.")


def show(opened: Any) -> None:
    """All of it; `opened(run_id)` shows the pictures of one."""
    there = jobs.watches()
    with st.expander("Watch a folder", icon=":material/photo_camera:", key="watch_new"):
        st.caption(HELP)
        _form()
    if there:
        going = any(w["state"] in ("pending", "running", "stopping") for w in there)
        st.fragment(_list, run_every=1.0 if going else None)(opened, going)


def _form() -> None:
    known, last = cached("choices", "real"), upload.last_time("real")
    folder = st.text_input("Folder", key="watch_folder", placeholder="/mnt/camera-1").strip()
    grid = st.grid(4, min_column_width=150)
    values: dict[str, Any] = {name: upload.one_of(grid, name, known[f"{name}s"], last.get(name, ""), "watch")
                              for name in ("line", "product", "camera")}
    values["lot"] = grid.text_input("Lot", key="watch_lot").strip()
    done = st.text_input("Move inspected pictures to this folder (empty: they stay where they are)", key="watch_done").strip()
    if not values["line"]:
        st.caption("Without a line these pictures have no place in the trends.")
    if st.button("Start watching", type="primary", icon=":material/play_arrow:", key="watch_go", disabled=not folder):
        run_panel.start(jobs.Watch(**values, images=folder, done=done))


def _list(opened: Any, going: bool) -> None:
    there = jobs.watches()
    if going and not any(w["state"] in ("pending", "running", "stopping") for w in there):
        st.rerun()                                           # a whole run of the page ends the polling
    st.subheader("Watched folders", anchor=False)
    for one in there:
        with st.container(border=True, key=f"watch_{one['run_id']}"):
            _one(one, opened)


def _one(one: dict[str, Any], opened: Any) -> None:
    with st.container(horizontal=True, vertical_alignment="center", gap="small"):
        said, color, icon = state(one)
        st.badge(said, color=color, icon=icon)
        line = f" · {words.plain(one['config']['line'])}" if one["config"]["line"] else ""
        st.markdown(f"**{words.plain(one['folder'], 80)}**{line}", width="content")
        if one["inspected"] and st.button("See its pictures", type="tertiary", key=f"watch_see_{one['run_id']}"):
            opened(one["run_id"])
        _button(one)
    if facts := told(one):
        st.caption(facts)
    if one["state"] == "failed":
        st.error(words.plain(one["message"], 600), icon=":material/error:")
    if one["closed"] and not one["gone"]:
        st.warning(f"Not allowed to look into {words.plain(', '.join(one['closed'][:3]), 200)}.", icon=":material/lock:")


def _button(one: dict[str, Any]) -> None:
    key = one["run_id"]
    if one["state"] in ("pending", "running", "stopping") and one["by"] != "command line":
        if st.button("Stop", icon=":material/stop_circle:", key=f"watch_stop_{key}", disabled=one["state"] == "stopping"):
            jobs.cancel(key)
            st.rerun()
    elif one["state"] not in ("pending", "running", "stopping", "interrupted") and \
            st.button("Watch again", icon=":material/play_arrow:", key=f"watch_again_{key}"):
        run_panel.start(jobs.Watch.from_json(one["config"]))


def state(one: dict[str, Any]) -> tuple[str, str, str]:
    """In a word, its colour and icon."""
    if one["gone"] and one["state"] == "running":
        return "Cannot reach the folder", "orange", ":material/link_off:"
    known = {"pending": ("Starting", "gray", ":material/schedule:"), "running": ("Watching", "green", ":material/visibility:"),
             "stopping": ("Stopping", "gray", ":material/schedule:"), "failed": ("Failed", "red", ":material/error:"),
             "interrupted": ("Was cut off", "orange", ":material/power_off:")}
    return known.get(one["state"], ("Stopped", "gray", ":material/stop_circle:"))


def told(one: dict[str, Any]) -> str:
    """'49.8 images/s · last picture 10:31:05 · 12,345 inspected · 3 not usable'."""
    last = f"last picture {plant.local(datetime.fromisoformat(one['last_at'])):%d %b, %H:%M:%S}" if one["last_at"] else ""
    n = one["inspected"]
    parts = [f"{one['images_per_s']:.1f} images/s" if one["images_per_s"] else "", last, f"{n:,} inspected" if n else "",
             f"{one['refused']:,} not usable" if one["refused"] else "", f"{one['waiting']:,} waiting" if one["waiting"] > 200 else "",
             "started on the command line" if one["by"] == "command line" and one["state"] == "running" else ""]
    return " · ".join(p for p in parts if p)

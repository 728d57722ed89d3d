"""Backup and restore on the page: where to, how far it is, which were made, and how one comes back."""

from collections.abc import Callable

import streamlit as st

from backend import jobs
from pages.components import run_panel, text, words

LATELY = 5


def backup() -> None:
    """The form, the run that is going on or was the last, and the ones before it."""
    made = jobs.recent(limit=LATELY, recipes=("backup",))
    st.markdown("A copy of all results, pictures, models and decisions, made while everything goes on. Into the same folder, the next one "
                "copies only what is new. Runs that are going on are left out and named.")
    with st.form("backup_form", border=False, enter_to_submit=True):
        to = st.text_input("Folder, or a file that ends in .zip", value=str(made[0].config["to"]) if made else "", key="backup_to",
                           placeholder="on another disk, or on a share", help="A path on the machine that runs Diffspect.")
        asked = st.form_submit_button("Back up now", icon=":material/backup:", type="primary", disabled=any(r.is_open for r in made))
    if asked:
        _started(lambda: jobs.system.backup(to.strip()))
    if made:
        run_panel.show(made[0].run_id, _told)
    if len(made) > 1:
        with st.expander("Earlier backups", icon=":material/history:"):
            for run in made[1:]:
                st.markdown(f"{words.when(run.created_at)} · {words.plain(run.config['to'])} · {_line(run)}")


def restore() -> None:
    """Into an empty folder, beside the one that is in use."""
    with st.expander("Restore a backup", icon=":material/settings_backup_restore:", key="restore_box"):
        st.markdown("A backup is put into an empty folder, each file checked against its SHA-256. What is in use here stays as it is; "
                    "start the program on the new folder when it is done.")
        with st.form("restore_form", border=False):
            file = st.text_input("The backup: its folder, or its zip file", key="restore_file")
            into = st.text_input("An empty folder", key="restore_into")
            asked = st.form_submit_button("Restore", icon=":material/settings_backup_restore:")
        if asked:
            _started(lambda: jobs.system.restore(file.strip(), into.strip()))
        for run in jobs.recent(limit=1, recipes=("restore",)):
            run_panel.show(run.run_id, _told)


def _started(ask: Callable[[], str]) -> None:
    try:
        ask()
    except jobs.DiffspectError as error:
        words.sorry(error)
        return
    st.rerun()


def _line(run: jobs.RunStatus) -> str:
    result = run.result
    if run.state != "completed" or "files" not in result:
        return words.state(run)
    copied = f", {text.count(result['copied_files'])} of them new" if "copied_files" in result else ""
    return f"{text.counted(result['files'], 'file')}{copied}, {result['bytes'] / 1e9:,.2f} GB, {text.counted(result['runs'], 'run')}"


def _told(run: jobs.RunStatus) -> None:
    """What came out, and what a person should know of it."""
    if run.state == "completed":
        st.markdown(_line(run))
    for note in run.result.get("notes", []):
        st.caption(f":material/info: {words.plain(note, 600)}")

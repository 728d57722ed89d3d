"""System: what this machine and its data folder are like, backup and restore, and what is let go after so many days."""

import streamlit as st

from pages.components import plant, system_archive, system_checks, system_retention

st.title("System", anchor=False)
system_checks.show()                                 # before anything that opens the data folder: it may be what is wrong
with plant.sound():
    st.subheader("Backup", anchor=False)
    system_archive.backup()
    system_archive.restore()
    st.subheader("Retention", anchor=False)
    system_retention.show()
    plant.bring_back()                               # promised where the demo is taken away

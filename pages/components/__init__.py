"""Reusable parts of pages. Never listed as a page; each part takes what it shows and knows no other page.

A server whose very first visitor follows a link to a page takes `pages/` for Streamlit's older kind of app and runs the page
without app.py: no frame, file names for navigation. Every page imports this package first, so it turns that round once.
"""

import streamlit as st
from streamlit.runtime.pages_manager import PagesManager

if PagesManager.uses_pages_directory:
    PagesManager.uses_pages_directory = False        # what st.navigation does as soon as app.py runs
    st.rerun()

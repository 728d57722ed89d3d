"""Reusable parts of pages. Never listed as a page; each part takes what it shows and knows no other page.

A server whose very first visitor follows a link to a page takes `pages/` for Streamlit's older kind of app and runs the page
without frame.py: no frame, file names for navigation. Every page imports this package first, so it turns that round once.
"""

import streamlit as st
from streamlit.runtime.pages_manager import PagesManager

without_frame = PagesManager.uses_pages_directory
PagesManager.uses_pages_directory = False            # what st.navigation does as soon as the frame runs; app.py imports us before that
if without_frame:
    st.rerun()

from pages.components import person as _person  # noqa: E402, F401  (whoever acts is asked of it, whichever page comes first)

"""The server: `streamlit run app.py` serves the frame, behind the door."""

from starlette.middleware import Middleware
from streamlit.starlette import App

from pages.components import door, opening

door.may_listen()
app = App("frame.py", routes=door.routes(), middleware=[Middleware(door.Guard)], lifespan=opening.opened)

"""When another model was put to use: dashed lines on the trend, M1, M2, … on top, and what each means below.

A jump of the rate beside such a line may be the model's and not the process's; control charts go further and judge each model's days apart.
One that was taken back judged in between: both moments are marked. Knows nothing of the rate.
"""

from datetime import timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pandas as pd
import plotly.graph_objects as go
import streamlit as st

from pages.components import charts, plant, text, words
from pages.components.cached import cached

SHOWN = 4                              # explained; the latest
LONG = {"week": 7}                     # days of a step; of any other at most one
LATE = 12                              # hours by which a production day may begin after midnight


def inside(shown: str, buckets: pd.Series, by: str) -> pd.DataFrame:
    """number (M1, M2, … in the order of time), at (plant time, without zone), text: within the time that the trend shows, since a model
    that has judged nothing yet would only stretch it."""
    zone, rows = ZoneInfo(plant.zone()), cached("put_to_use", shown)
    said: list[Any] = [(text.moment(r.at).astimezone(zone).replace(tzinfo=None), r.text) for r in rows.itertuples()]
    first, last = buckets.min(), buckets.max() + timedelta(days=LONG.get(by, 1), hours=LATE)
    kept = [(at, words_) for at, words_ in said if first <= at <= last]
    return pd.DataFrame([(f"M{n}", at, words_) for n, (at, words_) in enumerate(kept, 1)], columns=["number", "at", "text"])


def draw(figure: go.Figure, frame: pd.DataFrame) -> None:
    """`at` is plant time, and so must the first axis be."""
    place = dict(xref="x", yref="y domain")
    line, box = dict(color=charts.VIOLET, width=1.5, dash="dash"), dict(font=dict(color="white", size=11), bgcolor="#74327F", borderpad=2)
    charts.mark(figure, [dict(type="line", x0=at, x1=at, y0=0, y1=1, line=line, **place) for at in frame["at"]],
                [dict(x=at, y=0.86, text=f"<b>{number}</b>", showarrow=False, yanchor="top", **box, **place)    # below the number of a note
                 for at, number in zip(frame["at"], frame["number"], strict=True)])


def told(frame: pd.DataFrame) -> None:
    """What the marks mean, the newest first; nothing where there is none."""
    said = [f":violet-badge[{r.number}] {text.day(r.at)}, {r.at:%H:%M}: {words.plain(r.text, 120)}" for r in _rows(frame)[::-1]]
    if said:
        st.caption("  \n".join(said[:SHOWN]))
    if said[SHOWN:]:
        with st.expander(text.counted(len(said) - SHOWN, "earlier change") + " of the model"):
            st.caption("  \n".join(said[SHOWN:]))


def _rows(frame: pd.DataFrame) -> list[Any]:
    return list(frame.itertuples())

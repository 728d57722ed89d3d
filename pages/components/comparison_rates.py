"""What two runs find, miss and take for something else: precision against recall, and what was taken for what, at their thresholds.

From stored scores. Knows nothing of costs, and of which threshold is the better one.
"""

import pandas as pd
import plotly.graph_objects as go
import streamlit as st

from backend import jobs
from pages.components import charts, comparison_players, heat, text, words
from pages.components import comparison_figures as figures
from pages.components.comparison_players import Player
from pages.components.comparison_subject import Subject

ALL = ""                  # all kinds pooled
NOTHING = {"truth": "nothing there", "predicted": "missed"}


def show(subject: Subject) -> None:
    scored = subject.rows[subject.rows["scored"].astype(bool)]
    st.markdown("#### What two of the runs find")
    if scored["arm"].nunique() < 2:
        comparison_players.unscored()
        return
    players = comparison_players.choose(scored)
    kinds = sorted({c for listed in scored["classes"] for c in listed})
    kind = str(st.selectbox("Kind of defect", [ALL, *kinds], format_func=lambda k: words.short(k) or "All kinds of defect",
                            key="rates_kind", width=240, label_visibility="collapsed"))
    grid = st.grid(3, min_column_width=300)
    with grid.container():
        st.markdown("**Precision against recall**")
        charts.show(curve(players, list(subject.arms), kind), f"pr_{kind}", "Precision against recall of both runs, with their thresholds")
        st.caption("Large: at the threshold above. Right and up is better.")
    for player in players:
        with grid.container():
            st.markdown(f"**{player.letter}** {words.plain(player.arm, 40)}: what it takes for what")
            _confusion(player)


@st.cache_data(max_entries=60, show_spinner=False)      # scores never change
def _precision(run_id: str) -> pd.DataFrame:
    found: pd.DataFrame = jobs.results.pr_curve(run_id)
    return found


@st.cache_data(max_entries=60, show_spinner=False)
def _mixed(run_id: str, threshold: float | None) -> pd.DataFrame:
    found: pd.DataFrame = jobs.results.confusion(run_id, threshold)
    return found


def curve(players: list[Player], arms: list[str], kind: str) -> go.Figure:
    made = go.Figure()
    for player in players:
        color, sign, dash = figures.style(arms.index(player.arm))
        rows = _precision(player.run_id)
        rows = rows[rows["class_name"] == kind]
        name = f"{player.letter} {text.html(words.short(player.arm, 24))}"
        made.add_scatter(x=rows["recall"], y=rows["precision"], mode="lines", line=dict(color=color, width=2.5, dash=dash), name=name,
                         text=rows["confidence"].map("{:.2f}".format), hovertemplate="from %{text}: recall %{x:.2f}, precision %{y:.2f}")
        at = player.own.get(kind, player.at) if player.threshold is None else player.at
        if len(here := rows[rows["confidence"] >= at]):
            made.add_scatter(x=here["recall"].tail(1), y=here["precision"].tail(1), mode="markers", showlegend=False, hoverinfo="skip",
                             marker=dict(size=13, color=color, symbol=sign, line=dict(width=1.5, color="#FFFFFF")))
    made.update_xaxes(title="Recall", range=[0, 1.02], nticks=6)
    made.update_yaxes(title="Precision", range=[0, 1.03], nticks=6)
    return charts.layout(made, 330, hovermode="closest").update_layout(showlegend=True, legend=charts.LEGEND)


def _confusion(player: Player) -> None:
    """True kinds down, what was said across; as text too, for whoever does not see it."""
    rows = _mixed(player.run_id, player.threshold)
    kinds = sorted((set(rows["truth"]) | set(rows["predicted"])) - {""})
    at = {(r["truth"], r["predicted"]): float(r["n"]) for r in rows.to_dict("records")}
    values = [[at.get((t, p), 0.0) if t or p else None for p in [*kinds, ""]] for t in [*kinds, ""]]
    names = [figures.tick(k, 12) for k in kinds]
    made = go.Figure(heat.cells(values, [*names, NOTHING["predicted"]], [*names, NOTHING["truth"]], digits=0))
    made.update_yaxes(autorange="reversed", type="category").update_xaxes(type="category", side="top")
    charts.layout(made, 110 + 44 * len(values)).update_layout(margin=dict(l=0, r=4, t=40, b=0))
    charts.show(made, f"confusion_{player.letter}", f"What {player.letter} takes for what, in boxes: true kinds down, found kinds across")

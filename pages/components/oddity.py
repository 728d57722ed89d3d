"""How unusual the pictures of a batch are: a histogram of their scores, the limit in it, and another limit to try and to keep.

In the manner of `whatif` and `slider`: the scores are logged, so nothing is computed again. A limit that is kept is a rule on
"unusual" for that model alone, since another one's scores have another scale. It can be taken back, and changes no defect rate.
"""

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import streamlit as st

from pages.components import charts, rules, text, undo, words

if TYPE_CHECKING:
    from pages.components.batch import Batch

BARS = 40
CROWD = 40               # pictures in a bar, from which on a single one beside it would not be seen: then heights are logarithmic
BADGE = ":violet-badge[Unusual]"


@dataclass(frozen=True)
class Odd:
    """What an anomaly model said of a batch."""

    scores: pd.Series
    model: str
    today: float | None          # the limit in force; None where there is none
    tried: float | None          # what stands on the slider, None while it is off
    model_id: str = ""

    @property
    def limit(self) -> float | None:
        return self.today if self.tried is None else self.tried


def of(scores: pd.DataFrame) -> Odd | None:
    """From `results.anomaly_scores`; None where no anomaly model looked."""
    if scores.empty:
        return None
    today, state = scores["threshold"].iloc[0], st.session_state
    tried = float(state["odd_at"]) if state.get("odd_on") and "odd_at" in state else None
    return Odd(scores["anomaly_score"], str(scores["model"].iloc[0]), None if pd.isna(today) else float(today), tried,
               str(scores["model_id"].iloc[0]))


def marked(rows: pd.DataFrame, odd: Odd | None) -> pd.DataFrame:
    """Rows with `unusual`: today's word, or that of the limit on the slider."""
    if odd is None:
        return rows.assign(unusual=False)
    if odd.tried is None:
        return rows.assign(unusual=[is_unusual(v) for v in rows["is_unusual"]])
    return rows.assign(unusual=(rows["anomaly_score"] >= odd.tried).fillna(False).astype(bool))


def is_unusual(value: Any) -> bool:
    """Of a column that knows three answers."""
    return value is not None and not pd.isna(value) and bool(value)


def controls(odd: Odd) -> None:
    """Histogram, switch, and the slider behind it. Where there is no limit at all, the slider is how to come by one."""
    with st.container(horizontal=True, horizontal_alignment="distribute", vertical_alignment="center"):
        st.markdown(f"**How unusual the pictures are** to {words.plain(odd.model or 'the anomaly model', 40)}", width="content")
        on = st.toggle("Try another limit", key="odd_on", help="Uses the scores already logged; nothing is computed again.")
    if odd.today is None:
        st.info("No limit is in force, so no picture is called unusual. Set one by eye: turn on “Try another limit”, drag until the "
                "pictures marked below are those that you would call unusual, and keep it.", icon=":material/straighten:")
    if on:
        low, high, step = reach(odd)
        start = high if odd.today is None else min(high, max(low, round(odd.today / step) * step))
        st.slider("Unusual from score", low, high, float(start), step, format=f"%.{_digits(step)}f", key="odd_at")


def reach(odd: Odd) -> tuple[float, float, float]:
    """Ends and step of the slider: from all pictures unusual to none, in about a hundred steps of a round number."""
    values = [*odd.scores, *([odd.today] if odd.today is not None else [])]
    wide = max(max(values) - min(values), 1e-3)
    step = 10.0 ** math.floor(math.log10(wide / 50))
    low, high = math.floor(min(values) / step) * step, (math.floor(max(values) / step) + 1) * step
    return round(low, 9), round(high, 9), step


def _digits(step: float) -> int:
    return max(0, -round(math.log10(step)))


def outcome(batch: "Batch", odd: Odd) -> None:
    """The histogram with the limit in force or on the slider; what a tried one would change, and the button that keeps it."""
    charts.show(histogram(odd), f"odd_{batch.run_id}", "How many pictures have which score, good and unusual apart")
    if odd.tried is None:
        return
    then, seen = int(batch.rows["unusual"].sum()), len(batch.rows)
    good = int((batch.rows["unusual"] & ~batch.rows["defective"]).sum())
    now = f"today {sum(is_unusual(v) for v in batch.rows['is_unusual']):,}" if odd.today is not None else "today nothing is called so"
    with st.container(horizontal=True, vertical_alignment="center"):
        st.markdown(f"From **{odd.tried:g}** on: {then:,} of {seen:,} unusual, {good:,} of them good by the detector; {now}.",
                    width="content")
        st.button("Keep this threshold", type="primary", key="odd_keep", on_click=keep,
                  args=(batch.product, batch.plant, odd.tried, odd.model_id))
    st.caption(f"It would hold for {words.plain(batch.product) or 'all products'} and this model, past days included. The defect rate "
               "stays as it is.")


def keep(product: str, plant: str, at: float, model_id: str) -> None:
    """Record the limit as a rule for this product and this model."""
    st.session_state["odd_on"] = False
    rule = rules.policy(product, "unusual", "reject", at, 0) | {"model_id": model_id}
    undo.record(f"Pictures are called unusual from score {at:g} on now.", "policy", [rule], plant)


def histogram(odd: Odd) -> go.Figure:
    """Scores by number, unusual ones in a colour of their own; the limit as a line."""
    low, high, _ = reach(odd)
    edges = np.linspace(low, high, BARS + 1)
    limit = math.inf if odd.limit is None else np.float32(odd.limit)
    figure, most = go.Figure(), 1
    for name, color, inside in (("Not unusual", charts.GREY, odd.scores < limit), ("Unusual", charts.VIOLET, odd.scores >= limit)):
        counts, _ = np.histogram(odd.scores[inside], edges)
        told = [f"{text.count(n)} {'picture' if n == 1 else 'pictures'}, {a:.3g} to {b:.3g}"
                for n, a, b in zip(counts, edges, edges[1:], strict=False)]
        figure.add_bar(x=(edges[1:] + edges[:-1]) / 2, y=counts, name=name, marker_color=color, width=(high - low) / BARS * 0.9,
                       hovertext=told, hovertemplate="%{hovertext}<extra>" + name + "</extra>")
        most = max(most, int(counts.max()))
    if odd.limit is not None:
        figure.add_vline(x=odd.limit, line=dict(color=charts.AMBER, width=2, dash="dot"))
    figure.update_xaxes(title="Score: how unlike good parts", range=[low, high], nticks=8)
    if most > CROWD:
        figure.update_yaxes(type="log", range=[math.log10(0.5), math.log10(1.3 * most)], tickvals=[1, 10, 100, 1000, 10_000])
    figure.update_yaxes(nticks=4, rangemode="tozero")
    return charts.layout(figure, 190, barmode="stack").update_layout(showlegend=True, legend=charts.LEGEND)

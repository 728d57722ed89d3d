"""The operating point by cost: what a missed defect and a false reject cost on a line, the threshold that costs least, and what it costs.

Prices, rate and line stand in the URL. A threshold becomes a rule where its model is in use. Knows nothing of the arithmetic.
"""

from dataclasses import dataclass
from functools import partial
from statistics import mean
from typing import Any

import pandas as pd
import plotly.graph_objects as go
import streamlit as st

from backend import jobs
from pages.components import ask, charts, comparison_players, comparison_rates, plant, rules, text, undo, whatif, words
from pages.components import comparison_figures as figures
from pages.components.cached import cached
from pages.components.comparison_subject import Subject

USUAL = 20.0                         # defective parts in 1,000, where no line says more
MISSED, REJECT = 10.0, 1.0


@dataclass(frozen=True)
class Prices:
    """In one currency; `rate` a share."""

    missed: float
    reject: float
    rate: float


def show(subject: Subject) -> None:
    st.fragment(_operate, key="operating")(subject)
    st.fragment(comparison_rates.show, key="rates")(subject)


def _operate(subject: Subject) -> None:
    with st.container(border=True, key="operating_point"):
        st.markdown("#### From which confidence to reject")
        prices = _prices()
        arms = {arm: tuple(of.loc[of["scored"].astype(bool), "run_id"]) for arm in subject.arms if len(of := subject.runs(arm))}
        arms = {arm: runs for arm, runs in arms.items() if runs}
        if not arms:
            comparison_players.unscored()
            return
        try:
            found = {arm: _expected(runs, prices) for arm, runs in arms.items()}
        except jobs.DiffspectError as error:
            words.sorry(error)
            return
        _told(found, subject, prices)
    _rule(found, subject)


@st.cache_data(max_entries=200, show_spinner=False)      # scores never change
def _expected(runs: tuple[str, ...], prices: Prices) -> dict[str, Any]:
    return jobs.expected_cost(list(runs), prices.missed, prices.reject, prices.rate)


# ---- what is asked

def _prices() -> Prices:
    """A line gives the defect rate that it had; a person may say another."""
    grid = st.grid(4, min_column_width=190)
    lines = cached("choices", "real")["lines"]
    line = str(grid.selectbox("Line", ["", *lines], lines.index(asked) + 1 if (asked := _url("line")) in lines else 0, key="cost_line",
                              format_func=lambda name: words.short(name) or "Any line"))
    missed = float(grid.number_input("A missed defect costs", 0.0, 1e9, _number("missed", MISSED), step=1.0, format="%g", key="cost_missed",
                                     help="What it costs when a defective part passes, in any currency."))
    reject = float(grid.number_input("A false reject costs", 0.0, 1e9, _number("reject", REJECT), step=1.0, format="%g", key="cost_reject",
                                     help="What it costs to throw a good part away, or to look at it again, in the same currency."))
    usual = _number("rate", _usual(line))
    rate = float(grid.number_input("Defective parts in 1,000", 0.01, 999.0, usual, step=1.0, format="%g", key=f"cost_rate_{line}",
                                   help="Of all parts that reach the camera. A line gives what was found there so far."))
    for name, value in (("line", line), ("missed", f"{missed:g}"), ("reject", f"{reject:g}"), ("rate", f"{rate:g}")):
        comparison_players.in_url(f"cost_{name}", value)
    return Prices(missed, reject, rate / 1000)


def _url(name: str) -> str:
    return str(st.query_params.get(f"cost_{name}", ""))


def _number(name: str, otherwise: float) -> float:
    """From the URL, where it says a number."""
    try:
        value = float(_url(name))
    except ValueError:
        return otherwise
    return value if 0 <= value < 1e9 else otherwise


def _usual(line: str) -> float:
    """Of a line, what was found defective there so far, in 1,000."""
    if not line:
        return USUAL
    now = cached("totals", jobs.Filters(plant="real", line=line))
    return min(999.0, max(0.01, round(1000 * now["rate"], 2))) if now["inspected"] and now["rate"] else USUAL


# ---- what comes of it

def _told(found: dict[str, Any], subject: Subject, prices: Prices) -> None:
    for why in dict.fromkeys(f["point"]["text"] for f in found.values() if f["point"]["text"]):
        st.info(words.plain(why, 300), icon=":material/thumb_up_off_alt:")
    known = {arm: f for arm, f in found.items() if f["curve"] is not None}
    if known:
        charts.show(figure(known, list(subject.arms)), "cost_curve", "Expected cost of 1,000 parts by threshold, with intervals")
        st.caption("Line: expected cost of 1,000 parts on the test pictures, the mean of the seeds, with its interval. Sign: the threshold "
                   "chosen on validation pictures, and what it costs on test. One threshold for all kinds; a picture stands for a part.")
    st.dataframe(table(found, prices), hide_index=True, alt="Recommended thresholds and what they cost", placeholder="–",
                 column_config={"Arm": st.column_config.TextColumn(pinned=True)})


def figure(found: dict[str, Any], arms: list[str]) -> go.Figure:
    made = go.Figure()
    for arm, of in found.items():
        color, sign, dash = figures.style(arms.index(arm))
        curve, point, name = of["curve"], of["point"], text.html(words.short(arm, 30))
        edge = dict(x=curve["threshold"], mode="lines", line=dict(width=0), hoverinfo="skip", showlegend=False)
        made.add_scatter(y=curve["high"], **edge)
        made.add_scatter(y=curve["low"], fill="tonexty", fillcolor=f"{color}22", **edge)
        made.add_scatter(x=curve["threshold"], y=curve["cost"], mode="lines", line=dict(color=color, width=2.5, dash=dash), name=name,
                         hovertemplate="from %{x:.2f}: %{y:.1f}")
        if point["thresholds"] and (cost := point["cost"]) is not None:
            made.add_scatter(x=[mean(point["thresholds"])], y=[cost], mode="markers", showlegend=False,
                             marker=dict(size=13, color=color, symbol=sign, line=dict(width=1.5, color="#FFFFFF")),
                             error_y=dict(array=[point["high"] - cost], arrayminus=[cost - point["low"]], color=color, thickness=2),
                             hovertemplate=f"{name}: recommended<extra></extra>")
    made.update_xaxes(title="Rejected from this confidence", range=[0.03, 0.97], nticks=10)
    made.update_yaxes(title="Cost of 1,000 parts", rangemode="tozero", nticks=6)
    return charts.layout(made, 340, hovermode="closest").update_layout(
        showlegend=True, legend=charts.LEGEND | {"traceorder": "normal"})


def table(found: dict[str, Any], prices: Prices) -> pd.DataFrame:
    """Arm by arm, beside what it costs to let every part pass."""
    everything = 1000 * prices.rate * prices.missed
    rows = []
    for arm, of in found.items():
        p = of["point"]
        cost = "–" if p["cost"] is None else f"{_money(p['cost'])} [{_money(p['low'])}, {_money(p['high'])}]"
        rows.append({"Arm": words.short(arm, 40), "Reject from": _range(p["thresholds"]), "Cost of 1,000 parts": cost,
                     "Without inspection": _money(everything), "Missed defects": _share(p["missed"]),
                     "False rejects": _share(p["false_rejects"])})
    return pd.DataFrame(rows)


def _range(thresholds: list[float] | None) -> str:
    if not thresholds:
        return "–"
    low, high = min(thresholds), max(thresholds)
    return f"{low:.2f}" if round(low, 2) == round(high, 2) else f"{low:.2f} to {high:.2f}, by seed"


def _money(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _share(value: float | None) -> str:
    return "–" if value is None else text.percent(value)


# ---- from a threshold to a rule

def _rule(found: dict[str, Any], subject: Subject) -> None:
    """The model in use, where it is one of these: its recommended threshold as a rule of the plant."""
    used = subject.rows[subject.rows["promoted"].astype(bool) & subject.rows["scored"].astype(bool)].to_dict("records")
    for row in used:
        point = found[row["arm"]]["point"]
        if not point["thresholds"]:
            continue
        runs = subject.runs(row["arm"])
        at = round(point["thresholds"][list(runs.loc[runs["scored"].astype(bool), "run_id"]).index(row["run_id"])], 2)
        with st.container(horizontal=True, vertical_alignment="center", key="cost_rule"):
            st.markdown(f"{words.plain(row['name'], 60)} is in use. At these prices it would reject from **{at:.2f}**.", width="content")
            ask.question("cost", f"Reject from {at:.2f} …", "A rule for the plant", partial(_confirm, at, list(row["classes"])), "medium",
                         icon=":material/rule:", type="primary")
        return
    with st.container(horizontal=True, vertical_alignment="center"):
        st.caption("A threshold can become a rule once its model is in use.", width="content")
        plant.link("models", "Models", icon=":material/deployed_code:")


def _confirm(at: float, classes: list[str]) -> None:
    """As on the Inspection page: for a product or for all, past days included; it can be taken back there."""
    products = ["", *cached("choices", "real")["products"]]
    product = str(st.selectbox("Product", products, format_func=lambda p: words.short(p) or "All products", key="cost_product"))
    st.markdown(f"Every kind of defect would count from **{at:.2f}** for {words.plain(product) or 'all products'}, on every line, past "
                "days included. It can be taken back.")
    if st.button("Make it a rule", type="primary", key="cost_yes"):
        today = whatif.rules_of(cached("rules", "real", product))
        of = {k: today.get(k, whatif.UNRULED) for k in classes}
        configs = [rules.policy(product, k, action, at, side) for k, (action, _, side) in of.items()]
        undo.record(f"All kinds now count from {at:.2f}.", "policy", configs, "real")

"""What the last days would have looked like with a model, before it is put to use: the step in words, both trends, lines and kinds.

Takes answers of `results.look_back`, also of a run that is still at it. The pictures whose verdict would change are `shadow_pictures`'.
`was` is the record, `would` the model looked at; both on the same pictures.
"""

from typing import Any

import pandas as pd
import plotly.graph_objects as go
import streamlit as st

from backend import jobs
from pages.components import charts, plant, run_panel, shadow_pictures, text, words
from pages.components.cached import cached

WAS, WOULD = charts.BLUE, charts.RED
DEMO = ("The demo plant's record is made up, not found by a model, while this model really looks at its pictures. So the step shows how "
        "far the story lies from what it finds; with your own plant it is the step between two models.")


def section(model: Any) -> None:
    """The look-back in the URL, else the model's newest; what to do where there is none."""
    st.subheader("Looking back", anchor=False)
    runs = of(model)
    if not runs:
        st.caption("What would the last days have looked like with this model? “Look back …” above shows it the pictures that were kept.")
        return
    status = _choose(runs)
    run_panel.show(status.run_id, _body, every=3.0)
    shadow_pictures.large(status.run_id)


def of(model: Any) -> list[jobs.RunStatus]:
    """Look-backs with this model, newest first."""
    return [r for r in jobs.recent(limit=200, recipes=("shadow",))
            if model.model_id in (r.result.get("model_id"), r.config.get("model")) or r.config.get("model") == model.name]


def model_of(run_id: str) -> str:
    """The model of a look-back, for a link that names the look-back alone; '' where there is none."""
    try:
        run = jobs.status(run_id)
    except jobs.NotFoundError:
        return ""
    return str(run.result.get("model_id") or run.config.get("model", "")) if run.recipe == "shadow" else ""


def link(model_id: str, label: str = "Look back with it") -> None:
    """From another page: what the last days would have looked like with this model."""
    plant.link("models", label, icon=":material/history:", model=model_id)


def brief(model: Any) -> None:
    """Before a model is put to use: its newest look-back in a sentence, or that there is none."""
    done = next((r for r in of(model) if r.state == "completed"), None)
    figures = cached("look_back", done.run_id)["figures"] if done else {"looked": 0}
    if done is None or not figures["looked"]:
        st.caption(":material/history: Nobody has looked back with it yet: what the last days would have looked like is not known.")
        return
    with st.container(border=True, key="look_brief"):
        st.markdown(f":material/history: {sentence(figures)}")
        st.caption(f"{_where(figures)}, {text.count(figures['looked'])} pictures, looked back {words.when(done.finished_at)}.")


def _choose(runs: list[jobs.RunStatus]) -> jobs.RunStatus:
    ids, asked = [r.run_id for r in runs], st.query_params.get("look", "")
    at = ids.index(asked) if asked in ids else 0
    if len(runs) > 1:
        at = st.selectbox("Which look-back", range(len(runs)), at, lambda n: _label(runs[n]), key=f"look_{ids[0]}", width=420)
    st.query_params["look"] = ids[at]
    return runs[at]


def _label(run: jobs.RunStatus) -> str:
    where = ", ".join(str(run.config[k]) for k in ("line", "product") if run.config.get(k)) or plant.NAMES[run.plant]
    return f"{run.config.get('days')} days, {words.short(where, 40)}, {words.when(run.created_at)}"


def _body(status: jobs.RunStatus) -> None:
    try:
        found = cached("look_back", status.run_id)
    except jobs.NotFoundError:                       # it looks for its pictures, or ended before it had any
        if not status.is_open:
            run_panel.log(status.run_id)
        return
    figures = found["figures"]
    if not figures["looked"]:
        st.caption("The first pictures come in a moment." if run_panel.unsettled(status) else
                   "None of the pictures it looked at counts in the trends any more.")
        return
    st.markdown(f"#### {sentence(figures)}")
    st.markdown(_turned(figures))
    _basis(figures, status)
    with st.container(border=True, key="look_trend"):
        charts.show(trend(found["days"], figures["model_name"]), f"look_trend_{status.run_id}",
                    "Share of rejected pictures by day, as it was recorded and with the other model, each with its interval")
        st.caption("Both on the same pictures. Bands: how exactly they are known, 19 times out of 20.")
        table(found["days"].assign(value=[text.day(d) for d in found["days"]["bucket"]]), "Day")
    left, right = st.columns(2)
    for place, rows, label in ((left, found["lines"], "Line"), (right, found["kinds"], "Kind of defect")):
        with place, st.container(border=True, height="stretch", key=f"look_{label[:4]}"):
            st.markdown(f"**{label}:** more or fewer pictures rejected, in points")
            _steps(rows, label, status.run_id)
    shadow_pictures.show(status.run_id, figures)


# ---- in words

def sentence(figures: dict[str, Any]) -> str:
    """The step between the two, with its interval."""
    name, low, high = words.plain(figures["model_name"], 60), figures["low"], figures["high"]
    was, would = text.percent(figures["was"]), text.percent(figures["would"])
    between = f"between {points(low)} and {points(high)}"
    if low <= 0 <= high:
        return f"No clear step: {name} would have rejected {would} of the pictures, {was} were; the step lies {between}."
    return f"{name} would have rejected {would} of the pictures instead of {was}: {points(figures['difference'])}, {between}."


def points(step: float) -> str:
    """'0.8 points more'."""
    size = abs(100 * step)
    return f"{size:.{1 if size >= 0.095 or size < 0.005 else 2}f} points {'more' if step >= 0 else 'fewer'}"


def _turned(figures: dict[str, Any]) -> str:
    more, fewer, judged = figures["more"], figures["fewer"], figures["judged"]
    if not more and not fewer:
        return f"Not one of these {text.count(figures['looked'])} verdicts would change."
    said = f"It would reject {_pictures(more)} that passed, and pass {_pictures(fewer)} that {'was' if fewer == 1 else 'were'} rejected."
    agreed = figures["agreed"]
    return said + (f" People have judged {text.count(judged)} of these: they agree with it on {text.count(agreed)}, with the record on "
                   f"{text.count(judged - agreed)}." if judged else "")


def _pictures(n: int) -> str:
    return f"{text.count(n)} picture{'' if n == 1 else 's'}"


def _where(figures: dict[str, Any]) -> str:
    """'Mon 16 Nov 2026 to Sun 29 Nov 2026, Line 2'; without a line or product the plant's name."""
    days = f"{text.day(figures['first_day'])} to {text.day(figures['last_day'])}"
    where = [figures[k] for k in ("line", "product") if figures[k]] or [plant.NAMES[figures["plant"]].lower()]
    return ", ".join([days, *(words.plain(name, 40) for name in where)])


def _basis(figures: dict[str, Any], status: jobs.RunStatus) -> None:
    """On what it rests, and what a person should know before trusting it."""
    looked, planned = figures["looked"], figures["planned"]
    share = f", spread evenly over lines and days: {text.count(looked)} of the {text.count(figures['there'])} that can be looked at" \
        if looked < figures["there"] else ""
    models = ", ".join(f"{words.plain(n, 40)} ({text.count(k)})" for n, k in figures["models"].items())
    so_far = f"So far {text.count(looked)} of {text.count(planned)}. " if status.state != "completed" else ""
    st.caption(f"{so_far}{_pictures(looked)} of {_where(figures)}{share}; {text.count(figures['pictures'])} count in these days, and rates "
               f"are weighed to stand for all of them. Counted in pictures, while Trends counts parts. Recorded by {models}.")
    for known in doubts(figures):
        st.caption(f":material/info: {known}")


def doubts(figures: dict[str, Any]) -> list[str]:
    """What stands between this and the truth."""
    name, n = words.plain(figures["model_name"], 60), {k: text.count(figures[k]) for k in ("gone", "lot", "learned", "damaged", "unkept")}
    by_hand = ", ".join(words.plain(k, 30) for k in figures["by_hand"])
    told = {
        DEMO: figures["plant"] == "demo",
        f"{n['gone']} pictures were kept but are not on disk any more; they are left out.": figures["gone"],
        f"{n['unkept']} pictures were not kept, most of them good ones on a full disk; they are left out.": figures["unkept"],
        f"{n['lot']} of the good pictures were kept by lot; each stands for all of its like.": figures["lot"],
        f"{n['damaged']} pictures cannot be read any more; they are left out.": figures["damaged"],
        f"{n['learned']} pictures are left out because {name} learned from them.": figures["learned"],
        f"The dataset that {name} learned from is not here any more: pictures that it knows may be among these.":
            not figures["knows_its_dataset"],
        f"No picture that passed is left to look at, so what {name} would reject besides is not known.":
            figures["was"] == 1 and figures["rejected"] < figures["pictures"],
        f"Limits set by hand hold for both: {by_hand}. They were chosen by another model's scores; look at them again when this one is in "
        "use.": by_hand}
    return [said for said, holds in told.items() if holds]


# ---- in figures

def trend(days: pd.DataFrame, name: str) -> go.Figure:
    """Both rates by day, each with its band."""
    figure = go.Figure()
    for of_, label, color, shape, dash in (("was", "As recorded", WAS, "circle", "solid"),
                                           ("would", text.html(words.short(name, 40)), WOULD, "diamond", "dash")):
        edge = dict(x=days["bucket"], mode="lines", line=dict(width=0), hoverinfo="skip", showlegend=False)
        figure.add_scatter(y=days[f"{of_}_high"], **edge)
        figure.add_scatter(y=days[f"{of_}_low"], fill="tonexty", fillcolor=f"{color}1F", **edge)
        said = [f"{text.day(day)}<br>{label}: {text.percent(rate)} of {text.count(n)}"
                for day, rate, n in zip(days["bucket"], days[of_], days["pictures"], strict=True)]
        figure.add_scatter(x=days["bucket"], y=days[of_], mode="lines+markers", name=label, line=dict(color=color, width=2, dash=dash),
                           marker=dict(symbol=shape, size=8), text=said, hovertemplate="%{text}<extra></extra>")
    if len(days) == 1:
        figure.update_xaxes(range=[days["bucket"].iloc[0] + pd.Timedelta(days=n) for n in (-3, 3)])
    figure.update_yaxes(tickformat=".1~%", rangemode="tozero", nticks=5)
    return charts.layout(figure, 320, hovermode="closest").update_layout(showlegend=True,
                                                                                  legend={**charts.LEGEND, "traceorder": "normal"})


def _steps(rows: pd.DataFrame, label: str, run_id: str) -> None:
    if rows.empty:
        st.caption(":material/check_circle: Neither rejects anything.")
        return
    rows = rows.sort_values("difference", ascending=False, ignore_index=True)
    charts.show(steps(rows), f"look_{label}_{run_id}", f"Step in the share of rejected pictures by {label.lower()}, with intervals")
    table(rows, label)


def steps(rows: pd.DataFrame) -> go.Figure:
    """The step of each row in points, with its interval; the largest on top."""
    rows = rows.head(charts.MOST_BARS).iloc[::-1]
    said = [f"{text.percent(was)} → {text.percent(would)}<br>{points(low)} to {points(high)}"
            for was, would, low, high in zip(rows["was"], rows["would"], rows["low"], rows["high"], strict=True)]
    clear = (rows["low"] > 0) | (rows["high"] < 0)
    figure = go.Figure(go.Scatter(
        x=100 * rows["difference"], y=[text.html(v) for v in rows["value"]], mode="markers", hovertext=said,
        hovertemplate="%{y}<br>%{hovertext}<extra></extra>", marker=dict(size=10, color=[WOULD if c else charts.GREY for c in clear]),
        error_x=dict(array=100 * (rows["high"] - rows["difference"]), arrayminus=100 * (rows["difference"] - rows["low"]),
                     color=charts.GREY, thickness=1.5)))
    figure.add_vline(x=0, line=dict(color=charts.GREY, width=1))
    figure.update_xaxes(tickformat=".2~f", nticks=5)
    figure.update_yaxes(type="category")
    return charts.layout(figure, max(110, 50 + 34 * len(rows)))


def table(rows: pd.DataFrame, first: str) -> None:
    """The same rows, for keyboards and for the exact figures."""
    percent, step = (st.column_config.NumberColumn(format=f) for f in ("%.2f %%", "%+.2f"))
    shown = {"value": first, "looked": "Pictures", "pictures": "Pictures", "was": "Recorded", "would": "With it",
             "difference": "Step (points)", "low": "at least", "high": "at most", "more": "Rejected anew", "fewer": "Passed anew"}
    frame = rows[[c for c in shown if c in rows]].copy()
    shares = [c for c in ("was", "would", "difference", "low", "high") if c in frame]
    frame[shares] *= 100
    with st.expander("As a table", icon=":material/table_rows:"):
        st.dataframe(frame.rename(columns=shown), hide_index=True, alt=f"The figures by {first.lower()}",
                     column_config={"Recorded": percent, "With it": percent, "Step (points)": step, "at least": step, "at most": step})
        if "low" in frame:
            st.caption("The intervals hold for all rows together, 19 times out of 20.")

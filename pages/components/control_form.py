"""Making a control chart, and freezing new limits for one: what it watches, a calm period, what is left out of it and why, then a look at
what it would have said.

Every answer is asked anew of `results.control_trial`; nothing is kept until a person saves it. Fields live in the URL.
"""

from dataclasses import replace
from datetime import date
from typing import Any

import streamlit as st

from backend import jobs
from backend.jobs import signals
from backend.jobs.trial import Trial
from pages.components import charts, control_expert, control_figure, person, plant, text, undo, words
from pages.components.cached import cached, lately

COUNTED = {"p": "Defective parts", "u": "All defects on them", "i": "The share, as a single value", "g": "Good parts between two defects",
           "t": "Hours between two defects"}
EVERY = {"shift": "Shift", "day": "Day", "hour": "Hour", "week": "Week"}
FIELDS = ("watch_line", "watch_product", "watch_kind", "watch_what", "watch_every")


def show(shown: str) -> None:
    what = _what(cached("choices", shown))
    if not what["line"]:
        st.info("A control chart belongs to one line. Of several lines together there is a trend, without limits.", icon=":material/info:")
        plant.link("trends", "See the trend of all lines", icon=":material/trending_up:")
        return
    period, preview, expert = (st.container() for _ in range(3))         # what engineers set stands last, and is asked first
    with expert:
        draft = jobs.SavedChart(**{**what, **control_expert.settings(what["kind"])})
    proposed: Trial = cached("control_trial", shown, draft, lately())
    if proposed.watched.frame.empty:
        found = "found" if draft.subgroup == "defect" else "inspected"
        st.info(f"Nothing was {found} that fits, so there is nothing to chart yet.", icon=":material/info:")
        return
    with period, st.container(border=True, key="control_period"):
        draft = _period(proposed, draft)
        trial: Trial = cached("control_trial", shown, draft, lately())
        draft, missing = _left_out(trial)
        trial = cached("control_trial", shown, draft, lately()) if draft.excluded else trial
        _enough(trial)
    with preview:
        _preview(trial)
    _save(trial, missing, cached("control_charts", shown, lately()), shown)


def _what(choices: dict[str, Any]) -> dict[str, str]:
    """What it watches; a line is a must."""
    with st.container(horizontal=True, vertical_alignment="bottom", key="control_what"):
        line = _choose("Line", "watch_line", choices["lines"], "Choose a line")
        kind = _choose("Kind of defect", "watch_kind", choices["classes"], "All defects")
        product = _choose("Product", "watch_product", choices["products"], "All products")
        what = st.selectbox("What is counted", list(COUNTED), format_func=COUNTED.get, key="watch_what", bind="query-params", width=250)
        every = "defect" if what in ("g", "t") else st.selectbox("Every", list(EVERY), format_func=EVERY.get, key="watch_every",
                                                                 bind="query-params", width=120)
    return dict(line=line, product=product, characteristic=kind, kind=what, subgroup=every)


def _choose(label: str, key: str, known: list[str], nothing: str) -> str:
    return st.selectbox(label, ["", *known], format_func=lambda v: v or nothing, key=key, bind="query-params", width=190) or ""


def open_with(chart: jobs.SavedChart) -> None:
    """A callback: the form with a chart's own answers."""
    values = (chart.line, chart.product, chart.characteristic, chart.kind[0], chart.subgroup if chart.subgroup in EVERY else "shift")
    st.session_state.update(dict(zip(FIELDS, values, strict=True)), charts_view="New chart", control_replaces=chart.chart_id)
    control_expert.open_with(chart)


def _period(proposed: Trial, draft: jobs.SavedChart) -> jobs.SavedChart:
    """From day to day; the proposed subgroups where a day is left as proposed."""
    frame, chart = proposed.watched.frame, proposed.chart
    keys = frame.loc[frame["aside"] == "", "key"].tolist()
    st.markdown("#### A calm period")
    st.caption("Limits come from a time in which nothing unusual went on. What is newer is judged by them.")
    if not keys:
        st.info("Nothing can be judged yet.", icon=":material/hourglass_empty:")
        return draft
    first, last = (date.fromisoformat(k[:10]) for k in (keys[0], keys[-1]))
    with st.container(horizontal=True, vertical_alignment="bottom"):
        since = _day("From day", "since", chart.since, first, last, draft)
        until = _day("To day", "until", chart.until, first, last, draft)
    inside = [k for k in keys if k >= (chart.since if chart.since[:10] == since else since)
              and (k <= chart.until if chart.until[:10] == until else k[:10] <= until)]
    return replace(draft, since=inside[0], until=inside[-1]) if inside else replace(draft, since=since, until=since)


def _day(label: str, name: str, proposed: str, first: date, last: date, draft: jobs.SavedChart) -> str:
    day = min(max(date.fromisoformat(proposed[:10]), first), last)
    chosen = st.date_input(label, day, min_value=first, max_value=last, key=f"period_{name}_{draft.chart_id}", width=170)
    return (chosen or day).isoformat()


def _left_out(trial: Trial) -> tuple[jobs.SavedChart, bool]:
    """The chart less what is left out; and whether a reason is still missing."""
    chart, frame = trial.chart, trial.watched.frame
    inside = frame[(frame["aside"] == "") & (frame["key"] >= chart.since) & (frame["key"] <= chart.until)]
    w = trial.watched
    labels = {k: f"{when}: {found}" for k, when, found in
              zip(inside["key"], control_figure.whens(w, inside), control_figure.amounts(w, inside), strict=True)}
    key = f"left_out_{chart.chart_id}"
    st.session_state[key] = [k for k in st.session_state.get(key, []) if k in labels]
    if outside := [k for k in trial.outside if k not in st.session_state[key]]:
        st.warning(f"{len(outside)} of these {'stands' if len(outside) == 1 else 'stand'} out: "
                   f"{words.plain('; '.join(labels[k] for k in outside[:3]), 300)}{' …' if outside[3:] else ''}. "
                   "Find out why. Leave out what had a cause that is gone, or choose a calmer period.", icon=":material/search:")
        st.button("Leave them out …", key="leave_out_all", on_click=_leave_out, args=(key, outside))
    chosen = st.multiselect("Leave out", list(labels), format_func=labels.get, key=key, placeholder="Nothing is left out")
    why: dict[str, str] = {}
    for k in chosen:
        before = next(reversed(why.values()), "")
        said = st.text_input(f"Why is {labels[k]} left out?", key=f"why_{chart.chart_id}_{k}", max_chars=200,
                             placeholder=f"As above: {before}" if before else "What was different then, and is gone")
        why[k] = said.strip() or before
    return replace(chart, excluded={k: v for k, v in why.items() if v}, limits={}), any(not v for v in why.values())


def _leave_out(key: str, keys: list[str]) -> None:
    st.session_state[key] = [*st.session_state.get(key, []), *keys]


def _enough(trial: Trial) -> None:
    """How many there are, and how many it takes."""
    chart, frame = trial.chart, trial.watched.frame
    n = int(((frame["aside"] == "") & (frame["key"] >= chart.since) & (frame["key"] <= chart.until)).sum()) - len(chart.excluded)
    st.caption(f":material/check: {text.counted(n, chart.subgroup)} in the period." if not trial.why_not else
               f":material/hourglass_empty: {words.plain(trial.why_not, 300)}")


def _preview(trial: Trial) -> None:
    w = trial.watched
    with st.container(border=True, key="control_preview"):
        st.markdown("#### What it would have said" if trial.chart.limits else "#### What it would watch")
        if trial.chart.limits:
            st.markdown(words.plain(signals.sentence(w), 300))
        charts.show(control_figure.figure(w, 200), "control_trial_figure", "The chart as it would be")
        st.caption(f"{control_figure.said(w)} ◆ beyond the limits · ◇ part of an unlikely run · ○ not judged".strip())
        if trial.false_alarms:
            st.markdown(f":material/notifications: {trial.false_alarms}, if nothing changes.")
        control_expert.evidence(trial)


def _save(trial: Trial, missing: bool, known: list[Any], shown: str) -> None:
    """Freeze, or watch without limits for now; a chart that this one takes the place of is put away with it."""
    there = next((w for w in known if w.chart_id == trial.chart.chart_id), None)
    old = next((w for w in known if w.chart_id == st.session_state.get("control_replaces") and there is None), None)
    if missing:
        st.warning("Say why each of them is left out.", icon=":material/edit_note:")
    if there:
        st.caption("This chart is there already. New limits hold from their period on; what was judged before stays as it was.")
    away = old is not None and st.checkbox(f"Put the old chart away: {words.plain(signals.title(old), 80)}", True, key="put_old_away")
    label = "Freeze these limits" if trial.chart.limits else "Watch it without limits for now"
    person.your_name(st.session_state.get("control_who", ""), key="freeze_who", width=260)
    st.button(label, type="primary", icon=":material/lock:" if trial.chart.limits else ":material/visibility:", key="save_chart",
              disabled=missing, on_click=_record, args=(trial, old.chart if away and old else None, shown))


def _record(trial: Trial, old: jobs.SavedChart | None, shown: str) -> None:
    chart, made = trial.chart, signals.title(trial.watched)
    said = f"{made}: limits are frozen." if chart.limits else f"{made} is watched, without limits so far."
    kept = chart if chart.limits else replace(chart, since="", until="", excluded={})      # a period without limits is none
    events: list[tuple[str, dict[str, Any]]] = [("chart", kept.to_json())]
    if old:
        events.append(("retire", dict(chart=old.chart_id, line=old.line, product=old.product, characteristic=old.characteristic)))
    who = person.named() or str(st.session_state["freeze_who"]).strip()      # as it is typed by now: the button knows what it was
    st.session_state.update(charts_view="Charts", control_replaces="", control_who=who)
    st.query_params["chart"] = chart.chart_id
    undo.record_all(said, events, shown, who)

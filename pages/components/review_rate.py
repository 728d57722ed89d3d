"""The true rate beside the counted one, in plain words; whether people agree with one another; what a sample still needs.

Takes a `Sampled`. `card` is the one line for other pages. Counted means what the model says, which nothing here alters.
"""

from typing import TYPE_CHECKING, Any

import streamlit as st

from backend import jobs
from pages.components import person, plant, review_answer, text, words
from pages.components.cached import cached, lately

if TYPE_CHECKING:
    from backend.jobs.sampling import Read, Sampled

Rate = Any                         # quality.rates.Rate: k of n, rate, low, high

WITHIN = {0.005: "± 0.5 %", 0.01: "± 1 %", 0.02: "± 2 %", 0.05: "± 5 %"}
GOOD, FAIR = 0.75, 0.4             # of kappa: as AIAG's manual on measurement systems has it
ENOUGH = 10                        # parts judged twice, before anything is said of people


def sampled(shown: str) -> "Sampled | None":
    """The newest sample, asked again only after the next answer."""
    return _sampled(shown, jobs.results.revision(), person.named())


@st.cache_data(max_entries=20, show_spinner=False)
def _sampled(shown: str, revision: int, whose: str) -> "Sampled | None":
    return jobs.sampling.sampled(shown)


def card(shown: str) -> None:
    """One quiet line for a page of numbers: what people found, beside what is counted; or how to find out."""
    found = sampled(shown)
    with st.container(horizontal=True, vertical_alignment="center", gap="small", key="true_rate_card"):
        if found is None or found.true.all.rate is None:
            said = "The counted rate is what the model says." if found is None else \
                f"{len(found.first)} of {sum(found.wanted)} parts looked at."
            st.markdown(f":material/person_search: {said}", width="content")
            plant.link("review", "Find the true rate" if found is None else "Go on", queue="Random sample")
            return
        st.markdown(f":material/person_search: True defect rate **{text.percent(found.true.all.rate)}** ({_between(found.true.all)}), by "
                    f"{text.counted(len(found.first), 'part')} that people looked at, {_of(found)}; counted then "
                    f"{text.percent(found.true.apparent)}.", width="content")
        plant.link("review", "See how", queue="Random sample")


def _between(rate: Rate) -> str:
    return f"{text.percent(rate.low)} to {text.percent(rate.high)}"


def _of(found: "Sampled") -> str:
    """'Line 2, 3 Nov to 30 Nov'."""
    where = words.plain(found.line, 40) if found.line else "all lines"
    return f"{where}, {found.since.day} {found.since:%b} to {found.until.day} {found.until:%b}"


def cards(found: "Sampled", shown: str) -> None:
    """Counted and true, missed and falsely rejected; each with what it rests on."""
    units, true = sum(s.units for s in found.strata), found.true
    st.markdown(f"##### True and counted, {_of(found)}")
    grid = st.grid(4, min_column_width=200)
    grid.metric("Counted defect rate", text.percent(true.apparent), f"by the model, {text.count(units)} parts", delta_color="off",
                delta_arrow="off", border=True, help="As it was when the sample was drawn. What people say here never changes it.")
    for name, what, none in (("True defect rate", "all", "not known yet"), ("Missed, of parts passed", "missed", "not known yet"),
                             ("Good, of parts rejected", "false_rejects", "not known yet" if true.apparent else "none was rejected")):
        grid.metric(name, *_figure(getattr(true, what), true.at_most.get(what), none), delta_color="off", delta_arrow="off", border=True)
    st.caption(_said(found))
    _needs(found, shown)
    _elsewhere(found, shown)


def _figure(rate: Rate, at_most: float | None, none: str) -> tuple[str, str]:
    """The figure of a card, and what stands below it. Nothing found in n is no zero: at most 3/n."""
    if at_most is not None:
        return f"≤ {text.percent(at_most)}", f"none in {text.count(rate.n)} looked at"
    if rate.rate is None:
        return "–", none
    return text.percent(rate.rate), f"{_between(rate)}, {text.count(rate.n)} looked at"


def _said(found: "Sampled") -> str:
    """The same in a sentence, for whoever reads no cards."""
    true = found.true
    if true.all.rate is None:
        gone = sum(s.units for s, kept in zip(found.strata, found.reserve, strict=True) if not kept)
        seen = f"{len(found.first)} of {sum(found.wanted)} parts were looked at."
        return f"{seen} The true rate shows as soon as each group has one." if not gone else \
            (f"{seen} The true rate stays unknown: of {text.counted(gone, 'other part')} no picture is here that could stand for the rest. "
             "Draw a sample of more days, or let more pictures be kept.")
    missed = true.missed_words.replace("units", "parts") if "missed" in true.at_most else \
        f"Of the parts it passed, {text.percent(true.missed.rate or 0.0)} are defective ({_between(true.missed)})"
    return (f"With 95 % certainty {_between(true.all)} of the parts are defective; the model counts {text.percent(true.apparent)}. "
            f"{words.plain(missed, 300)}.")


def _needs(found: "Sampled", shown: str) -> None:
    """How many more it takes to be surer, and the button that asks for them."""
    with st.container(horizontal=True, vertical_alignment="center", gap="small", key="needs"):
        st.markdown("To know the true rate within", width="content")
        within = st.selectbox("Within", list(WITHIN), index=1, format_func=WITHIN.get, key="within", label_visibility="collapsed",
                              width=110)
        needed, more = found.needed(within), found.more(within)
        if not needed:
            st.markdown("this sample is too small: draw one anew, of more days." if found.short(within) else "nothing more is needed.",
                        width="content")
            return
        wait = ", which wait already" if not more else f"; {text.count(needed - more)} of them wait already" if needed > more else ""
        st.markdown(f"about **{text.count(needed)} more** {'part has' if needed == 1 else 'parts have'} to be looked at{wait}.",
                    width="content")
        if more:
            st.button(f"Ask for {text.count(more)} more", icon=":material/add:", key="ask_more", on_click=_ask, args=(found, within, shown))


def _ask(found: "Sampled", within: float, shown: str) -> None:
    review_answer.keep("More parts were asked for.", lambda: jobs.sampling.ask_more(shown, found.sample_id, within, review_answer.name()))


# ---- the model measured elsewhere

def _elsewhere(found: "Sampled", shown: str) -> None:
    """What follows from the model's sensitivity and specificity, only where somebody measured both and this model judged the sample."""
    units = sum(s.units for s in found.strata)
    known = _ability(shown, found.sample_id, round(found.true.apparent * units), units, st.session_state.get("ability_saved", 0), lately())
    if isinstance(known, str):
        st.caption(known)
    elif known is not None:
        said, rate = known
        st.caption(f"By what the model was measured to do elsewhere (found {said['found']:,} of {said['of_defective']:,} defective parts, "
                   f"passed {said['passed']:,} of {said['of_good']:,} good ones), the true rate is {text.percent(rate.rate or 0.0)} "
                   f"({_between(rate)}).")


@st.cache_data(max_entries=20, show_spinner=False)
def _ability(shown: str, sample_id: str, defective: int, units: int, saved: int, now: Any) -> tuple[dict[str, int], Rate] | str | None:
    """Not by revision: which model is in use costs more than all else that an answer asks for, and changes once in months."""
    return jobs.sampling.ability(shown, sample_id, defective, units)


def ability_form(found: "Sampled", shown: str) -> None:
    st.markdown("If you have shown the model in use parts of known truth, other than those it inspects here, say what it made of them.")
    with st.form("ability", border=False):
        numbers = [st.number_input(label, 0, 10_000_000, 0, key=f"ability_{n}") for n, label in enumerate(
            ("Defective parts shown", "of these rejected", "Good parts shown", "of these passed"))]
        if st.form_submit_button("Save", type="primary"):
            bad, caught, good, passed = numbers
            if review_answer.keep("Saved what the model was measured to do.", lambda: jobs.sampling.note_ability(
                    shown, caught, bad, passed, good, review_answer.name())):
                st.session_state["ability_saved"] = st.session_state.get("ability_saved", 0) + 1
                st.rerun()


# ---- people

def people(found: "Sampled") -> None:
    """Whether the same part is judged alike twice, what that means, and what to do where it is low."""
    alike = found.agreement
    with st.container(border=True, key="agreement"):
        st.markdown("##### Do people agree?")
        if alike is None:
            st.caption("One of every 20 parts comes a second time, to whoever sits here then, and nothing says so. None was judged twice "
                       "so far.")
            return
        same = text.share(round(alike.observed * alike.n), alike.n)
        share = f"{text.counted(alike.n, 'part')} judged twice, without anybody knowing: {same} alike."
        kappa = f" Beyond chance, on a scale from 0 to 1 (kappa): **{alike.kappa:.2f}** ({alike.low:.2f} to {alike.high:.2f})." \
            if alike.kappa is not None else ""
        st.markdown(share + kappa)
        st.markdown(advice(alike.n, alike.kappa, alike.low, bool(alike.note)))
        if alike.note:
            st.caption(words.plain(alike.note, 300))
        apart = [(a, b) for a, b in found.again if a.verdict != b.verdict]
        if apart:
            st.caption("Judged differently: " + "; ".join(f"{_name(a.unit)} ({_who(a)}, then {_who(b)})" for a, b in apart[:6]) + ".")


def advice(n: int, kappa: float | None, low: float = GOOD, rare: bool = False) -> str:
    """What it means, and what to do. `low`: where kappa's interval begins; `rare`: hardly any part was called defective, or good."""
    if n < ENOUGH:
        return f":material/hourglass_empty: Too few to say: it takes {ENOUGH} or more, {n} so far."
    if kappa is None:
        return ":material/info: All were judged to be the same, so nothing is known of how people judge the others."
    if kappa >= GOOD:
        return ":material/check_circle: People judge alike, so their answers can be trusted." if low >= FAIR else \
            ":material/hourglass_empty: Alike so far, but too few were judged twice to be sure that people judge alike."
    if rare:                                                 # 19 of 20 alike may give a kappa of 0: it speaks against nobody
        return (":material/info: Nearly all parts were judged to be the same, so kappa says little here, whether or not people agree. See "
                "the share judged alike, and look together at the parts that were judged differently.")
    if kappa >= FAIR:
        return (":material/visibility: People judge roughly alike. Look together at the parts that were judged differently, and keep some "
                "as limit samples.")
    return (":material/error: People do not judge alike, so the true rate above is not to be trusted. Agree first on what counts as a "
            "defect: look at these parts together, write it down with limit samples, then draw a new sample.")


def _name(unit: int) -> str:
    try:
        return words.plain(cached("inspection", unit)["file_name"], 40)
    except jobs.NotFoundError:
        return "a part that is gone"


def _who(read: "Read") -> str:
    return f"{words.plain(read.reviewer, 30) or 'somebody'}: {read.verdict}"


def before(shown: str) -> None:
    """Samples before this one."""
    rows = _earlier(shown, jobs.results.revision(), person.named())
    if not rows:
        return
    with st.expander(f"Earlier samples ({len(rows)})"):
        st.dataframe([{"Parts of": _of(r), "Looked at": len(r.first), "Counted": text.percent(r.true.apparent),
                       "True": "–" if r.true.all.rate is None else text.percent(r.true.all.rate), "Between": _between(r.true.all)}
                      for r in rows], hide_index=True, alt="Earlier samples with their counted and true rates")


@st.cache_data(max_entries=20, show_spinner=False)
def _earlier(shown: str, revision: int, whose: str) -> "list[Sampled]":
    return jobs.sampling.earlier(shown)

"""Which plant a manager's page shows, the demo plant or the real one, and the states before there is anything to show.

`begin` opens every plant page: title, choice, the band of the demo, and, where nothing can be shown yet, why. Demo and real
data never share a page: it asks for one plant and passes that on with every question.
"""

import contextlib
from collections.abc import Iterator
from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import streamlit as st

from backend import jobs
from pages.components import crowd, person, results_note, run_panel, text, words
from pages.components.cached import cached

STYLE = """<style>
.st-key-demo_band {padding: .3rem .9rem; border-left: 4px solid currentColor; border-style: dashed dashed dashed solid;}
</style>"""
WHOLE_S = 15.0                               # so long a page waits for the rest of a batch before it draws itself anew
NAMES = {"real": "Your plant", "demo": "Demo plant"}


def begin(title: str, watch: bool = True, ends: bool = True) -> str:
    """The head of a plant page; returns the plant to show, or ends the page with the reason why there is nothing to see. Without
    `watch` new numbers, once all are in, do not run the page again: where somebody answers by key, each answer is one. Without `ends`
    the page goes on where nothing was inspected yet: see `inspected`."""
    seen = jobs.results.revision()                           # before anything is read: what comes in meanwhile is new to this page
    with st.container(horizontal=True, horizontal_alignment="distribute", vertical_alignment="center", key="plant_head"):
        st.title(title, anchor=False, width="content")
        others = cached("elsewhere")
        have = cached("plants") | others
        building = demo_run()
        plant = current(have, building)
        there = [name for name in (*NAMES, *others) if have.get(name) or name == plant or name == "demo" and building]
        if len(there) > 1:
            plant = _choose(plant, there)
    if plant == "demo":
        _band()
    if plant in others:
        st.caption(f":material/factory: {plant} is looked after by a Diffspect of its own: its records are shown here, its pictures and "
                   "decisions are there.")
    if plant == "demo" and building and ends:
        _building(building)
    if not have.get(plant) and not jobs.caught_up():
        _catching_up()
    if not have.get(plant) and ends:
        _nothing(seen)
    if watch or not have.get(plant) or not jobs.caught_up(0):
        _watch(seen, plant)
    return plant


def inspected(plant: str) -> bool:
    """Whether there is any result of this plant."""
    return bool((cached("plants") | cached("elsewhere")).get(plant))


def current(have: dict[str, int], building: jobs.RunStatus | None = None) -> str:
    """The plant a person chose, else the real one as soon as it has data, else the demo where there is one."""
    asked = st.session_state.get("plant") or st.query_params.get("plant")
    if asked is not None and (have.get(asked) or (asked == "demo" and building)):
        return str(asked)
    return "demo" if not have.get("real") and (have.get("demo") or building) else "real"


def demo_run() -> jobs.RunStatus | None:
    """The run that builds the demo, until all its numbers are in the charts; or that failed without having built anything."""
    for run in jobs.recent(limit=1, recipes=("demo",), plant="demo"):
        if run.state != "completed" or run_panel.unsettled(run):
            return run
    return None


def _choose(plant: str, there: list[str]) -> str:
    st.session_state.setdefault("plant", plant)
    chosen: str = st.segmented_control("Plant", there, format_func=lambda name: NAMES.get(name, name), required=True, key="plant",
                                       label_visibility="collapsed", persist_state="session")
    return chosen


def _band() -> None:
    st.html(STYLE)
    with st.container(horizontal=True, vertical_alignment="center", border=True, gap="xsmall", key="demo_band"):
        st.markdown(":material/science: **Demo plant: made-up data**", width="content")
        with st.popover("Remove the demo", type="tertiary", key="remove_demo"):
            st.markdown("This takes the demo plant and all its numbers off this machine. Your own data stays. "
                        "You can bring the demo back at any time.")
            st.button("Remove it", type="primary", icon=":material/delete:", key="remove_demo_now", on_click=_remove,
                      **person.barred("retention"))


def _remove() -> None:
    with _spoken():
        jobs.remove_demo()
        st.session_state.pop("plant", None)


def bring_back() -> None:
    """The way back to the demo; nothing where it is there."""
    if not cached("plants").get("demo") and demo_run() is None:
        st.button("Show the demo plant", type="tertiary", icon=":material/science:", key="add_demo", on_click=_add, **person.barred("run"))


def _add() -> None:
    with _spoken():
        jobs.add_demo()


@contextlib.contextmanager
def _spoken() -> Iterator[None]:
    """In a callback there is no place on the page: what went wrong is said in a toast."""
    try:
        yield
    except jobs.DiffspectError as error:
        st.toast(words.plain(error, 600), icon=":material/error:")


@contextlib.contextmanager
def sound() -> Iterator[None]:
    """A page's body: an error worded for people ends the page with its sentence and a way to try again."""
    began = crowd.begun()
    try:
        results_note.remade()
        yield
        crowd.drawn(began)
    except jobs.DiffspectError as error:
        words.sorry(error)
        st.button("Try again", icon=":material/refresh:", key="try_again")
        st.stop()


def _building(run: jobs.RunStatus) -> None:
    """A skeleton with progress while the demo is made; ends the page."""
    if run.is_open or run.state == "completed":
        st.fragment(_progress, run_every=1.0)()
    else:
        st.error(f"The demo plant could not be built. {words.plain(run.message, 600)}", icon=":material/error:")
        st.button("Try again", icon=":material/refresh:", key="demo_again", on_click=_add)
    st.stop()


def _progress() -> None:
    run = demo_run()
    if run is None or run.state not in ("pending", "running", "completed"):
        st.rerun()
    assert run is not None
    done = min(1.0, run.step / run.total) if run.total else 0.0
    st.progress(done, text="Building the demo plant: 90 days of inspections of a plant that does not exist. This takes half a minute.")
    grid = st.grid(3, min_column_width=240)
    for height in (180, 180, 180):
        grid.skeleton(height)


def _catching_up() -> None:
    """Right after a start what is on disk may not be in the charts yet: say so rather than "nothing"; ends the page."""
    st.caption("Reading the results on this machine …")
    st.skeleton(180)
    st.fragment(_wait, run_every=0.5)()
    st.stop()


def _wait() -> None:
    if jobs.caught_up():
        st.rerun()


def _nothing(seen: int) -> None:
    """The empty state; ends the page."""
    with st.container(border=True, key="empty"):
        st.markdown("### :material/image_search: Nothing inspected yet")
        st.markdown("Go to Inspection, drop pictures of your parts there and name their line. "
                    "What is found appears here, line by line and day by day.")
        with st.container(horizontal=True, vertical_alignment="center"):
            link("inspection", "Go to Inspection", icon=":material/image_search:")
            bring_back()
    _watch(seen, "")
    st.stop()


def uncounted() -> None:
    """Pictures are there, but no number to show."""
    st.info("Pictures were inspected, but none of them counts in the plant's trends yet. On Inspection, give a batch its line; "
            "where its pictures are those of a dataset, say that they count all the same.", icon=":material/info:")


def _watch(seen: int, plant: str) -> None:
    """Keep the page true on a screen that nobody touches: new numbers are shown when they are there. A look costs microseconds."""
    soon = 0.5 if jobs.recent(limit=1, open_only=True) else 1.0
    st.fragment(_look, run_every=max(soon, crowd.rest_s() / 5))(seen, plant)


def _look(seen: int, plant: str) -> None:
    """`plant`: new numbers of another one are no reason; '' where there is none to show yet."""
    is_new = jobs.results.known(plant) > seen if plant else jobs.results.revision() != seen
    if is_new and crowd.rested() and (crowd.since_s() >= WHOLE_S or not _more_soon(plant)):
        st.rerun()


def _more_soon(plant: str) -> bool:
    """A batch that was handed over just now is shown whole: drawing the page for each part of it would keep the batch itself waiting. Where
    one comes after the other, the page is drawn all the same once it has stood for so long."""
    now = datetime.now(UTC)
    return any((now - datetime.fromisoformat(run.created_at)).total_seconds() < WHOLE_S and run_panel.unsettled(run)
               for run in jobs.recent(limit=3, recipes=("inspect",)) if plant in ("", run.plant))


def link(page: str, label: str, icon: str | None = None, **query: str) -> None:
    """A link to another page, with its filters in the URL."""
    st.page_link(f"pages/{page}.py", label=label, icon=icon, query_params=query or None)


def zone() -> str:
    """The plant's time zone, by its IANA name."""
    return str(cached("calendar", _shown())["time_zone"])


def _shown() -> str:
    """The plant that the page is about, as `begin` settled it."""
    asked = st.session_state.get("plant") or st.query_params.get("plant")
    return str(asked) if asked in cached("elsewhere") else "real"


def local(when: datetime) -> datetime:
    """An instant on the plant's clock; a time without zone is UTC, as the store keeps it."""
    return text.moment(when).astimezone(ZoneInfo(zone()))

"""Start and follow one run: state, place in the queue, progress, time left, cancel, resume, log.

Polls by fragment only while the run is open, and until its last rows are in, which is just after it ends.
Knows nothing of what the recipe does: a page passes `body` for that.
"""

import time
from collections.abc import Callable
from datetime import UTC, datetime

import streamlit as st

from backend import jobs
from pages.components import words

Body = Callable[[jobs.RunStatus], None]
AGAIN = {"interrupted": "Resume", "failed": "Try again", "canceled": "Run it after all"}
YOUNG_S, SOON_S = 6.0, 0.25     # in its first seconds a batch is looked at that often
SHARE, MOST_S, WAIT_S = 4.0, 5.0, 0.5      # what took long to draw is drawn as much more seldom: the machine is busy with the run itself
_WHOLE = "panel_whole"          # in the session: the page is being drawn as a whole
_NEWS, _KEPT = "news_drawn", 8  # in the session, of each of the last runs: as of which revision, until when, in how many seconds
SETTLE_S = 300.0   # after that long a run whose rows did not come has them set aside as damaged: no use in waiting on


def show(run_id: str, body: Body | None = None, every: float = 1.0) -> None:
    """The run's head and, below it, `body(status)`; both redrawn while it is open."""
    try:
        status = jobs.status(run_id)
    except jobs.NotFoundError as error:
        words.sorry(error)
        return
    polling, young = unsettled(status), _young(status)
    pace = SOON_S if young else _pace(run_id, every)
    st.session_state[_WHOLE] = True
    st.fragment(_follow, run_every=pace if polling else None)(run_id, polling, young, body, every, pace)


def start(config: jobs.Config, param: str = "") -> None:
    """Ask for a run and draw the page anew, with its id in the URL under `param`; where it cannot be asked for, say why."""
    try:
        run_id = jobs.submit(config)
    except jobs.DiffspectError as error:
        words.sorry(error)
        return
    if param:
        st.query_params[param] = run_id
    st.rerun()


def unsettled(status: jobs.RunStatus) -> bool:
    """Open, or ended with rows still on their way into the database."""
    if status.is_open or not status.finished_at:
        return status.is_open
    age = (datetime.now(UTC) - datetime.fromisoformat(status.finished_at)).total_seconds()
    return age < SETTLE_S and not jobs.results.settled(status.run_id)


def awaited(*recipes: str) -> bool:
    """Is a finished run there, but its rows are not yet? Then say so and look again every second. Ask only where rows are missing."""
    if not any(r.state == "completed" for r in jobs.recent(limit=20, recipes=recipes)):
        return False
    st.fragment(_await, run_every=1.0)(jobs.results.revision())
    return True


def _await(seen: int) -> None:
    if jobs.results.revision() != seen:
        st.rerun()
    st.skeleton(160)
    st.caption("Reading results into the database.")


def _young(status: jobs.RunStatus) -> bool:
    """Whether a person has just asked for it and looks at the screen: its first rows come within a second. A small batch has ended by
    then, and its rows are still on their way."""
    age = (datetime.now(UTC) - datetime.fromisoformat(status.created_at)).total_seconds()
    return status.recipe == "inspect" and age < YOUNG_S and unsettled(status)


def _until_news(run_id: str) -> None:
    """A run's first rows are drawn at the moment when they are in, not at the next turn; and what stands there is not drawn again
    meanwhile, nor before it has stood for some time: on two cores that would slow the inspection itself."""
    began, seen = time.monotonic(), jobs.results.revision()
    drawn, at, took = _last(run_id)
    while SOON_S < SHARE * took and time.monotonic() < min(at + SHARE * took, began + WAIT_S):      # before the first rows it takes less
        time.sleep(0.02)
    while drawn in (None, seen) and jobs.results.revision() == seen and time.monotonic() - began < SOON_S:
        time.sleep(0.02)


def _last(run_id: str) -> tuple[int | None, float, float]:
    """Of what is known of a run as it was drawn last: as of which revision, when that was done, and how many seconds it took."""
    found: tuple[int | None, float, float] = st.session_state.get(_NEWS, {}).get(run_id, (None, 0.0, 0.0))
    return found


def _drawn(run_id: str, began: float, seen: int, alone: bool) -> None:
    """`alone`: not within the whole page, which takes longer and says nothing of what the panel takes."""
    now, took = time.monotonic(), _last(run_id)[2]
    kept = {k: v for k, v in st.session_state.get(_NEWS, {}).items() if k != run_id}
    st.session_state[_NEWS] = dict(list(kept.items())[-_KEPT + 1:]) | {run_id: (seen, now, now - began if alone else took)}


def _pace(run_id: str, every: float) -> float:
    """Seconds between two drawings."""
    return max(every, min(MOST_S, SHARE * _last(run_id)[2]))


def _follow(run_id: str, polling: bool, young: bool, body: Body | None, every: float, pace: float) -> None:
    try:
        if young:
            _until_news(run_id)
        status = jobs.status(run_id)
    except jobs.NotFoundError as error:     # the demo was removed while someone looked at it
        words.sorry(error)
        return
    if polling and (not unsettled(status) or young and not _young(status)):
        st.rerun()                          # a whole run of the page ends the polling, or slows it
    began, seen = time.monotonic(), jobs.results.revision()
    head(status)
    if body:
        body(status)
    alone = not st.session_state.pop(_WHOLE, False)
    _drawn(run_id, began, seen, alone)
    if alone and polling and not young and not pace / 2 <= _pace(run_id, every) <= 2 * pace:
        st.rerun()                          # at another pace: it is set where the page is drawn as a whole


def head(status: jobs.RunStatus) -> None:
    """One line of what it is and how it stands, progress while open, the reason when it ended badly."""
    with st.container(horizontal=True, vertical_alignment="center", gap="small"):
        words.pill(status)
        st.markdown(f"**{words.title_of(status)}**", width="content")
        st.caption(timing(status), width="content")
        _buttons(status)
    if status.is_open and status.recipe == "watch":          # it has no end
        st.caption(progress_text(status))
    elif status.is_open:
        st.progress(min(1.0, status.step / status.total) if status.total else 0.0, text=progress_text(status))
    elif status.state == "failed":
        st.error(words.plain(status.message or "It ended without saying why; the log may tell.", 600), icon=":material/error:")
    elif status.state == "interrupted":
        st.warning("It was cut off: the worker or the machine went down. Resume goes on from the last good state.",
                   icon=":material/power_off:")


    for warning in status.result.get("warnings", []):
        st.warning(words.plain(warning, 600), icon=":material/info:")


def timing(status: jobs.RunStatus) -> str:
    if status.state == "pending":
        return f"asked {words.when(status.created_at)}"
    took = f"{words.when(status.started_at)} · {words.span(words.lasted(status))}"
    return f"{took} · attempt {status.attempt}" if status.attempt > 1 else took


def progress_text(status: jobs.RunStatus) -> str:
    if status.canceling:
        return "Stopping; this can take half a minute."
    if status.state == "pending":
        if status.message:
            return words.plain(status.message)
        if status.position and status.position > 1:
            ahead = status.position - 1
            return f"Waiting: {ahead} other {'task' if ahead == 1 else 'tasks'} first."
        return "Starts as soon as the machine is free." if jobs.worker_alive() else "Waiting for the worker to start."
    parts = [words.plain(status.message[:1].upper() + status.message[1:])] if status.message else []
    parts += [f"{status.step:,} of {status.total:,}"] if status.total and status.recipe != "watch" else []
    parts += [f"about {words.span(status.eta_s)} left"] if status.eta_s else []
    return " · ".join(parts) or "Getting ready."


def _buttons(status: jobs.RunStatus) -> None:
    if status.is_open:
        st.button("Stop" if status.recipe == "watch" else "Cancel", key=f"cancel_{status.run_id}", icon=":material/stop_circle:",
                  disabled=status.canceling, on_click=attempt, args=(jobs.cancel, status.run_id))
    if status.state in AGAIN:
        st.button(AGAIN[status.state], key=f"resume_{status.run_id}", icon=":material/play_arrow:",
                  on_click=attempt, args=(jobs.resume, status.run_id))


def attempt(action: Callable[[str], object], run_id: str) -> None:
    """Do it; where it cannot be done, say why. The whole page runs again, so that polling starts or stops."""
    try:
        action(run_id)
    except jobs.DiffspectError as error:
        st.toast(words.plain(error, 600), icon=":material/error:")
    st.rerun()


def log(run_id: str, lines: int = 200) -> None:
    """What the worker printed; read only while the expander is open."""
    with st.expander("Log", key=f"log_{run_id}", icon=":material/terminal:", on_change="rerun") as box:
        if box.open:
            st.code(jobs.log_tail(run_id, lines) or "Nothing was printed yet.", language=None, height=320)

"""From the click to the first overlay: the page draws when rows are there, not at its next turn, and a small batch is drawn as a whole."""

import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import streamlit as st
from streamlit.testing.v1 import AppTest

from backend import jobs, rundir
from backend.config import Inspect
from backend.inspection import inspect
from pages.components import plant, run_panel
from tests import bright_model, plates

ROOT = Path(__file__).resolve().parents[1]


def taken(house: Path, red: float) -> Path:
    """A batch of three pictures that a worker has just begun."""
    st.cache_data.clear()
    (house / "in").mkdir(exist_ok=True)
    for k in range(3):
        (house / "in" / f"{k}.png").write_bytes(bright_model.encoded(red, mark=k))
    config = Inspect(model="bright", images=str(house / "in"), line="L1", count="yes")
    run = rundir.create("inspect", config.to_json(), state="running")
    rundir.set_state(run, "running", started_at=rundir.now())
    return run


def carried_out(run: Path) -> None:
    config = Inspect.from_json(rundir.read_json(run / "job.json")["config"])
    rundir.write_json(run / "result.json", inspect.run(config, run, plates.silent))


def test_a_batch_is_drawn_when_its_first_rows_are_in(data_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One run of the page is enough, begun before there is a row; without rows it says so after a moment."""
    bright_model.bundle(rundir.create("train-detector", {}, state="completed") / "model")
    run = taken(tmp_path, 0.9)
    monkeypatch.setattr(run_panel, "YOUNG_S", 120.0)
    page = AppTest.from_file(str(ROOT / "pages" / "inspection.py"), default_timeout=60)
    page.query_params["batch"] = run.name
    assert jobs.caught_up(20) and not page.run().subheader and not page.exception, "nothing yet, and the page has not waited for ever"
    monkeypatch.setattr(run_panel, "SOON_S", 30.0)
    worker = threading.Timer(0.3, carried_out, [run])
    worker.start()
    page.run()
    worker.join()
    assert [s.value for s in page.subheader] == ["3 of 3 defective"] and not page.exception
    assert sum("Defective" in c.value for c in page.caption) == 3, "with its pictures"


def test_a_batch_that_has_ended_before_its_rows_are_in_is_waited_for_as_closely(data_folder: Path, tmp_path: Path) -> None:
    """A small one ends at once: looked at every second from then on, its first picture would come a second late."""
    bright_model.bundle(rundir.create("train-detector", {}, state="completed") / "model")
    run = taken(tmp_path, 0.9)
    assert run_panel._young(jobs.status(run.name))
    house = jobs.house.opened()
    with house._ingesting:                                                   # nothing is taken in meanwhile
        carried_out(run)
        rundir.set_state(run, "completed", finished_at=rundir.now())
        assert not jobs.status(run.name).is_open and run_panel._young(jobs.status(run.name))
    house.ingest()
    assert jobs.results.settled(run.name) and not run_panel._young(jobs.status(run.name))


def test_trends_wait_for_the_rest_of_a_batch_but_not_for_long(data_folder: Path, tmp_path: Path) -> None:
    def script() -> None:
        import time

        import streamlit

        from pages.components import crowd, plant

        streamlit.session_state.drawn = streamlit.session_state.get("drawn", 0) + 1
        if streamlit.session_state.drawn == 1:
            streamlit.session_state[crowd._KEPT] = (time.monotonic() - streamlit.session_state.get("stood", 5.0), 0.1)
            plant._look(-1, "")                                        # drawn before what is in now

    def drawn(stood: float = 5.0) -> int:
        page = AppTest.from_function(script)
        page.session_state.stood = stood
        assert not page.run().exception
        return int(page.session_state.drawn)

    assert jobs.caught_up(20) and drawn() == 2
    run = taken(tmp_path, 0.1)
    assert drawn() == 1, "more of it comes in a moment"
    assert drawn(plant.WHOLE_S + 1) == 2, "but where batch follows batch the page does not stand still"
    head = rundir.read_json(run / "job.json")
    old = rundir.create("inspect", head["config"], state="running")
    rundir.write_json(old / "job.json", dict(head, created_at=(datetime.now(UTC) - timedelta(seconds=plant.WHOLE_S + 1)).isoformat()))
    rundir.set_state(run, "failed", finished_at=rundir.now())
    jobs.runs.job.cache_clear()
    while not jobs.results.settled(run.name):
        jobs.house.opened().ingest()
    assert drawn() == 2, "a long one is shown as it goes"


@pytest.mark.parametrize("took, pace, again", [(0.1, 1.0, False), (0.4, 1.0, False), (4.0, 1.0, True), (0.1, 5.0, True), (4.0, 5.0, False)])
def test_a_panel_that_takes_long_is_drawn_more_seldom(monkeypatch: pytest.MonkeyPatch, took: float, pace: float, again: bool) -> None:
    """How often is set where the page is drawn as a whole: that happens once, when the pace no longer fits."""
    from types import SimpleNamespace

    class Again(Exception):
        """The page is drawn as a whole."""

    def rerun() -> None:
        raise Again

    clock = [100.0]
    monkeypatch.setattr(run_panel.time, "monotonic", lambda: clock[0])
    monkeypatch.setattr(st, "session_state", {})
    monkeypatch.setattr(st, "rerun", rerun)
    monkeypatch.setattr(run_panel, "head", lambda status: None)
    monkeypatch.setattr(jobs, "status", lambda run_id: SimpleNamespace(is_open=True, recipe="train-detector"))
    monkeypatch.setattr(jobs.results, "revision", lambda: 1)

    def body(status: object) -> None:
        clock[0] += took

    st.session_state[run_panel._WHOLE] = True
    run_panel._follow("a", True, False, body, 1.0, pace)                     # within the whole page: it sets no other pace
    if again:
        with pytest.raises(Again):
            run_panel._follow("a", True, False, body, 1.0, pace)
    else:
        run_panel._follow("a", True, False, body, 1.0, pace)
    run_panel._follow("b", True, False, None, 1.0, 1.0)                      # another panel's drawings are its own
    assert run_panel._pace("b", 1.0) == 1.0 and run_panel._pace("a", 1.0) == pytest.approx(max(1.0, min(5.0, run_panel.SHARE * took)))

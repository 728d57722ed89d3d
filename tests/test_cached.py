"""What pages keep of the store's answers: counts until a verdict on their plant and line changes, all else until anything comes in."""

import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import streamlit as st

from backend import jobs
from backend.jobs import house
from pages.components.cached import COUNTS, OF_A_PLANT, cached
from tests import small_plant as plant


@pytest.fixture
def asked(data_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often each question reached the store, of a plant with two lines and the demo plant."""
    st.cache_data.clear()
    times: Counter[str] = Counter()

    def count(name: str) -> None:
        real = getattr(jobs.results, name)

        def ask(*args: Any, **kwargs: Any) -> Any:
            times[name] += 1
            return real(*args, **kwargs)

        monkeypatch.setattr(jobs.results, name, ask)

    for name in ("totals", "notes", "choices", "images"):
        count(name)
    plant.batch([dict(boxes=[("pits", 0.9)]), dict(line="L2")])
    plant.batch([{}], plant="demo")
    house.opened().ingest()
    return times


def inspected(**filters: Any) -> int:
    return int(cached("totals", jobs.Filters(**filters))["inspected"])


def test_counts_are_kept_until_a_verdict_changes(asked: Counter[str]) -> None:
    def seen() -> tuple[int, ...]:
        return inspected(), inspected(line="L1"), inspected(line="L2"), inspected(plant="demo")

    assert seen() == seen() == (2, 1, 1, 1) and asked["totals"] == 4
    cached("notes", "real")
    jobs.record("note", dict(line="L1", text="new lamp"))                    # moves no verdict
    assert seen() == (2, 1, 1, 1) and asked["totals"] == 4 and len(cached("notes", "real")) == 1 and asked["notes"] == 2
    batch = plant.batch([dict(line="L2")])
    house.opened().ingest()
    assert seen() == (3, 1, 2, 1) and asked["totals"] == 6                   # the whole plant and that line
    jobs.record("correct", dict(run_id=batch.name, inspection_ids=[], fields=dict(line="L1")))
    assert seen() == (3, 2, 1, 1) and asked["totals"] == 9                   # the line that lost it too
    made = jobs.record("exclude", dict(run_id=batch.name, inspection_ids=[], reason="a test"))
    assert seen() == (2, 1, 1, 1) and asked["totals"] == 11
    jobs.undo(made)
    assert seen() == (3, 2, 1, 1) and asked["totals"] == 13
    jobs.record("calendar", dict(time_zone="Asia/Kolkata", day_start="06:00", shifts=[]))
    assert seen() == (3, 2, 1, 1) and asked["totals"] == 17                  # moves everything, the demo plant too


def test_what_is_known_of_a_plant_is_kept_while_another_s_pictures_come_in(asked: Counter[str]) -> None:
    """And not longer: decisions may be about any."""
    def seen() -> tuple[int, int]:
        return len(cached("images", jobs.Filters(plant="demo"), "newest", 24, 0)), len(cached("choices", "demo")["lines"])

    assert seen() == seen() == (1, 1) and (asked["images"], asked["choices"]) == (1, 1)
    plant.batch([dict(line="L3", boxes=[("pits", 0.9)])])
    house.opened().ingest()
    assert seen() == (1, 1) and (asked["images"], asked["choices"]) == (1, 1)
    plant.batch([dict(line="L9")], plant="demo")
    house.opened().ingest()
    assert seen() == (2, 2) and (asked["images"], asked["choices"]) == (2, 2)
    jobs.record("note", dict(line="L1", text="new lamp"))
    assert seen() == (2, 2) and (asked["images"], asked["choices"]) == (3, 3)


def test_each_of_those_is_asked_with_a_plant() -> None:
    import inspect

    for name in OF_A_PLANT:
        first = next(iter(inspect.signature(getattr(jobs.results, name)).parameters.values()))
        assert first.name == "plant" and first.annotation in (str, "str"), name


def test_each_of_them_is_asked_with_filters() -> None:
    """Its first argument says of which plant and line: without it the key would be another."""
    import inspect

    for name in COUNTS:
        first = next(iter(inspect.signature(getattr(jobs.results, name)).parameters.values()))
        assert first.annotation in (jobs.Filters, "Filters"), name


def test_pages_draw_themselves_more_seldom_where_many_are_open(data_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Half a second for each, so all together never more than two drawings a second; and less where many are."""
    from pages.components import crowd
    from pages.components import plant as page

    assert crowd.sessions() == 0 == crowd.rest_s()                           # no server here
    monkeypatch.setattr(st, "session_state", state := dict[str, Any]())
    drawn: list[int] = []
    monkeypatch.setattr(st, "rerun", lambda: drawn.append(1))
    plant.batch([{}])
    house.opened().ingest()
    for people, seconds, times in ((1, 0.6, 1), (8, 3.9, 1), (8, 4.1, 2), (30, 56.0, 2), (30, 56.5, 3)):
        monkeypatch.setattr(crowd, "sessions", lambda n=people: n)
        state[crowd._KEPT] = (time.monotonic() - seconds, 0.0)
        page._look(-1, "real")
        assert len(drawn) == times


@pytest.mark.parametrize("took, seconds, drawn", [
    (0.1, 0.6, True), (1.0, 1.9, False), (1.0, 2.1, True), (20.0, 9.0, False), (20.0, 10.1, True)])
def test_what_took_long_to_draw_is_drawn_seldom(monkeypatch: pytest.MonkeyPatch, took: float, seconds: float, drawn: bool) -> None:
    """Else two open tabs keep two cores busy while a batch is inspected; but it is never ten seconds old."""
    from pages.components import crowd

    monkeypatch.setattr(st, "session_state", state := dict[str, Any]())
    monkeypatch.setattr(crowd, "sessions", lambda: 1)
    now = time.monotonic()
    monkeypatch.setattr(time, "monotonic", lambda: now)
    crowd.drawn(now - took)
    assert crowd.took_s() == pytest.approx(took) and not crowd.rested()
    monkeypatch.setattr(time, "monotonic", lambda: now + seconds)
    assert crowd.rested() == drawn
    crowd.begun()                                                            # it is being drawn: not yet again
    assert not crowd.rested() and state[crowd._KEPT][1] == pytest.approx(took)

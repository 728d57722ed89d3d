"""The page of shift reports: which shift, the preview, whether reports are made by themselves, and those that were."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import streamlit as st
from streamlit.testing.v1 import AppTest

from backend import jobs, rundir
from backend.jobs import house, report_runs, shift_plan, worker
from tests import small_plant as plant
from tests import test_pages_engineering as engineering

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture
def reported(data_folder: Path) -> Iterator[str]:
    """A plant with a shift that has ended, brought 30 parts and has its report; returns its run."""
    st.cache_data.clear()
    now = datetime.now(UTC)
    zone = dict(time_zone="UTC", day_start="00:00", shifts=[dict(name="<b>One</b>", start="00:00", end="12:00"),
                                                            dict(name="Two", start="12:00", end="00:00")])
    plant.decide("calendar", **zone)
    house.opened().ingest()
    span = jobs.results.shifts("real")[1]                     # the first one is under way
    start = span["start"].replace(tzinfo=UTC)
    plant.batch([dict(captured_at=start + timedelta(minutes=20 * n), kept=False, boxes=[("pits", 0.9)] * (n < 3)) for n in range(30)])
    house.opened().ingest()
    made = shift_plan.look(house.database(), max(now, start + timedelta(hours=12, minutes=11)))
    assert len(made) == 1 and worker.main(made[0]) == 0
    yield made[0]


def page(**query: str) -> AppTest:
    return engineering.page("report", **query)


def test_a_shift_is_chosen_shown_taken_along_and_sent(reported: str) -> None:
    at = page()
    chosen = at.selectbox(key="report_shift")
    assert ": 30 parts" in chosen.options[chosen.index] and chosen.options[0].endswith("so far")
    paper = at.get("iframe")[0].proto.srcdoc
    assert "3 of 30 parts" in paper and "<b>One" not in paper and "Content-Security-Policy" not in paper
    assert at.get("download_button")[0].proto.label == "Download"

    # one that was made by itself, as it was made
    table = at.dataframe[0].value
    assert table["edition"].tolist() == [1] and table["state"].tolist() == ["Look"]
    at.session_state["report_kept"] = reported
    at.run()
    assert any("As it was made" in c.value for c in at.caption)
    kept = at.get("iframe")[0].proto.srcdoc
    assert "3 of 30 parts" in kept and rundir.run_path(reported).name == report_runs.reports("real")[0].run_id
    at.button(key="report_unkeep").click().run()
    assert not any("As it was made" in c.value for c in at.caption)

    # not any more, and undone
    at.toggle[0].set_value(False)
    next(b for b in at.button if b.label == "Save").click().run()
    assert not at.exception and not report_runs.plan().on
    at.button(key="undo_last").click().run()
    assert report_runs.plan().on

    # the URL names the shift
    other = jobs.results.shifts("real")[2]
    at = page(shift=f"{other['day']} {other['shift']}")
    assert "nothing came" in at.selectbox(key="report_shift").options[2] and at.selectbox(key="report_shift").index == 2
    assert "Nothing was inspected in this shift" in at.get("iframe")[0].proto.srcdoc

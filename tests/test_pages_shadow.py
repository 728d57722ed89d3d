"""Looking back on the Models page: asking for it, following it, both trends in words, the pictures that would turn, before a promotion."""

from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import streamlit as st
from streamlit.testing.v1 import AppTest

from backend import jobs, rundir
from backend.config import Shadow
from backend.errors import Canceled
from backend.inspection import shadow
from pages.components import charts, shadow_form, shadow_view
from tests import small_plant as plant
from tests.test_pages_engineering import button, ingest, page, said
from tests.test_shadow import Stop, batch, look, model

FIGURES: dict[str, Any] = dict(
    model_name="New *one*", plant="real", line="", product="", looked=5000, planned=5000, there=31_004, pictures=31_004, rejected=1333,
    unkept=0, gone=0, lot=0, damaged=0, learned=0, knows_its_dataset=True, by_hand=[], was=0.043, would=0.051, difference=0.008, low=0.003,
    high=0.012, more=60, fewer=20, judged=0, agreed=0, models={"Old": 5000})


@pytest.fixture(autouse=True)
def _nothing_remembered() -> None:
    st.cache_data.clear()


@pytest.fixture
def kept(data_folder: Path) -> str:
    """Three days of two lines, recorded by m1; and a model that is half as sure again. Its id."""
    plant.decide("calendar", time_zone="UTC", day_start="06:00", shifts=[])
    model("Old", model_id="m1")
    made = model("New", gain=1.5)
    for day in range(3):
        batch([0.1, 0.2, 0.4, 0.6, 0.45], day=day)
        batch([0.1, 0.05, 0.9, 0.2], day=day, marks=50, line="L2")
    ingest()
    return made


@pytest.fixture
def looked(kept: str) -> str:
    """The look-back with it."""
    run = look(model=kept, name="New", days=7)
    ingest()
    return run.name


def chosen(at: AppTest, label: str, value: Any) -> None:
    next(w for kind in (at.segmented_control, at.selectbox) for w in kind if w.label == label).set_value(value).run()
    assert not at.exception, at.exception


def opened(at: AppTest) -> list[str]:
    """Pictures shown, in their order."""
    return [b.label for b in at.button if b.label.startswith("Open ")]


# ---- asking


def test_it_is_asked_for_with_days_line_and_time(kept: str) -> None:
    at = page("models", model=kept)
    assert "would the last days have looked like with this model" in said(at)
    button(at, "Look back …").click().run()
    assert "Nothing is counted, and no trend changes" in said(at) and "27 pictures." in said(at) and "on this machine" in said(at)
    chosen(at, "How far back", "7 days")
    chosen(at, "Line", "L2")
    assert "12 pictures." in said(at)
    next(b for b in at.button if b.key == "look_go").click().run()
    assert not at.exception
    asked = jobs.recent(limit=1, recipes=("shadow",))[0]
    assert asked.config == jobs.Shadow(model=kept, name="New", days=7, line="L2").to_json() and asked.state == "pending"
    assert asked.run_id in at.query_params["look"]
    assert "Look back · New" in said(at) and not any(b.key == "look_go" for b in at.button), "the question is closed, the run followed"


def test_a_sample_is_offered_where_there_are_many(kept: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shadow_form, "SAMPLES", (10, 20))
    monkeypatch.setattr(shadow_form, "USUAL", 10)
    at = page("models", model=kept)
    button(at, "Look back …").click().run()
    assert next(c for c in at.segmented_control if c.label == "How many pictures").options == ["10", "20", "All 27"]
    next(b for b in at.button if b.key == "look_go").click().run()
    assert jobs.recent(limit=1, recipes=("shadow",))[0].config["pictures"] == 10


def test_nothing_to_look_back_on_is_said(data_folder: Path) -> None:
    made = model("New")
    ingest()
    at = page("models", model=made)
    button(at, "Look back …").click().run()
    assert "No picture counts in the trends here yet" in said(at) and not any(b.key == "look_go" for b in at.button)
    batch([0.2, 0.3], kept=False)
    ingest()
    at = page("models", model=made)
    button(at, "Look back …").click().run()
    assert "2 pictures count in these days, but none of them was kept" in said(at)


# ---- what is shown


def test_both_trends_in_words_and_the_pictures_that_would_turn(looked: str, kept: str) -> None:
    at = page("models", look=looked)
    assert kept in at.query_params["model"], "a link may name the look-back alone"
    text = said(at)
    assert "New would have rejected 44 % of the pictures instead of 22 %: 22.2 points more, between" in text
    assert "It would reject 6 pictures that passed, and pass 0 pictures" in text
    assert "27 pictures of" in text and "27 count in these days" in text and "Recorded by Old (27)" in text and "your plant" in text
    assert len(opened(at)) == 6 and text.count(":green[good] :material/arrow_forward: :red[pits]") == 6
    chosen(at, "Line", "L2")
    assert opened(at) == [] and "None, of these" in said(at)
    chosen(at, "Line", "L1")
    chosen(at, "Kind of defect", "pits")
    assert len(opened(at)) == 6
    next(b for b in at.button if b.label.startswith("Open ")).click().run()
    assert not at.exception and "With the model" in said(at) and "sure" in said(at)
    for whose in ("was", "would"):
        chosen(at, "Boxes of", whose)
        assert "As recorded" in said(at)
    tables = [d.value for d in at.dataframe]
    assert any("With it" in t and "Picture" in t and len(t) == 6 for t in tables) and any("Step (points)" in t for t in tables)


def test_a_run_that_was_stopped_shows_what_it_has(kept: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shadow, "MOST", 4)
    run = rundir.create("shadow", Shadow(model=kept, name="New", days=7).to_json())
    at = page("models", model=kept)
    assert "Look back · New" in said(at), "waiting: no figures yet"
    with pytest.raises(Canceled):
        look(Stop(5), run, model=kept, days=7)
    rundir.set_state(run, "canceled", message="Canceled.", started_at=rundir.now(), finished_at=rundir.now())
    ingest()
    at = page("models", model=kept)
    assert "So far 12 of 27. 12 pictures of" in said(at) and "12 of the 27 that can be looked at" in said(at)
    button(at, "Run it after all").click().run()
    assert jobs.status(run.name).state == "pending"


def test_a_model_has_several_look_backs(looked: str, kept: str) -> None:
    second = look(model=kept, name="New", days=1, line="L2")
    ingest()
    at = page("models", model=kept)
    assert at.selectbox(f"look_{second.name}").options[0].startswith("1 days, L2") and "4 pictures of" in said(at)
    at.selectbox(f"look_{second.name}").set_value(1).run()
    assert "27 pictures of" in said(at) and not at.exception


def test_before_a_promotion_the_newest_is_shown(looked: str, kept: str) -> None:
    at = page("models", model=kept)
    before = said(at).count("22.2 points more")
    button(at, "Put to use …").click().run()
    assert said(at).count("22.2 points more") == before + 1 and "27 pictures, looked back" in said(at)
    other = model("Third", gain=2.0)
    ingest()
    at = page("models", model=other)
    button(at, "Put to use …").click().run()
    assert "Nobody has looked back with it yet" in said(at)


def test_runs_lead_to_it(looked: str) -> None:
    at = page("runs", run=looked)
    assert "Look back" in at.dataframe[0].value["What"].tolist() and jobs.status(looked).name == "New"
    assert any("See both trends" in str(link.proto) for link in at.get("page_link"))


# ---- in words and figures


@pytest.mark.parametrize(("figures", "words"), [
    (dict(), "New \\*one\\* would have rejected 5.1 % of the pictures instead of 4.3 %: 0.8 points more, between 0.3 points"),
    (dict(difference=-0.02, low=-0.03, high=-0.0004, would=0.023), "2.0 points fewer, between 3.0 points fewer and 0.04 points fewer."),
    (dict(low=-0.003), "No clear step: New \\*one\\* would have rejected 5.1 % of the pictures, 4.3 % were; the step lies between 0.3"),
    (dict(low=-0.001, high=0.001, difference=0.0, would=0.043), "between 0.1 points fewer and 0.1 points more")])
def test_the_step_in_words(figures: dict[str, Any], words: str) -> None:
    assert words in shadow_view.sentence(FIGURES | figures)


@pytest.mark.parametrize(("figures", "words"), [
    (dict(gone=1204), "1,204 pictures were kept but are not on disk any more"), (dict(lot=210), "210 of the good pictures were kept by"),
    (dict(learned=7), "7 pictures are left out because New \\*one\\* learned"), (dict(unkept=3), "3 pictures were not kept"),
    (dict(damaged=2), "2 pictures cannot be read"), (dict(knows_its_dataset=False), "is not here any more: pictures that it knows"),
    (dict(plant="demo"), "record is made up"), (dict(by_hand=["pits"]), "Limits set by hand hold for both: pits."),
    (dict(was=1.0), "No picture that passed is left")])
def test_what_a_person_should_know(figures: dict[str, Any], words: str) -> None:
    assert shadow_view.doubts(FIGURES) == []
    assert len(told := shadow_view.doubts(FIGURES | figures)) == 1 and words in told[0]


def test_the_chart_holds_both_and_says_which() -> None:
    days = pd.DataFrame(dict(bucket=pd.to_datetime(["2026-11-01", "2026-11-02"]), pictures=[100, 50], was=[0.02, 0.04],
                             was_low=[0.01, 0.02], was_high=[0.05, 0.1],
                             would=[0.03, 0.08], would_low=[0.01, 0.04], would_high=[0.07, 0.15]))
    figure = shadow_view.trend(days, "<b>New</b>")
    lines = {t.name: t for t in figure.data if t.name}
    assert list(lines) == ["As recorded", "&lt;b&gt;New&lt;/b&gt;"]
    assert [list(t.y) for t in lines.values()] == [[0.02, 0.04], [0.03, 0.08]] and len(figure.data) == 6
    assert len({(t.line.dash, t.marker.symbol, t.line.color) for t in lines.values()}) == 2, "told apart without colour too"
    assert figure.layout.xaxis.range is None and shadow_view.trend(days.head(1), "New").layout.xaxis.range is not None


def test_a_clear_step_stands_out() -> None:
    rows = pd.DataFrame(dict(value=["L1", "L2<"], was=[0.1, 0.1], would=[0.12, 0.3], difference=[0.02, 0.2], low=[-0.01, 0.1],
                             high=[0.05, 0.3]))
    marks = shadow_view.steps(rows).data[0]
    assert list(marks.y) == ["L2&lt;", "L1"] and list(marks.marker.color) == [shadow_view.WOULD, charts.GREY]
    assert list(marks.x) == [20.0, 2.0] and marks.error_x.arrayminus[0] == pytest.approx(10)

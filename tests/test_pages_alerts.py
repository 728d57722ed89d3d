"""Alarms, targets, rules, channels, checks and notes on their pages: one run of a page for several claims.

The plant: three shifts of eight hours a day up to now, 40 plates each; line 1 has had six times as many pits since the last shift.
"""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pandas as pd
import plotly.graph_objects as go
import pytest
import streamlit as st
from streamlit.testing.v1 import AppTest

from backend import jobs, rundir
from backend.errors import InputError
from backend.jobs import channels, delivery, house, lookout
from backend.jobs.alarms import AlertRule, Target
from pages.components import annotation_marks, charts, target_list
from tests import small_plant as plant
from tests.test_check import photographed

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture
def folder(data_folder: Path) -> Iterator[Path]:
    st.cache_data.clear()                            # its key is the revision, which starts again with every folder
    plant.model("m1")
    now = datetime.now(UTC)
    edge = (now - timedelta(hours=6)).replace(minute=0, second=0, microsecond=0)
    last = edge - timedelta(hours=edge.hour % 8 - 6) - timedelta(hours=8)
    plant.batch([dict(captured_at=last - timedelta(hours=8 * (9 - n)) + timedelta(minutes=10 * i), line=line,
                      boxes=[("pits", 0.9)] if i < (12 if n == 9 and line == "Line 1" else 2) else [])
                 for line in ("Line 1", "Line 2") for n in range(10) for i in range(40)])
    house.opened().ingest()
    yield data_folder


def page(name: str = "alarms", **query: str) -> AppTest:
    at = AppTest.from_file(str(ROOT / "frame.py"), default_timeout=60).switch_page(f"pages/{name}.py")
    for key, value in query.items():
        at.query_params[key] = value
    return ok(at)


def ok(at: AppTest) -> AppTest:
    at.run()
    assert not at.exception, at.exception
    return at


def press(at: AppTest, widget: Any) -> None:
    widget.click()
    ok(at)


def words(at: AppTest) -> str:
    said = " ".join(e.value for e in (*at.title, *at.markdown, *at.caption, *at.info, *at.warning, *at.error))
    return said.replace("\\", "")


def button(at: AppTest, label: str, nth: int = 0) -> Any:
    return [b for b in at.button if b.label == label][nth]


def named(widgets: Any, label: str) -> Any:
    return next(w for w in widgets if w.label == label)


def look() -> None:
    lookout.look(house.database())


def test_from_a_target_to_an_alarm_that_somebody_has_seen(folder: Path) -> None:
    at = page()
    assert "Nobody is told yet" in words(at) and "open alarm" not in words(page("overview"))

    # A target and a rule are set on the page.
    at = page(alarms_view="Rules and targets")
    assert "No target is set" in words(at)
    named(at.selectbox, "Line").set_value("Line 1")
    named(at.number_input, "Target, in %").set_value(8.0)
    press(at, button(at, "Save"))
    assert [(t.line, t.value) for t in jobs.results.targets("real")] == [("Line 1", 0.08)] and "30.0 % (12 of 40)" in words(at)
    assert "Missed" in words(at) and "target at most" not in words(at).split("Shift from")[1][:90]
    named(at.selectbox, "When").set_value("target").run()
    named(at.number_input, "Only shifts of so many parts or more").set_value(20)
    press(at, next(b for b in at.button if b.label == "Save" and "rule_form_new" in (b.form_id or "")))
    rule, = jobs.results.alert_rules("real")
    assert (rule.kind, rule.line, rule.least, rule.sure, rule.send) == ("target", "", 20, True, True)

    # The lookout finds it; Overview says so first, the page takes the acknowledgement.
    look()
    overview = page("overview")
    assert "1 open alarm" in words(overview) and "Line 1: Defect rate 30.0 % (12 of 40), target at most 8.0 %" in words(overview)
    at = page()
    assert "Nobody has seen it" in words(at) and "It cannot be said yet where to look first" in at.expander[0].label
    assert "The software was not checked." in words(at)
    named(at.text_area, "What is being done about it?").set_value("Roll 3 <b> is looked at")
    next(t for t in at.text_input if t.key.startswith("seen_by_")).set_value("Kim")
    press(at, next(b for b in at.button if b.label == "Acknowledge"))
    assert "Acknowledged" in words(at) and "Roll 3 <b> is looked at" in words(at) and "Kim" in words(at)
    assert "No alarm that nobody has seen" in words(page("overview"))
    press(at, next(b for b in at.button if b.label == "Let it rest"))
    assert "At rest until" in words(at) and jobs.results.alarms("real")[0].rests(datetime.now(UTC) + timedelta(hours=7))
    press(at, button(at, "Wake it"))
    press(at, next(b for b in at.button if b.label == "Undo" and b.key.startswith("unsee_")))
    assert "Nobody has seen it" in words(at) and not jobs.results.alarms("real")[0].rests(datetime.now(UTC))
    assert "An alarm was acknowledged" in " ".join(jobs.results.changes("real")["text"])

    # Without the target it is over, and stands below.
    jobs.record("target", Target(line="Line 1", removed=True).to_json())
    look()
    at = page()
    assert "No open alarm" in words(at) and at.dataframe[0].value["How it ended"].tolist() == ["The target was taken away."]

    # Lines whose names no ASCII letter tells apart are alarms beside each other.
    for line in ("一线", "二线"):
        jobs.record("alarm", dict(id=f"imaging|{line}#1", cause=f"imaging|{line}", kind="imaging", line=line, text=f"{line}: dim"))
    assert "一线: dim" in words(at := page()) and "二线: dim" in words(at)


def test_what_was_typed_stays_where_it_is_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The plant is looked after elsewhere, or the disk is full; once it is recorded the form is empty again."""
    def refused(*_: Any, **__: Any) -> str:
        raise InputError("This plant is looked after elsewhere.")

    at = page(alarms_view="Rules and targets")
    for allowed in (False, True):
        with monkeypatch.context() as patch:
            if not allowed:
                patch.setattr(jobs, "record", refused)
                named(at.text_input, "Why").set_value("Holiday")
            press(at, next(b for b in at.button if b.label == "Save" and b.form_id == "standstill"))
        assert named(at.text_input, "Why").value == ("" if allowed else "Holiday")
        assert len(jobs.results.standstills("real")) == allowed
    at = page("overview")
    with monkeypatch.context() as patch:
        patch.setattr(jobs, "record", refused)
        named(at.text_area, "What happened?").set_value("Roll 3 changed")
        press(at, next(b for b in at.button if b.form_id == "note_overview_new"))
    assert named(at.text_area, "What happened?").value == "Roll 3 changed" and "elsewhere" in at.toast[0].value


def test_a_line_is_planned_by_shift_and_weekday_and_stands_still(folder: Path) -> None:
    jobs.record("alert", AlertRule(minutes=90, planned={"Early": [1, 2]}).to_json())
    at = page(alarms_view="Rules and targets")
    assert "After 90 minutes. Planned: Early Mon, Tue. Sent to all channels" in words(at)
    named(at.text_input, "Why").set_value("Holiday")
    press(at, next(b for b in at.button if b.label == "Save" and b.form_id == "standstill"))
    still, = jobs.results.standstills("real")
    assert still["text"] == "Holiday" and still["until"] - still["since"] == timedelta(days=1) and "Holiday" in words(at)
    press(at, next(b for b in at.button if b.key == f"works_{still['run_id']}"))
    assert jobs.results.standstills("real") == []
    press(at, next(b for b in at.button if b.label == "Take it away"))
    assert jobs.results.alert_rules("real") == []


def test_channels_are_set_tested_and_logged_without_a_secret(folder: Path) -> None:
    jobs.record("calendar", dict(time_zone="Asia/Kolkata", day_start="06:00", shifts=[]))
    at = page(alarms_view="Messages")
    assert "Add a channel, and they are sent too" in words(at) and "Nothing was sent yet" in words(at)
    at.segmented_control(key="channel_kind").set_value("file").run()
    named(at.text_input, "Name").set_value("MES")
    named(at.text_input, "Folder in data/alerts").set_value("../outside")
    press(at, button(at, "Save"))
    assert "Name a folder without slashes" in words(at) and channels.known() == []
    named(at.text_input, "Folder in data/alerts").set_value("mes")
    press(at, button(at, "Save"))
    known, = channels.known()
    assert known.channel.path == folder / "alerts" / "mes" and "Messages go to MES" in words(at)
    press(at, button(at, "Send a test"))
    assert "1 test on the way" in words(at)
    delivery.deliver()
    at = page(alarms_view="Messages")
    local = delivery.log()[0].at.astimezone(ZoneInfo("Asia/Kolkata"))
    assert at.dataframe[0].value["When"].tolist() == [f"{local.day} {local:%b %H:%M}"], "the plant's clock, not the visitor's"
    assert at.dataframe[0].value["State"].tolist() == [["Sent"]] and len(list((folder / "alerts" / "mes").iterdir())) == 1
    at.segmented_control(key="channel_kind").set_value("mail").run()
    for label, value in (("Name", "Chiefs"), ("The plant's relay", "relay"), ("From", "a@b"), ("To, separated by commas", "c@d, e@f"),
                         ("Login, if the relay asks for one", "plant"), ("Name of its password", "not a name!")):
        named([t for t in at.text_input if t.key is None or "folder" not in t.key], label).set_value(value)
    press(at, next(b for b in at.button if b.label == "Save" and "new_mail" in b.form_id))
    assert "Name the variable that holds the secret" in words(at)
    named(at.text_input, "Name of its password").set_value("RELAY_PASSWORD")
    press(at, next(b for b in at.button if b.label == "Save" and "new_mail" in b.form_id))
    assert "may name only secrets that begin with DIFFSPECT_SECRET_" in words(at)
    named(at.text_input, "Name of its password").set_value("DIFFSPECT_SECRET_RELAY")
    press(at, next(b for b in at.button if b.label == "Save" and "new_mail" in b.form_id))
    assert "relay is not among the hosts that messages may go to" in words(at) and len(channels.known()) == 1
    (folder / "outbound.txt").write_text("relay\n*.example\n")
    press(at, next(b for b in at.button if b.label == "Save" and "new_mail" in b.form_id))
    assert [(k.channel.name, k.channel.to) for k in channels.known()] == [("Chiefs", ["c@d", "e@f"]), ("MES", [])]
    jobs.record("channel", channels.Channel("Chat", url="https://chat.example/hooks/T0K3N?x=1").to_json())
    at = page(alarms_view="Messages")
    assert not [t for t in at.text_input if "T0K3N" in f"{t.value}{t.placeholder}"] and "T0K3N" not in words(at)
    press(at, next(b for b in at.button if b.label == "Save" and "new" not in b.form_id and "webhook" in b.form_id))
    assert next(k for k in channels.known() if k.channel.name == "Chat").channel.url.endswith("/hooks/T0K3N?x=1")
    named(at.text_input, "New address").set_value("https://other.example/h")
    press(at, next(b for b in at.button if b.label == "Save" and "new" not in b.form_id and "webhook" in b.form_id))
    assert next(k for k in channels.known() if k.channel.name == "Chat").channel.url == "https://other.example/h"
    (folder / "alerts.toml").write_text("[[channel]]\nname = 'x'\nkind = 'webhook'\nurl = 'gopher://x'\n")
    assert "alerts.toml cannot be used" in words(page(alarms_view="Messages"))


def test_checks_say_whether_camera_and_software_are_sound(folder: Path) -> None:
    at = page("control", charts_view="Checks")
    assert "Nobody watches the camera yet" in words(at) and "photograph them each shift" in words(at)
    photographed(24, dim=2)
    house.opened().ingest()
    press(at, button(at, "Check now"))
    run, = rundir.find("check")
    rundir.set_state(run, "failed", message="The model 'm1' is damaged.")
    house.opened().ingest()
    at = page("control", charts_view="Checks")
    assert "The software check fails; Master parts look different (L1: brightness)" in words(at)
    assert "Brightness of the master parts: 2 in a row below the limits." in words(at) and "It could not run" in words(at)
    assert "2 master parts" in words(at) and len(at.get("plotly_chart")) == 1 and len(at.dataframe[-1].value) == 24


def test_a_note_is_a_number_on_every_chart_and_a_row_beside(folder: Path) -> None:
    at = page("overview")
    named(at.text_area, "What happened?").set_value("Roll 3 changed <img src=x>")
    named([t for t in at.text_input], "Your name").set_value("Kim")
    next(s for s in at.selectbox if s.form_id == "note_overview_new").set_value("Line 1")
    press(at, next(b for b in at.button if b.form_id == "note_overview_new"))
    assert "The note is on the charts" in words(at) and ":orange-badge[1] **Roll 3 changed <img src=x>**" in words(at)
    assert "· Line 1 · Kim" in words(at) and not [m for m in at.markdown if "<img" in m.value.replace("\\<", "")]
    assert ":orange-badge[1] **Roll 3" in words(page("trends", line="Line 1"))
    form = next(b.form_id for b in at.button if b.form_id.startswith("note_overview_2"))
    next(t for t in at.text_area if t.form_id == form).set_value("Roll 4 changed")
    press(at, next(b for b in at.button if b.form_id == form))
    note, = jobs.results.annotations("real").itertuples()
    assert note.edited and "Roll 4 changed" in words(at)
    press(at, next(b for b in at.button if b.label == "Take it away"))
    assert jobs.results.annotations("real").empty
    press(at, at.button(key="undo_last"))
    assert len(jobs.results.annotations("real")) == 1


def test_many_notes_are_all_told_and_few_have_forms(folder: Path) -> None:
    for n in range(20):
        at = (datetime.now(UTC) - timedelta(days=3, minutes=n)).isoformat()
        jobs.record("note", {"line": "Line 1", "at": at, "text": f"Roll {n} changed"})
    at = page("overview")
    assert all(f"**Roll {n} changed**" in words(at) for n in range(20))
    assert len([b for b in at.button if b.label == "Take it away"]) == annotation_marks.SHOWN
    older = at.selectbox(key="earlier_note_overview")
    assert len(older.options) == 20 - annotation_marks.SHOWN
    older.select_index(0).run()
    assert len([b for b in at.button if b.label == "Take it away"]) == annotation_marks.SHOWN + 1


def test_a_target_is_a_line_of_just_its_selection(folder: Path) -> None:
    jobs.record("target", Target(line="Line 1", measure="good first time", value=0.95).to_json())
    buckets = pd.Series(pd.to_datetime(["2026-06-01", "2026-06-02"]))
    mixed = jobs.Filters(line="Line 1", shift="Early")
    for asked, lines in ((jobs.Filters(line="Line 1"), 1), (jobs.Filters(line="Line 2"), 0), (mixed, 0)):
        figure = go.Figure().set_subplots(2, 1)
        target_list.draw(figure, target_list.shares(asked), buckets)
        assert len(figure.data) == lines
    target_list.draw(figure, target_list.shares(jobs.Filters(line="Line 1")), buckets)
    assert figure.data[0].text[0] == "target 5.0 %" and list(figure.data[0].y) == pytest.approx([0.05, 0.05])


def test_marks_carry_their_numbers() -> None:
    frame = pd.DataFrame(dict(number=[1, 2], at=pd.to_datetime(["2026-06-01 06:00", "2026-06-02 07:00"])))
    figure = go.Figure(go.Scatter(x=frame["at"], y=[1, 2]))
    figure.set_subplots(2, 1)
    annotation_marks.draw(figure, frame)
    assert [a.text for a in figure.layout.annotations] == ["<b>1</b>", "<b>2</b>"] and len(figure.layout.shapes) == 2
    assert charts.AMBER in {s.line.color for s in figure.layout.shapes}

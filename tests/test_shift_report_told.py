"""What the shift report says, piece by piece, from facts written by hand."""

import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from backend.jobs import shift_events
from backend.quality import report as paper
from backend.quality import report_tables as tables
from backend.store import shifts
from backend.store.calendar import Span
from backend.store.database import Database
from backend.store.ingest import ingest
from tests import small_plant as plant


def test_each_shift_has_a_file_of_its_own() -> None:
    names = [paper.file_name(dict(plant="real", day="2026-11-29", shift=name, start=f"2026-11-29T{hour}:00:00"))
             for name, hour in (("\u65e9\u73ed", "06"), ("\u591c\u73ed", "22"), ("Early", "06"))]
    assert names == [f"shift-report-2026-11-29-{end}.html" for end in ("0600-shift", "2200-shift", "0600-Early")]


def test_over_is_no_explanation_and_a_foreign_day_is_named(data_folder: Path) -> None:
    plant.decide("alarm", id="a", kind="silence", cause="c", text="No pictures.", since="2026-06-09T07:00:00+00:00")
    plant.decide("alarm-over", alarm="a", text="They arrive again.")
    db = Database()
    ingest(db)
    plan, now = shifts.plan(db), datetime.now(UTC)
    today, long = (Span("Early", now.date(), now - around, now + around) for around in (timedelta(hours=1), timedelta(days=9)))
    own, foreign = (shift_events.raised(db, "real", plan, span) for span in (today, long))
    said, day = tables.alarms(dict(alarms=own)), f"{plan.local(now):%b}, "
    assert re.search(r"\(noticed \d\d:\d\d\)\. Over since \d\d:\d\d\. <", said) and "Explained" not in said
    assert tables.alarms(dict(alarms=foreign)).count(day) == 2                                # noticed, and over
    plant.decide("alarm-seen", alarm="a", text="Cable.", by="Mia")
    ingest(db)
    assert "Explained: Cable. (Mia)<" in tables.alarms(dict(alarms=shift_events.raised(db, "real", plan, today)))
    db.close()


def test_a_line_that_sent_nothing_is_never_passed_over() -> None:
    rows: list[dict[str, Any]] = [dict(name=name, units=units) for name, units in (("L1", 9), ("L2", 0), ("L3", 0), ("L4", 0))]
    usually, still = {"L1": 4, "L2": 4, "L3": 2, "L4": 4}, {"L4"}
    facts: dict[str, Any] = dict(lines=rows, unusual=None, fell_silent=[], missing=shift_events.missing(rows, usually, still),
                 quiet=shift_events.quiet(rows, usually, still))
    assert [len(facts[n]) for n in ("missing", "quiet")] == [1, 2]
    said = tables.missing(facts)
    assert "L3 sent nothing; it is not known to work in this shift." in said and "Nothing:" not in said
    assert "L4 sent nothing; it is said to stand still in this shift." in said
    empty = tables.missing(facts | dict(lines=[], missing=[], quiet=[]))
    assert "Nothing came, and no line is known to work in this shift." in empty and "every line" not in empty
    assert "Nothing: every line that usually works sent data." in tables.missing(facts | dict(lines=rows[:1], missing=[], quiet=[]))


def test_pictures_and_parts_are_counted_apart() -> None:
    one = dict(kind="pits", line="L1", product="", unit="", at="2026-06-09T23:00:00")
    assert "6 pictures of 3 defective parts: the surest of each kind" in paper._pictures(
        dict(pictures=[one] * 6, totals=dict(defective=3)), [(one, "")] * 6)
    assert "2 pictures of 1 defective part:" in paper._pictures(dict(pictures=[one] * 2, totals=dict(defective=1)), [(one, "")] * 2)

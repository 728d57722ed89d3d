"""Control charts in the product: what they count, who owns their limits, what a change of threshold and of model does, what lines say.

The plant: line L1, three shifts of eight hours a day from Wednesday 10 June on, 50 plates each, one in 25 with pits.
"""

import shutil
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from backend import rundir
from backend.config import Demo
from backend.data import demo_plant
from backend.errors import ConfigError
from backend.jobs import control, points, signals
from backend.jobs.control import Watched
from backend.jobs.trial import trial
from backend.quality import alarms, rules, spc, stages
from backend.quality.episodes import episodes
from backend.quality.stages import SavedChart, watch
from backend.records import Filters
from backend.store import calendar, decisions, facts, lines, queries
from backend.store import spc as counts
from backend.store.database import Database
from backend.store.ingest import ingest, rebuild
from tests import small_plant as plant

FIRST = plant.NOON - timedelta(hours=6)                  # the early shift of Wednesday 10 June
USUAL = [2, 1, 3, 2, 2, 1, 2, 4, 1, 2]                   # pits in ten shifts; the same again in the next
SIZE = 50


@pytest.fixture(autouse=True)
def _false_alarms_roughly(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Within a tenth, from a sixteenth of the simulated points: half a second less for each chart that is tried."""
    alarms.run_length.cache_clear()
    monkeypatch.setattr(alarms, "RUNS", 1 << 6)
    yield
    alarms.run_length.cache_clear()


@pytest.fixture
def db(db: Database) -> Database:
    """The store that tests share, of a plant with one model."""
    plant.model("m1")
    return db


def shifts(bad: Sequence[int], first: int = 0, size: int = SIZE, confidence: float = 0.9, **more: Any) -> Path:
    """So many shifts of plates, of which so many have pits; further columns for all."""
    at = [FIRST + timedelta(hours=8 * (first + n)) for n in range(len(bad))]
    return plant.batch([dict(captured_at=at[n] + timedelta(minutes=9 * i), boxes=[("pits", confidence)] if i < k else [("pits", 0.15)])
                        | more for n, k in enumerate(bad) for i in range(size)])


def clock(db: Database, at: datetime | None = None) -> counts.Clock:
    return counts.clock(db, "real", at)


def key(shift: int) -> str:
    return (FIRST + timedelta(hours=8 * shift)).replace(tzinfo=None).isoformat()


def save(chart: SavedChart | None = None, **more: Any) -> str:
    return plant.decide("chart", **(chart or SavedChart(line="L1", **more)).to_json())


def freeze(db: Database, until: int = 19, after: int | None = None, **more: Any) -> SavedChart:
    """A chart with limits from the first shifts, as the page would save it; just `after` a shift was over."""
    ingest(db)
    made = trial(db, "real", SavedChart(line="L1", since=key(0), until=key(until), **more)).chart
    assert made.limits
    job = rundir.run_path(save(made)) / "job.json"
    if after is not None:
        at = FIRST + timedelta(hours=8 * (after + 1), minutes=1)
        rundir.write_json(job, {**rundir.read_json(job), "created_at": at.isoformat(timespec="microseconds")})
    ingest(db)
    return made


def only(db: Database, at: datetime | None = None) -> Watched:
    ingest(db)
    watched, = control.charts(db, "real", at)
    return watched


# ---- what is counted


def test_counts_are_those_of_trends(db: Database) -> None:
    shifts([5, 0, 3], line="L1")
    shifts([7, 7, 7], line="L2")
    plant.batch([dict(unit_id="7", boxes=[("scratch", 0.9)]), dict(unit_id="7", boxes=[("pits", 0.9)])])     # two views of one plate
    ingest(db)
    for asked, by in ((Filters(line="L1"), "shift"), (Filters(line="L1", class_name="pits"), "day"), (Filters(line="L2"), "hour")):
        found, trend = counts.subgroups(db, asked, by, clock(db)), queries.trend(db, asked, by)
        assert found["units"].tolist() == trend["inspected"].tolist() and found["defective"].tolist() == trend["defective"].tolist()
        assert found["key"].tolist() == [b.isoformat() for b in trend["bucket"]] == sorted(found["key"])
    assert set(found["model"]) == {"Model m1"}
    nothing = Filters(line="L3")
    assert counts.subgroups(db, nothing, "shift", clock(db)).empty and counts.gaps(db, nothing, clock(db)).empty


@pytest.mark.parametrize(("by", "ended"), [("shift", [True, False]), ("day", [False]), ("hour", [True] * 15 + [False]), ("week", [False])])
def test_a_subgroup_under_way_is_known_as_such(db: Database, by: str, ended: list[bool]) -> None:
    shifts([1, 1])
    ingest(db)
    now = FIRST + timedelta(hours=15, minutes=20)
    assert counts.subgroups(db, Filters(line="L1"), by, clock(db, now))["ended"].tolist() == ended
    assert len(counts.subgroups(db, Filters(line="L1"), "shift", clock(db, FIRST + timedelta(minutes=5)))) == 1, "the future is left out"


def test_outside_all_shifts_a_subgroup_ends_where_a_shift_begins() -> None:
    plan = calendar.Calendar(shifts=(calendar.Shift("Early", 360, 840), calendar.Shift("Late", 840, 1320)))
    assert counts._length(plan, "shift", datetime(2026, 6, 10, 6)) == timedelta(hours=8)
    assert counts._length(plan, "shift", datetime(2026, 6, 10, 22)) == timedelta(hours=8)
    assert counts._length(calendar.Calendar(shifts=()), "shift", datetime(2026, 6, 10, 6)) == timedelta(days=1)


def test_gaps_count_good_units_between_defects(db: Database) -> None:
    bad = {3, 4, 10, 60}
    plant.batch([dict(unit_id=str(n // 2), boxes=[("pits", 0.9)] if n in bad else []) for n in range(80)])      # two views a plate
    plant.batch([dict(captured_at=plant.NOON + timedelta(minutes=90), boxes=[("scratch", 0.9)])])
    ingest(db)
    found = counts.gaps(db, Filters(line="L1", class_name="pits"), clock(db))
    assert found["good"].tolist() == [0, 2, 24], "plates 1, 2, 5 and 30; before the first nobody knows"
    assert found["hours"].tolist() == pytest.approx([2 / 60, 6 / 60, 50 / 60])
    assert counts.gaps(db, Filters(line="L1"), clock(db))["good"].tolist()[-1] == 9 and set(found["model_id"]) == {"m1"}


def test_gaps_keep_their_order_when_clocks_go_back(db: Database) -> None:
    plant.decide("calendar", time_zone="Europe/Berlin", day_start="06:00", shifts=[])
    back = datetime.fromisoformat("2026-10-25T00:30:00+00:00")                      # 02:30, and an hour later again
    plant.batch([dict(captured_at=back + timedelta(minutes=20 * n), boxes=[("pits", 0.9)]) for n in range(8)]
                + [dict(captured_at=back + timedelta(minutes=140), boxes=[("pits", 0.9)])])
    ingest(db)
    found = counts.gaps(db, Filters(line="L1"), clock(db))
    assert found["key"].is_unique and found["key"].is_monotonic_increasing and found["hours"].tolist() == pytest.approx([1 / 3] * 7 + [0])


def test_what_people_decided_in_its_order(db: Database) -> None:
    first = save()
    save(characteristic="pits")
    plant.decide("retire", chart=SavedChart(line="L1", characteristic="pits").chart_id, line="L1", characteristic="pits")
    again = save(characteristic="pits", rules=["beyond"])
    plant.decide("undo", run_id=first)
    plant.decide("chart", line="", kind="p")                                        # nobody's: passed over
    plant.decide("chart", plant="demo", **SavedChart(line="L1").to_json())
    ingest(db)
    found = control.saved(counts.decided(db, "real", clock(db)))
    assert [[(s.run_id, s.chart.rules) for s in saves] for saves in found.values()] == [[(again, ["beyond"])]]
    told = decisions.changes(db, "real")["text"].tolist()
    assert "Control chart of L1, pits: put away." in told and "Control chart of L1, pits: made, without limits so far." in told


# ---- which points are judged


def test_what_is_too_small_or_under_way_is_set_aside(db: Database) -> None:
    shifts(USUAL)
    shifts([1], first=10, size=2)                                                    # half of it, after two plates
    shifts([1], first=11)
    ingest(db)
    found = points.points(db, "real", SavedChart(line="L1"), clock(db, FIRST + timedelta(hours=90)))
    assert found.frame["aside"].tolist() == [""] * 10 + [points.SMALL, points.UNDER_WAY]
    keys, n, sizes = found.asked("p")
    assert keys == [key(i) for i in range(10)] and n.tolist() == USUAL and sizes is not None and set(sizes) == {SIZE}
    assert points.points(db, "real", SavedChart(line="L1"), clock(db), key(4)).frame["key"].tolist()[0] == key(4)


@pytest.mark.parametrize(("kind", "first"), [("u", 2), ("i", 0.04), ("p'", 2)])
def test_each_kind_counts_its_own(db: Database, kind: str, first: float) -> None:
    shifts(USUAL)
    ingest(db)
    _, n, sizes = points.points(db, "real", SavedChart(line="L1", kind=kind), clock(db)).asked(kind)
    assert n[0] == pytest.approx(first) and (sizes is None) == (kind == "i")


def test_a_trial_batch_of_another_model_is_no_promotion(db: Database) -> None:
    plant.model("m2")
    shifts(USUAL[:4])
    shifts([9], first=4, model_id="m2")
    shifts(USUAL[:3], first=5)
    shifts(USUAL[:2], first=8, model_id="m2")
    ingest(db)
    found = points.points(db, "real", SavedChart(line="L1"), clock(db))
    assert found.frame["aside"].tolist() == [""] * 4 + [points.OTHER] + [""] * 5
    assert [(p.at, p.model) for p in found.promotions] == [(key(8), "Model m2")]


# ---- limits


def test_a_chart_without_limits_says_what_it_needs(db: Database) -> None:
    shifts(USUAL[:6])
    save()
    w = only(db)
    assert w.state == "unjudged" and signals.sentence(w) == "Too early to judge: needs 20 shifts; 6 so far"
    made = trial(db, "real", SavedChart(line="L1"))
    assert made.why_not == "The period is too short: it needs 20 shifts; 6 so far." and not made.chart.limits
    assert (made.chart.since, made.chart.until) == (key(0), key(5))


def test_a_chart_owns_its_limits_whatever_comes_late(db: Database) -> None:
    shifts(USUAL * 3)
    made = freeze(db)
    w = only(db)
    assert w.state == "calm" and signals.sentence(w) == "Nothing but chance in the last 30 shifts"
    assert w.chart.limits["center"] == pytest.approx(0.04) and w.frame["high"].iloc[0] == pytest.approx(0.04 + 3 * (0.0384 / 50) ** 0.5)
    shifts([40], first=3)                                                            # found in a drawer: into the period itself
    assert only(db).chart.limits == made.limits and only(db).frame["count"].iloc[3] == 42


def test_what_is_left_out_has_said_why(db: Database) -> None:
    shifts([*USUAL, 20, *USUAL[1:], *USUAL])
    ingest(db)
    why = {key(10): "A trial with other steel."}
    made = trial(db, "real", SavedChart(line="L1", since=key(0), until=key(20), excluded=why))
    assert made.chart.limits and made.outside == ()
    assert trial(db, "real", SavedChart(line="L1", since=key(0), until=key(20))).outside == (key(10),)
    save(made.chart)
    alarm, = only(db).alarms
    assert (alarm.text, alarm.open) == ("A trial with other steel.", False)


def test_a_threshold_restates_history_and_limits_and_starts_no_stage(db: Database) -> None:
    """Pits of the period were found with confidence 0.9, later ones with 0.6: from 0.7 on those are none, from 0.95 on none is."""
    shifts([n + 5 for n in USUAL] * 2)
    shifts([12, 3], first=20, confidence=0.6)
    before = freeze(db, after=19)
    strict = plant.decide("policy", product="", class_name="pits", action="reject", threshold=0.7, min_side=0)
    w = only(db)
    assert [s.why for s in w.stages] == ["Limits were frozen"] and w.frame["count"].tolist()[-2:] == [0, 0]
    assert w.chart.limits == before.limits and not w.saves[0].restated, "as many in the period as before"
    assert w.changes["text"].tolist() == ["Pits: rejected from 70%."]
    plant.decide("undo", run_id=strict)
    plant.decide("policy", product="", class_name="pits", action="reject", threshold=0.95, min_side=0)
    shifts([9] * 20, confidence=0.99)
    w = only(db)
    assert w.saves[0].restated and w.chart.limits["center"] == pytest.approx(0.09) and len(w.stages) == 1
    plant.decide("policy", product="", class_name="scratch", action="ignore", threshold=None, min_side=0)
    chart = only(db).chart
    assert chart.chart_id == before.chart_id and replace(chart, limits={}) == replace(before, limits={}), "the same chart"


def test_another_calendar_leaves_limits_as_they_were(db: Database) -> None:
    shifts(USUAL * 3)
    made = freeze(db, 20, excluded={key(4): "a trial"})
    plant.decide("calendar", time_zone="UTC", day_start="05:00", shifts=[dict(name="One", start="05:00", end="17:00")])
    w = only(db)
    assert w.chart.limits == made.limits and not w.saves[0].restated


# ---- alarms


def test_an_alarm_stays_open_until_somebody_says_what_it_was(db: Database) -> None:
    shifts([*USUAL * 2, 2, 14, 13, 2, 1])
    made = freeze(db, after=20)
    w = only(db)
    alarm, = w.alarms
    assert (alarm.first, alarm.last, alarm.side, alarm.open, alarm.current) == (key(21), key(22), "above", True, False)
    assert alarm.words == ("2 in a row above the limits",) and w.frame["out"].tolist()[20:24] == [False, True, True, False]
    assert w.state == "look" and signals.sentence(w) == \
        "Nothing but chance now. Nobody has said yet what happened on Wednesday 17 June, 06:00"
    said = plant.decide("explain", chart=made.chart_id, line="L1", key=alarm.at, side="above", text="Roll 3 was worn.")
    alarm, = only(db).alarms
    assert (alarm.open, alarm.text, alarm.run_id) == (False, "Roll 3 was worn.", said) and only(db).state == "calm"
    plant.decide("undo", run_id=said)
    assert only(db).alarms[0].open and only(db).state == "look"


def test_what_lies_before_the_chart_called_nobody(db: Database) -> None:
    shifts([*USUAL * 2, 14, 2, 1])
    freeze(db, after=22)
    assert [a.open for a in only(db).alarms] == [False] and only(db).state == "calm"


def test_a_change_that_lasts_is_one_alarm_since_it_could_be_known(db: Database) -> None:
    shifts([*USUAL * 2, 3, 3, *[11] * 9])
    freeze(db, after=19)
    w = only(db)
    alarm, = w.alarms
    assert alarm.current and alarm.at == key(22) and alarm.first == key(20) and len(alarm.words) == 2
    assert (w.state, signals.sentence(w)) == ("act", "More defects than chance explains since Wednesday 17 June, 14:00")


def test_fewer_than_chance_explains_is_looked_at_too(db: Database) -> None:
    shifts([n + 8 for n in USUAL] * 2 + [3] * 9)
    freeze(db)
    w = only(db)
    assert w.state == "look" and signals.sentence(w).startswith("Fewer defects than chance explains since ")
    assert signals.sentence(w).endswith(". Is it better, or is less seen?")


def test_rules_that_speak_of_one_thing_are_one_episode() -> None:
    """It lasts until the process is back on the other side of its centre."""
    z = [0.5, -0.2, 3.4, 0.5, 0.6, 0.7, 0.4, 0.3, 3.2, 0.2, 0.4, -1, -3.5, -0.1, 0.2, 3.3, 0.1, 3.2, -0.5, 3.1, 1.0]
    stage, = watch([SavedChart(line="L1", kind="i", since="000", limits=asdict(spc.Limits("i", 0.0)))], [f"{n:03d}" for n in range(21)], z)
    found = episodes(stage)
    assert [(e.at, e.first, e.last, e.side) for e in found] == [
        (2, 2, 10, "above"), (12, 12, 13, "below"), (15, 15, 17, "above"), (19, 19, 20, "above")]
    assert found[0].words == ("One point above the limits", "9 in a row above the centre")
    assert found[2].words == ("One point above the limits",)
    assert episodes(replace(stage, chart=None, limits=None, violations=())) == []


def test_defects_that_come_close_together_are_worse(db: Database) -> None:
    rng = np.random.default_rng(3)
    at = np.cumsum(rng.geometric(1 / 60, 40))
    bad = {*at.tolist(), *range(at[-1] + 1, at[-1] + 11)}
    plant.batch([dict(boxes=[("pits", 0.9)] if n in bad else []) for n in range(max(bad) + 1)])
    ingest(db)
    made = trial(db, "real", SavedChart(line="L1", characteristic="pits", kind="g", subgroup="defect"))
    assert made.chart.limits["center"] == pytest.approx(1 / 60, rel=0.4) and made.false_alarms
    save(made.chart)
    w = only(db)
    assert w.state == "act" and signals.sentence(w).startswith("Defects come closer together than chance explains since ")
    assert signals.title(w) == "L1, pits, good parts between"


# ---- the model is part of the process


def promoted(bad_after: Sequence[int]) -> None:
    plant.model("m2")
    shifts([*USUAL * 2, 2, 14, 2])
    shifts(bad_after, first=23, model_id="m2")


def test_another_model_starts_a_stage_and_open_alarms_stay_open(db: Database) -> None:
    """The new model finds twice as much: read against the old limits, that would be a change of the process."""
    promoted([2 * n for n in USUAL] * 2)
    freeze(db, after=20)
    w = only(db)
    old, new = w.stages
    assert (new.why, new.provisional, new.note) == ("Model m2 was put to use", True, "20 shifts are in: limits can be frozen")
    assert [(a.at, a.open) for a in w.alarms] == [(key(21), True)] and w.state == "look"
    assert np.abs(spc.draw(old.limits, [8] * 9, [50] * 9).z).max() > 1.4 and len(rules.violations(
        spc.draw(old.limits, [2 * n for n in USUAL] * 2, [50] * 20).z, rules.DEFAULT)) > 0, "what the old limits would have said"
    made = trial(db, "real", SavedChart(line="L1", since=key(23), until=key(42)))
    save(made.chart)
    w = only(db)
    assert [s.provisional for s in w.stages] == [False, False] and w.stages[1].limits == made.chart.own_limits and w.alarms[0].open
    with pytest.raises(ConfigError, match="within the period"):
        raise ConfigError(trial(db, "real", SavedChart(line="L1", since=key(20), until=key(42))).why_not)


def test_the_step_between_two_models_comes_from_a_look_back(db: Database) -> None:
    """Looked back on with m2: of the plates with pits it finds all, and as many again among those that m1 passed."""
    promoted([2 * n for n in USUAL[:6]])
    made = freeze(db)
    assert only(db).stages[1].limits is None and only(db).steps == {}
    run = rundir.create("shadow", {"line": "", "product": "", "model": "m2"})
    pictures = plant.facts(db, "image_id, is_defective, model_id, (row_number() OVER (ORDER BY captured_at)) AS n")
    box = dict(class_name="pits", confidence=0.9, x1=0.0, y1=0.0, x2=20.0, y2=20.0)
    old = [p for p in pictures if p["model_id"] == "m1"]
    more = [p for p in old if not p["is_defective"]][:sum(p["is_defective"] for p in old)]
    rundir.write_part(run, "shadows", [dict(plant="real", image_id=p["image_id"], model_id="m2", why="",
                                            boxes=[box] if p["is_defective"] or p in more else []) for p in old])
    plant.finish(run)
    rundir.write_json(run / "result.json", {"model_id": "m2"})
    rundir.write_json(run / "shadow.json", {"model_id": "m2"})
    w = only(db)
    young = w.stages[1]
    assert young.limits and young.limits.center == pytest.approx(2 * made.limits["center"]) and young.provisional
    assert young.note.startswith("needs 20 shifts; 6 so far; until then the old limits, moved")
    assert w.steps[key(23)].startswith("Of the same 1,150 pictures the model before rejects 5.04 %, the new one 10.09 % (+3.")
    assert counts.step(db, Filters(line="L1", class_name="scratch"), "m1", "m2")["difference"] == 0
    assert counts.step(db, Filters(line="L1"), "m2", "m1") is None


# ---- lines, and rebuilding


def rows(**states: str) -> pd.DataFrame:
    return pd.DataFrame([dict.fromkeys(lines.COLUMNS) | dict(line=line, state=state, reason=f"{line} is {state}", excess=2.5)
                         for line, state in states.items()], columns=list(lines.COLUMNS))


def test_a_chart_can_only_make_a_line_worse(db: Database) -> None:
    shifts([*USUAL * 2, *[14] * 2])
    shifts(USUAL * 2, line="L2")
    freeze(db)
    save(trial(db, "real", SavedChart(line="L2", since=key(0), until=key(19))).chart)
    ingest(db)
    watched = control.charts(db, "real")
    assert [w.state for w in watched] == ["act", "calm"]
    said = "More defects than chance explains since Tuesday 16 June, 22:00"
    found = signals.raised(rows(L1="normal", L2="normal"), watched)
    assert found[["line", "state", "reason"]].values.tolist() == [["L1", "look", said], ["L2", "normal", "L2 is normal"]]
    assert found["chart"].tolist() == [watched[0].chart_id, ""]
    found = signals.raised(rows(L2="act", L1="look"), watched)
    assert found[["line", "reason"]].values.tolist() == [["L2", "L2 is act"], ["L1", f"L1 is look. {said}"]]
    found = signals.raised(rows(A="look", L1="look"), watched)
    assert found["line"].tolist() == ["L1", "A"] and found["excess"][0] == pytest.approx((0.28 - 0.04) / (0.04 * 0.96 / SIZE) ** 0.5)
    assert signals.raised(rows(), watched).empty and list(signals.raised(rows(), [])) == [*lines.COLUMNS, "chart"]


def test_built_again_it_says_the_same(db: Database) -> None:
    promoted(USUAL)
    freeze(db, 20, after=20, excluded={key(7): "a trial"})
    plant.decide("policy", product="", class_name="", action="reject", threshold=0.3, min_side=0)
    plant.decide("explain", chart=only(db).chart_id, line="L1", key=key(21), side="above", text="Roll 3 was worn.")
    before = only(db)
    rebuild(db)
    after = only(db)
    assert before.alarms == after.alarms and before.saves == after.saves and before.stages[0].limits == after.stages[0].limits
    pd.testing.assert_frame_equal(before.frame, after.frame)
    pd.testing.assert_frame_equal(before.changes, after.changes)
    with db.write() as cursor:
        facts.derive_all(cursor)
    pd.testing.assert_frame_equal(before.frame, only(db).frame)


# ---- a chart as somebody makes it


def test_a_period_is_proposed_and_leaves_the_newest_to_be_judged(db: Database) -> None:
    plant.model("m2")
    shifts(USUAL)
    shifts(USUAL * 4, first=10, model_id="m2")
    ingest(db)
    made = trial(db, "real", SavedChart(line="L1"))
    assert (made.chart.since, made.chart.until) == (key(10), key(39)) and made.chart.limits["subgroups"] == 30
    assert made.watched.stages[0].limits is None and [p.model for p in made.watched.promotions] == ["Model m2"]
    assert "Nothing speaks for wider limits" in made.evidence or "less than chance allows" in made.evidence
    assert not made.spread and made.false_alarms.startswith("About ") and made.rare == ""


def test_evidence_for_wider_limits_and_for_another_kind(db: Database) -> None:
    swinging = [2, 14, 3, 15, 1, 16, 2, 13, 3, 15] * 3
    shifts(swinging)
    shifts([1] + [0] * 29, line="L2")
    ingest(db)
    made = trial(db, "real", SavedChart(line="L1", since=key(0), until=key(29)))
    assert made.spread and made.evidence.endswith("Limits that allow for it raise fewer false alarms.")
    wide = trial(db, "real", SavedChart(line="L1", kind="p'", since=key(0), until=key(29)))
    assert wide.chart.limits["sigma"] > 2 and wide.watched.frame["high"].iloc[0] > made.watched.frame["high"].iloc[0]
    rare = trial(db, "real", SavedChart(line="L2", since=key(0), until=key(29)))
    assert "Count the good units between two of them (g)" in rare.rare
    none = trial(db, "real", SavedChart(line="L2", since=key(1), until=key(29)))
    assert "No unit of the period is defective" in none.why_not and not none.evidence
    empty = trial(db, "real", SavedChart(line="L9"))
    assert empty.why_not == "The period is too short: it needs 20 shifts; 0 so far." and empty.watched.frame.empty
    assert signals.sentence(empty.watched) == "Nothing was inspected yet"


@pytest.mark.slow
def test_the_demo_says_what_its_people_saw(data_folder: Path) -> None:
    """By way of the store: the limits that the recipe froze are those of the counts it takes in; one line is out, and nobody said why."""
    now, config = datetime(2026, 3, 18, 10, 20, tzinfo=UTC), Demo()
    run = rundir.create("demo", config.to_json(), plant="demo")
    rundir.write_json(run / "job.json", rundir.read_json(run / "job.json") | {"created_at": now.isoformat(timespec="microseconds")})
    planted = demo_plant.run(config, run, lambda **progress: None)["planted"]
    rundir.set_state(run, "completed", started_at=rundir.now(), finished_at=rundir.now())
    db = Database()
    ingest(db)
    watched = control.charts(db, "demo", now)
    assert [(w.chart.line, w.state) for w in watched] == [("Line 2", "act"), ("Line 1", "calm"), ("Line 3", "calm")]
    for w in watched:
        found = points.points(db, "demo", w.chart, counts.clock(db, "demo", now))
        assert [stages.frozen(s.chart, *found.asked("p"), found.promotions) for s in w.saves] == [s.chart for s in w.saves]
        assert [s.provisional for s in w.stages] == [False, False] and len(found.promotions) == 1
    out = datetime.fromisoformat(watched[0].now.at) - datetime.fromisoformat(planted["process_shift"]["at"]).replace(tzinfo=None)
    assert timedelta() <= out <= timedelta(hours=16) and watched[0].now.open
    assert lines.lines_now(db, "demo", now)["state"].tolist()[0] == "act"
    raised = signals.raised(lines.lines_now(db, "demo", now), watched)
    assert raised["line"].iloc[0] == "Line 2" and "More defects than chance explains since Sunday 15 March" in raised["reason"].iloc[0]
    db.close()


def test_only_what_a_chart_hangs_on_judges_it_anew(db: Database) -> None:
    """A batch of another line or a note does not; parts of its own, a limit, a word, a model's name or all anew do."""
    shifts(USUAL * 2)
    freeze(db, after=20)
    save(SavedChart(line="L2"))
    now = FIRST + timedelta(hours=8 * 20)

    def judged() -> dict[str, Watched]:
        ingest(db)
        return {w.chart.line: w for w in control.charts(db, "real", now)}

    def anew(*lines: str) -> bool:
        before = seen.copy()
        seen.update(judged())
        return {line for line in seen if seen[line] is not before.get(line)} == set(lines)

    seen = judged()
    assert anew()
    plant.decide("note", line="L1", at=plant.NOON.isoformat(), text="Roll changed")
    assert anew()
    shifts([1], first=3, line="L2")
    assert anew("L2") and len(seen["L2"].frame) == 1
    late = shifts([3], first=2)
    assert anew("L1") and seen["L1"].frame["count"].tolist()[2] == USUAL[2] + 3
    plant.decide("correct", run_id=late.name, inspection_ids=[], fields={"line": "L2"})
    assert anew("L1", "L2") and seen["L1"].frame["count"].tolist()[2] == USUAL[2]
    shutil.rmtree(late)
    assert anew("L2")
    for decided in (lambda: plant.decide("policy", product="", class_name="pits", action="reject", threshold=0.95, min_side=0),
                    lambda: plant.decide("explain", chart=seen["L1"].chart_id, key=key(1), side="above", text="A new roll", by="Kim"),
                    lambda: plant.model("m1", name="Another name")):
        decided()
        assert anew("L1", "L2")
    facts.restate(db)
    assert anew("L1", "L2")
    control._judged.cache_clear()
    control._charts.cache_clear()
    made = [w for line in seen for w in control.charts(db, "real", now) if w.chart.line == line]
    for kept, new in zip(seen.values(), made, strict=True):
        pd.testing.assert_frame_equal(kept.frame, new.frame)
        assert kept is not new and kept.alarms == new.alarms

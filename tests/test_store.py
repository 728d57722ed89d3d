"""The store: one connection, cursors that keep to their thread, files that cannot be used, local time, the verdict, the answers."""

import ast
import json
import struct
import subprocess
import sys
import threading
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pytest
from scipy import stats

from backend import rundir
from backend.errors import ConfigError, NotFoundError, StoreError
from backend.inspection import capture
from backend.records import Filters
from backend.store import calendar, decisions, engineering, facts, lines, queries, rises, scan
from backend.store.database import Database
from backend.store.ingest import ingest
from tests import small_plant as plant

ROOT = Path(__file__).resolve().parents[1]
BERLIN = dict(time_zone="Europe/Berlin", day_start="06:00", shifts=[dict(name="Early", start="06:00", end="14:00"),
                                                                   dict(name="Late", start="14:00", end="22:00"),
                                                                   dict(name="Night", start="22:00", end="06:00")])


# ---- one connection


def test_a_cursor_refuses_another_thread(db: Database) -> None:
    failed: list[BaseException] = []

    def elsewhere() -> None:
        for use in (lambda: cursor.execute("SELECT 1"), cursor.table, cursor.one):
            try:
                use()
            except AssertionError as error:
                failed.append(error)

    with db.cursor() as cursor:
        cursor.execute("SELECT 1")
        thread = threading.Thread(target=elsewhere)
        thread.start()
        thread.join()
        assert cursor.one() == 1
    assert len(failed) == 3


def test_threads_get_cursors_of_their_own(db: Database) -> None:
    answers: list[Any] = []

    def ask(n: int) -> None:
        for _ in range(20):
            with db.cursor() as cursor:
                answers.append(cursor.execute("SELECT ?::INTEGER AS a, count(*) FROM range(5000)", [n]).dicts()[0]["a"] == n)

    threads = [threading.Thread(target=ask, args=(n,)) for n in range(8)]
    [t.start() for t in threads]
    [t.join() for t in threads]
    assert answers == [True] * 160


def test_only_the_database_module_connects() -> None:
    """1.5.5 lets threads share a connection silently: there is one, and one place that hands out cursors of it."""
    found = []
    for path in [*ROOT.glob("*.py"), *(ROOT / "backend").rglob("*.py"), *(ROOT / "pages").rglob("*.py")]:
        for node in ast.walk(ast.parse(path.read_text())):
            used = isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "duckdb"
            if used and node.attr in ("connect", "cursor", "sql", "execute", "query", "default_connection"):
                found.append((path.relative_to(ROOT).as_posix(), node.attr))
            assert not (isinstance(node, ast.ImportFrom) and node.module == "duckdb"), path
    assert found == [("backend/store/database.py", "connect")]


def test_a_write_is_all_or_nothing(db: Database) -> None:
    before = db.revision
    with pytest.raises(ZeroDivisionError), db.write() as cursor:
        cursor.execute("INSERT INTO refused VALUES ('a', 'b', 'c', 'd')")
        raise ZeroDivisionError
    assert plant.tables(db)["refused"] == [] and db.revision == before
    with db.write() as cursor:
        cursor.execute("INSERT INTO refused VALUES ('a', 'b', 'c', 'd')")
    assert len(plant.tables(db)["refused"]) == 1 and db.revision == before + 1


def test_the_door_to_files_is_locked(db: Database, tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_text("a\n1\n")
    with db.cursor() as cursor:
        for sql in (f"SELECT * FROM '{tmp_path}/x.csv'", f"COPY facts TO '{tmp_path}/y.csv'", "SET enable_external_access = true",
                    "SELECT * FROM tmp_path"):
            with pytest.raises(duckdb.Error):
                cursor.execute(sql)


# ---- files that cannot be used


def test_another_process_has_it(db: Database) -> None:
    db.close()
    script = "from backend.store.database import Database; d = Database(); print('open', flush=True); input()"
    held = subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT)
    try:
        assert held.stdout is not None and held.stdout.readline() == "open\n"
        with pytest.raises(StoreError, match=rf"process {held.pid}\)"):
            Database()
    finally:
        held.communicate("\n", timeout=20)
    Database().close()


def _spoil_tail(path: Path) -> None:
    """Leave a log behind that cannot be replayed, as a bad disk would."""
    script = (f"import duckdb, os; c = duckdb.connect({str(path)!r}); c.execute(\"SET checkpoint_threshold = '1TB'\")\n"
              "for i in range(20): c.execute(\"INSERT INTO refused SELECT range::VARCHAR, 'x', 'y', 'z' FROM range(500)\")\nos._exit(9)")
    subprocess.run([sys.executable, "-c", script], check=False, timeout=60)
    log = bytearray((wal := path.with_name(path.name + ".wal")).read_bytes())
    middle = len(log) // 2
    log[middle:middle + 50] = bytes(b ^ 0xFF for b in log[middle:middle + 50])
    wal.write_bytes(log)


@pytest.mark.parametrize("spoil", [_spoil_tail, lambda p: p.write_bytes(b"no database" * 1000),
                                   lambda p: p.write_bytes(p.read_bytes()[:4000])], ids=["log", "garbage", "cut"])
def test_a_spoilt_file_is_set_aside_and_made_again(db: Database, spoil: Any, caplog: pytest.LogCaptureFixture) -> None:
    plant.batch([dict(boxes=[("pits", 0.9)]), {}])
    ingest(db)
    before = plant.tables(db)
    db.close()
    spoil(db.path)
    again = Database()
    assert "set aside" in caplog.text and db.path.with_name("inspection.duckdb.aside").exists()
    assert plant.facts(again) == []
    ingest(again)
    assert plant.tables(again) == before
    again.close()


def _newer_program(path: Path) -> None:
    with duckdb.connect(str(path)) as connection:
        connection.execute("UPDATE about SET version = 999")


def _newer_duckdb(path: Path) -> None:
    """The storage version stands at byte 12, under the checksum of the first block."""
    content = bytearray(path.read_bytes())
    content[12:20] = struct.pack("<Q", 200)
    checksum = 5381
    for (word,) in struct.iter_unpack("<Q", bytes(content[8:4096])):
        checksum ^= word * 0xBF58476D1CE4E5B9 % 2**64
    content[:8] = struct.pack("<Q", checksum)
    path.write_bytes(content)


@pytest.mark.parametrize("spoil", [_newer_program, _newer_duckdb])
def test_a_newer_file_is_left_alone(db: Database, spoil: Any) -> None:
    db.close()
    spoil(db.path)
    before = db.path.read_bytes()
    with pytest.raises(StoreError, match="newer Diffspect"):
        Database()
    assert db.path.read_bytes() == before and not db.path.with_name("inspection.duckdb.aside").exists()


def test_a_folder_in_its_place(tmp_path: Path) -> None:
    (tmp_path / "inspection.duckdb").mkdir()
    with pytest.raises(StoreError, match="cannot be"):
        Database(tmp_path / "inspection.duckdb")


# ---- local time


@pytest.mark.parametrize(("zone", "cases"), [
    ("Europe/Berlin", [
        ("2026-06-10T04:00", "2026-06-10T06:00", "2026-06-10", "Early", 3),
        ("2026-06-10T03:59", "2026-06-10T05:59", "2026-06-09", "Night", 2),    # over midnight: the day it began
        ("2026-06-09T22:30", "2026-06-10T00:30", "2026-06-09", "Night", 2),
        ("2026-03-29T00:59", "2026-03-29T01:59", "2026-03-28", "Night", 6),    # clocks go forward at 02:00
        ("2026-03-29T01:00", "2026-03-29T03:00", "2026-03-28", "Night", 6),
        ("2026-03-29T04:00", "2026-03-29T06:00", "2026-03-29", "Early", 7),    # a night of seven hours
        ("2026-10-25T00:30", "2026-10-25T02:30", "2026-10-24", "Night", 6),    # back at 03:00: 02:30 comes twice
        ("2026-10-25T01:30", "2026-10-25T02:30", "2026-10-24", "Night", 6),
        ("2026-10-25T05:00", "2026-10-25T06:00", "2026-10-25", "Early", 7)]),
    ("America/New_York", [
        ("2026-03-08T06:59", "2026-03-08T01:59", "2026-03-07", "Night", 6),
        ("2026-03-08T07:00", "2026-03-08T03:00", "2026-03-07", "Night", 6)]),
    ("Asia/Kolkata", [("2026-06-10T00:29", "2026-06-10T05:59", "2026-06-09", "Night", 2)]),
    ("UTC", [("2027-01-01T05:59", "2027-01-01T05:59", "2026-12-31", "Night", 4)]),
])
def test_local_time(db: Database, zone: str, cases: list[tuple[str, str, str, str, int]]) -> None:
    plant.decide("calendar", **{**BERLIN, "time_zone": zone})
    plant.batch([dict(captured_at=datetime.fromisoformat(utc).replace(tzinfo=UTC)) for utc, *_ in cases])
    ingest(db)
    rows = {row["captured_at"]: row for row in plant.facts(db)}
    for utc, local, day, shift, weekday in cases:
        row = rows[datetime.fromisoformat(utc).replace(tzinfo=UTC)]
        assert (row["captured_local"], row["production_day"]) == (datetime.fromisoformat(local), date.fromisoformat(day)), utc
        assert (row["shift"], row["weekday"], row["hour"]) == (shift, weekday, int(local[11:13])), utc


def test_a_new_calendar_places_everything_anew(db: Database) -> None:
    plant.batch([dict(captured_at=datetime(2026, 6, 10, 4, 30, tzinfo=UTC))])
    ingest(db)
    assert plant.facts(db, "shift, production_day") == [dict(shift="Night", production_day=date(2026, 6, 9))]
    change = plant.decide("calendar", **BERLIN)
    ingest(db)
    assert plant.facts(db, "shift, production_day") == [dict(shift="Early", production_day=date(2026, 6, 10))]
    plant.decide("calendar", time_zone="Europe/Berlin", day_start="07:00", shifts=[dict(name="Day", start="07:00", end="19:00")])
    ingest(db)
    assert plant.facts(db, "shift, production_day, shift_start") == [
        dict(shift="", production_day=date(2026, 6, 9), shift_start=datetime(2026, 6, 9, 19))]
    plant.decide("undo", run_id=change)
    ingest(db)
    assert decisions.calendar_now(db)["shifts"] == [dict(name="Day", start="07:00", end="19:00")]


def test_a_calendar_without_sense_is_passed_over(db: Database, caplog: pytest.LogCaptureFixture) -> None:
    plant.decide("calendar", **BERLIN)
    plant.batch([{}])
    shift = dict(name="A", start="06:00", end="14:00")
    for config in (dict(time_zone="Mars/Olympus"), dict(shifts=[dict(name="A", start="25:00", end="1:00")]),
                   dict(shifts=[dict(start="06:00")]), dict(shifts="x"), dict(shifts=[shift] * 2)):
        caplog.clear()
        plant.decide("calendar", **config)
        ingest(db)
        assert plant.facts(db, "captured_local") == [dict(captured_local=datetime(2026, 6, 10, 14, 0))], config
        assert "passed over" in caplog.text, config
        with db.cursor() as cursor, pytest.raises(ConfigError):
            calendar.check(cursor, config)


# ---- the verdict


MODEL, ANY, CLASS, PRODUCT, BOTH = "model", ("", ""), ("", "pits"), ("Plate", ""), ("Plate", "pits")


RULES: list[tuple[list[Any], Any]] = [
    ([], ("reject", 0.4, 0)),
    ([(ANY, "minor", 0.6, 5)], ("minor", 0.6, 5)),
    ([(ANY, "minor", None, 5)], ("minor", 0.4, 5)),                                  # no threshold: the model's stays
    ([(PRODUCT, "ignore", 0.7, 0), (ANY, "minor", 0.6, 5)], ("ignore", 0.7, 0)),     # narrower wins, though earlier
    ([(CLASS, "reject", 0.8, 0), (PRODUCT, "ignore", 0.7, 0)], ("reject", 0.8, 0)),
    ([(BOTH, "minor", 0.9, 1), (CLASS, "reject", 0.8, 0)], ("minor", 0.9, 1)),
    ([(BOTH, "minor", None, 1), (CLASS, "reject", 0.8, 7)], ("minor", 0.8, 1)),      # each setting falls through by itself
    ([(BOTH, "minor", 0.9, 1), (BOTH, "reject", 0.3, 2)], ("reject", 0.3, 2)),       # the latest of one kind
    ([(("Other", "pits"), "ignore", 0.9, 9)], ("reject", 0.4, 0)),
]


def test_which_rule_applies(db: Database) -> None:
    """Each taken back before the next is decided."""
    plant.model("m1", {"pits": 0.4})
    plant.batch([dict(boxes=[("pits", 0.99)])])
    plant.decide("promote", model_id="m1", name="Model m1")
    for policies, expected in RULES:
        made = [plant.decide("policy", product=product, class_name=class_name, action=action, threshold=threshold, min_side=side)
                for (product, class_name), action, threshold, side in policies]
        ingest(db)
        [found] = queries.detections(db, [r["inspection_id"] for r in plant.facts(db)]).to_dict("records")
        assert (found["action"], pytest.approx(found["threshold"]), found["min_side"]) == expected, policies
        rule = decisions.rules(db, "real", "Plate").set_index("class_name").loc["pits"]
        assert (rule["action"], pytest.approx(rule["threshold"]), rule["min_side"]) == expected, policies
        assert rule["source"] == ("policy" if policies and policies[0][0][0] != "Other" else "model"), policies
        for decision in made:
            plant.decide("undo", run_id=decision)


def test_what_passes(db: Database) -> None:
    plant.model("m1", {"pits": 0.4})
    plant.decide("policy", product="", class_name="stain", action="minor", threshold=0.7, min_side=0)
    plant.decide("policy", product="", class_name="dust", action="ignore", threshold=None, min_side=0)
    plant.decide("policy", product="", class_name="dent", action="reject", threshold=None, min_side=15)
    plant.batch([dict(boxes=boxes) for boxes in (
        [("pits", 0.4)], [("pits", 0.39)], [("scratch", 0.25)], [("stain", 0.7), ("dust", 0.95)], [("dent", 0.9, 14.0)],
        [("dent", 0.9, 15.0)], [("pits", 0.9), ("pits", 0.8), ("stain", 0.95)], [])])
    ingest(db)
    rows = plant.facts(db)
    assert [r["defects"] for r in rows] == [1, 0, 1, 0, 0, 1, 2, 0]
    assert [r["minor"] for r in rows] == [0, 0, 0, 1, 0, 0, 1, 0]
    assert [r["is_defective"] for r in rows] == [r["defects"] > 0 for r in rows]
    assert [r["top_class"] for r in rows] == ["pits", "pits", "scratch", "dust", "dent", "dent", "pits", ""]
    assert rows[1]["top_confidence"] == pytest.approx(0.39) and rows[7]["top_confidence"] is None
    assert rows[1]["margin"] == pytest.approx(0.01, abs=1e-6) and rows[3]["margin"] == pytest.approx(0, abs=1e-6)
    assert len(plant.tables(db)["defects"]) == 7


def test_another_plants_policy_does_not_apply(db: Database) -> None:
    plant.batch([dict(boxes=[("pits", 0.5)])])
    plant.decide("policy", plant="demo", product="", class_name="", action="ignore", threshold=None, min_side=0)
    ingest(db)
    assert plant.facts(db, "is_defective") == [dict(is_defective=True)]


def test_undo_a_policy(db: Database) -> None:
    plant.batch([dict(boxes=[("pits", 0.5)])])
    ingest(db)
    before, policy = plant.facts(db), plant.decide("policy", product="", class_name="pits", action="reject", threshold=0.6, min_side=0)
    ingest(db)
    assert plant.facts(db, "is_defective") == [dict(is_defective=False)]
    plant.decide("undo", run_id=policy)
    ingest(db)
    assert plant.facts(db) == before


def test_counted_and_why(db: Database) -> None:
    run = plant.batch([{}, dict(counted=False, not_counted_why="switched off"), dict(line="", counted=False, not_counted_why="no line"),
                       dict(counted=False, not_counted_why="dataset NEU"), dict(line="")])
    ingest(db)
    ids = [r["inspection_id"] for r in plant.facts(db)]

    def counted() -> list[bool]:
        ingest(db)
        return [r["counted"] for r in plant.facts(db)]

    assert counted() == [True, False, False, False, False]
    assert [r["why"] for r in plant.facts(db)] == [
        "", "counting was switched off", "no line was given", "the picture belongs to the dataset NEU", "no line was given"]
    plant.decide("include", run_id=run.name, inspection_ids=[])
    assert counted() == [True, True, False, True, False], "without a line nothing counts"
    line = plant.decide("correct", run_id=run.name, inspection_ids=ids[2:3], fields={"line": "L2"})
    assert counted() == [True, True, True, True, False]
    out = plant.decide("exclude", run_id=run.name, inspection_ids=ids[:2], reason="test pieces")
    assert counted() == [False, False, True, True, False]
    assert plant.facts(db, "why")[0]["why"] == "taken out of trends: test pieces"
    plant.decide("undo", run_id=out)
    plant.decide("undo", run_id=line)
    assert counted() == [True, True, False, True, False]


def test_a_line_given_later_counts(db: Database) -> None:
    run = plant.batch([dict(line="", counted=False, not_counted_why="no line")])
    plant.decide("correct", run_id=run.name, inspection_ids=[], fields={"line": "L7"})
    ingest(db)
    assert plant.facts(db, "line, counted, why") == [dict(line="L7", counted=True, why="")]


def test_corrections_add_up_field_by_field(db: Database) -> None:
    plant.decide("calendar", **BERLIN)
    run = plant.batch([{}, {}])
    ingest(db)
    first, second = (r["inspection_id"] for r in plant.facts(db))
    plant.decide("correct", run_id=run.name, inspection_ids=[], fields={"line": "L2", "lot": "A"})
    plant.decide("correct", run_id=run.name, inspection_ids=[first], fields={"lot": "B", "captured_at": "2026-01-05T08:00"})
    late = plant.decide("correct", run_id=run.name, inspection_ids=[second],
                        fields={"camera": "C", "captured_at": "2026-01-05T08:00:00+00:00"})
    ingest(db)
    rows = plant.facts(db)
    assert [(r["line"], r["lot"], r["camera"], r["product"]) for r in rows] == [("L2", "B", "", "Plate"), ("L2", "A", "C", "Plate")]
    assert [r["captured_at"] for r in rows] == [datetime(2026, 1, 5, 7, tzinfo=UTC), datetime(2026, 1, 5, 8, tzinfo=UTC)]
    assert [r["captured_source"] for r in rows] == ["corrected"] * 2
    plant.decide("undo", run_id=late)
    ingest(db)
    assert plant.facts(db)[1]["captured_at"] == plant.NOON + timedelta(minutes=1) and plant.facts(db)[1]["captured_source"] == "exif"


def test_a_picture_counts_once(db: Database) -> None:
    """The first to come in counts, whichever batch is read first; if that one is taken out, the next does."""
    later = plant.batch([dict(image_id="a" * 64, ingested_at=plant.NOON + timedelta(hours=1))])
    ingest(db)
    assert plant.facts(db, "counted") == [dict(counted=True)]
    first = plant.batch([dict(image_id="a" * 64)])
    plant.batch([dict(image_id="a" * 64)], plant="demo")
    plant.batch([dict(image_id="demo:1:1a:1:good"), dict(image_id="demo:1:1a:1:good")], plant="demo")
    ingest(db)

    def counted() -> dict[str, bool]:
        return {r["run_id"]: r["counted"] for r in plant.facts(db)}

    assert counted()[first.name] and not counted()[later.name] and sum(counted().values()) == 3
    assert [r["why"] for r in plant.facts(db) if not r["counted"]] == ["the same picture was counted before"]
    out = plant.decide("exclude", run_id=first.name, inspection_ids=[], reason="")
    ingest(db)
    assert counted()[later.name] and not counted()[first.name]
    plant.decide("undo", run_id=out)
    ingest(db)
    assert counted()[first.name] and not counted()[later.name]


def test_reviews_stand_beside(db: Database) -> None:
    plant.batch([dict(boxes=[("pits", 0.9)])])
    ingest(db)
    [row] = plant.facts(db)
    plant.decide("review", inspection_id=row["inspection_id"], verdict="defective", class_name="pits", reviewer="Ines")
    last = plant.decide("review", inspection_id=row["inspection_id"], verdict="good", class_name="", reviewer="Jonas")
    ingest(db)
    assert plant.facts(db, "review, is_defective") == [dict(review="good", is_defective=True)]
    assert decisions.reviews(db, "real")["reviewer"].tolist() == ["Jonas", "Ines"]
    plant.decide("undo", run_id=last)
    ingest(db)
    assert plant.facts(db, "review") == [dict(review="defective")]


def test_restating_changes_nothing(db: Database) -> None:
    run = plant.batch([dict(boxes=[("pits", 0.9)]), {}, dict(image_id="b" * 64), dict(image_id="b" * 64)])
    plant.decide("exclude", run_id=run.name, inspection_ids=[], reason="")
    ingest(db)
    before = plant.tables(db)
    facts.restate(db)
    assert plant.tables(db) == before


# ---- the answers


def ten_pictures(db: Database) -> Database:
    """Eight units on L1 (one of three views), one on L2, one not counted. Pits on two views of that unit and on L2."""
    plant.model("m1", {"pits": 0.5, "scratch": 0.5})
    plant.decide("policy", product="", class_name="scratch", action="minor", threshold=None, min_side=0)
    view = dict(unit_id="U1", lot="A")
    plant.batch([view | dict(boxes=[("pits", 0.9)]), view | dict(boxes=[("pits", 0.6), ("pits", 0.7)]), view,
                 *({} for _ in range(4)), dict(boxes=[("scratch", 0.8), ("pits", 0.45)]),
                 dict(line="L2", camera="C", boxes=[("pits", 0.95)], captured_at=plant.NOON + timedelta(days=1, hours=3)), dict(line="")])
    ingest(db)
    return db


@pytest.fixture
def filled(db: Database) -> Database:
    return ten_pictures(db)


@pytest.fixture(scope="module")
def read_only(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Database]:
    """`filled`, for tests that only ask."""
    folder = tmp_path_factory.mktemp("filled")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DIFFSPECT_DATA", str(folder))
        patch.setattr(scan, "demo_assets", lambda: folder / "no-bundle")
        db = ten_pictures(Database())
    yield db
    db.close()


def test_totals_count_units(read_only: Database) -> None:
    found = queries.totals(read_only, Filters())
    assert {k: found[k] for k in ("inspected", "units", "defective", "defects")} == dict(inspected=9, units=7, defective=2, defects=4)
    assert found["rate"] == pytest.approx(2 / 7) and found["good_first_time"] == pytest.approx(5 / 7)
    assert found["defects_per_unit"] == pytest.approx(4 / 7) and found["low"] < 2 / 7 < found["high"]
    assert (found["first_day"], found["last_day"]) == (date(2026, 6, 10), date(2026, 6, 11))
    assert queries.totals(read_only, Filters(class_name="scratch"))["defective"] == 0, "minor makes no unit defective"
    assert queries.totals(read_only, Filters(line="L2"))["rate"] == 1
    assert queries.totals(read_only, Filters(counted=False))["inspected"] == 10
    nothing = queries.totals(read_only, Filters(plant="demo"))
    assert nothing["units"] == 0 and nothing["rate"] is None and nothing["last_captured_at"] is None


def test_the_same_serial_number_in_another_lot_is_another_unit(db: Database) -> None:
    plant.batch([dict(unit_id="7", lot="A", boxes=[("pits", 0.9)]), dict(unit_id="7", lot="B"), dict(unit_id="7", lot="A", camera="2")])
    ingest(db)
    assert {k: v for k, v in queries.totals(db, Filters()).items() if k in ("units", "defective")} == dict(units=2, defective=1)


def test_wilson() -> None:
    """0 of 10 and 23 of 2904, worked out by hand with the formula of 1927; none of nothing."""
    low, high = queries.wilson(np.array([0, 23, 0]), np.array([10, 2904, 0]))
    assert low[:2] == pytest.approx([0, 0.0052838], abs=1e-6) and high[:2] == pytest.approx([0.2775328, 0.0118568], abs=1e-6)
    assert np.isnan(low[2]) and np.isnan(high[2])


def test_trend(read_only: Database) -> None:
    by_day = queries.trend(read_only, Filters(), "day")
    assert by_day["bucket"].tolist() == [datetime(2026, 6, 10), datetime(2026, 6, 11)]
    assert by_day["inspected"].tolist() == [6, 1] and by_day["defective"].tolist() == [1, 1] and by_day["defects"].tolist() == [3, 1]
    assert list(by_day.columns) == ["bucket", "inspected", "defective", "rate", "low", "high", "defects"]
    split = queries.trend(read_only, Filters(), "shift", "line")
    assert split[["bucket", "group"]].to_dict("records") == [dict(bucket=datetime(2026, 6, 10, 6), group="L1"),
                                                             dict(bucket=datetime(2026, 6, 11, 14), group="L2")]
    assert queries.trend(read_only, Filters(), "hour")["bucket"].tolist() == [datetime(2026, 6, 10, 12), datetime(2026, 6, 11, 15)]
    assert queries.trend(read_only, Filters(), "week")["bucket"].tolist() == [datetime(2026, 6, 8)]
    assert queries.trend(read_only, Filters(plant="demo")).empty
    with pytest.raises(ConfigError):
        queries.trend(read_only, Filters(), "day", "line; DROP TABLE facts")


def test_breakdown_and_pareto(read_only: Database) -> None:
    by_line = queries.breakdown(read_only, Filters(), "line")
    assert by_line[["value", "inspected", "defective"]].values.tolist() == [["L2", 1, 1], ["L1", 6, 1]]
    assert queries.breakdown(read_only, Filters(), "weekday")["value"].tolist() == [3, 4]
    assert queries.breakdown(read_only, Filters(), "hour")["value"].tolist() == ["12:00", "15:00"]
    assert queries.breakdown(read_only, Filters(class_name="scratch"), "line")["defective"].tolist() == [0, 0]
    kinds = queries.pareto(read_only, Filters())
    assert kinds[["class_name", "defects", "units", "minor"]].values.tolist() == [["pits", 4, 2, False], ["scratch", 1, 1, True]]
    assert kinds["cumulative"].tolist()[0] == 1 and np.isnan(kinds["share"].tolist()[1])
    assert queries.pareto(read_only, Filters(plant="demo")).empty


def test_lists_of_pictures(read_only: Database) -> None:
    newest = queries.images(read_only, Filters())
    assert newest["captured_at"].is_monotonic_decreasing and len(newest) == 9 and newest["boxes"].tolist()[0] == 1
    assert queries.images(read_only, Filters(), limit=4, offset=8)["inspection_id"].tolist() == newest["inspection_id"].tolist()[8:]
    assert queries.images(read_only, Filters(), "surest")["top_confidence"].tolist()[:3] == pytest.approx([0.95, 0.9, 0.8])
    assert queries.images(read_only, Filters(), "unsure")["margin"].tolist()[0] == pytest.approx(0.05, abs=1e-6)
    assert queries.images_count(read_only, Filters(class_name="pits")) == 3
    assert queries.images_count(read_only, Filters(class_name="scratch", verdict="good")) == 1
    assert queries.images_count(read_only, Filters(since=date(2026, 6, 11), until=date(2026, 6, 11))) == 1
    assert queries.images_count(read_only, Filters(shift="Early", line="L1")) == 8
    assert queries.images_count(read_only, Filters(line="L1' OR 1=1 --")) == 0
    assert queries.choices(read_only, "real") | {} == dict(
        lines=["L1", "L2"], products=["Plate"], shifts=["Early", "Late"], lots=["A"], cameras=["C"], classes=["pits", "scratch"],
        first_day=date(2026, 6, 10), last_day=date(2026, 6, 11), last_captured_at=plant.NOON + timedelta(days=1, hours=3))
    assert queries.choices(read_only, "demo")["lines"] == [] and queries.plants(read_only) == {"demo": 0, "real": 10}
    assert queries.inspection(read_only, newest["inspection_id"].tolist()[0])["model"] == "Model m1"
    with pytest.raises(NotFoundError):
        queries.inspection(read_only, 1)


def test_review_queue(filled: Database) -> None:
    queue = queries.review_queue(filled, "real")
    assert queue["margin"].is_monotonic_increasing and len(queue) == 4
    first = queue["inspection_id"].tolist()[0]
    plant.decide("review", inspection_id=first, verdict="good", class_name="", reviewer="")
    ingest(filled)
    assert first not in queries.review_queue(filled, "real")["inspection_id"].tolist()
    assert len(queries.review_queue(filled, "real", 2)) == 2


def test_batch(filled: Database) -> None:
    run = next(rundir.find("inspect"))
    rundir.write_part(run, "refused", [dict(file_name="x.gif", reason="It is a GIF file.")])
    again = plant.batch([{}])
    rundir.write_part(again, "refused", [dict(file_name="x.gif", reason="It is a GIF file.")])
    rundir.set_state(again, "running")
    ingest(filled)
    ours = rundir.completed("inspect")
    found = engineering.batch(filled, next(ours).name)
    assert found == dict(inspected=10, defective=3, counted=9, not_counted=1, refused=0, why={"no line was given": 1}, by_class={"pits": 3},
                         captured_sources={"exif": 10})
    assert engineering.batch(filled, again.name)["refused"] == 1
    assert engineering.refused(filled, again.name).to_dict("records") == [dict(file_name="x.gif", reason="It is a GIF file.")]
    raw = engineering.raw_scores(filled, run.name)
    assert len(raw) == 6 and raw["side"].tolist() == [20.0] * 6


def test_datasets(db: Database) -> None:
    run = rundir.create("import", {})
    image = dict(snapshot_id="s1", split="train", origin="real", parent="", generator_run="", width=200, height=100, group_id="", phash="")
    rundir.write_part(run, "snapshots", [dict(
        snapshot_id="s1", name="Steel", layout="voc", created_at=plant.NOON, classes=["pits", "scratch"], seed=0, splits_from="lists",
        images=5, labels=3, refused=0)])
    rundir.write_part(run, "snapshot_images", [
        image | dict(image_id="a", file_name="a.png"), image | dict(image_id="a", file_name="copy.png", split="test"),
        image | dict(image_id="b", file_name="b.png", group_id="g"),
        image | dict(image_id="c", file_name="c.png", group_id="g", split="val"),
        image | dict(image_id="d", file_name="d.png", group_id="h")])
    box = dict(snapshot_id="s1", x1=20.0, y1=10.0, x2=60.0, y2=30.0, source="box")
    rundir.write_part(run, "labels", [box | dict(image_id="a", class_name="pits"), box | dict(image_id="a", class_name="pits"),
                                      box | dict(image_id="b", class_name="scratch")])
    plant.finish(run)
    plant.model("m1")
    ingest(db)
    assert engineering.datasets(db)[["name", "images", "run_id"]].values.tolist() == [["Steel", 5, run.name]]
    assert engineering.dataset_counts(db, "s1").values.tolist() == [
        ["", "train", 1, 0], ["", "val", 1, 0], ["pits", "test", 1, 2], ["pits", "train", 1, 2], ["scratch", "train", 1, 1]]
    assert engineering.box_sizes(db, "s1")[["width", "height"]].drop_duplicates().values.tolist() == pytest.approx(np.array([[0.2, 0.2]]))
    assert engineering.dataset_images(db, "s1", "train")["file_name"].tolist() == ["a.png", "b.png", "d.png"]
    assert engineering.dataset_images(db, "s1", class_name="pits")[["file_name", "boxes", "classes"]].values.tolist() == [
        ["a.png", 2, "pits"], ["copy.png", 2, "pits"]]
    assert len(engineering.labels(db, "s1", ["a"])) == 2
    assert engineering.duplicates(db, "s1")[["kind", "file_name"]].values.tolist() == [
        ["exact", "copy.png"], ["exact", "a.png"], ["near", "b.png"], ["near", "c.png"]]
    assert engineering.newest_snapshot_of(db, "b") == "s1"
    [model] = engineering.models(db).to_dict("records")
    assert model["dataset"] == "Steel" and model["metrics"] == {"test": {"map50": 0.5}} and not model["promoted"]


def test_promoted_model(db: Database) -> None:
    for name in ("m1", "m2"):
        plant.model(name)

    def promoted() -> list[str]:
        ingest(db)
        frame = engineering.models(db)
        return frame.loc[frame["promoted"], "model_id"].tolist()

    assert promoted() == []
    plant.decide("promote", model_id="m1", name="Model m1")
    second = plant.decide("promote", model_id="m2", name="Model m2")
    assert promoted() == ["m2"] == [rundir.promoted_model()]
    plant.decide("undo", run_id=second)
    assert promoted() == ["m1"] == [rundir.promoted_model()]


def test_a_classifier_stands_in_a_detectors_place(db: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is in use instead, its classes are those that rules speak of, and rolling it back brings the detector."""
    monkeypatch.setattr(rundir, "demo_assets", lambda: db.path.parent / "no-bundle")
    for name, kind in (("m1", "detector"), ("c1", "classifier")):
        run = plant.model(name, {"pits": 0.5}, kind=kind, classes=["pits"] if name == "c1" else ["pits", "scratch"])
        run = run.rename(run.with_name(run.name.replace("train-detector", "train-classifier"))) if name == "c1" else run
        (run / "model").mkdir()
        rundir.write_json(run / "model" / "model.json", dict(name=name, model_id=name, kind=kind))

    def in_use() -> list[str]:
        ingest(db)
        shown = engineering.models(db).query("promoted")["model_id"].tolist()
        assert shown == [p for p in [rundir.promoted_model()] if p] and engineering.models(db, "anomaly").empty
        return shown

    assert in_use() == [] and engineering.models(db)[["model_id", "kind"]].to_numpy().tolist() == [["c1", "classifier"], ["m1", "detector"]]
    assert engineering.models(db, "classifier")["model_id"].tolist() == ["c1"]
    plant.decide("promote", model_id="m1", name="m1", kind="detector")
    second = plant.decide("promote", model_id="c1", name="c1", kind="classifier")
    assert in_use() == ["c1"] and decisions.rules(db, "real")["class_name"].tolist() == ["pits"]
    assert rundir.find_model("", "detector") == rundir.find_model("c1", "detector") == rundir.find_model("c1", "classifier")
    assert decisions.changes(db, "real")[["text", "kind"]].to_numpy().tolist() == [
        ["Classifier Model c1 was put to use.", "detector"], ["Model Model m1 was put to use.", "detector"]]
    with pytest.raises(NotFoundError, match="'m1' is no classifier; it is of the kind detector"):
        rundir.find_model("m1", "classifier")
    with pytest.raises(NotFoundError, match="'c1' is no anomaly model; it is of the kind classifier"):
        rundir.find_model("c1", "anomaly")
    plant.decide("undo", run_id=second)
    assert in_use() == ["m1"]
    plant.decide("promote", model_id="gone", name="gone", kind="classifier")         # its files went, and it stood in a detector's place
    ingest(db)
    assert rundir.promoted_model() == "gone" and not engineering.models(db)["promoted"].any()


def test_a_combined_dataset_is_a_dataset(db: Database) -> None:
    """Found by its name and id, ingested as an import is; its made pictures say which run made them, and do not count in trends."""
    found = {}
    pictures = [dict(origin="real", parent="", generator_run=""), dict(origin="synthetic", parent="0" * 64, generator_run="made")]
    for recipe, name, count in (("import", "steel", 1), ("combine", "steel and more", 2)):
        run = rundir.create(recipe, {})
        about = dict(snapshot_id=f"id of {name}", name=name)
        rundir.write_part(run, "snapshots", [about | dict(layout="combined", created_at=plant.NOON, classes=["pits"], images=1)])
        rundir.write_part(run, "snapshot_images", [
            p | dict(snapshot_id=about["snapshot_id"], image_id=f"{n:064x}", file_name=f"{n}.png", split="train", width=9, height=9)
            for n, p in enumerate(pictures[:count])])
        rundir.write_json(run / "snapshot.json", about)
        plant.finish(run)
        found[name] = run
    for name, run in found.items():
        assert rundir.find_snapshot(name) == rundir.find_snapshot(f"id of {name}") == run
    assert list(rundir.snapshots()) == list(found.values())[::-1]
    ingest(db)
    assert set(engineering.datasets(db)["name"]) == set(found)
    rows = engineering.dataset_images(db, "id of steel and more")[["origin", "parent", "generator_run"]]
    assert rows.to_numpy().tolist() == [["real", "", ""], ["synthetic", "0" * 64, "made"]]
    assert capture.dataset_of() == {f"{0:064x}": "steel and more", f"{1:064x}": "steel and more"}
    with pytest.raises(NotFoundError):
        rundir.find_snapshot("more")


def test_changes_are_told_in_plain_words(db: Database) -> None:
    plant.model("m1")
    plant.decide("promote", model_id="m1", name="Model m1")
    plant.decide("policy", product="Plate", class_name="pits", action="minor", threshold=0.4, min_side=5)
    out = plant.decide("exclude", run_id="r", inspection_ids=[1, 2], reason="test")
    plant.decide("correct", run_id="r", inspection_ids=[], fields={"line": "L2"})
    plant.decide("note", line="L1", at="2026-06-10T08:00:00+00:00", text="Roll changed.")
    plant.decide("undo", run_id=out)
    ingest(db)
    found = decisions.changes(db, "real")
    assert found["text"].tolist() == [
        "Note on line L1: Roll changed.", "Details of a whole batch were corrected: line to L2.", "Took 2 pictures out of trends: test.",
        "Pits on Plate: noted as minor from 40%, 5 pixels or more.", "Model Model m1 was put to use."]
    assert found["undone"].tolist() == [False, False, True, False, False]
    assert decisions.notes(db, "real", "L1")["text"].tolist() == ["Roll changed."] and decisions.notes(db, "real", "L2").empty
    assert decisions.changes(db, "demo")["text"].tolist() == ["Model Model m1 was put to use."]


# ---- lines


NOW = datetime(2026, 6, 30, 14, 0, tzinfo=UTC)


def _weeks(line: str, recent: int, usual: int = 2, skip: tuple[int, ...] = (), late: bool = False, n: int = 100) -> list[dict[str, Any]]:
    """40 days of Early shifts until NOW (or of Late ones), n pictures each: `usual` defective ones, `recent` in the last three; days
    back to skip."""
    return [dict(line=line, captured_at=NOW - timedelta(days=back, hours=-8 * late, minutes=4 * i + 1),
                 boxes=[("pits", 0.9)] if i < (recent if back < 3 else usual) else [])
            for back in range(40) if back not in skip for i in range(n)]


MISSED = [*_weeks("missed", 2), *_weeks("missed", 2, skip=(0, 1), late=True)]        # Late of yesterday brought nothing


def test_lines_now(db: Database) -> None:
    plant.batch([*_weeks("act", 8), *_weeks("look", 4), *_weeks("calm", 2), *MISSED, *_weeks("tiny", 3, n=5, usual=0),
                 *_weeks("new", 9, skip=tuple(range(3, 40)))])
    plant.decide("acknowledge", line="act", day="2026-06-30", text="Known: roll 3.")
    plant.decide("note", line="calm", at="2026-06-30T08:00:00+00:00", text="New supplier.")
    plant.decide("note", line="look", at="2026-05-30T08:00:00+00:00", text="Long ago.")
    ingest(db)
    found = lines.lines_now(db, "real", NOW).set_index("line")
    assert found["state"].to_dict() == dict(act="act", look="look", calm="normal", missed="look", tiny="look", new="look")
    assert found.loc["act", "reason"] == "Pits are up: 8.0 % against usually 2.0 %" and found.loc["act", "class_name"] == "pits"
    assert found.loc["calm", "reason"] == "As usual: 2.0 % against usually 2.0 %" and found.loc["calm", "class_name"] == ""
    assert found.loc["missed", "reason"] == "Nothing came from the Late shift of Monday"
    assert found.loc["new", "reason"].startswith("Too little to compare with so far")
    assert found[["inspected", "defective"]].loc["act"].tolist() == [300, 24]
    assert found.loc["act", "acknowledged"] == "Known: roll 3."
    assert found["note"].to_dict() == {**dict.fromkeys(found.index, ""), "calm": "New supplier."}
    assert found.index[0] == "act", "the worst first"


def test_the_line_with_most_behind_it_comes_first(db: Database) -> None:
    """Two cracks in three shifts are as rare a sight as chance makes them, and lie further above usual in standard errors than six pits
    in a hundred instead of two."""
    rare = [p | dict(boxes=[("crack", 0.9)] if i in (0, 100, 500) else p["boxes"]) for i, p in enumerate(_weeks("A", 2))]
    plant.batch([*rare, *_weeks("Z", 6), *_weeks("B", 2), *_weeks("Y", 4)])
    ingest(db)
    found = lines.lines_now(db, "real", NOW)
    assert found[["line", "state"]].values.tolist() == [["Z", "act"], ["A", "act"], ["Y", "look"], ["B", "normal"]]
    assert found["class_name"].tolist()[:2] == ["pits", "crack"] and found["excess"].is_monotonic_decreasing
    cracks, pits = rises.Rise("crack", 300, 2, 2800, 1), rises.Rise("pits", 300, 18, 2800, 56)
    assert cracks.errors > pits.errors and found["excess"].tolist()[::3] == [pits.excess, 0] and found["excess"][1] == cracks.excess


@pytest.mark.parametrize(("k", "k0", "errors"), [(2, 9, 3.05), (20, 300, 3.15), (10, 300, 0), (0, 0, 0), (400, 0, 0)])
def test_what_is_behind_a_rise_is_its_likelihood_ratio(k: int, k0: int, errors: float) -> None:
    rise = rises.Rise("", 400, k, 12_000, k0)
    told = stats.chi2_contingency([[k, 400 - k], [k0, 12_000 - k0]], False, lambda_="log-likelihood").statistic if k or k0 else 0
    assert rise.excess == pytest.approx(told ** 0.5 if rise.rate > rise.usual else 0)
    assert not errors or rise.errors == pytest.approx(errors, abs=0.005)


def test_a_kind_of_defect_that_rises_in_the_noise_of_others(db: Database) -> None:
    """Pits from 0 to 3 % are lost in a line at 20 %, but not by themselves."""
    steady = [p | dict(boxes=p["boxes"] or ([("stain", 0.9)] if i % 5 == 4 else [])) for i, p in enumerate(_weeks("L1", 3, 0))]
    plant.batch(steady)
    ingest(db)
    [row] = lines.lines_now(db, "real", NOW).to_dict("records")
    assert row["state"] == "act" and row["class_name"] == "pits" and row["reason"].startswith("Pits are up: 3.0 % against usually 0.0 %")


def test_old_data(db: Database) -> None:
    plant.batch(_weeks("L1", 2))
    plant.batch(_weeks("L1", 2), plant="demo")
    ingest(db)
    last = NOW - timedelta(minutes=1)

    def reason(plant: str, at: datetime) -> tuple[str, str]:
        [row] = lines.lines_now(db, plant, at).to_dict("records")
        return row["state"], row["reason"]

    assert reason("real", last + timedelta(hours=17))[0] == "normal"
    assert reason("real", last + timedelta(hours=25)) == ("look", "Nothing has arrived since Tuesday 13:59")
    assert reason("real", last + timedelta(days=9)) == ("look", "Nothing has arrived since Tuesday 30 June 2026, 13:59")
    assert reason("demo", last + timedelta(hours=47))[0] == "normal", "the demo plant stands still for two days"
    assert reason("demo", last + timedelta(hours=49))[0] == "look"
    assert lines.lines_now(db, "nowhere", NOW).empty


def test_managers_sentences_have_no_jargon(db: Database) -> None:
    plant.batch([*_weeks("act", 8), *_weeks("calm", 2), *MISSED])
    ingest(db)
    said = " ".join(lines.lines_now(db, "real", NOW + timedelta(hours=5))["reason"]).lower()
    assert not {"run", "ingest", "snapshot", "map", "sigma", "inspection_id"} & set(said.replace(":", " ").replace(".", " ").split())


def test_events_config_is_kept_as_written(filled: Database) -> None:
    odd = "Ünïcode 'quotes' \"and\" {braces}"
    plant.decide("note", line=odd, at="2026-06-10T08:00:00+00:00", text=odd)
    ingest(filled)
    with filled.cursor() as cursor:
        [config] = cursor.execute("SELECT config FROM events WHERE recipe = 'note'").column()
    assert json.loads(config)["text"] == odd and decisions.notes(filled, "real", odd)["text"].tolist() == [odd]


def test_a_dataset_picture_stays_out_when_a_line_is_given_later(db: Database) -> None:
    batch = plant.batch([dict(line="", counted=False, not_counted_why=why) for why in ("dataset D", "no line")])
    plant.decide("correct", run_id=batch.name, inspection_ids=[], fields={"line": "L1"})
    ingest(db)
    assert sorted(f["counted"] for f in plant.facts(db)) == [False, True]


def test_what_does_not_count_makes_no_chart_younger(db: Database) -> None:
    plant.batch([{}, dict(captured_at=plant.NOON + timedelta(days=9), line="", counted=False, not_counted_why="no line")])
    ingest(db)
    found = queries.choices(db, "real")
    assert found["last_day"] == date(2026, 6, 10) and found["last_captured_at"] == plant.NOON


def test_a_camera_from_the_future_silences_no_alarm(db: Database) -> None:
    plant.batch([{}, dict(captured_at=plant.NOON + timedelta(days=3000))])
    ingest(db)
    row, = lines.lines_now(db, "real", plant.NOON + timedelta(days=2)).to_dict("records")
    assert row["state"] == "look" and row["inspected"] == 1 and "Nothing has arrived since" in row["reason"]


def test_pieces_outside_all_shifts_are_no_part_of_one(db: Database) -> None:
    """A plant of one shift that begins with its day: what came in the evening is not the early shift's."""
    plant.decide("calendar", time_zone="UTC", day_start="06:00", shifts=[dict(name="Early", start="06:00", end="14:00")])
    plant.batch([{}, dict(captured_at=plant.NOON + timedelta(hours=7)), dict(captured_at=plant.NOON + timedelta(hours=17))])
    ingest(db)
    rows = plant.facts(db, "shift, shift_start, production_day")
    assert [r["shift"] for r in rows] == ["Early", "", ""] and {r["production_day"] for r in rows} == {date(2026, 6, 10)}
    assert [r["shift_start"].hour for r in rows] == [6, 14, 14]
    assert queries.trend(db, Filters(), "shift")["inspected"].tolist() == [1, 2]

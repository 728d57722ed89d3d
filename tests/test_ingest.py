"""Ingest: exactly once, while runs go on, in any order, past damage and kills; and the same rows again from nothing."""

import random
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb
import pytest

from backend import rundir
from backend.errors import StoreError
from backend.store import engineering, facts, queries, scan
from backend.store.database import Database
from backend.store.ingest import forget, ingest, rebuild, remove_plant
from tests import small_plant as plant

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture
def db(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Database]:
    monkeypatch.setenv("DIFFSPECT_DATA", str(tmp_path))
    monkeypatch.setattr(scan, "demo_assets", lambda: tmp_path / "bundle")
    db = Database()
    yield db
    db.close()


def restarted(db: Database) -> Database:
    db.close()
    return Database()


def test_parts_come_in_once_while_the_run_goes_on(db: Database) -> None:
    run = plant.batch([dict(boxes=[("pits", 0.9)])], end=False)
    assert ingest(db) == 2 and ingest(db) == 0
    assert len(plant.facts(db)) == 1 and plant.tables(db)["runs"] == []
    revision = db.revision
    plant.add(run, [{}, {}])
    assert ingest(db, [run.name]) == 1 and db.revision > revision
    plant.finish(run)
    assert ingest(db) == 1 and ingest(db) == 0
    assert len(plant.facts(db)) == 3 and len(plant.tables(db)["runs"]) == 1
    again = restarted(db)
    assert ingest(again) == 0 and len(plant.facts(again)) == 3
    again.close()


def test_detections_may_come_after_their_inspections(db: Database) -> None:
    run = plant.batch([], end=False)
    rundir.write_part(run, "inspections", [plant.inspection(1), plant.inspection(2)])
    ingest(db)
    assert [r["is_defective"] for r in plant.facts(db)] == [False, False]
    rundir.write_part(run, "detections", [plant.detection(2, "pits", 0.9)])
    ingest(db)
    assert [r["is_defective"] for r in plant.facts(db)] == [False, True]


def test_the_end_of_a_run_is_replaced_when_it_goes_on(db: Database) -> None:
    run = plant.batch([{}], end=False)
    plant.finish(run, "interrupted", message="killed")
    ingest(db)
    rundir.set_state(run, "running", attempt=2)
    assert ingest(db) == 1 and plant.tables(db)["runs"] == []
    plant.finish(run, attempt=2)
    ingest(db)
    with db.cursor() as cursor:
        [row] = cursor.execute("SELECT * FROM runs").dicts()
    assert (row["state"], row["attempt"], row["result"]) == ("completed", 2, '{"done": true}')
    assert row["created_at"] == datetime.fromisoformat(rundir.read_json(run / "job.json")["created_at"])
    plant.finish(run, "failed", message="out of memory", attempt=3)
    again = restarted(db)
    ingest(again)
    with again.cursor() as cursor:
        assert cursor.execute("SELECT message FROM runs").column() == ["out of memory"]
    again.close()


def test_metrics_keep_the_last_value_of_a_step(db: Database) -> None:
    run = plant.batch([{}], end=False)
    (run / "metrics.jsonl").write_text('{"step": 1, "loss": 3.0, "map50": null}\n{"step": 2, "loss": 2.0}\n'
                                       '{"step": 1, "at_s": 4.5, "loss": 2.5}\n{"step": 3, "lo')
    ingest(db)
    assert engineering.metrics(db, run.name).empty, "live curves are read from the run"
    plant.finish(run)
    ingest(db)
    found = engineering.metrics(db, run.name)
    assert found[found["name"] == "loss"][["step", "value"]].values.tolist() == [[1, 2.5], [2, 2.0]]
    assert found[found["name"] == "map50"]["value"].isna().tolist() == [True]
    with db.cursor() as cursor:
        assert cursor.execute("SELECT at_s FROM metrics WHERE name = 'loss' ORDER BY step").column() == [4.5, None]
        assert not cursor.execute("SELECT count(*) FROM metrics WHERE name = 'at_s'").one()


def test_closed_runs_are_not_read_again(db: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    for _ in range(3):
        plant.batch([{}])
        plant.decide("note", line="L1", at="2026-06-10", text="x")
    ingest(db)
    read: list[Any] = []
    monkeypatch.setattr(rundir, "read_json", read.append)
    monkeypatch.setattr(rundir, "parts", read.append)
    assert ingest(db) == 0 and read == []


def _cut(part: Path) -> None:
    part.write_bytes(part.read_bytes()[:100])


def _other_table(part: Path) -> None:
    part.rename(part.with_name("surprise-000001.parquet"))


@pytest.mark.parametrize("damage", [_cut, lambda p: p.write_bytes(b""), _other_table])
def test_a_damaged_part_is_named_and_keeps_nothing_else_out(db: Database, damage: Callable[[Path], Any],
                                                            caplog: pytest.LogCaptureFixture) -> None:
    run = plant.batch([dict(boxes=[("pits", 0.9)])], end=False)
    plant.add(run, [{}])
    part = rundir.parts(run, "inspections")[0]
    whole = part.read_bytes()
    damage(part)
    plant.finish(run)
    plant.batch([{}])
    ingest(db)
    assert len(plant.facts(db)) == 2 and len(plant.tables(db)["runs"]) == 2
    [left] = engineering.damaged(db).to_dict("records")
    assert left["run_id"] == run.name and left["part"] in caplog.text and left["reason"]
    caplog.clear()
    assert ingest(db) == 0 and not caplog.text, "said once"

    (run / "parts" / f"{left['part']}.parquet").unlink()
    part.write_bytes(whole)
    again = restarted(db)
    ingest(again)
    assert len(plant.facts(again)) == 3
    again.close()


def test_a_decision_that_makes_no_sense_keeps_nothing_else_out(db: Database) -> None:
    run = plant.batch([{}])
    plant.decide("correct", run_id=run.name, inspection_ids=["not a number"], fields={"line": "L9"})
    plant.decide("correct", run_id=run.name, inspection_ids=[], fields={"product": "Frame", "captured_at": "yesterday"})
    plant.decide("review", inspection_id="x", verdict="good")
    plant.decide("policy", product="", class_name="", action="reject", threshold="high", min_side="")
    ingest(db)
    assert plant.facts(db, "line, product, captured_at") == [dict(line="L1", product="Frame", captured_at=plant.NOON)]


def test_a_broken_job_file(db: Database, caplog: pytest.LogCaptureFixture) -> None:
    broken = plant.batch([{}])
    (broken / "job.json").write_text("{")
    plant.batch([{}])
    ingest(db)
    ingest(db)
    assert len(plant.facts(db)) == 1 and caplog.text.count(broken.name) == 1


def test_a_full_disk_sets_nothing_aside(db: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    plant.batch([{}])

    def full(*_: Any) -> None:
        raise duckdb.IOException("No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(facts, "derive", full)
        with pytest.raises(StoreError):
            ingest(db)
    assert plant.facts(db) == [] and engineering.damaged(db).empty
    ingest(db)
    assert len(plant.facts(db)) == 1


# Forks for each number that it reads: what it imports takes longer than what is killed.
KILLED = """
import os, sys
from pathlib import Path
from backend.store import facts, ingest, scan
from backend.store.database import Cursor, Database
scan.demo_assets = lambda: Path("/nowhere")
execute, seen = Cursor.execute, []
def counted(self, sql, parameters=()):
    seen.append(sql)
    if len(seen) == at:
        os._exit(9)
    return execute(self, sql, parameters)
for line in iter(sys.stdin.readline, ""):
    at = int(line)
    if not (child := os.fork()):
        db = Database()
        Cursor.execute = counted
        ingest.ingest(db)
        print(len(seen), end=" ", flush=True)
        os._exit(0)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


def test_a_kill_at_any_statement_leaves_all_or_nothing(db: Database) -> None:
    run = plant.batch([dict(boxes=[("pits", 0.9)]), {}])
    plant.decide("correct", run_id=run.name, inspection_ids=[], fields={"line": "L2"})
    ingest(db)
    expected = plant.tables(db)
    db.close()
    statements = 73
    with subprocess.Popen([sys.executable, "-c", KILLED], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT) as killed:
        assert killed.stdin is not None and killed.stdout is not None
        for at in (6, 24, 54, statements - 1, statements, 10**6):
            for file in db.path.parent.glob("inspection.duckdb*"):
                file.unlink()
            print(at, file=killed.stdin, flush=True)
            said = killed.stdout.readline().split()
            assert said == (["9"] if at < 10**6 else [str(statements), "0"]), "move the last kill, before the commit, with more statements"
            again = Database()
            found = plant.tables(again)
            assert all(not rows for name, rows in found.items() if name != "about") or found == expected
            ingest(again)
            assert plant.tables(again) == expected
            again.close()


def test_a_vanished_run_is_forgotten(db: Database) -> None:
    first = plant.batch([dict(image_id="a" * 64, boxes=[("pits", 0.9)])])
    plant.batch([dict(image_id="a" * 64, ingested_at=plant.NOON + timedelta(hours=1))])
    plant.model("m1", {"pits": 0.5})
    ingest(db)
    assert [r["counted"] for r in plant.facts(db, "run_id, counted") if r["run_id"] == first.name] == [True]
    shutil.rmtree(first)
    ingest(db)
    assert plant.facts(db, "counted, is_defective") == [dict(counted=True, is_defective=False)]
    before = plant.tables(db)
    rebuild(db)
    assert plant.tables(db) == before
    forget(db, [])
    assert plant.tables(db) == before


def test_removing_the_demo_takes_all_of_it(db: Database) -> None:
    plant.batch([dict(boxes=[("pits", 0.9)])])
    ingest(db)
    before = plant.tables(db)
    run = plant.batch([dict(image_id="demo:1:1a:1:pits", boxes=[("pits", 0.9)])], plant="demo")
    plant.history(run, [dict(at=plant.NOON, recipe="note", config='{"line": "L1", "text": "x"}', by="Jonas")])
    gone = [run.name, plant.decide("policy", plant="demo", product="", class_name="", action="minor", threshold=None, min_side=0)]
    ingest(db)
    assert queries.plants(db) == {"demo": 1, "real": 1}
    for name in gone:
        shutil.rmtree(rundir.run_path(name))
    remove_plant(db, "demo")
    ingest(db)
    assert plant.tables(db) == before


def test_the_model_that_comes_with_the_program(db: Database, tmp_path: Path) -> None:
    folder = tmp_path / "bundle" / "model"
    folder.mkdir(parents=True)
    head = dict(model_id="d1", name="Demo model", kind="detector", created_at="2026-06-01T00:00:00+00:00", snapshot_id="", imgsz=224,
                classes=["pits"], thresholds={"pits": 0.8}, metrics={"test": {}}, settings={}, nms={}, dataset="demo")
    rundir.write_json(folder / "model.json", head)
    plant.batch([dict(model_id="d1", boxes=[("pits", 0.7)]), dict(model_id="d2", boxes=[("pits", 0.7)])])
    assert ingest(db) == 4 and ingest(db) == 0
    assert [r["is_defective"] for r in plant.facts(db)] == [False, True]
    assert engineering.models(db)[["name", "promoted", "run_id"]].values.tolist() == [["Demo model", True, ""]]
    rundir.write_json(folder / "model.json", head | dict(model_id="d2", name="Demo model 2"))
    db = restarted(db)
    ingest(db)
    assert [r["is_defective"] for r in plant.facts(db)] == [True, False]
    assert engineering.models(db)["model_id"].tolist() == ["d2"]
    before = plant.tables(db)
    rebuild(db)
    assert plant.tables(db) == before
    db.close()


# ---- any order, and from nothing


def _everything() -> None:
    """One of each thing that bears on a row: models, batches, twins, a set, curves, and decisions that overlap and are taken back."""
    plant.model("m1", {"pits": 0.4, "scratch": 0.6})
    first = plant.batch([dict(image_id="a" * 64, boxes=[("pits", 0.5)]), dict(boxes=[("scratch", 0.7)]), dict(line="", counted=False,
                         not_counted_why="no line"), dict(unit_id="U1"), dict(unit_id="U1", boxes=[("pits", 0.39)])], end=False)
    ids = plant.add(first, [dict(captured_at=datetime(2026, 3, 29, 1, 30, tzinfo=UTC)), dict(boxes=[("pits", 0.9), ("stain", 0.3)])])
    (first / "metrics.jsonl").write_text('{"step": 1, "rate": 2.0}\n')
    plant.finish(first)
    early = plant.decide("policy", product="", class_name="pits", action="reject", threshold=0.45, min_side=0)
    second = plant.batch([dict(image_id="a" * 64, boxes=[("pits", 0.5)], ingested_at=plant.NOON - timedelta(hours=2)), dict(model_id="m2")])
    rundir.write_part(second, "refused", [dict(file_name="x", reason="y")])
    demo = plant.batch([dict(image_id="demo:1:1a:1:pits", boxes=[("pits", 0.9)])] * 2, plant="demo")
    plant.history(demo, [dict(at=plant.NOON, recipe="acknowledge", config='{"line": "L1", "day": "2026-06-10", "text": "x"}', by="Jonas"),
                         dict(at=plant.NOON, recipe="policy", config='{"class_name": "pits", "action": "minor"}', by="")])
    for fields in ({"line": "L5", "product": "Frame"}, {"line": "L6"}):
        plant.decide("correct", run_id=first.name, inspection_ids=[], fields=fields)
    wrong = plant.decide("correct", run_id=second.name, inspection_ids=[], fields={"line": "L9"})
    plant.decide("exclude", run_id=first.name, inspection_ids=ids, reason="test")
    plant.decide("include", run_id=first.name, inspection_ids=ids[:1])
    plant.decide("review", inspection_id=ids[0], verdict="defective", class_name="pits", reviewer="Ines")
    plant.decide("policy", product="Frame", class_name="", action="minor", threshold=None, min_side=0)
    plant.decide("undo", run_id=early)
    plant.decide("undo", run_id=wrong)
    plant.decide("calendar", time_zone="Europe/Berlin", day_start="06:00", shifts=[dict(name="Day", start="05:00", end="17:00")])
    plant.decide("promote", model_id="m1", name="Model m1")
    plant.model("m2", {"pits": 0.1})
    plant.finish(plant.batch([{}], end=False), "failed", message="out of memory")


def _arrivals(source: Path, target: Path) -> list[Callable[[], object]]:
    """Everything in `source`, as steps that bring it to `target`: for each run its directory, running, then part by part, then its end."""
    steps: list[Callable[[], object]] = []
    for run in sorted(p for p in source.iterdir() if p.is_dir()):
        def begin(run: Path = run) -> None:
            there = target / run.name
            (there / "parts").mkdir(parents=True, exist_ok=True)
            if not (there / "job.json").exists():
                for name in ("state.json", "job.json"):
                    shutil.copy(run / name, there / name)
                rundir.set_state(there, "running", finished_at=None)

        def end(run: Path = run, begin: Callable[[], None] = begin) -> None:
            begin()
            shutil.copytree(run, target / run.name, dirs_exist_ok=True, ignore=shutil.ignore_patterns("state.json"))
            rundir.write_bytes(target / run.name / "state.json", (run / "state.json").read_bytes())

        for part in sorted((run / "parts").iterdir()):
            def arrive(part: Path = part, run: Path = run, begin: Callable[[], None] = begin) -> None:
                begin()
                shutil.copy(part, target / run.name / "parts" / part.name)
            steps.append(arrive)
        steps += [begin, end]
    return steps


@pytest.mark.parametrize("seed", range(3))
def test_any_order_gives_the_rows_of_a_rebuild(db: Database, tmp_path: Path, seed: int) -> None:
    _everything()
    source = (tmp_path / "runs").rename(tmp_path / "source")
    rundir.runs_root().mkdir()
    rng = random.Random(seed)
    steps = _arrivals(source, rundir.runs_root())
    rng.shuffle(steps)
    for step in steps:
        step()
        if rng.random() < 0.4:
            ingest(db)
    ingest(db)
    live = plant.tables(db)
    assert len(live["runs"]) == 6 and len(live["events"]) == 14 and len(live["facts"]) == 12 and live["defects"] and live["metrics"]
    rebuild(db)
    assert plant.tables(db) == live
    db.close()
    for file in tmp_path.glob("inspection.duckdb*"):
        file.unlink()
    fresh = Database()
    ingest(fresh)
    assert plant.tables(fresh) == live
    fresh.close()

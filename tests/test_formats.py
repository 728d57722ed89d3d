"""Upgrades: kept runs of every format read as they were; what a newer program wrote is left as it is; a changed schema makes the database
again by itself."""

import json
import shutil
from pathlib import Path

import duckdb
import pytest
import streamlit as st
from streamlit.testing.v1 import AppTest

from backend import __version__, formats, jobs, rundir
from backend.__main__ import main
from backend.errors import FormatError
from backend.jobs import events, house, messenger, runs, supervisor, worker
from backend.store import queries
from backend.store.database import Database
from backend.store.ingest import ingest
from tests import small_plant as plant
from tests.fixtures import make
from tests.recipes import Trial
from tests.test_jobs import wait_for, wait_state

ROOT = Path(__file__).resolve().parents[1]
KEPT = sorted((ROOT / "tests" / "fixtures").glob("format-*"))


@pytest.fixture(autouse=True)
def _nothing_remembered() -> None:
    """Answers are kept per revision of the one database of a process; here each test has its own."""
    st.cache_data.clear()


def page(name: str) -> AppTest:
    return AppTest.from_file(str(ROOT / "frame.py"), default_timeout=60).switch_page(f"pages/{name}.py").run()


# older -----------------------------------------------------------------------------------------------------------------------


def test_runs_of_every_format_are_kept() -> None:
    assert {int(p.name.split("-")[1]) for p in KEPT} == set(range(1, formats.NEWEST + 1))


@pytest.mark.parametrize("kept", KEPT, ids=lambda p: p.name)
def test_older_runs_are_read_as_they_were(kept: Path, data_folder: Path) -> None:
    """All that their own program read in them, after the newest has taken them in and moved in beside them."""
    shutil.copytree(kept / "runs", rundir.runs_root(), dirs_exist_ok=True)
    before = json.loads((kept / "expected.json").read_text())
    now = json.loads(json.dumps(make.expected(), default=str))
    assert len(before) > 10
    for what, told in before.items():                            # a later program may tell more
        assert {k: now[what][k] for k in told} == told if isinstance(told, dict) else now[what] == told, what
    assert json.loads((rundir.runs_root() / "format.json").read_text())["format"] == formats.NEWEST
    shown = page("runs")
    assert not shown.exception and not shown.error


def test_a_run_says_its_format(data_folder: Path) -> None:
    job = rundir.read_json(rundir.create("note", {}) / "job.json")
    assert job["format"] == formats.NEWEST == formats.of(job) and formats.of({}) == 1


def test_an_update_replaces_the_supervisor(supervised: Path) -> None:
    """One that an earlier version left running; what it had started goes on."""
    run_id = jobs.submit(Trial(do="count", steps=60, pause=0.05))
    wait_for(lambda: jobs.status(run_id).step >= 2)
    said = supervised / "supervisor.json"
    before = rundir.read_json(said)
    rundir.write_json(said, before | dict(code_version="0.0.1"))
    house.close()
    house.opened()
    wait_for(lambda: rundir.read_json(said)["pid"] != before["pid"])
    done = wait_state(run_id, "completed", "failed", "interrupted")
    assert (done.state, done.attempt) == ("completed", 1) and rundir.read_json(said)["code_version"] == __version__


# newer -----------------------------------------------------------------------------------------------------------------------


def newer(run: Path) -> Path:
    """The same run, come from a newer program, whose parts nobody here may guess at. Its name is new as well."""
    there = run.rename(run.with_name(run.name[:-6] + "ffffff"))
    rundir.write_json(there / "job.json", rundir.read_json(there / "job.json") | dict(run_id=there.name, format=formats.NEWEST + 1))
    return there


def content(run: Path) -> dict[str, bytes]:
    return {str(p.relative_to(run)): p.read_bytes() for p in sorted(run.rglob("*")) if p.is_file()}


def test_a_newer_run_is_left_alone(data_folder: Path) -> None:
    """One that was copied in: it is neither listed, carried out, counted nor touched, and Runs says why."""
    plant.batch([{}])
    batch, waiting = newer(plant.batch([{}, {}])), newer(rundir.create("import", {"path": "/x"}))
    used = newer(rundir.run_path(events.record("promote", dict(model_id="m9"))))
    before = [content(p) for p in (batch, waiting, used)]
    assert [s.recipe for s in jobs.recent()] == ["inspect"] and not runs.open_runs() and rundir.promoted_model() != "m9"
    for touch in (jobs.status, jobs.cancel, jobs.resume, worker.main, jobs.undo):
        with pytest.raises(FormatError, match="newer Diffspect made the run .*format 2; this one reads up to 1"):
            touch(waiting.name)
    house.opened().ingest()
    assert jobs.results.totals(jobs.Filters())["inspected"] == 1
    aside = jobs.results.damaged()
    assert set(aside["run_id"]) == {batch.name, waiting.name, used.name} and aside["reason"].str.contains("Update this program").all()
    assert [content(p) for p in (batch, waiting, used)] == before
    shown = page("runs")
    assert not shown.exception and any("3 results could not be read" in e.label for e in shown.expander)


def test_what_was_left_alone_comes_in_after_an_update(db: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    plant.batch([{}])
    late = newer(plant.batch([{}, {}]))
    ingest(db)
    db.close()
    monkeypatch.setattr(formats, "NEWEST", formats.NEWEST + 1)
    again = Database()
    ingest(again)
    with again.cursor() as cursor:
        assert cursor.execute("SELECT count(*) FROM inspections WHERE run_id = ?", [late.name]).one() == 2
        assert cursor.execute("SELECT count(*) FROM set_aside").one() == 0
    again.close()


def test_an_older_program_refuses_a_newer_folder(data_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """App, supervisor and command line, each with the sentence, and not a byte is changed."""
    run = plant.batch([{}])
    rundir.write_json(rundir.runs_root() / "format.json", dict(format=formats.NEWEST + 1))
    before = content(data_folder)
    sentence = "newer Diffspect has written in this data folder"
    for begin in (house.opened, supervisor.main, lambda: rundir.create("note", {}), messenger.look):
        with pytest.raises(FormatError, match=sentence):
            begin()
    shown = page("overview")
    assert not shown.exception and sentence in shown.error[0].value
    for words in (["import", str(tmp_path), "--name", "x"], ["rebuild"], ["resume", run.name]):
        assert main(words) == 1 and sentence in capsys.readouterr().err
    assert {k: v for k, v in content(data_folder).items() if "lock" not in k} == before


def test_an_update_leaves_word(data_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """So that the program before it will refuse. Damaged word is no word."""
    mark = rundir.runs_root() / "format.json"
    mark.write_text("{")
    monkeypatch.setattr(formats, "NEWEST", 7)
    house.opened()
    assert rundir.read_json(mark)["format"] == 7


# the database ------------------------------------------------------------------------------------------------------------------


def earlier(path: Path, table: str = "") -> bytes:
    """The file as an earlier schema had it. Its content as it lies there then."""
    with duckdb.connect(str(path)) as connection:
        connection.execute("UPDATE about SET digest = 'another'")
        connection.execute(f"CREATE TABLE {table} (x INTEGER)" if table else "SELECT 1")
    return path.read_bytes()


def test_a_changed_schema_makes_the_database_again(db: Database, caplog: pytest.LogCaptureFixture) -> None:
    """The old file stays until the new one is whole, also over a start in between and another change of the schema."""
    before = [plant.batch([dict(boxes=[("pits", 0.9)]), {}]) for _ in range(3)] and ingest(db) and plant.tables(db)
    db.close()
    old, kept = earlier(db.path), db.path.with_name("inspection.duckdb.before")
    first = Database()
    assert first.remade and kept.read_bytes() == old and "set aside" in caplog.text
    ingest(first, [next(rundir.find()).name])
    assert first.remade and first.progress == (0, 1)
    first.close()
    earlier(db.path, "third")
    second = Database()
    assert second.remade and kept.read_bytes() == old, "what was never whole takes no whole one's place"
    ingest(second)
    assert not second.remade and second.progress == (2, 3) and not list(db.path.parent.glob("*.before")) and plant.tables(second) == before
    second.close()


def test_a_damaged_file_stays_for_who_wants_to_look(db: Database) -> None:
    db.close()
    db.path.write_bytes(b"no database" * 1000)
    again = Database()
    ingest(again)
    assert not again.remade and db.path.with_name("inspection.duckdb.aside").exists()
    again.close()


def test_pages_say_that_results_are_read_again(data_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = plant.batch([{}])
    house.opened().ingest()
    house.close()
    earlier(data_folder / "inspection.duckdb")
    monkeypatch.setattr(house.House, "_work", lambda self: None)             # it has not begun yet
    house.opened().database().progress = (340, 1000)
    shown = page("runs")
    bars = shown.get("progress")
    assert not shown.exception and bars[0].proto.value == 34 and "reading all results again" in bars[0].proto.text
    assert jobs.status(run.name).state == "completed"
    house.opened().ingest()
    assert jobs.remade() is None and queries.plants(house.database())["real"] == 1
    assert not page("runs").get("progress")

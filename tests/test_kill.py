"""kill -9 of worker, supervisor and app, each at many moments: no finished result is lost, none is doubled. Real processes throughout."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from backend import jobs, rundir
from backend.jobs import house, locks, supervisor
from backend.store import ingest
from backend.store.database import Database
from tests.recipes import Trial

ROOT = Path(__file__).resolve().parents[1]
APP = "from backend import jobs\nimport time\njobs.recent()\nprint('open', flush=True)\ntime.sleep(120)"


def wait_for(condition: Callable[[], object], seconds: float = 60) -> None:
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, "waited in vain"
        time.sleep(0.01)


def kill_holder(lock: Path) -> bool:
    """kill -9 whoever holds this lock, and wait until it is free. False where nobody does. A look at the lock by a thread of the tests' own
    process is none: it once was what got killed."""
    wait_for(lambda: locks.holder(lock) != os.getpid())
    pid = locks.holder(lock)
    assert pid != os.getpid()
    if pid is None:
        return False
    os.kill(pid, signal.SIGKILL)
    wait_for(lambda: locks.holder(lock) != pid)
    return True


def state_of(run_dir: Path) -> str:
    return str(rundir.read_json(run_dir / "state.json")["state"])


def parts_of(run_dir: Path) -> int:
    return len(rundir.parts(run_dir, "inspections"))


def rows(run_id: str) -> list[tuple[int, int]]:
    """Rows and distinct inspections of a run in the database, for inspections and detections; all that is new taken in first."""
    database = Database()
    try:
        ingest.ingest(database)
        with database.cursor() as cursor:
            found = [cursor.execute(f"SELECT count(*) AS n, count(DISTINCT inspection_id) AS d FROM {t} WHERE run_id = ?", [run_id]).dicts()
                     for t in ("inspections", "detections")]
        return [(f[0]["n"], f[0]["d"]) for f in found]
    finally:
        database.close()


def start_app() -> "subprocess.Popen[str]":
    app = subprocess.Popen([sys.executable, "-c", APP], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert app.stdout is not None and app.stdout.readline() == "open\n"
    return app


def kill(process: "subprocess.Popen[str]") -> None:
    process.kill()
    process.communicate(timeout=20)


def test_a_part_that_was_being_written_is_none(data_folder: Path) -> None:
    run_dir = rundir.create("trial", {})
    (run_dir / "parts" / ".inspections-000001.parquet").write_bytes(b"PAR1")
    assert rundir.parts(run_dir) == rundir.parts(run_dir, "inspections") == []


def test_worker_killed_again_and_again(supervised: Path) -> None:
    """Each attempt is killed a little further on, in the midst of writing; each resume goes on from the parts that are there."""
    run_id = jobs.submit(Trial(do="write", steps=60, pause=0.005))
    run_dir = rundir.run_path(run_id)
    for attempt in range(1, 5):
        wait_for(lambda: parts_of(run_dir) >= attempt * 5 or state_of(run_dir) in rundir.END_STATES)     # noqa: B023
        time.sleep(0.003 * attempt)
        if not kill_holder(run_dir / "lock"):
            break
        wait_for(lambda: state_of(run_dir) in rundir.END_STATES)
        if state_of(run_dir) == "completed":
            break
        assert state_of(run_dir) == "interrupted"
        jobs.resume(run_id)
    wait_for(lambda: state_of(run_dir) in rundir.END_STATES)
    done = jobs.status(run_id)
    assert done.state == "completed" and done.attempt > 2
    house.close()
    assert rows(run_id) == [(600, 600), (600, 600)]


def test_worker_killed_after_its_result_is_a_finished_run(supervised: Path) -> None:
    for _ in range(3):
        run_id = jobs.submit(Trial(do="write", steps=2))
        run_dir = rundir.run_path(run_id)
        wait_for((run_dir / "result.json").exists)
        kill_holder(run_dir / "lock")                            # before, between or after the state's writing
        wait_for(lambda: state_of(run_dir) in rundir.END_STATES)              # noqa: B023
        assert jobs.status(run_id).state == "completed" and jobs.status(run_id).result["inspected"] == 20
    left = rundir.create("trial", Trial(do="write").to_json(), state="running")         # and exactly in between:
    rundir.write_json(left / "result.json", {"inspected": 0})
    wait_for(lambda: state_of(left) == "completed")


def test_supervisor_killed_while_runs_start_and_go_on(supervised: Path) -> None:
    """The app starts another, which adopts what goes on. No run is interrupted by it, none is carried out twice."""
    ids = [jobs.submit(Trial(do="write", steps=20, pause=0.02)) for _ in range(4)]
    for moment in (0.0, 0.08, 0.2, 0.5):                         # from before its worker has the lock to well into the run
        wait_for(supervisor.alive)
        time.sleep(moment)
        kill_holder(supervisor.lock_path())
        house.opened().wake()
    for run_id in ids:
        run_dir = rundir.run_path(run_id)
        wait_for(lambda: state_of(run_dir) in rundir.END_STATES)              # noqa: B023
        done = jobs.status(run_id)
        assert (done.state, done.attempt, done.result["began_with"]) == ("completed", 1, 0)
        assert len((run_dir / "metrics.jsonl").read_text().splitlines()) == 20
    house.close()
    assert all(rows(run_id) == [(200, 200), (200, 200)] for run_id in ids)


def test_supervisor_and_worker_killed_together(supervised: Path) -> None:
    """A power cut: the next supervisor finds a run without a worker, and ends its orphans."""
    run_id = jobs.submit(Trial(do="stuck"))
    run_dir = rundir.run_path(run_id)
    wait_for((run_dir / "child").exists)
    child = int((run_dir / "child").read_text())
    kill_holder(supervisor.lock_path())
    kill_holder(run_dir / "lock")
    house.opened().wake()
    wait_for(lambda: state_of(run_dir) == "interrupted")
    wait_for(lambda: not Path(f"/proc/{child}").exists())
    assert "Resume" in jobs.status(run_id).message


def test_app_killed_while_it_takes_results_in(data_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The run goes on; each new app takes up where the database stood. Rebuilt from the run directory, it holds the same."""
    monkeypatch.setenv("DIFFSPECT_RECIPES", "tests.recipes")
    run = subprocess.Popen([sys.executable, "-m", "backend", "trial", "--do", "write", "--steps", "60", "--pause", "0.03"],
                           cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    kills = 0
    while run.poll() is None or kills < 3:
        app = start_app()
        time.sleep(0.1 + 0.13 * (kills % 5))
        kill(app)
        kills += 1
    assert run.returncode == 0
    run_id = next(rundir.find("trial")).name
    assert rows(run_id) == [(600, 600), (600, 600)]
    database = Database()
    ingest.rebuild(database)
    database.close()
    assert rows(run_id) == [(600, 600), (600, 600)]


def test_app_killed_and_the_run_is_finished_without_it(supervised: Path) -> None:
    script = ("import tests.recipes\nfrom backend import jobs\nimport time\n"
              "print(jobs.submit(tests.recipes.Trial(do='write', steps=30, pause=0.02)), flush=True)\ntime.sleep(120)")
    app = subprocess.Popen([sys.executable, "-c", script], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert app.stdout is not None
    run_dir = rundir.run_path(app.stdout.readline().strip())
    wait_for(lambda: parts_of(run_dir) >= 3)
    kill(app)
    assert supervisor.alive()
    wait_for(lambda: state_of(run_dir) == "completed")
    assert rundir.read_json(run_dir / "state.json")["attempt"] == 1
    assert rows(run_dir.name) == [(300, 300), (300, 300)]

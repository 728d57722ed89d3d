"""Logs of the program's processes: text and JSON lines, several writers, size limits; a run's own log, cut where it grew too long."""

import json
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from backend import jobs, rundir
from backend.errors import ConfigError
from backend.jobs import house, locks, logs
from tests.recipes import Trial
from tests.test_jobs import wait_for, wait_state

ROOT = Path(__file__).resolve().parents[1]
log = logging.getLogger("backend.test")


def lines(who: str = "app") -> list[str]:
    return (logs.folder() / f"{who}.log").read_text().splitlines()


def test_text_is_readable(data_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """On stderr too; a line break in a person's name makes no second line."""
    with logs.kept("app"):
        log.info("%s was left out", "a\nb.png")
    assert lines()[0].endswith(r"Z INFO    backend.test: a\nb.png was left out") and lines()[0] in capsys.readouterr().err
    log.info("nobody keeps this")
    assert len(lines()) == 1


def test_json_lines(data_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DIFFSPECT_LOG", "json")
    with logs.kept("worker"):
        try:
            raise ValueError("é\n" * logs.MOST)
        except ValueError:
            log.exception("a run failed", extra={"run_id": "r1"})
        logging.getLogger("elsewhere").info("not ours, not a warning")
    (line,) = lines("worker")
    said = json.loads(line)
    assert (said["level"], said["who"], said["pid"], said["logger"], said["message"], said["run_id"]) == (
        "error", "worker", os.getpid(), "backend.test", "a run failed", "r1")
    assert said["at"].endswith("+00:00") and len(said["error"]) == logs.MOST


def test_another_word_is_refused(data_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DIFFSPECT_LOG", "xml")
    with pytest.raises(ConfigError, match="DIFFSPECT_LOG is text or json, not 'xml'"):
        house.opened()
    assert locks.holder(data_folder / "app.lock") is None


def test_logs_are_turned_over_under_their_writers(data_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two processes and two threads write while the supervisor gives full logs other names: no line is lost or torn, and the size is
    bounded."""
    monkeypatch.setattr(logs, "FULL", 20_000)
    monkeypatch.setattr(logs, "KEPT", 400)
    script = ("import logging\nfrom backend.jobs import logs\n"
              "with logs.kept('worker'):\n    for n in range(400): logging.getLogger('backend').info('child %d %s', n, 'x' * 100)")
    with logs.kept("worker"):
        child = subprocess.Popen([sys.executable, "-c", script], cwd=ROOT, stderr=subprocess.DEVNULL)
        threads = [threading.Thread(target=lambda t=t: [log.info("thread %d %d %s", t, n, "y" * 100) for n in range(400)]) for t in (1, 2)]
        for thread in threads:
            thread.start()
        while child.poll() is None or any(t.is_alive() for t in threads):
            logs.turn()
            time.sleep(0.001)
    logs.turn()
    kept = [line for file in logs.folder().glob("worker.log*") for line in file.read_text().splitlines()]
    said = sorted(line.split(": ", 1)[1].rsplit(" ", 1)[0] for line in kept)
    assert said == sorted([f"child {n}" for n in range(400)] + [f"thread {t} {n}" for t in (1, 2) for n in range(400)])
    assert len(list(logs.folder().glob("worker.log.*"))) >= 2     # nine where the turns come at once; busy machines turn later


def test_a_full_disk_ends_nobody_who_logs(data_folder: Path) -> None:
    """Not even where the log has got another name meanwhile; once there is room, lines go on."""
    logs.folder().mkdir(parents=True)
    (logs.folder() / "app.log").symlink_to("/dev/full")
    with logs.kept("app"):
        log.info("takes no room")
        (logs.folder() / "app.log").rename(logs.folder() / "app.log.1")
        log.info("nor here")
        log.info("there is room again")
    assert [line.split(": ")[1] for line in lines()] == ["there is room again"]


def test_few_are_kept(data_folder: Path) -> None:
    logs.folder().mkdir(parents=True)
    for n in range(logs.KEPT + 3):
        with open(logs.folder() / "app.log", "wb") as f:
            f.truncate(logs.FULL)
            f.write(f"{n}\n".encode())
        logs.turn()
    assert sorted(p.name for p in logs.folder().iterdir()) == [f"app.log.{k}" for k in range(1, logs.KEPT + 1)]
    assert (logs.folder() / "app.log.1").read_bytes()[:2] == f"{logs.KEPT + 2}\n".encode()


def test_a_runs_log_is_cut_under_its_writer(data_folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "log.txt"
    with open(path, "ab") as writer:
        for n in range(logs.LONG // 1000 + 10):
            writer.write(f"{n:0999d}\n".encode())
        writer.flush()
        logs.cut(path)
        writer.write(b"the last line\n")
    left = path.read_text().splitlines()
    assert "was cut off: the log was over 20 MiB" in left[0] and left[-1] == "the last line" and path.stat().st_size < logs.TAIL + 200
    assert [int(line) for line in left[1:-1]] == list(range(int(left[1]), logs.LONG // 1000 + 10))
    logs.cut(path)
    assert path.read_text().splitlines() == left


def test_what_supervisor_and_worker_do_is_logged(supervised: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And SIGTERM, which the end of the machine or service sends to all, interrupts a run as an event: at once, resumable."""
    monkeypatch.setenv("DIFFSPECT_LOG", "json")
    run_id = jobs.submit(Trial(do="write", steps=60, pause=0.05))
    wait_for(lambda: jobs.status(run_id).step >= 2)
    worker = locks.holder(rundir.run_path(run_id) / "lock")
    assert worker is not None
    os.kill(worker, signal.SIGTERM)
    ended = wait_state(run_id, "interrupted", "failed", "completed", "canceled")
    assert (ended.state, ended.message.split(".")[0]) == ("interrupted", "Diffspect was stopped before the run was finished")
    wait_for(lambda: locks.holder(rundir.run_path(run_id) / "lock") is None)
    jobs.resume(run_id)
    done = wait_state(run_id, "completed", "failed")
    assert done.state == "completed" and done.result["began_with"] >= 2
    wait_for(lambda: locks.holder(rundir.run_path(run_id) / "lock") is None)     # the worker's last word comes after its result
    said = [json.loads(line) for line in lines("worker")]
    assert [s["message"].split(": ")[1].split(" after")[0] for s in said] == ["begins", "interrupted", "begins", "completed"]
    assert {s["run_id"] for s in said} == {run_id} and not (supervised / "supervisor.log").exists()

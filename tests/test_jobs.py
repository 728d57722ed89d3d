"""Runs from submit to end, with real processes: states, queues, cancel, resume, adoption, memory, logs, locks."""

import ast
import dataclasses
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import pytest

from backend import jobs, rundir
from backend.config import TrainDiffusion
from backend.jobs import events, executor, generation, house, locks, memory, pace, recipes, report, reuse, runs, supervisor
from tests import guided_run
from tests.conftest import settle_down
from tests.recipes import HeavyTrial, Trial, inspection

ROOT = Path(__file__).resolve().parents[1]


def wait_for(condition: Callable[[], object], seconds: float = 30) -> None:
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, "waited in vain"
        time.sleep(0.03)


def wait_state(run_id: str, *states: str) -> jobs.RunStatus:
    wait_for(lambda: jobs.status(run_id).state in states)
    return jobs.status(run_id)


def gone(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def child_of(run_id: str) -> int:
    path = rundir.run_path(run_id) / "child"
    wait_for(path.exists)
    return int(path.read_text())


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A data folder with a supervisor that several tests have carry out their runs, one test after the other."""
    root = (tmp_path_factory.mktemp("served") / "data").resolve()
    yield root
    settle_down(root)


@pytest.fixture
def shared(supervised: Path, served: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """`supervised`, but in the folder that is `served`: for tests that ask about their own runs alone."""
    monkeypatch.setenv("DIFFSPECT_DATA", str(served))
    events.set_calendar()
    return served


# ends ----------------------------------------------------------------------------------------------------------------------


def test_a_run_completes(shared: Path) -> None:
    run_id = jobs.submit(Trial(do="count", steps=4, name="four"), by="me")
    done = wait_state(run_id, "completed", "failed")
    assert (done.state, done.result, done.step, done.total, done.attempt) == ("completed", {"steps": 4}, 4, 4, 1)
    assert done.name == "four" and done.started_at and done.finished_at and not done.is_open and done.position is None
    curve = jobs.live_metrics(run_id)
    assert list(curve.columns) == ["step", "name", "value", "at_s"]
    assert curve["value"].tolist() == [1, 1 / 2, 1 / 3, 1 / 4] and set(curve["name"]) == {"loss"}


def test_each_way_to_fail_is_said(shared: Path) -> None:
    said = {"raise": "The folder is empty.", "plain": "Something went wrong: KeyError: 'missing'. The log has the details.",
            "allocate": memory.SENTENCE, "kernel": memory.SENTENCE}
    ids = {do: jobs.submit(Trial(do=do)) for do in said}
    for do, run_id in ids.items():
        ended = wait_state(run_id, "failed", "completed", "interrupted")
        assert (ended.state, ended.message) == ("failed", said[do])
    assert "KeyError" in jobs.log_tail(ids["plain"])


def test_a_recipe_that_cannot_be_imported_is_a_failed_run(shared: Path) -> None:
    run_id = jobs.submit(jobs.RECIPES["trial-broken"]())
    ended = wait_state(run_id, "failed", "completed", "interrupted")
    assert ended.state == "failed" and "cannot be loaded: No module named 'tests.no_such_module'" in ended.message


def test_what_is_printed_lands_in_the_log(shared: Path) -> None:
    run_id = jobs.submit(Trial(do="print"))
    wait_state(run_id, "completed", "failed")
    assert jobs.log_tail(run_id).splitlines() == ["from python", "from a child", "bar 2"]
    assert jobs.log_tail(run_id, lines=1) == "bar 2"


def test_uploaded_files_arrive_as_they_are(shared: Path) -> None:
    read_before = io.BytesIO(b"12345")
    read_before.read()
    names = ["a.png", "../../etc/passwd", "<b>\nx.png", "a.png"]
    run_id = jobs.submit(Trial(do="files"), [(n, read_before if i == 0 else io.BytesIO(b"x" * i)) for i, n in enumerate(names)])
    assert sorted(p.name for p in (rundir.run_path(run_id) / "inbox").iterdir())[:4] == [f"00000{i}.bin" for i in range(4)]
    assert wait_state(run_id, "completed", "failed").result == {"a.png": 3, "../../etc/passwd": 1, "<b>\nx.png": 2}


class Torn(io.RawIOBase):
    def read(self, size: int = -1) -> bytes:
        raise OSError(28, "No space left on device")


def test_a_torn_upload_leaves_nothing(data_folder: Path) -> None:
    with pytest.raises(jobs.ResourceError, match="No space left on device. Nothing was submitted"):
        jobs.submit(Trial(), [("a.png", Torn())])
    assert [rundir.recipe_of(p.name) for p in (data_folder / "runs").iterdir() if p.is_dir()] == ["calendar"]


# queue ---------------------------------------------------------------------------------------------------------------------


def test_two_lanes_and_places_in_the_queue(supervised: Path) -> None:
    heavy = [jobs.submit(HeavyTrial(do="count", steps=1000, pause=0.1)) for _ in range(3)]
    wait_state(heavy[0], "running")
    light = jobs.submit(Trial(do="count", steps=2))
    assert wait_state(light, "completed", "failed").state == "completed"
    assert [jobs.status(r).state for r in heavy] == ["running", "pending", "pending"]
    assert [jobs.status(r).position for r in heavy] == [None, 1, 2]
    jobs.cancel(heavy[1])                                        # a pending one is canceled on the spot
    assert jobs.status(heavy[1]).state == "canceled" and jobs.status(heavy[2]).position == 1
    jobs.cancel(heavy[0])
    asked = jobs.status(heavy[0])
    assert asked.canceling or asked.state == "canceled"
    assert wait_state(heavy[0], "canceled").message == "Canceled."
    wait_state(heavy[2], "running")
    assert [s.run_id for s in jobs.recent(open_only=True)] == [heavy[2]]


def test_the_heavy_lane_is_nice(shared: Path) -> None:
    run_id = jobs.submit(HeavyTrial(do="count", steps=1000, pause=0.1))
    wait_state(run_id, "running")
    pid = locks.holder(rundir.run_path(run_id) / "lock")
    assert pid is not None and psutil.Process(pid).nice() == os.nice(0) + 5
    jobs.cancel(run_id)
    wait_state(run_id, "canceled")


def test_recent_filters_and_reads_little(data_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ids = [rundir.create("trial", Trial(name=str(n)).to_json(), plant="demo" if n % 2 else "real").name for n in range(40)]
    for n in range(20):
        events.record("note", {"n": n})
    assert [s.run_id for s in runs.recent(limit=3)] == ids[:-4:-1]
    assert {s.name for s in runs.recent(plant="demo")} == {str(n) for n in range(1, 40, 2)}
    assert runs.recent(names=("inspect",)) == []
    read: list[Path] = []
    real = rundir.read_json
    monkeypatch.setattr(rundir, "read_json", lambda path: read.append(path) or real(path))
    assert len(runs.recent(limit=5)) == 5
    assert not [p for p in read if p.name in ("state.json", "job.json")]     # nothing has changed since
    rundir.set_state(rundir.run_path(ids[0]), "failed", message="x")
    assert runs.status(ids[0]).state == "failed"


# cancel and resume ---------------------------------------------------------------------------------------------------------


def test_a_stuck_run_ends_with_all_its_children(shared: Path) -> None:
    run_id = jobs.submit(Trial(do="stuck"))
    child = child_of(run_id)
    worker = locks.holder(rundir.run_path(run_id) / "lock")
    assert worker is not None and not gone(child)
    jobs.cancel(run_id)
    assert wait_state(run_id, "canceled", "interrupted", "failed").state == "canceled"
    wait_for(lambda: gone(child) and gone(worker))


def test_a_run_leaves_no_child_behind(shared: Path) -> None:
    run_id = jobs.submit(Trial(do="leave"))
    wait_state(run_id, "completed", "failed")
    wait_for(lambda: gone(child_of(run_id)))
    assert jobs.status(run_id).state == "completed"


def test_a_run_of_the_command_line_leaves_no_child_behind(data_folder: Path) -> None:
    environment = {**os.environ, "DIFFSPECT_RECIPES": "tests.recipes", "DIFFSPECT_DATA": str(data_folder)}
    subprocess.run([sys.executable, "-m", "backend", "trial", "--do", "leave"], cwd=ROOT, env=environment, check=True, timeout=60)
    run_dir, = rundir.find("trial")                              # no supervisor has ever looked
    assert not (data_folder / "supervisor.lock").exists()
    wait_for(lambda: gone(int((run_dir / "child").read_text())))


def test_interrupted_then_resumed_from_its_checkpoint(shared: Path) -> None:
    run_id = jobs.submit(Trial(do="write", steps=20, pause=0.05))
    run_dir = rundir.run_path(run_id)
    wait_for(lambda: len(rundir.parts(run_dir, "inspections")) >= 5)
    worker = locks.holder(run_dir / "lock")
    assert worker is not None
    os.kill(worker, signal.SIGKILL)
    ended = wait_state(run_id, "interrupted", "failed", "completed", "canceled")
    assert ended.state == "interrupted" and "SIGKILL" in ended.message and "Resume" in ended.message
    jobs.resume(run_id)
    done = wait_state(run_id, "completed", "failed")
    assert done.attempt == 2 and done.result["began_with"] >= 5 and done.result["inspected"] == 200
    assert jobs.live_metrics(run_id)["step"].tolist() == sorted(set(jobs.live_metrics(run_id)["step"]))


def test_what_cannot_be_resumed(data_folder: Path) -> None:
    waiting = jobs.submit(Trial())
    with pytest.raises(jobs.ConfigError, match="still going on"):
        jobs.resume(waiting)
    jobs.cancel(waiting)
    jobs.cancel(waiting)                                         # twice is as good as once
    assert jobs.status(waiting).state == "canceled"
    jobs.resume(waiting)
    assert jobs.status(waiting).state == "pending" and not jobs.status(waiting).canceling
    rundir.set_state(rundir.run_path(waiting), "completed")
    with pytest.raises(jobs.ConfigError, match="nothing to resume"):
        jobs.resume(waiting)
    with pytest.raises(jobs.NotFoundError):
        jobs.resume("../../etc")


def test_a_command_line_run_can_be_canceled_from_a_page(supervised: Path) -> None:
    process = subprocess.Popen([sys.executable, "-m", "backend", "trial", "--do", "stuck", "--json"], cwd=ROOT, stdout=subprocess.PIPE,
                               stderr=subprocess.DEVNULL)
    wait_for(lambda: jobs.recent(open_only=True))
    run_id = jobs.recent()[0].run_id
    child = child_of(run_id)
    jobs.cancel(run_id)
    assert wait_state(run_id, "canceled", "interrupted").state == "canceled"
    wait_for(lambda: gone(child))
    process.communicate(timeout=20)


def test_a_run_that_had_ended_is_seen_to_go_on(data_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ended runs are not looked at again, unless one goes on: in this process, or in another; also one that died before it had said so."""
    ended = [rundir.create("trial", Trial(do="count").to_json(), state="completed") for _ in range(3)]
    waits = rundir.create("trial", Trial(do="count").to_json())
    monkeypatch.setattr(rundir, "SETTLED_NS", 0)
    looked: list[str] = []
    look = runs.state
    monkeypatch.setattr(runs, "state", lambda path: (looked.append(path.name), look(path))[1])

    def still() -> list[str]:
        looked.clear()
        return [path.name for path, _ in runs.open_runs()]

    assert still() == [waits.name] and len(looked) == 4
    assert still() == [waits.name] and looked == [waits.name]
    another = f"from backend import rundir; rundir.set_state(rundir.run_path({ended[1].name!r}), 'pending')"
    subprocess.run([sys.executable, "-c", another], cwd=ROOT, check=True, timeout=60)
    assert still() == [ended[1].name, waits.name]
    rundir.set_state(ended[1], "completed")
    assert still() == [waits.name] and len(looked) == 4, "for a while all are looked at"
    rundir.write_json(ended[2] / "state.json", {**rundir.read_json(ended[2] / "state.json"), "state": "pending"})       # killed thereafter
    assert still() == [ended[2].name, waits.name]
    monkeypatch.setattr(runs, "LATELY_NS", 0)
    rundir.set_state(ended[2], "completed")
    assert still() == [waits.name]
    assert still() == [waits.name] and looked == [waits.name]
    assert [r.run_id for r in runs.recent(open_only=True)] == [waits.name]
    assert runs.recent(open_only=True, names=("inspect",)) == []
    monkeypatch.setattr(runs, "LATELY_NS", 10**10)
    shutil.rmtree(ended[0])
    fresh = rundir.create("trial", Trial(do="count").to_json(), run_id=ended[0].name)
    assert {path.name for path, _ in runs.open_runs()} == {fresh.name, waits.name}, "another run under an old name"


# the supervisor ------------------------------------------------------------------------------------------------------------


def test_one_supervisor_that_ends_when_asked(supervised: Path) -> None:
    house.opened()
    wait_for(supervisor.alive)
    assert jobs.worker_alive()
    second = subprocess.run([sys.executable, "-m", "backend", "worker"], cwd=ROOT, capture_output=True, text=True, timeout=30)
    assert second.returncode == 0 and "Another supervisor" in second.stderr
    house.close()                                                # or it would be started again
    pid = locks.holder(supervisor.lock_path())
    assert pid is not None and rundir.read_json(supervised / "supervisor.json")["pid"] == pid
    os.kill(pid, signal.SIGTERM)
    wait_for(lambda: not supervisor.alive())


def test_the_warm_worker_takes_an_inspection(supervised: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(recipes, "INSPECTOR", {"trial"})
    monkeypatch.setattr(supervisor, "WARM", True)
    run_dir = rundir.create("trial", Trial(do="count").to_json())
    boss = supervisor.Supervisor(executor.Local())
    boss._keep_warm()
    warm = boss.ready
    assert warm is not None
    until = time.monotonic() + 60
    while boss.watched or runs.state(run_dir)["state"] in rundir.OPEN_STATES:
        boss.step()
        assert time.monotonic() < until
        time.sleep(0.05)
    assert runs.state(run_dir)["state"] == "completed" and runs.state(run_dir)["pid"] == warm.process.pid
    assert boss.ready is not None and boss.ready is not warm     # the next one is getting ready
    boss.ready.dismiss()
    assert boss.ready.process.returncode == 0


def test_a_folder_that_goes_takes_its_supervisor_along(supervised: Path) -> None:
    house.opened()
    wait_for(supervisor.alive)
    pid = locks.holder(supervisor.lock_path())
    house.close()
    supervised.rename(supervised.with_name("elsewhere"))
    assert pid is not None
    wait_for(lambda: gone(pid))


def test_verdicts(tmp_path: Path) -> None:
    assert supervisor.verdict(tmp_path, -9, kernel_killed=True) == ("failed", memory.SENTENCE)
    assert supervisor.verdict(tmp_path, 1, kernel_killed=True)[0] == "interrupted"
    assert "SIGSEGV" in supervisor.verdict(tmp_path, -11, kernel_killed=False)[1]
    (tmp_path / "cancel").touch()
    assert supervisor.verdict(tmp_path, -9, kernel_killed=True)[0] == "canceled"
    (tmp_path / "result.json").write_text("{}")
    assert supervisor.verdict(tmp_path, -9, kernel_killed=False) == ("completed", "")


# pieces --------------------------------------------------------------------------------------------------------------------


def test_a_lock_is_one_process_wide_and_survives_a_rename(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    path = tmp_path / "a" / "lock"
    assert locks.holder(path) is None
    ask = [sys.executable, "-c", "import sys; from pathlib import Path; from backend.jobs import locks; p = Path(sys.argv[1])\n"
                                 "print(locks.holder(p))\nwith locks.hold(p) as taken: print(taken)"]
    with locks.hold(path) as taken:
        assert taken
        (tmp_path / "a").rename(tmp_path / "b")
        moved = tmp_path / "b" / "lock"
        assert locks.holder(moved) == os.getpid()
        with locks.hold(moved) as again:
            assert not again                                     # and asking did not drop it:
        told = subprocess.run([*ask, str(moved)], cwd=ROOT, capture_output=True, text=True, timeout=30).stdout.split()
        assert told == [str(os.getpid()), "False"]
    assert locks.holder(moved) is None


def test_the_kernels_count_of_killed_processes(tmp_path: Path) -> None:
    assert memory.kills(tmp_path) == 0
    for path, text in {"proc/vmstat": "nr_free 1\noom_kill 2\n", "proc/self/cgroup": "4:memory:/box\n0::/slice/unit\n",
                       "sys/fs/cgroup/slice/unit/memory.events": "oom 9\noom_kill 30\noom_group_kill 0\n",
                       "sys/fs/cgroup/memory/memory.oom_control": "oom_kill_disable 0\noom_kill 400\n"}.items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(text)
    assert memory.kills(tmp_path) == 432


def test_memory_errors_are_recognised_by_cause_and_words() -> None:
    try:
        try:
            raise MemoryError
        except MemoryError as error:
            raise ValueError("bad batch") from error
    except ValueError as error:
        assert memory.ran_out(error)
    assert memory.ran_out(type("OutOfMemoryError", (RuntimeError,), {})("CUDA"))
    assert not memory.ran_out(ValueError("the memory of an elephant"))


def test_a_report_writes_the_last_progress_and_whole_lines(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").write_text('{"step": 1, "loss": 2.0}\n{"step": 2, "lo')
    say = report.Reporter(tmp_path)
    for step in range(2, 50):
        say(step=step, total=100, loss=float("nan") if step == 3 else step)
    say.flush()
    assert rundir.read_json(tmp_path / "progress.json")["step"] == 49
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [(line["step"], line["loss"]) for line in lines[:3]] == [(1, 2.0), (2, 2.0), (3, None)] and len(lines) == 49
    (tmp_path / "cancel").touch()
    with pytest.raises(jobs.Canceled):
        say(step=50, total=100)
    assert rundir.read_json(tmp_path / "progress.json")["step"] in (49, 50)


def test_curves_say_how_long_was_worked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Over all attempts: the time between two, and what was lost with one, is no work."""
    clock = {"now": 1000.0}
    monkeypatch.setattr(report.time, "monotonic", lambda: clock["now"])
    for step, seconds in ((1, 7.5), (2, 2.5)):
        say = report.Reporter(tmp_path)
        clock["now"] += seconds
        say(step=step, total=3, loss=1.0)
        clock["now"] += 100
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [line["at_s"] for line in lines] == [7.5, 10.0]


def test_time_left_counts_from_where_this_attempt_began(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([100.0, 100.0, 110.0, 110.0, 110.0])
    monkeypatch.setattr(report.time, "monotonic", lambda: next(clock, 110.0))
    say = report.Reporter(tmp_path)
    say(step=50, total=100)
    assert say.progress["eta_s"] is None
    say(step=60, total=100)
    assert say.progress["eta_s"] == 40.0


def test_time_left_follows_a_stage_of_another_pace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(report.time, "monotonic", lambda: now[0])
    say = report.Reporter(tmp_path)
    for step in range(200):
        say(step=step, total=300)
        now[0] += 1 if step < 100 else 10
    assert 900 < say.progress["eta_s"] <= 1010                           # 101 steps of 10 s; at the pace since the start it were 560


def test_time_left_does_not_rise_within_a_long_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(report.time, "monotonic", lambda: now[0])
    say, off = report.Reporter(tmp_path), []
    for second in range(10 * 90):                                        # ten epochs of 90 s, told of every second
        now[0] = float(second)
        say(step=second // 90, total=10)
        if second >= 90:
            off.append(abs(say.progress["eta_s"] - (900 - second)))
    assert max(off) <= 1
    for second in range(900, 1020):                                      # and the last one hangs
        now[0] = float(second)
        say(step=9, total=10)
    assert say.progress["eta_s"] == 0.0


def test_estimates_come_from_runs_that_finished_here(data_folder: Path, tmp_path: Path) -> None:
    folder = tmp_path / "batch"
    folder.mkdir()
    for n in range(100):
        (folder / f"{n}.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    config = jobs.Inspect(images=str(folder))
    guess = jobs.estimate(config)
    assert guess is not None and guess > 0
    run_dir = rundir.create("inspect", config.to_json())
    rundir.write_json(run_dir / "progress.json", {"step": 10, "total": 10})
    rundir.set_state(run_dir, "completed", started_at="2026-01-01T00:00:00+00:00", finished_at="2026-01-01T00:00:20+00:00")
    assert jobs.estimate(config) == 200.0
    assert jobs.estimate(jobs.Inspect()) is None and jobs.estimate(jobs.TrainDetector(dataset="none")) is None


def dataset(name: str = "steel", train: int = 80, rest: int = 20) -> str:
    """A snapshot of empty rows; its id."""
    run = rundir.create("import", jobs.Import(name=name).to_json())
    rundir.write_part(run, "snapshot_images", [
        dict(snapshot_id=name, image_id=f"{n:064x}", file_name=f"{n}.png", split="train" if n < train else "val", origin="real", parent="",
             generator_run="", width=200, height=200, group_id="", phash="") for n in range(train + rest)])
    rundir.write_json(run / "snapshot.json", dict(name=name, snapshot_id=name))
    rundir.set_state(run, "completed")
    return name


@pytest.fixture
def without_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pace, "NVIDIA", tmp_path / "none")


def test_a_guided_run_takes_as_long_as_its_stages(data_folder: Path, without_gpu: None) -> None:
    config = jobs.TrainDistilled(dataset=dataset(), name="x")
    parts = jobs.estimate_stages(config)
    assert list(parts) == ["diffusion", "repository", "backbone", "fused", "student"]
    assert jobs.estimate(config) == round(sum(v for v in parts.values() if v is not None), 1)
    more = jobs.estimate_stages(jobs.TrainDistilled(dataset="steel", name="x", preset="small", epochs=80))
    for stage, times in dict(diffusion=4, repository=1, backbone=1, fused=2, student=2).items():
        at_start = pace.START_S
        assert more[stage] - at_start == pytest.approx(times * (parts[stage] - at_start), abs=0.2), stage
    assert list(jobs.estimate_stages(jobs.TrainDistilled(dataset="steel", name="x", teach=False))) == [
        "diffusion", "repository", "fused", "student"]
    assert list(jobs.estimate_stages(jobs.TrainDistilled(dataset="steel", name="x", distill=False))) == [
        "diffusion", "repository", "backbone", "student"]
    assert jobs.estimate(jobs.TrainDistilled(dataset="none", name="x")) is None


def test_stages_that_finished_here_set_the_pace(data_folder: Path, without_gpu: None) -> None:
    """Alone or within a guided run; a stage that was reused says nothing, and a kind of training not yet done goes by its kin."""
    config = jobs.TrainDistilled(dataset=dataset(), name="x")
    before = jobs.estimate_stages(config)
    made = guided_run.denoiser("steel", seconds=500.0)
    assert jobs.estimate_stages(config) == before | {"diffusion": 500.0}
    guided_run.guided("steel", state="completed", reused=made)
    known = {stage: seconds for stage, seconds in guided_run.SECONDS.items() if stage != "diffusion"}
    assert jobs.estimate_stages(config) == known | {"diffusion": 500.0}
    plain = jobs.estimate(jobs.TrainDetector(dataset="steel", name="x"))
    assert plain == pytest.approx(guided_run.SECONDS["student"] / pace.DISTILLED, abs=0.1)


def test_a_stage_that_is_there_takes_no_time(data_folder: Path, without_gpu: None) -> None:
    config = jobs.TrainDistilled(dataset=dataset(), name="x")
    whole = jobs.estimate_stages(config)
    keys = reuse.keys(config, pace.stages(config), "steel")
    assert list(keys) == ["diffusion", "repository", "backbone", "fused"]
    guided_run.denoiser("steel", state="interrupted", key=keys["diffusion"])
    assert jobs.estimate_stages(config) == whole | {"diffusion": 0.0}
    assert jobs.estimate(config) == round(sum(v for k, v in whole.items() if v and k != "diffusion"), 1)
    for another in (dict(preset="small"), dict(diffusion_steps=999), dict(precision="f32")):
        assert jobs.estimate_stages(jobs.TrainDistilled(dataset="steel", name="x", **another))["diffusion"], another
    seeded = jobs.TrainDistilled(dataset="steel", name="x", seed=1)
    differing = {k for k, v in reuse.keys(seeded, pace.stages(seeded), "steel").items() if v != keys[k]}
    assert differing == {"fused"}, "what a student of another seed can share"


def test_an_anomaly_model_without_a_named_denoiser_reuses_one_of_its_settings_only(data_folder: Path, without_gpu: None) -> None:
    """The newest will not do, nor one that learned from defects; the key is the recipe's own."""
    from backend.diffusion import ddpm

    config = jobs.TrainAnomaly(dataset=dataset(), name="x", source="ddpm")
    whole = pace.work(config)
    plain = TrainDiffusion(name="x", steps=1000, batch=32)
    for lesson in (plain, dataclasses.replace(plain, steps=0, good=True)):
        guided_run.denoiser("steel", key=ddpm.key(lesson, "steel"))
    assert whole and pace.work(config) == whole
    guided_run.denoiser("steel", key=ddpm.key(dataclasses.replace(plain, steps=None, batch=None, good=True), "steel"))
    assert pace.work(config) == whole - 1000 * 32 * pace.PRESETS["tiny"][2]
    assert pace.work(dataclasses.replace(config, diffusion_steps=999)) > whole - 1000
    assert pace.work(dataclasses.replace(config, denoiser="mine", diffusion_steps=999)) == pace.work(config), "a named one is never trained"


def test_a_gpu_is_not_guessed(data_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pace, "NVIDIA", tmp_path)
    config = jobs.TrainDistilled(dataset=dataset(), name="x")
    assert jobs.estimate(config) is None and set(jobs.estimate_stages(config).values()) == {None}
    guided_run.guided("steel", state="completed")
    assert jobs.estimate(config) == sum(guided_run.SECONDS.values())


def test_ranking_takes_longer_with_more_timesteps(data_folder: Path, without_gpu: None) -> None:
    one, five = (jobs.estimate(jobs.ProbeFeatures(dataset=dataset(f"d{n}"), timesteps=" ".join(["20"] * n))) for n in (1, 5))
    assert one and five and five - pace.START_S == pytest.approx(5 * (one - pace.START_S), abs=0.5)


def artifact(recipe: str, kind: str, minutes: int = 0, config: jobs.Config | None = None, **head: object) -> Path:
    """A completed run with an artifact; `minutes` that it took, 0: nobody knows."""
    run = rundir.create(recipe, config.to_json() if config else {})
    (run / kind).mkdir()
    rundir.write_json(run / kind / "head.json", {"key": run.name, **head})
    times = dict(started_at="2026-01-01T00:00:00+00:00", finished_at=f"2026-01-01T00:{minutes:02}:00+00:00") if minutes else {}
    rundir.set_state(run, "completed", **times)
    return run


def work(config: jobs.Config) -> float:
    """What an estimate guesses where nothing of the kind has finished: in core seconds."""
    guess = jobs.estimate(config)
    assert guess is not None and guess > pace.START_S
    return (guess - pace.START_S) * pace.cores()


def test_made_pictures_take_longer_with_more_of_everything(data_folder: Path, without_gpu: None) -> None:
    made = partial(jobs.Synthesize, dataset=dataset(), name="x", count=1000)
    assert work(made(method="paste")) == pytest.approx(1000 * generation.LAID_S, rel=0.01)
    assert work(made(steps=20)) > 1.5 * work(made(steps=10)) > 3 * work(made(source="noise"))
    assert jobs.estimate(made(method="prior")) is None, "there is no prior yet"
    artifact("train-prior", "prior", name="surface")
    drawn = work(made(method="prior", guidance=1.0, strength=0.5, steps=20))
    laid, first = 1000 * generation.LAID_S, dict[str, Any](guidance=1.0, strength=0.5, steps=20)
    for change in (dict(guidance=2.0), dict(steps=40)):                                              # each doubles twenty evaluations
        more = (40 + generation.CODER) / (20 + generation.CODER)
        assert work(made(method="prior", **first | change)) - laid == pytest.approx(more * (drawn - laid), rel=0.02), change
    for change in (dict(strength=1.0), dict(start="noise")):                                         # the steps are then as many
        assert work(made(method="prior", **first | change)) == pytest.approx(drawn), change
    foreign = work(made(method="prior", prior="owner/name"))
    assert foreign > 20 * work(made(method="prior", prior="surface"))
    artifact("adapt-prior", "adapter", name="a", snapshot_id="steel", base=dict(native=False))
    assert work(made(method="prior")) == pytest.approx(foreign, rel=0.01), "the newest adapted to this dataset comes first"


def test_each_way_of_making_pictures_learns_its_own_pace(data_folder: Path, without_gpu: None) -> None:
    made = partial(jobs.Synthesize, dataset=dataset(), name="x")
    before = jobs.estimate(made(count=10))
    artifact("synthesize", "synthetic", 2, made(method="paste", count=100), items=[])
    assert jobs.estimate(made(method="paste", count=50)) == 60.0 and jobs.estimate(made(count=10)) == before
    artifact("synthesize", "synthetic", 5, made(count=10), items=[])
    assert (jobs.estimate(made(count=20)), jobs.estimate(made(method="paste", count=50))) == (600.0, 60.0)
    gone = made(method="prior", dataset="gone")
    artifact("synthesize", "synthetic", 1, gone, items=[])
    assert jobs.estimate(gone) is None and jobs.estimate(made(count=20)) == 600.0


def test_what_surrounds_made_pictures_is_estimated_too(data_folder: Path, without_gpu: None) -> None:
    steel, ten = dataset(), [dict(file=f"{n}.png") for n in range(10)]
    assert jobs.estimate(jobs.MeasureSynthesis(synthetic="set")) is None and jobs.estimate(jobs.Combine(dataset=steel, sets="set")) is None
    artifact("synthesize", "synthetic", name="set", snapshot_id=steel, items=100 * ten)
    plain, looked = (work(jobs.MeasureSynthesis(synthetic="set", detector=d)) for d in ("", "best"))
    assert plain == pytest.approx((1000 + 80) * generation.FEATURE_S, rel=0.02) and looked > 1.5 * plain
    assert work(jobs.Combine(dataset=steel, sets="set, set")) == pytest.approx(2 * 1000 * generation.COMBINED_S, rel=0.05)
    assert work(jobs.TrainClassifier(dataset=steel, steps=2000, imgsz=64)) == pytest.approx(
        work(jobs.TrainClassifier(dataset=steel, steps=500)), rel=0.01)
    assert jobs.estimate(jobs.AdaptPrior(dataset=steel)) is None
    artifact("train-prior", "prior", name="surface")
    both, tokens = (work(jobs.AdaptPrior(dataset=steel, space=s)) for s in ("both", "tokens"))
    assert both == pytest.approx(tokens * 1300 / 300, rel=0.01)
    assert work(jobs.TrainPrior(preset="small")) > 4 * work(jobs.TrainPrior(preset="tiny"))
    search = jobs.SearchSynthesis(dataset=steel, strengths="0.5", guidances="1", steps="10")
    assert work(dataclasses.replace(search, strengths="0.5 0.5 0.5")) == pytest.approx(3 * work(search), rel=0.01)
    assert jobs.estimate(dataclasses.replace(search, strengths="half")) is None


def test_the_estimate_knows_the_presets() -> None:
    """It repeats their steps and batch, so as not to load the networks."""
    tree = ast.parse((ROOT / "backend" / "diffusion" / "ddpm.py").read_text())
    told = next(n.value for n in tree.body if isinstance(n, ast.Assign) and ast.unparse(n.targets[0]) == "PRESETS")
    assert isinstance(told, ast.Dict)
    known = {ast.literal_eval(k): [ast.literal_eval(a) for a in v.args] for k, v in zip(told.keys, told.values, strict=True)
             if k and isinstance(v, ast.Call)}
    assert {name: (steps, batch) for name, (_, _, _, batch, steps, _) in known.items()} == {
        name: (steps, batch) for name, (steps, batch, _) in pace.PRESETS.items()}


def test_the_estimate_knows_the_presets_of_the_prior() -> None:
    tree = ast.parse((ROOT / "backend" / "synthesis" / "prior" / "surface.py").read_text())
    told = next(n.value for n in tree.body if isinstance(n, ast.Assign) and ast.unparse(n.targets[0]) == "PRESETS")
    assert isinstance(told, ast.Dict)
    known = {ast.literal_eval(k): [{a.arg: ast.literal_eval(a.value) for a in p.keywords} for p in v.args if isinstance(p, ast.Call)]
             for k, v in zip(told.keys, told.values, strict=True) if k and isinstance(v, ast.Call)}
    assert {name: tuple((part["steps"], part["batch"]) for part in parts) for name, parts in known.items()} == {
        name: tuple((steps, batch) for steps, batch, _ in parts) for name, parts in generation.PRIORS.items()}


def test_only_files_of_the_run_are_handed_out(data_folder: Path) -> None:
    run_id = jobs.submit(Trial())
    assert jobs.run_file(run_id, "job.json").name == "job.json"
    (rundir.run_path(run_id) / "link").symlink_to("/etc/passwd")
    for outside in ("../../supervisor.log", "/etc/passwd", "link", "missing", "", "a\0b"):
        with pytest.raises(jobs.NotFoundError):
            jobs.run_file(run_id, outside)


def test_half_done_directories_are_swept_after_a_day(data_folder: Path) -> None:
    old, young = rundir.create("trial", {}, state="staged"), rundir.create("trial", {}, state="staged")
    os.utime(old, (0, 0))
    supervisor.sweep()
    assert not old.exists() and young.exists()


def test_a_worker_starts_without_what_it_does_not_need() -> None:
    script = "import sys, backend.__main__\nprint({'duckdb', 'pandas', 'torch', 'cv2', 'PIL', 'backend.jobs.results'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() == "set()", done.stderr


# decisions and the demo ----------------------------------------------------------------------------------------------------


def test_a_decision_is_in_the_database_when_record_returns(data_folder: Path) -> None:
    run_id = jobs.record("note", {"line": "L1", "at": rundir.now(), "text": "new lamp"}, by="me")
    assert jobs.recent() == []                                   # it is no run to people
    with house.database().cursor() as cursor:
        assert cursor.execute("SELECT recipe FROM events WHERE run_id = ?", [run_id]).one() == "note"
        undo = jobs.undo(run_id)
        assert cursor.execute("SELECT undone FROM events WHERE run_id = ?", [run_id]).one() is True
    assert rundir.read_json(rundir.run_path(undo) / "job.json")["config"] == {"run_id": run_id}
    with pytest.raises(jobs.ConfigError, match="Only a decision"):
        jobs.undo(jobs.submit(Trial()))


def test_a_new_folder_gets_a_calendar_and_the_demo(data_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DIFFSPECT_DATA", str(tmp_path / "new"))
    monkeypatch.setenv("TZ", "Europe/Vienna")
    assert [(s.recipe, s.plant, s.state) for s in jobs.recent()] == [("demo", "demo", "pending")]
    calendar = rundir.read_json(next(rundir.find("calendar")) / "job.json")["config"]
    assert calendar["time_zone"] == "Europe/Vienna" and [s["name"] for s in calendar["shifts"]] == ["Early", "Late", "Night"]
    assert jobs.add_demo() == jobs.recent()[0].run_id            # there already
    real = jobs.submit(Trial(name="mine"))
    jobs.remove_demo()
    assert [s.run_id for s in jobs.recent()] == [real]
    house.close()
    assert [s.run_id for s in jobs.recent()] == [real]           # and it does not come back by itself
    assert jobs.add_demo() in [s.run_id for s in jobs.recent(plant="demo")]
    house.close()


def test_a_time_zone_that_is_none_is_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "Middle/Earth")
    assert events.time_zone() != "Middle/Earth"
    monkeypatch.setenv("TZ", ":Asia/Tokyo")
    assert events.time_zone() == "Asia/Tokyo"


def test_where_another_process_has_the_database_runs_still_go(data_folder: Path) -> None:
    hold = "from backend.store.database import Database\nd = Database()\nprint('held', flush=True)\ninput()"
    other = subprocess.Popen([sys.executable, "-c", hold], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert other.stdout is not None and other.stdout.readline() == "held\n"
    run_id = jobs.submit(Trial())
    assert jobs.status(run_id).state == "pending"
    with pytest.raises(jobs.StoreError, match="Another Diffspect"):
        house.database()
    other.communicate("\n", timeout=20)
    with house.database().cursor() as cursor:
        assert cursor.execute("SELECT 1").one() == 1


def test_right_after_a_start_the_results_are_not_all_there_yet(data_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pages ask, so that nobody reads "nothing inspected" while the database is being made again."""
    from backend.store import ingest

    going, real = threading.Event(), ingest.ingest
    monkeypatch.setattr(ingest, "ingest", lambda *given: (going.wait(20), real(*given))[1])
    assert not jobs.caught_up(wait_s=0.2)
    going.set()
    assert jobs.caught_up(wait_s=20)


def test_a_demo_that_was_cut_off_is_replaced_not_doubled(data_folder: Path) -> None:
    first = rundir.create("demo", {}, plant="demo")
    rundir.write_part(first, "inspections", [inspection(1) | {"plant": "demo"}])
    rundir.set_state(first, "canceled", finished_at=rundir.now())
    house.opened().ingest()
    assert jobs.results.plants()["demo"] == 1
    second = jobs.add_demo()
    assert jobs.add_demo() == second and [p.name for p in rundir.find("demo")] == [second]
    house.opened().ingest()
    assert jobs.results.plants()["demo"] == 0


def test_a_damaged_state_file_stops_nothing_else(data_folder: Path) -> None:
    bad, good = rundir.create("trial", {}), rundir.create("trial", {})
    (bad / "state.json").write_bytes(b"")
    assert [r.run_id for r in jobs.recent()] == [good.name]
    assert [path for path, _ in runs.open_runs()] == [good]


def test_a_run_that_cannot_be_asked_does_not_end_the_taking_in(data_folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    inside = house.opened()
    path = rundir.create("import", {}) / "state.json"
    path.unlink()
    path.mkdir()                                                 # reading it fails as of a disk that fails: with an OSError of another kind
    wait_for(lambda: inside.wake() or caplog.text.count("the next turn tries again") > 1)
    assert inside._thread.is_alive()
    inside._look_at = 0.0
    wait_for(lambda: inside.wake() or inside._look_at > 0)       # alarms are looked for although no report can be answered
    path.rmdir()
    inside.caught_up.clear()
    wait_for(lambda: inside.wake() or inside.caught_up.is_set())
    assert house._written(Path("x" * 300)) == 0                  # as a folder that goes between two questions


def test_a_run_that_ends_while_others_are_taken_in_is_taken_in_next(data_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its last rows were written behind the look that was going on; with no run open any more the next one would be two seconds later."""
    inside = house.opened()
    monkeypatch.setattr(house, "IDLE_S", 600.0)
    before = {rundir.create("inspect", {}, state="completed") / "parts": 0}       # as it was when the look began
    resting = threading.Thread(target=inside._rest, args=(before,), daemon=True)
    resting.start()
    resting.join(20)
    assert not resting.is_alive()


def test_an_undo_is_final(data_folder: Path) -> None:
    taken_back = jobs.undo(jobs.record("note", {"line": "L1", "text": "x"}))
    with pytest.raises(jobs.ConfigError, match="stays so"):
        jobs.undo(taken_back)

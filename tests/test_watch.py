"""The recipe `watch`: each picture once, whatever is killed, half written, renamed, repeated or moved; and a folder's looks."""

import gc
import io
import itertools
import os
import shutil
import sqlite3
import subprocess
import sys
import time
import tracemalloc
import types
import weakref
from collections import deque
from collections.abc import Callable
from contextlib import closing
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from backend import __main__, jobs, rundir
from backend.config import Watch
from backend.errors import ConfigError, InputError
from backend.inspection import dropped, watch
from backend.inspection.dropped import Folder
from backend.inspection.keeping import Keeper
from backend.inspection.watchlog import Index
from backend.jobs import watching
from tests.test_kill import kill_holder, wait_for
from tests.tiny_model import CLASSES, bundle

ROOT = Path(__file__).resolve().parents[1]
watch_as_it_is = watch.Watcher


@pytest.fixture
def house(tmp_path: Path, data_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A data folder with one model in it, a roomy disk, a folder `in` to watch, and a loop that does not rest."""
    monkeypatch.setattr(watch, "Keeper", partial(Keeper, lambda path: (10**12, 0, 8 * 10**11)))
    for module, name in ((watch, "GATHER_S"), (watch, "TELL_S"), (watch, "POLL_S"), (dropped, "POLL_S")):
        monkeypatch.setattr(module, name, 0.0)
    bundle(rundir.create("train-detector", {}, state="completed") / "model", thresholds={c: 0.6 for c in CLASSES})
    (tmp_path / "in").mkdir()
    return tmp_path


def encoded(seed: int, form: str = "PNG") -> bytes:
    out = io.BytesIO()
    blocks = np.random.default_rng(seed).integers(0, 256, (8, 8, 3), np.uint8)
    Image.fromarray(blocks).resize((60, 50), Image.Resampling.NEAREST).save(out, form)
    return out.getvalue()


class Until:
    """A recipe's `report` that asks for an end when `enough()` is true; `meanwhile` may drop files."""

    def __init__(self, run_dir: Path, enough: "Callable[[], bool]", meanwhile: "Callable[[], None]" = lambda: None) -> None:
        self.run_dir, self.enough, self.meanwhile, self.end = run_dir, enough, meanwhile, time.monotonic() + 60

    def __call__(self, *, step: int, total: int, message: str = "", **metrics: float) -> None:
        assert step == total and message and time.monotonic() < self.end, "waited in vain"
        self.meanwhile()
        if self.enough():
            (self.run_dir / "cancel").touch()


def new_run(house: Path, **settings: Any) -> tuple[Watch, Path]:
    config = Watch(**dict(dict(model="tiny", images=str(house / "in"), line="L1"), **settings))
    return config, rundir.create("watch", config.to_json(), state="running")


def rows(run_dir: Path, table: str = "inspections") -> list[dict[str, Any]]:
    return rundir.rows(run_dir, table).to_pylist()


def watched(house: Path, enough: "Callable[[Path], bool]", meanwhile: "Callable[[], None]" = lambda: None, **settings: Any,
            ) -> tuple[Path, dict[str, Any]]:
    config, run_dir = new_run(house, **settings)
    return run_dir, watch.run(config, run_dir, Until(run_dir, lambda: enough(run_dir), meanwhile))


def test_pictures_of_all_subfolders_become_rows_and_stay_where_they_are(house: Path) -> None:
    folder = house / "in"
    (folder / "a" / "b").mkdir(parents=True)
    names = [f"{k}.png" for k in range(5)] + [f"a/b/{k}.jpg" for k in range(5, 9)]
    for k, name in enumerate(names):
        (folder / name).write_bytes(encoded(k, "JPEG" if name.endswith("jpg") else "PNG"))
        os.utime(folder / name, (1e9 + k, 1e9 + k))
    for name, data in (("notes.txt", b"no picture"), (".hidden.png", encoded(50)), ("later.png.part", encoded(51)), ("empty.png", b"")):
        (folder / name).write_bytes(data)
    before = sorted(p.name for p in folder.rglob("*"))
    run_dir, result = watched(house, lambda run: len(rows(run)) == 9)
    assert [r["file_name"] for r in rows(run_dir)] == names and rows(run_dir, "refused") == []
    assert [int(r["captured_at"].timestamp()) for r in rows(run_dir)] == [10**9 + k for k in range(9)], "a file's own time"
    assert all(r["line"] == "L1" and r["counted"] and r["kept"] and r["captured_source"] == "arrival" for r in rows(run_dir))
    limit = {r["inspection_id"] for r in rows(run_dir, "detections") if r["confidence"] >= np.float32(0.6)}
    assert (result["inspected"], result["counted"], result["defective"], result["refused"]) == (9, 9, len(limit), 0)
    assert sorted(p.name for p in folder.rglob("*")) == before and "next" not in result


def test_half_written_files_wait_and_what_stays_so_is_refused(house: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dropped, "PATIENCE_S", 0.5)
    monkeypatch.setattr(Folder, "again", partial_again)
    folder, whole, looks = house / "in", encoded(1, "JPEG"), [0]
    (folder / "slow.jpg").write_bytes(whole[:300])
    (folder / "cut.jpg").write_bytes(encoded(2, "JPEG")[:300])
    (folder / "text.png").write_bytes(b"hello")

    def writing() -> None:
        looks[0] += 1
        if looks[0] < 20:                                            # never unchanged for long enough
            (folder / "slow.jpg").write_bytes(whole[:300 + looks[0]])
        elif looks[0] == 20:
            (folder / "slow.jpg").write_bytes(whole)

    run_dir, result = watched(house, lambda run: len(rows(run)) == 1 and len(rows(run, "refused")) == 2, writing, settle=0.1)
    assert [r["file_name"] for r in rows(run_dir)] == ["slow.jpg"]
    reasons = {r["file_name"]: r["reason"] for r in rows(run_dir, "refused")}
    assert reasons.keys() == {"cut.jpg", "text.png"} and "cut short" in reasons["cut.jpg"] and "not a picture" in reasons["text.png"]
    again, result = watched(house, lambda run: True)
    assert result["inspected"] == result["refused"] == 0, "and said once"


def test_a_file_that_stays_empty_is_told_of_and_taken_once_it_is_written(house: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dropped, "PATIENCE_S", 0.1)
    monkeypatch.setattr(Folder, "again", partial_again)
    folder = house / "in"
    monkeypatch.setattr(dropped, "EMPTY_S", 1.0)
    for name in ("dead.png", "0001.done"):                           # a disk that was full, and a sign to another machine
        (folder / name).touch()
    began = time.monotonic()
    run_dir, _ = watched(house, lambda run: len(rows(run, "refused")) == 1, settle=0.1)
    assert [(r["file_name"], r["reason"]) for r in rows(run_dir, "refused")] == [("dead.png", "The file is empty.")]
    assert time.monotonic() - began > 1.0, "until then it may be about to be written"
    (folder / "dead.png").write_bytes(encoded(1))
    last, _ = watched(house, lambda run: len(rows(run)) == 1, settle=0.1)
    assert [r["file_name"] for r in rows(last)] == ["dead.png"] and rows(last, "refused") == []


def test_what_was_refused_is_not_moved_and_is_looked_at_anew_where_it_changes(house: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dropped, "PATIENCE_S", 0.1)
    monkeypatch.setattr(Folder, "again", partial_again)
    folder, done = house / "in", house / "done"
    (folder / "cut.jpg").write_bytes(encoded(2, "JPEG")[:300])
    (folder / "ok.png").write_bytes(encoded(1))
    first, _ = watched(house, lambda run: len(rows(run, "refused")) == 1 and (done / "ok.png").exists(), settle=0.1, done=str(done))
    looks = itertools.count()
    again, result = watched(house, lambda run: next(looks) > 8, settle=0.1, done=str(done))
    assert result["inspected"] == result["refused"] == 0 and os.listdir(folder) == ["cut.jpg"] and os.listdir(done) == ["ok.png"]

    # an index of an older program knows of no refusals; and what a kill kept from the index is not moved either
    index, = (house / "data" / "watched").iterdir()
    with closing(sqlite3.connect(index)) as db:
        db.execute("ALTER TABLE done DROP COLUMN refused")
        db.commit()
    assert not list(_left(house, first))
    index.unlink()
    looks = itertools.count()
    _, result = watched(house, lambda run: next(looks) > 8 and nothing_waits(run), settle=0.1, done=str(done))
    assert result["refused"] == 0 and os.listdir(folder) == ["cut.jpg"], "said once"
    (folder / "cut.jpg").write_bytes(encoded(2, "JPEG"))
    last, _ = watched(house, lambda run: (done / "cut.jpg").exists(), settle=0.1, done=str(done))
    assert [r["file_name"] for r in rows(last)] == ["cut.jpg"]


def _left(house: Path, run_dir: Path) -> list[dropped.Drop]:
    with closing(Index(house / "in", run_dir)) as index:
        folder = Folder(house / "in", 0.0, index.known)
        folder.look()
        assert not folder.waiting
        return folder.left


def partial_again(self: Folder, drop: dropped.Drop, wait_s: float = 1.0) -> None:
    drop.not_before, drop.is_whole = time.monotonic() + 0.05, False


def test_renamed_repeated_and_overwritten_files(house: Path) -> None:
    folder = house / "in"
    (folder / "one.png").write_bytes(encoded(1))
    first, _ = watched(house, lambda run: len(rows(run)) == 1)
    (folder / "one.png").rename(folder / "renamed.png")              # no new picture
    (folder / "two.png").write_bytes(encoded(2))
    second, _ = watched(house, lambda run: len(rows(run)) == 1 and nothing_waits(run))
    assert [r["file_name"] for r in rows(second)] == ["two.png"] and rows(second, "refused") == []
    (folder / "another.png").write_bytes(encoded(2))
    said, _ = watched(house, lambda run: len(rows(run, "refused")) == 1)
    assert rows(said, "refused")[0]["reason"] == "Same picture as two.png."
    (folder / "two.png").write_bytes(encoded(3) + b"more")           # written over: another picture under the same name
    third, _ = watched(house, lambda run: len(rows(run)) == 1)
    assert [r["file_name"] for r in rows(third)] == ["two.png"]
    assert len({r["inspection_id"] for run in (first, second, third) for r in rows(run)}) == 3


def test_what_is_written_over_after_it_was_read_is_not_moved_unseen(house: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, done, real = house / "in", house / "done", Index.add
    (folder / "one.png").write_bytes(encoded(1))

    def add(self: Index, *group: Any) -> None:                       # inspected, and not moved yet
        real(self, *group)
        if not done.exists():
            (folder / "one.png").write_bytes(encoded(2) + b"more")

    monkeypatch.setattr(Index, "add", add)
    run_dir, _ = watched(house, lambda run: len(rows(run)) > 0 and not any(folder.iterdir()), done=str(done))
    assert len({r["image_id"] for r in rows(run_dir)}) == 2 and (done / "one.png").read_bytes() == encoded(2) + b"more"


def nothing_waits(run: Path) -> bool:
    told = run / "watching.json"
    return told.exists() and rundir.read_json(told)["waiting"] == 0


class Killed(BaseException):
    """Stands for the end of the process: nothing catches it."""


def test_a_kill_at_any_write_loses_and_doubles_nothing(house: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch, "FULL", 3)
    folder, done, real = house / "in", house / "done", os.replace
    source = {f"{k}.png": encoded(k) for k in range(5)}
    for nth in range(1, 200):
        for place in (folder, done, house / "data" / "watched"):
            shutil.rmtree(place, ignore_errors=True)
        for old in rundir.find("watch"):
            shutil.rmtree(old)
        folder.mkdir()
        for name, data in source.items():
            (folder / name).write_bytes(data)
        config, run_dir = new_run(house, done=str(done))
        left = [nth]

        def replace(a: Any, b: Any, left: list[int] = left, run_dir: Path = run_dir) -> None:
            if run_dir in Path(b).parents:
                left[0] -= 1
                if not left[0]:
                    raise Killed
            real(a, b)

        enough = lambda: done.exists() and len(os.listdir(done)) == 5            # noqa: E731
        monkeypatch.setattr(os, "replace", replace)
        try:
            watch.run(config, run_dir, Until(run_dir, enough))
            break
        except Killed:
            monkeypatch.setattr(os, "replace", real)
            if nth % 2:                                              # half of them go on in another run, as the command line's do
                config, other = new_run(house, done=str(done))
                watch.run(config, other, Until(other, enough))
            else:
                watch.run(config, run_dir, Until(run_dir, enough))
        every = [r for run in rundir.find("watch") for r in rows(run)]
        boxes = {r["inspection_id"] for run in rundir.find("watch") for r in rows(run, "detections")}
        assert sorted(r["file_name"] for r in every) == sorted(source), nth
        assert len({r["inspection_id"] for r in every}) == 5 and boxes <= {r["inspection_id"] for r in every}, nth
        assert sorted(os.listdir(done)) == sorted(source) and not list(folder.iterdir()), nth
    assert nth > 12, "not one write of each kind was met"


def test_a_full_run_names_its_successor_which_goes_on(house: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch, "MOST_GROUPS", 1)
    (house / "in" / "a.png").write_bytes(encoded(1))
    config, run_dir = new_run(house)
    result = watch.run(config, run_dir, Until(run_dir, lambda: False))
    rundir.write_json(run_dir / "result.json", result)
    rundir.set_state(run_dir, "completed", started_at=rundir.now(), finished_at=rundir.now())
    assert result["inspected"] == 1 and watching.successor(run_dir) == result["next"]
    assert [w["state"] for w in watching.watches()] == ["running"]
    for _ in range(2):                                               # made once, however often the supervisor looks
        watching.see_to_all()
    following = rundir.run_path(result["next"])
    assert len(list(rundir.find("watch"))) == 2 and rundir.read_json(following / "job.json")["config"] == config.to_json()
    (house / "in" / "b.png").write_bytes(encoded(2))
    (house / "in").rename(house / "away")                            # for the moment, as a share is
    looks = itertools.count()

    def back() -> None:
        if next(looks) == 3:
            (house / "away").rename(house / "in")

    assert watch.run(config, following, Until(following, lambda: False, back))["inspected"] == 1
    assert [r["file_name"] for r in rows(following)] == ["b.png"]


def test_stop_reaches_the_run_that_goes_on_and_one_that_is_about_to(house: Path) -> None:
    config, run_dir = new_run(house)
    following = rundir.runs_root() / rundir.new_id("watch", datetime.now(UTC))
    rundir.write_json(run_dir / "result.json", dict(next=following.name))
    rundir.set_state(run_dir, "completed", started_at=rundir.now(), finished_at=rundir.now())
    watching.see_to_all()
    jobs.cancel(run_dir.name)                                        # on a page that still shows the first one
    assert rundir.read_json(following / "state.json")["state"] == "canceled" and not (run_dir / "cancel").exists()
    shutil.rmtree(following)
    jobs.cancel(run_dir.name)                                        # full, and the next one is not there yet
    watching.see_to_all()
    assert not following.exists() and watching.successor(run_dir) == "" and watching.watches()[0]["state"] == "completed"


@pytest.mark.parametrize(("anomaly", "model", "used", "full"), [
    ("", "", "", False), ("", "", "odd", True), ("", "m", "odd", True), ("odd 1", "", "odd", False), ("none", "m", "odd", False)])
def test_a_watch_notices_an_anomaly_model_that_is_put_to_use(monkeypatch: pytest.MonkeyPatch, anomaly: str, model: str, used: str,
                                                           full: bool) -> None:
    """The next run of the watch looks with it; one that a person named stays."""
    monkeypatch.setattr(watch.rundir, "promoted_model", lambda kind: {"detector": "d", "anomaly": used}[kind])
    desk = SimpleNamespace(engine=SimpleNamespace(model_id="d"), beside=None)
    watcher = watch.Watcher(*(Any,) * 2, SimpleNamespace(number=1, accepted=1), desk, Any, None)       # type: ignore[arg-type]
    watcher.asked_at = -watch.PROMOTED_S
    assert watcher.full(Watch(images="x", model=model, anomaly=anomaly)) == full


def test_stop_pressed_when_a_run_is_full_ends_the_watch(house: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(self: watch.Watcher, config: Watch) -> bool:
        (self.log.run_dir / "cancel").touch()
        return True

    monkeypatch.setattr(watch.Watcher, "full", full)
    config, run_dir = new_run(house)
    assert "next" not in watch.run(config, run_dir, Until(run_dir, lambda: False))


def test_an_index_that_the_disk_spoiled_is_made_again(house: Path) -> None:
    for k in range(3):
        (house / "in" / f"{k}.png").write_bytes(encoded(k))
    first, _ = watched(house, lambda run: len(rows(run)) == 3)
    path = Index.place(house / "in")
    with closing(sqlite3.connect(path)) as db:
        db.executemany("INSERT INTO done VALUES (?, 0, 0)", [(k,) for k in range(9000)])
        db.commit()
    data = bytearray(path.read_bytes())
    data[len(data) // 2:] = b"\x55" * (len(data) - len(data) // 2)
    path.write_bytes(data)
    ids = [r["image_id"] for r in rows(first)]
    with closing(Index(house / "in", first)) as index:               # at its opening
        assert [index.name_of(i) for i in ids] == ["0.png", "1.png", "2.png"] and index.known([1, 2]) == {}
        index.add({1: False}, {}, 1)
        index._db.execute("PRAGMA writable_schema = ON")             # and while it is open
        index._db.execute("UPDATE sqlite_master SET rootpage = 10000 WHERE name = 'content'")
        index._db.execute("PRAGMA writable_schema = RESET")
        assert [index.name_of(i) for i in ids] == ["0.png", "1.png", "2.png"] and index.known([1]) == {}


def test_what_was_cut_off_goes_on_by_itself_and_what_was_stopped_does_not(house: Path) -> None:
    made = {by: rundir.create("watch", Watch(images=f"/{by}").to_json(), by=by, state="running") for by in ("", "stopped", "command line")}
    (made["stopped"] / "cancel").touch()
    for path in made.values():
        rundir.set_state(path, "interrupted", started_at=rundir.now(), finished_at=rundir.now())
    watching.see_to_all()
    assert {by: rundir.read_json(path / "state.json")["state"] for by, path in made.items()} == {
        "": "pending", "stopped": "interrupted", "command line": "interrupted"}


def test_one_folder_is_watched_once_and_must_be_there(house: Path) -> None:
    config, run_dir = new_run(house)
    index = Index(house / "in", run_dir)
    with pytest.raises(ConfigError, match="being watched already"):
        Index(house / "in", run_dir)
    index.close()
    Index(house / "in", run_dir).close()
    for settings, error, said in ((dict(images=str(house / "none")), InputError, "no folder"), (dict(images=" "), ConfigError, "Choose"),
                                  (dict(done=str(house / "in")), ConfigError, "cannot be the watched folder")):
        config, run_dir = new_run(house, **settings)
        with pytest.raises(error, match=said):
            watch.run(config, run_dir, Until(run_dir, lambda: False))


def test_a_folder_that_goes_away_is_waited_for(house: Path) -> None:
    folder, away = house / "in", house / "away"
    (folder / "a.png").write_bytes(encoded(1))
    steps: list[Callable[[], object]] = [lambda: None] * 8 + [lambda: folder.rename(away)] + [lambda: None] * 8 + [
        lambda: away.rename(folder), lambda: (folder / "b.png").write_bytes(encoded(2))]
    said: list[bool] = []

    def next_step() -> None:
        said.extend(rundir.read_json(p)["gone"] for p in rundir.runs_root().glob("*/watching.json"))
        if steps:
            steps.pop(0)()

    run_dir, _ = watched(house, lambda run: len(rows(run)) == 2, next_step)
    assert any(said) and [r["file_name"] for r in rows(run_dir)] == ["a.png", "b.png"]


def test_a_folder_is_looked_through_in_little_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for k in range(300):
        (tmp_path / f"{k}.png").write_bytes(b"x")
    folder = Folder(tmp_path, 0.0, lambda stamps: {})
    folder.look()
    for drop in folder.ready(1000):
        folder.done(drop)
    folder._next = 0.0
    folder.look()
    assert folder.waiting == {} and len(folder._recent) == 300 and not len(folder._done), "a few are in a set"
    monkeypatch.setattr(dropped, "CHUNK", 100)
    folder._next = 0.0
    folder.look()
    assert folder.waiting == {} and folder._done.nbytes == 300 * 8 and not folder._recent, "many take eight bytes each"
    (tmp_path / "7.png").write_bytes(b"other")
    for k in range(10, 300):
        (tmp_path / f"{k}.png").unlink()
    folder._next = 0.0
    folder.look()
    assert [d.name for d in folder.ready(9)] == ["7.png"] and folder._done.nbytes == 9 * 8


def test_a_look_at_files_that_are_done_makes_nothing_as_large_as_the_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Arrays of all files, made and thrown away at each look, scatter the heap: it grew by 0.2 KB a file where 8 bytes are kept."""
    n = 200_000
    monkeypatch.setattr(Folder, "_files", lambda self: ((key, "", None, None) for key in range(0, 7 * n, 7)))
    folder = Folder(tmp_path, 0.0, lambda stamps: {}, _done=np.arange(0, 7 * n, 7))
    tracemalloc.start()
    folder.look()
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(folder._done) == n and not folder.waiting and peak < 8 * n


def reachable(start: object) -> dict[int, object]:
    """All that an object holds on to, by id; not classes, modules or what functions know of their modules."""
    found, waiting = dict[int, object](), [start]
    while waiting:
        one = waiting.pop()
        if id(one) in found or isinstance(one, (type, types.ModuleType, weakref.ref)):      # SQLite's module has up to 200 of dead cursors
            continue
        found[id(one)] = one
        waiting += [cell.cell_contents for cell in one.__closure__ or ()] if isinstance(one, types.FunctionType) else gc.get_referents(one)
    return found


def length(thing: object) -> int:
    if isinstance(thing, (list, set, deque)):
        return sum(not isinstance(one, weakref.ref) for one in thing)
    return len(thing) if isinstance(thing, (dict, str, bytes)) else 0


def test_nothing_is_held_of_a_picture_that_is_done_but_eight_bytes(house: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Objects are counted, not megabytes: 24 pictures hold on to as many as 8 did."""
    held, made = dict[int, tuple[int, int, int]](), list[watch.Watcher]()

    def remembered(*parts: Any) -> watch.Watcher:
        made.append(watch_as_it_is(*parts))
        return made[-1]

    monkeypatch.setattr(watch, "Watcher", remembered)
    monkeypatch.setattr(dropped, "CHUNK", 1)                         # what is dealt with goes into the array at once

    def next_picture() -> None:
        if not made:                                                 # it loads its model
            return
        n, watcher = made[0].log.accepted, made[0]
        if n in (8, 24) and n not in held and not watcher.folder.waiting and len(watcher.folder._done) + len(watcher.folder._recent) == n:
            watcher.pace.clear()                                     # how fast it was in the last ten seconds
            things = reachable(watcher).values()
            held[n] = (len(things), sum(map(length, things)),
                       len(watcher.folder._done) + len(watcher.folder._recent))
        name = house / "in" / f"{n:04d}.png"
        if not name.exists() and not (n in (8, 24) and n not in held):
            name.write_bytes(encoded(n))

    trims = list[int]()
    monkeypatch.setattr(watch, "TRIM_S", 0.0)
    monkeypatch.setattr(watch._libc(), "malloc_trim", trims.append)
    watched(house, lambda run: 24 in held, next_picture)
    assert set(trims) == {0}
    (few, long, keys), (many, longer, more) = held[8], held[24]
    assert abs(many - few) < 10 and abs(longer - long) < 30, "objects, and how long they are"
    assert (keys, more) == (8, 24), "a key each"


def test_killed_for_real_while_a_camera_writes(house: Path, supervised: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As a service: kill -9 of its worker, and the supervisor lets it go on; rows are in the database meanwhile; then it is stopped."""
    camera = [sys.executable, "-m", "tests.benchmarks.camera", str(house / "in"), "--rate", "20", "--pictures", "100"]
    monkeypatch.setenv("DIFFSPECT_CANCEL_GRACE", "60")           # it stops by itself, however busy the machine is
    run_id = jobs.submit(Watch(model="tiny", images=str(house / "in"), line="L1"))
    run_dir = rundir.run_path(run_id)
    wait_for((run_dir / "watching.json").exists)
    writer = subprocess.Popen(camera, cwd=ROOT)
    wait_for(lambda: len(rows(run_dir)) >= 15)
    assert kill_holder(run_dir / "lock")
    wait_for(lambda: len(rows(run_dir)) >= 100)
    assert writer.wait(30) == 0 and jobs.status(run_id).attempt == 2
    wait_for(lambda: jobs.results.batch(run_id)["inspected"] == 100)
    wait_for(lambda: jobs.watches()[0]["inspected"] == 100)      # told each second
    told = jobs.watches()[0]
    assert (told["state"], told["inspected"], told["refused"]) == ("running", 100, 0) and told["last_at"]
    jobs.cancel(run_id)
    wait_for(lambda: not jobs.status(run_id).is_open)
    assert jobs.status(run_id).state == "completed" and jobs.status(run_id).result["inspected"] == 100
    every = rows(run_dir)
    assert sorted(r["file_name"] for r in every) == sorted(p.name for p in (house / "in").iterdir())
    assert len({r["image_id"] for r in every}) == len({r["inspection_id"] for r in every}) == 100 and not rows(run_dir, "refused")
    watching.see_to_all()
    assert len(list(rundir.find("watch"))) == 1, "what a person stopped does not go on"


def test_the_command_takes_up_what_was_cut_off(house: Path) -> None:
    said = vars(__main__.parser(False).parse_args(["watch", str(house / "in"), "--line", "L1", "--done", "gone", "--json"]))
    config = Watch(images=said["images"], line=said["line"])
    assert said["command"] == "watch" and said["done"] == "gone" and watching.standing(config) is None
    left = rundir.create("watch", config.to_json(), by="command line", state="running")
    rundir.create("watch", Watch(images=said["images"], line="L2").to_json(), by="command line", state="running")
    assert watching.standing(config) == left
    rundir.set_state(left, "completed")
    assert watching.standing(config) is None

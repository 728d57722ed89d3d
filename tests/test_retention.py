"""Retention: only what is old and what nothing refers to; counts stay, the database is the same made anew, kills leave nothing half."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from backend import rundir
from backend.config import Retention
from backend.data import images
from backend.errors import Canceled, ConfigError, NotFoundError
from backend.jobs import events, gallery, letting_go, pictures, references, retention, runs
from backend.store import sampling, scan
from backend.store.database import Database
from backend.store.ingest import ingest, rebuild
from tests import small_plant as plant

ROOT = Path(__file__).resolve().parents[1]
LONG_AGO = datetime.now(UTC) - timedelta(days=100)
THIRTY = Retention(pictures=30, apply=True)
PNG = b"a picture that nobody decodes "


def quiet(**_: Any) -> None:
    """Nobody looks on."""


@pytest.fixture
def db(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Database]:
    monkeypatch.setenv("DIFFSPECT_DATA", str(tmp_path))
    monkeypatch.setattr(scan, "demo_assets", lambda: tmp_path / "bundle")
    opened = Database()
    yield opened
    opened.close()


def picture(number: int, days: int = 100) -> str:
    """A kept picture of so many days ago; its id."""
    data = PNG + b"%d" % number
    path = images.keep(data, image_id := images.sha256(data), "PNG")
    at = time.time() - 86_400 * days
    os.utime(path, (at, at))
    return image_id


def inspected(*numbers: int, days: int = 100) -> tuple[Path, list[int], list[str]]:
    """A batch of so many days ago: its run, its inspections, its pictures."""
    run, ids = plant.batch([], end=False), [picture(n, days) for n in numbers]
    found = plant.add(run, [dict(image_id=i, ingested_at=datetime.now(UTC) - timedelta(days=days)) for i in ids])
    plant.finish(run)
    return run, found, ids


def let_go(config: Retention = THIRTY) -> tuple[Path, dict[str, Any]]:
    """Let go in a run of its own, as a worker does; the run and its result."""
    run = rundir.create("retention", config.to_json())
    result = letting_go.run(config, run, quiet)
    plant.finish(run)
    return run, result


def there(*ids: str) -> list[bool]:
    return [images.path_of(i) is not None for i in ids]


def test_old_pictures_go_and_their_counts_stay(db: Database) -> None:
    _, (old, _), (gone, _) = inspected(1, 2)
    _, _, (young,) = inspected(3, days=10)
    ingest(db)
    before = {name: rows for name, rows in plant.tables(db).items() if name in ("tallies", "kind_tallies", "inspections", "defects")}
    told = retention.outlook(THIRTY)
    assert told["pictures"] == dict(count=2, bytes=2 * (len(PNG) + 1)) and told["stays"]["pictures"] == {"inspected in the last 30 days": 1}
    assert there(gone, young) == [True, True], "an outlook removes nothing"
    _, result = let_go()
    assert (result["pictures"]["count"], result["freed"], result["stayed_after_all"]) == (2, 2 * (len(PNG) + 1), 0)
    assert there(gone, young) == [False, True]
    ingest(db)
    live = plant.tables(db)
    assert {name: live[name] for name in before} == before, "nothing counts otherwise"
    assert [row["kept"] for row in plant.facts(db, "kept, inspection_id")].count(False) == 2
    with pytest.raises(NotFoundError, match="let go by retention on .* stays and counts"):
        pictures.picture(db, old, None, False, 100, None, "webp")
    with pytest.raises(NotFoundError, match="was not kept"):
        pictures.picture(db, None, gone, False, 100, None, "webp")
    assert not any(s["order"] for s in sampling.frame(db, "real", plant.NOON.date(), plant.NOON.date(), "", "x")
                   if old in [i for views in s["order"] for i in views]), "nobody is asked to read a picture that is gone"
    rebuild(db)
    assert plant.tables(db) == live


def _dataset(ids: list[str], found: list[int]) -> None:
    run = rundir.create("import", {"name": "steel"})
    rundir.write_part(run, "snapshot_images", [dict(
        snapshot_id="s", image_id=ids[0], file_name="x", split="test", origin="real", parent="", generator_run="", width=1, height=1,
        group_id="", phash="")])
    plant.finish(run)


def _review(ids: list[str], found: list[int]) -> None:
    plant.decide("review", inspection_id=found[0], verdict="good", class_name="", reviewer="Ines")


def _read_again(ids: list[str], found: list[int]) -> None:
    plant.decide("read", sample="s", inspection_ids=[found[0]], verdict="good", reviewer="Ines")


def _sample(ids: list[str], found: list[int]) -> None:
    plant.decide("sample", strata=[dict(rejected=False, band="clear", units=1, order=[[found[0]]])], wanted=[1])


def _drawn(ids: list[str], found: list[int]) -> None:
    plant.decide("label", pictures=[dict(image_id=ids[0], file_name="x", width=1, height=1, boxes=[])], reviewer="Ines", source="doubtful")


def _report(ids: list[str], found: list[int]) -> None:
    run = rundir.create("shift-report", {})
    rundir.write_json(run / "facts.json", dict(facts=dict(pictures=[dict(image_id=ids[0])])))
    plant.finish(run)


def _parent(ids: list[str], found: list[int]) -> None:
    run = rundir.create("synthesize", {"name": "made"})
    (run / "synthetic").mkdir()
    rundir.write_json(run / "synthetic" / "head.json", dict(key="k", name="made", items=[dict(file="a.png", parent=ids[0], donor="")]))
    plant.finish(run)


def _look_back(ids: list[str], found: list[int]) -> None:
    run = rundir.create("shadow", {})
    rundir.write_json(run / "plan.json", [ids[0]])
    plant.finish(run)


def _open_alarm(ids: list[str], found: list[int]) -> None:
    plant.decide("alarm", id="a#1", cause="a", since=(LONG_AGO - timedelta(hours=3)).isoformat(), line="L1")


def _used_again(ids: list[str], found: list[int]) -> None:
    picture_path = images.path_of(ids[0])
    assert picture_path is not None
    images.keep(picture_path.read_bytes(), ids[0], "PNG")


REFER = [_dataset, _review, _read_again, _sample, _drawn, _report, _parent, _look_back, _open_alarm, _used_again]


@pytest.mark.parametrize("refer", REFER)
def test_what_is_referred_to_stays(db: Database, refer: Callable[[list[str], list[int]], None]) -> None:
    _, found, ids = inspected(1)
    refer(ids, found)
    _, result = let_go()
    assert there(*ids) == [True] and result["pictures"]["count"] == 0
    assert sum(result["stays"]["pictures"].values()) == 1 and result["notes"]


def test_what_is_over_or_taken_back_refers_to_nothing(db: Database) -> None:
    _, found, ids = inspected(1, 2)
    plant.decide("undo", run_id=plant.decide("review", inspection_id=found[0], verdict="good"))
    _open_alarm(ids, found)
    assert retention.outlook(THIRTY)["pictures"]["count"] == 0
    plant.decide("alarm-over", alarm="a#1", cause="a")
    let_go()
    assert there(*ids) == [False, False]


def test_nothing_goes_while_a_run_cannot_be_read(db: Database) -> None:
    _, _, ids = inspected(1)
    (rundir.run_path(plant.decide("review", inspection_id=5, verdict="good")) / "job.json").write_text("{")
    with pytest.raises(references.Unsure, match="Nothing more was let go"):
        let_go()
    assert there(*ids) == [True]


def while_it_goes_on(config: Retention, happens: Callable[[], object]) -> dict[str, Any]:
    """Let go; once the first thing has gone, something happens."""
    def look_on(*, step: int, **_: Any) -> None:
        if step == 1:
            happens()

    run = rundir.create("retention", config.to_json())
    result = letting_go.run(config, run, look_on)
    plant.finish(run)
    return result


@pytest.mark.parametrize("refer", REFER)
def test_what_comes_to_be_referred_to_while_others_go_stays(db: Database, refer: Callable[[list[str], list[int]], None]) -> None:
    numbers = sorted((1, 2), key=lambda n: images.sha256(PNG + b"%d" % n))               # in this order they go
    _, found, ids = inspected(*numbers)
    result = while_it_goes_on(THIRTY, lambda: refer(ids[1:], found[1:]))
    assert there(*ids) == [False, True] and result["stayed_after_all"] == 1
    assert not [p for p in (Path(rundir.runs_root().parent) / "images").rglob(".*")], "nothing is left under a hidden name"


def test_the_last_look_is_at_what_is_set_aside(db: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is written down in between, when nobody finds the picture any more, still counts."""
    again = references.Held.again
    _, found, ids = inspected(1)

    def looks(held: references.Held) -> references.Held:
        if there(*ids) == [False]:
            _review(ids, found)
        return again(held)

    monkeypatch.setattr(references.Held, "again", looks)
    _, result = let_go()
    assert there(*ids) == [True] and result["stayed_after_all"] == 1


def test_what_is_written_anew_while_it_is_aside_keeps_its_time(db: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    again = references.Held.again
    _, found, ids = inspected(1)

    def looks(held: references.Held) -> references.Held:
        if there(*ids) == [False]:
            _review(ids, found)
            images.keep(PNG + b"1", ids[0], "PNG")
        return again(held)

    monkeypatch.setattr(references.Held, "again", looks)
    let_go()
    kept = images.path_of(ids[0])
    assert kept is not None and kept.stat().st_mtime > time.time() - 60 and not list(kept.parent.glob(".*"))


def test_what_cannot_be_read_any_more_ends_it_and_puts_back(db: Database) -> None:
    _, _, ids = inspected(1, 2, 3)
    with pytest.raises(references.Unsure, match="Nothing more was let go"):
        while_it_goes_on(THIRTY, lambda: (rundir.run_path(plant.decide("review", inspection_id=5)) / "job.json").write_text("{"))
    assert there(*ids).count(True) == 2


KILLED = """
import os, sys
from pathlib import Path
from backend import rundir
from backend.config import Retention
from backend.jobs import letting_go
done, unlink = [], Path.unlink
def counted(self, missing_ok=False):
    unlink(self, missing_ok)
    done.append(self)
    if len([p for p in done if p.name.endswith(".gone")]) == 2:
        os._exit(9)
Path.unlink = counted
letting_go.run(Retention(pictures=30, apply=True), rundir.runs_root() / sys.argv[1], lambda **_: None)
"""


def test_killed_in_between_it_goes_on(db: Database) -> None:
    _, found, ids = inspected(1, 2, 3, 4)
    run = rundir.create("retention", THIRTY.to_json())
    done = subprocess.run([sys.executable, "-c", KILLED, run.name], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 9, done.stderr
    left = [i for i in ids if images.path_of(i)]
    assert len(left) == 2
    ingest(db)
    assert not any(row["kept"] for row in plant.facts(db, "kept")), "written down before anything goes"
    held = plant.decide("review", inspection_id=found[ids.index(left[0])], verdict="good")
    path = images.path_of(left[1])
    assert path is not None
    path.rename(path.with_name(f".{path.name}.gone"))               # and a kill between the last look and the end
    letting_go.run(THIRTY, run, quiet)
    plant.finish(run)
    assert there(*left) == [True, False] and held, "what was reviewed meanwhile stays after all"
    ingest(db)
    live = plant.tables(db)
    rebuild(db)
    assert plant.tables(db) == live


def test_a_retention_that_is_removed_is_forgotten(db: Database) -> None:
    inspected(1)
    run, _ = let_go()
    ingest(db)
    assert plant.facts(db, "kept") == [dict(kept=False)]
    run.rename(run.with_name("elsewhere"))
    ingest(db)
    assert plant.facts(db, "kept") == [dict(kept=True)] and plant.tables(db)["let_go"] == []


def ended(recipe: str, files: dict[str, bytes], state: str = "completed", days: int = 100) -> Path:
    run = rundir.create(recipe, {"name": recipe})
    for name, data in files.items():
        path = run / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    rundir.set_state(run, state, finished_at=(datetime.now(UTC) - timedelta(days=days)).isoformat())
    return run


def test_logs_of_ended_runs(db: Database) -> None:
    old, short = ended("import", {"log.txt": b"x" * 1000}), ended("import", {"log.txt": b"x"})
    young = ended("import", {"log.txt": b"x" * 1000}, days=5)
    going = rundir.create("import", {}, state="running")
    (going / "log.txt").write_bytes(b"x" * 1000)
    _, result = let_go(Retention(logs=30, apply=True))
    assert result["logs"] == dict(count=1, bytes=1000)
    assert "let go by retention" in runs.log_tail(old.name) and "30 days" in runs.log_tail(old.name)
    assert [len((p / "log.txt").read_bytes()) for p in (short, young, going)] == [1, 1000, 1000]
    assert retention.outlook(Retention(logs=30))["logs"]["count"] == 0, "once"


def test_uploads_and_checkpoints_of_ended_runs(db: Database) -> None:
    failed = ended("inspect", {"inbox/000000.bin": b"x" * 500}, "failed")
    training = ended("train-diffusion", {"training-denoiser/checkpoint.pt": b"x" * 300, "denoiser/head.json": b"{}"}, "interrupted")
    ours = ended("train-detector", {"training/last.pt": b"x"}, "failed")
    rundir.write_json(rundir.create("experiment", {}) / "plan.json", dict(members=[dict(run_id=ours.name)]))
    _, result = let_go(Retention(leftovers=30, apply=True))
    assert result["leftovers"] == dict(count=2, bytes=800)
    assert not (failed / "inbox").exists() and not (training / "training-denoiser").exists() and (training / "denoiser").exists()
    assert (ours / "training" / "last.pt").exists() and "an experiment that is not complete has the run" in result["stays"]["leftovers"]
    with pytest.raises(ConfigError, match="Start it anew"):
        runs.resume(failed.name)
    runs.resume(ours.name)


def made(name: str) -> Path:
    head = json.dumps(dict(key=f"key-{name}", name=name, classes=["pits"], items=[dict(file="a.png", width=1, height=1, parent="")]))
    return ended("synthesize", {"synthetic/head.json": head.encode(), "synthetic/a.png": b"x" * 100})


def test_synthetic_sets_that_nobody_wanted(db: Database) -> None:
    unwanted, accepted, combined, measured = (made(name) for name in ("unwanted", "accepted", "combined", "measured"))
    gallery.judge(accepted.name, {"a.png": "accept"})
    gallery.judge(unwanted.name, {"a.png": "reject"})
    run = rundir.create("combine", {})
    rundir.write_part(run, "snapshot_images", [dict(
        snapshot_id="s", image_id="m", file_name="x", split="train", origin="synthetic", parent="", generator_run=combined.name, width=1,
        height=1, group_id="", phash="")])
    plant.finish(run)
    plant.finish(rundir.create("experiment", {"sets": "other, measured"}))
    _, result = let_go(Retention(synthetic=30, apply=True))
    assert result["synthetic"]["count"] == 1 and not (unwanted / "synthetic" / "a.png").exists(), "what was put aside whole goes"
    assert sorted(result["stays"]["synthetic"].values()) == [1, 1, 1]
    assert all((p / "synthetic" / "head.json").exists() for p in (accepted, combined, measured))


def test_a_set_that_goes_says_so(db: Database) -> None:
    run = made("old")
    _, result = let_go(Retention(synthetic=30, apply=True))
    assert result["synthetic"]["count"] == 1 and result["freed"] > 100 and not (run / "synthetic" / "a.png").exists()
    with pytest.raises(NotFoundError, match="let go by retention"):
        gallery.synthetic(run.name)
    assert rundir.find_artifact("synthetic", "old") is None, "nobody builds on half a set"


def _accept(run: Path) -> None:
    gallery.judge(run.name, {"a.png": "accept"})


def _combined(run: Path) -> None:
    rundir.create("combine", {"sets": f"other, {run.name}"})


def _measured(run: Path) -> None:
    plant.finish(rundir.create("measure-synthesis", {"set": "second"}))


@pytest.mark.parametrize("want", [_accept, _combined, _measured])
def test_a_set_that_somebody_comes_to_want_stays(db: Database, want: Callable[[Path], None]) -> None:
    second, first = made("second"), made("first")                      # the newest goes first
    result = while_it_goes_on(Retention(synthetic=30, apply=True), lambda: want(second))
    assert not (first / "synthetic" / "a.png").exists() and result["stayed_after_all"] == 1
    assert (second / "synthetic" / "a.png").exists() and gallery.synthetic(second.name)["name"] == "second"


def test_who_accepts_a_picture_while_it_goes_is_told(db: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """The page read the set before it went, and the verdict came after the last look."""
    run, record = made("old"), events.record

    def goes_first(*args: Any, **kwargs: Any) -> str:
        let_go(Retention(synthetic=30, apply=True))
        return record(*args, **kwargs)

    monkeypatch.setattr(events, "record", goes_first)
    with pytest.raises(NotFoundError, match="let go by retention"):
        gallery.judge(run.name, {"a.png": "accept"})


def test_a_set_that_a_kill_left_half_is_looked_at_again(db: Database) -> None:
    aside, kept, half = made("aside"), made("kept"), made("half")
    for run in (aside, kept):
        (run / "synthetic" / "head.json").rename(run / "synthetic" / runs.SET_ASIDE)
        with pytest.raises(NotFoundError, match="just letting go"):
            gallery.synthetic(run.name)
    (half / "synthetic" / "head.json").rename(half / "synthetic" / runs.LET_GO)
    plant.decide("judge", run_id=kept.name, verdicts={"a.png": "accept"})
    let_go(Retention(synthetic=30, apply=True))
    assert [(run / "synthetic" / "a.png").exists() for run in (aside, kept, half)] == [False, True, False]
    assert gallery.synthetic(kept.name)["verdicts"] == {"a.png": "accept"}


def test_what_an_experiment_comes_to_need_stays(db: Database) -> None:
    second, first = (ended("train-detector", {"training/last.pt": b"x"}, "failed") for _ in range(2))
    third = ended("train-detector", {"training/last.pt": b"x"}, "failed")

    def happens() -> None:
        runs.resume(first.name)
        rundir.write_json(rundir.create("experiment", {}) / "plan.json", dict(members=[dict(run_id=second.name)]))

    result = while_it_goes_on(Retention(leftovers=30, apply=True), happens)
    assert [(run / "training" / "last.pt").exists() for run in (third, first, second)] == [False, True, True]
    assert result["stayed_after_all"] == 2


def test_many_runs_are_looked_at_once(db: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many sets there are: 500 of them among 2,000 runs took ten seconds, and take half a one."""
    runs_there = [made(str(n)) for n in range(12)]
    read, looked = Path.read_bytes, list[Path]()
    monkeypatch.setattr(Path, "read_bytes", lambda path: (looked.append(path), read(path))[1])
    assert retention.outlook(Retention(synthetic=30))["synthetic"]["count"] == 12
    assert [looked.count(run / "job.json") for run in runs_there] == [1] * 12


def test_days_are_asked_for(db: Database) -> None:
    with pytest.raises(ConfigError, match="after how many days"):
        retention.outlook(Retention())
    with pytest.raises(ConfigError, match="between 7"):
        Retention(pictures=0)
    run = rundir.create("retention", Retention(pictures=30).to_json())
    inspected(1)
    assert letting_go.run(Retention(pictures=30), run, quiet)["pictures"]["count"] == 1 and not rundir.parts(run), "without apply it tells"


def test_a_person_stops_it(db: Database) -> None:
    _, _, ids = inspected(1, 2, 3)

    def stop(*, step: int, **_: Any) -> None:
        if step == 1:
            raise Canceled

    run = rundir.create("retention", THIRTY.to_json())
    with pytest.raises(Canceled):
        letting_go.run(THIRTY, run, stop)
    assert there(*ids).count(True) == 2
    letting_go.run(THIRTY, run, quiet)
    assert there(*ids) == [False] * 3

"""The recipes `inspect` and `predict`: every file accounted for, whatever it is; a kill at any write; times, units, counting, the disk."""

import io
import json
import shutil
import subprocess
import sys
import threading
import zipfile
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from backend import rundir
from backend.config import Inspect, Predict
from backend.data import files, images
from backend.errors import Canceled, ConfigError, InputError, NotFoundError
from backend.inspection import inspect, predict, reading
from backend.inspection.engine import Engine
from backend.inspection.keeping import Keeper
from tests.tiny_model import CLASSES, bundle

SHARED = Path(__file__).parents[2] / "shared"
LIMIT = 0.6                                                # parts pictures of 60 × 50 about in halves, and passes those of 9 × 9
ROOMY, FULL, TIGHT = ((10**12, 0, free) for free in (8 * 10**11, 4 * 10**10, 7 * 10**10))     # total, used, free: the limit is 50 GB


@pytest.fixture(autouse=True)
def house(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A data folder with one model in it, 'tiny', and a disk with room, whatever this machine's has."""
    monkeypatch.setenv("DIFFSPECT_DATA", str(tmp_path / "data"))
    monkeypatch.setattr(inspect, "Keeper", partial(Keeper, lambda path: ROOMY))
    bundle(rundir.create("train-detector", {}, state="completed") / "model", thresholds={c: LIMIT for c in CLASSES})
    return tmp_path


class Report:
    """A recipe's `report`. `then` may look around, or raise as a cancel does."""

    def __init__(self, then: "Callable[[int], None]" = lambda step: None) -> None:
        self.steps: list[int] = []
        self.then = then

    def __call__(self, *, step: int, total: int, message: str = "", **metrics: float) -> None:
        assert 0 <= step <= total and message
        self.steps.append(step)
        self.then(step)


def encoded(seed: int, form: str = "PNG", size: tuple[int, int] = (60, 50), **how: Any) -> bytes:
    """A picture of coloured blocks, different for each seed, as a file's bytes."""
    blocks = np.random.default_rng(seed).integers(0, 256, (8, 8, 3), np.uint8)
    out = io.BytesIO()
    Image.fromarray(blocks).resize(size, Image.Resampling.NEAREST).save(out, form, **how)
    return out.getvalue()


def exif(at: str) -> bytes:
    tags = Image.Exif()
    tags.get_ifd(0x8769)[0x9003] = at
    return tags.tobytes()


def folder(root: Path, contents: dict[str, bytes]) -> Path:
    for name, data in contents.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(data)
    return root


def new_run(uploads: Iterable[tuple[str, bytes]] = (), **settings: Any) -> tuple[Inspect, Path]:
    config = Inspect(model="tiny", **settings)
    run_dir = rundir.create("inspect", config.to_json(), state="running")
    uploads = list(uploads)
    if uploads:
        (run_dir / "inbox").mkdir()
        for k, (_, data) in enumerate(uploads):
            (run_dir / "inbox" / f"{k:06}.bin").write_bytes(data)
        rundir.write_json(run_dir / "inbox" / "inbox.json", [{"file": f"{k:06}.bin", "name": n} for k, (n, _) in enumerate(uploads)])
    return config, run_dir


def inspected(uploads: Iterable[tuple[str, bytes]], **settings: Any) -> list[dict[str, Any]]:
    """Rows of a small upload."""
    config, run_dir = new_run(uploads, **settings)
    inspect.run(config, run_dir, Report())
    return rundir.rows(run_dir, "inspections").to_pylist()


# ── a batch ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_folder_becomes_rows(house: Path) -> None:
    source = folder(house / "in", {f"{'ab'[k % 2]}/{k:02}.png": encoded(k, size=(60 + k, 50)) for k in range(45)})
    (source / "notes.txt").write_text("no picture, and not refused either")
    config, run_dir = new_run(images=str(source), line="1", product="sheet", lot="7", camera="top")
    result = inspect.run(config, run_dir, Report())

    rows, boxes = rundir.rows(run_dir, "inspections").to_pylist(), rundir.rows(run_dir, "detections").to_pylist()
    names = sorted(p.relative_to(source).as_posix() for p in source.rglob("*.png"))
    assert [r["file_name"] for r in rows] == names
    details = dict(line="1", product="sheet", lot="7", camera="top", plant="real", unit_id="")
    assert all({k: r[k] for k in details} == details for r in rows)
    assert len({r["inspection_id"] for r in rows}) == 45
    assert all(r["image_id"] == images.sha256((source / r["file_name"]).read_bytes()) and images.path_of(r["image_id"]) for r in rows)
    assert all(r["width"] == 60 + int(r["file_name"][2:4]) and r["height"] == 50 and r["kept"] and r["kept_share"] == 1.0 for r in rows)

    engine = Engine(rundir.find_model("tiny"))
    for row in rows[::7]:
        mine = [b for b in boxes if b["inspection_id"] == row["inspection_id"]]
        expected = engine.predict([np.asarray(Image.open(source / row["file_name"]))], 0.05)[0]
        assert [b["class_name"] for b in mine] == [CLASSES[int(k)] for k in expected[:, 5]]
        np.testing.assert_allclose([[b[k] for k in ("x1", "y1", "x2", "y2", "confidence")] for b in mine], expected[:, :5], atol=0.01)

    bad = {b["inspection_id"] for b in boxes if b["confidence"] >= LIMIT}
    assert 0 < len(bad) < 45, "a fixture that knows no good picture tests little"
    assert result["inspected"] == 45 and result["refused"] == 0 and result["defective"] == len(bad) and result["counted"] == 45
    assert result["model_name"] == "tiny" and result["model_id"] == engine.model_id and result["runtime"] == engine.runtime
    assert result["warnings"] == [] and result["floor"] == 0.05 and json.dumps(result)


def test_results_arrive_while_the_run_goes_on() -> None:
    config, run_dir = new_run((f"{k}.png", encoded(k)) for k in range(50))
    there: list[tuple[int, int]] = []
    inspect.run(config, run_dir, Report(lambda step: there.append((step, rundir.rows(run_dir, "inspections").num_rows))))
    assert there[0] == (0, 0) and there[1] == (8, 8) and there[-1] == (50, 50)
    assert all(rows == step for step, rows in there) and len(there) >= 4
    assert (run_dir / "inbox").exists() is False


def test_an_upload_of_every_bad_kind_goes_on(house: Path) -> None:
    good, jpeg = encoded(1), encoded(2, "JPEG")
    grey16 = io.BytesIO()
    Image.fromarray(np.arange(3000, dtype=np.uint16).reshape(50, 60) * 20).save(grey16, "PNG")
    cmyk, moving, turned = io.BytesIO(), io.BytesIO(), Image.Exif()
    Image.open(io.BytesIO(encoded(3))).convert("CMYK").save(cmyk, "JPEG")
    frames = [Image.open(io.BytesIO(encoded(k))) for k in (4, 5)]
    frames[0].save(moving, "WEBP", save_all=True, append_images=frames[1:])
    turned[0x0112] = 6
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as z:
        z.writestr("../../escaped.png", encoded(6))
        z.writestr("inside/ok.png", encoded(7))
        z.writestr("inner.zip", b"PK\x05\x06" + bytes(18))
    huge = bytearray(encoded(8))
    huge[16:24] = (60_000).to_bytes(4, "big") * 2                      # the header says 3.6 gigapixels
    config, run_dir = new_run([
        ("good.png", good), ("cut.jpg", jpeg[:len(jpeg) // 2]), ("huge.png", bytes(huge)), ("text.png", b"hello"), ("empty.png", b""),
        ("moving.webp", moving.getvalue()), ("gif.png", b"GIF89a" + bytes(30)), ("cmyk.jpg", cmyk.getvalue()),
        ("deep.png", grey16.getvalue()),
        ("turned.jpg", encoded(9, "JPEG", exif=turned)), ("../../up.png", encoded(10)), ("<b>\n名前 ü.png", encoded(11)),
        ("again.png", good), ("good.png", encoded(12)), ("batch.zip", packed.getvalue()), ("cut.zip", packed.getvalue()[:60]),
    ])
    result = inspect.run(config, run_dir, Report())
    rows = {r["file_name"]: r for r in rundir.rows(run_dir, "inspections").to_pylist()}
    refused = {r["file_name"]: r["reason"] for r in rundir.rows(run_dir, "refused").to_pylist()}
    assert rows.keys() == {"good.png", "cmyk.jpg", "deep.png", "turned.jpg", "../../up.png", "<b>\\u000a名前 ü.png",
                           "batch.zip/inside/ok.png"}
    assert (rows["turned.jpg"]["width"], rows["turned.jpg"]["height"]) == (50, 60)
    assert refused.keys() == {"cut.jpg", "huge.png", "text.png", "empty.png", "moving.webp", "gif.png", "again.png", "cut.zip",
                              "batch.zip/../../escaped.png", "batch.zip/inner.zip"}
    assert refused["again.png"] == "Same picture as good.png."
    assert all(len(r) > 10 and r.endswith(".") and "\n" not in r for r in refused.values())
    assert result["inspected"] == 8 and result["refused"] == 10                                # two files called good.png
    assert not list(house.rglob("escaped.png")) and not list(house.rglob("up.png"))
    kept = {p.name for p in (house / "data" / "images").rglob("*") if p.is_file()}
    assert all(len(name.split(".")[0]) == 64 for name in kept) and len(kept) == 8


def test_a_batch_without_one_usable_picture_completes() -> None:
    config, run_dir = new_run([("a.png", b"no"), ("b.png", b"")])
    result = inspect.run(config, run_dir, Report())
    assert (result["inspected"], result["refused"], result["defective"]) == (0, 2, 0)
    assert rundir.rows(run_dir, "refused").num_rows == 2 and not (run_dir / "inbox").exists()


def test_places_without_pictures(house: Path) -> None:
    (house / "empty").mkdir()
    for where, error, said in ((str(house / "empty"), InputError, "no picture in"), (str(house / "gone"), InputError, "no file or folder"),
                               ("", ConfigError, "Choose what to look at"), (" ", ConfigError, "Choose")):
        config, run_dir = new_run(images=where)
        with pytest.raises(error, match=said):
            inspect.run(config, run_dir, Report())


def test_settings_are_checked_before_any_work(house: Path) -> None:
    source = str(folder(house / "in", {"a.png": encoded(0)}))
    for settings in (dict(unit_pattern="("), dict(unit_pattern="abc"), dict(captured_pattern="%H%M"), dict(captured_pattern="%Y%m%d%Q"),
                     dict(captured_pattern="%Y%Y%m%d"), dict(captured_at="yesterday")):
        config, run_dir = new_run(images=source, line="1", **settings)
        with pytest.raises(ConfigError):
            inspect.run(config, run_dir, Report())
        assert rundir.parts(run_dir) == []


def test_no_such_model(house: Path) -> None:
    config, run_dir = new_run([("a.png", encoded(0))])
    with pytest.raises(NotFoundError, match="'other'"):
        inspect.run(Inspect(model="other"), run_dir, Report())
    assert (run_dir / "inbox").exists(), "the upload waits for another try"


# ── stopped in the middle ────────────────────────────────────────────────────────────────────────────────────────────


class Killed(BaseException):
    """Stands for the end of the process: nothing catches it."""


@pytest.fixture
def small_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inspect, "FIRST", 2)
    monkeypatch.setattr(inspect, "MOST", 3)


UPLOAD = [*((f"{k}.png", encoded(k)) for k in range(5)), ("broken.png", b"x"), ("twin.png", encoded(3)), ("0.png", encoded(50)),
          ("bad", b""), ("broken.png", b"y"), ("last.png", encoded(51))]


def facts(run_dir: Path, table: str) -> list[dict[str, Any]]:
    """Rows without the one column that tells when they were written."""
    return [{k: v for k, v in r.items() if k != "ingested_at"} for r in rundir.rows(run_dir, table).to_pylist()]


def test_a_kill_at_any_write_loses_and_doubles_nothing(house: Path, monkeypatch: pytest.MonkeyPatch, small_groups: None) -> None:
    config, template = new_run(UPLOAD, line="1")
    whole = shutil.copytree(template, house / "whole" / template.name)
    expected = inspect.run(config, whole, Report())
    assert expected["inspected"] == 7 and expected["refused"] == 4
    real = rundir.os.replace
    for nth in range(1, 200):                              # each replace gives one finished file its name
        run_dir = shutil.copytree(template, house / f"killed{nth}" / template.name)
        left = [nth]

        def replace(a: Any, b: Any, left: list[int] = left, run_dir: Path = run_dir) -> None:
            if run_dir in Path(b).parents:
                left[0] -= 1
                if not left[0]:
                    raise Killed
            real(a, b)

        monkeypatch.setattr(rundir.os, "replace", replace)
        try:
            inspect.run(config, run_dir, Report())
        except Killed:
            before = {p: p.read_bytes() for p in rundir.parts(run_dir, "inspections")}
            assert (run_dir / "inbox").exists()
            monkeypatch.setattr(rundir.os, "replace", real)
            result = inspect.run(config, run_dir, Report())
            assert all(p.read_bytes() == data for p, data in before.items()), "a finished part is never written again"
            assert all(facts(run_dir, t) == facts(whole, t) for t in ("inspections", "detections", "refused")), nth
            assert all(result[k] == expected[k] for k in ("inspected", "refused", "defective", "counted", "model_id"))
        else:
            break
    assert nth > 15, "not one write of each kind was met"


def test_a_folder_that_changed_after_a_kill_gives_no_picture_anothers_finds(house: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = folder(house / "in", {f"m{k}.png": encoded(k, size=(60, 50)) for k in range(4)})
    config, run_dir = new_run(images=str(source))
    write = rundir.write_part

    def killed(run_dir: Path, table: str, *more: Any) -> Path | None:
        if table == "inspections":
            raise KeyboardInterrupt
        return write(run_dir, table, *more)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(rundir, "write_part", killed)
        inspect.run(config, run_dir, Report())
    before = [p.read_bytes() for p in rundir.parts(run_dir)]
    folder(source, {"a_new.png": encoded(9)})
    with pytest.raises(InputError, match="have changed"):
        inspect.run(config, run_dir, Report())
    assert before and [p.read_bytes() for p in rundir.parts(run_dir)] == before
    (source / "a_new.png").unlink()
    assert inspect.run(config, run_dir, Report())["inspected"] == 4


def test_a_kill_between_the_last_part_and_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    config, run_dir = new_run(UPLOAD)

    def killed(*args: Any, **more: Any) -> None:
        (run_dir / "inbox" / "inbox.json").unlink()
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(inspect.shutil, "rmtree", killed)
        with pytest.raises(Killed):
            inspect.run(config, run_dir, Report())
    parts = rundir.parts(run_dir)
    result = inspect.run(config, run_dir, Report())
    assert result["inspected"] == 7 and rundir.parts(run_dir) == parts and not (run_dir / "inbox").exists()
    assert inspect.run(config, run_dir, Report()) == result


def test_cancel_keeps_the_upload_and_ends_the_threads(small_groups: None) -> None:
    config, run_dir = new_run(UPLOAD)

    def cancel(step: int) -> None:
        if step:
            raise Canceled

    with pytest.raises(Canceled):
        inspect.run(config, run_dir, Report(cancel))
    assert rundir.rows(run_dir, "inspections").num_rows == 2 and (run_dir / "inbox").exists()
    assert not [t for t in threading.enumerate() if t.name.startswith("decode")]


def test_resumed_with_the_model_it_began_with(house: Path, small_groups: None) -> None:
    _, run_dir = new_run(UPLOAD)
    config = Inspect(model="")
    promote(rundir.find_model("tiny"))

    def stop(step: int) -> None:
        if step:
            raise Killed

    with pytest.raises(Killed):
        inspect.run(config, run_dir, Report(stop))
    began_with = rundir.read_json(run_dir / "inspect.json")["model_id"]
    data = (rundir.find_model("tiny") / "model.onnx").read_bytes() + b"\x72\x00"               # one empty field more: another model
    promote(bundle(rundir.create("train-detector", {}, state="completed") / "model", data, name="newer"))
    result = inspect.run(config, run_dir, Report())
    assert result["model_id"] == began_with != rundir.promoted_model()
    assert {r["model_id"] for r in rundir.rows(run_dir, "inspections").to_pylist()} == {began_with}


def promote(model: Path) -> None:
    head = rundir.read_json(model / "model.json")
    rundir.create("promote", {"model_id": head["model_id"], "name": head["name"]}, state="completed")


def test_threads_work_only_a_bounded_way_ahead(monkeypatch: pytest.MonkeyPatch) -> None:
    taken = []

    def endless() -> Iterable[files.Entry]:
        for k in range(10_000):
            taken.append(k)
            yield files.Entry(f"{k}.png", 10**6, lambda: io.BytesIO(encoded(0)))

    engine = Engine(rundir.find_model("tiny"))
    with reading.pictures(endless(), engine) as found:
        assert [next(found).name for _ in range(3)] == ["0.png", "1.png", "2.png"]
        assert len(taken) <= reading.AHEAD + 3
    monkeypatch.setattr(reading, "AHEAD_BYTES", 5 * 10**6)
    taken.clear()
    with reading.pictures(endless(), engine) as found:
        next(found)
        assert len(taken) <= 6


# ── counted in trends ────────────────────────────────────────────────────────────────────────────────────────────────


def dataset(name: str, *contents: bytes) -> None:
    run_dir = rundir.create("import", {}, state="completed")
    rundir.write_json(run_dir / "snapshot.json", {"name": name, "snapshot_id": name * 2})
    row = dict(snapshot_id=name * 2, file_name="", split="test", origin="real", parent="", generator_run="", width=1, height=1,
               group_id="", phash="")
    rundir.write_part(run_dir, "snapshot_images", [row | {"image_id": images.sha256(c)} for c in contents])


@pytest.mark.parametrize(("line", "count", "expected"), [
    ("", "auto", [(False, "dataset newer"), (False, "no line")]), ("", "yes", [(False, "no line")] * 2),
    ("", "no", [(False, "dataset newer"), (False, "no line")]),
    ("1", "auto", [(False, "dataset newer"), (True, "")]), ("1", "yes", [(True, "")] * 2), ("1", "no", [(False, "switched off")] * 2)])
def test_what_counts(line: str, count: str, expected: list[tuple[bool, str]]) -> None:
    dataset("older", encoded(0))
    dataset("newer", encoded(0), encoded(9))
    rows = inspected([("a.png", encoded(0)), ("b.png", encoded(1))], line=line, count=count)
    assert [(r["counted"], r["not_counted_why"]) for r in rows] == expected


def test_an_import_that_did_not_finish_is_no_dataset() -> None:
    dataset("half", encoded(0))
    rundir.set_state(next(rundir.find("import")), "failed")
    assert inspected([("a.png", encoded(0))], line="1")[0]["counted"]


# ── when, and of which unit ──────────────────────────────────────────────────────────────────────────────────────────


def calendar(zone: str) -> str:
    return rundir.create("calendar", {"time_zone": zone, "day_start": "06:00", "shifts": []}, state="completed").name


def test_time_by_exif_then_name_then_typed_then_arrival() -> None:
    calendar("Europe/Berlin")
    said = dict(captured_pattern="%Y%m%d_%H%M%S", captured_at="2026-07-01T12:00")
    upload = [("20260115_083000.jpg", encoded(0, "JPEG", exif=exif("2026:03:28 10:00:00"))), ("cam1_20260115_083000_x.png", encoded(1)),
              ("20261315_083000.png", encoded(2)), ("1234520260115_083000.png", encoded(3))]
    rows = inspected(upload, **said)
    assert [(r["captured_at"], r["captured_source"]) for r in rows] == [
        (datetime(2026, 3, 28, 9, tzinfo=UTC), "exif"),                    # winter time: an hour ahead of UTC
        (datetime(2026, 1, 15, 7, 30, tzinfo=UTC), "file name"),
        (datetime(2026, 7, 1, 10, tzinfo=UTC), "typed"),                   # month 13 is no time; summer: two hours ahead
        (datetime(2026, 7, 1, 10, tzinfo=UTC), "typed")]                   # digits out of a longer number are none either
    config, run_dir = new_run([("a.png", encoded(4))], captured_pattern="%Y%m%d")
    inspect.run(config, run_dir, Report())
    row, = rundir.rows(run_dir, "inspections").to_pylist()
    assert row["captured_source"] == "arrival" and row["captured_at"].isoformat() == rundir.read_json(run_dir / "job.json")["created_at"]


@pytest.mark.parametrize(("pattern", "name", "utc"), [
    ("%d-%b-%Y %I.%M %p", "shot 05-Mar-2026 02.30 PM.png", datetime(2026, 3, 5, 14, 30)),
    ("%Y/%m/%d/%H", "2026/03/05/14/x.png", datetime(2026, 3, 5, 14)),
    ("%y%j", "a26064b.png", datetime(2026, 3, 5)),
    ("IMG_%Y%m%d", "9IMG_20260305.png", datetime(2026, 3, 5)),
    ("%Y%m%dT%H%M%S%z", "20260305T160000+0200.png", datetime(2026, 3, 5, 14))])
def test_patterns(house: Path, pattern: str, name: str, utc: datetime) -> None:
    source = folder(house / "in", {name: encoded(0)})
    config, run_dir = new_run(images=str(source), captured_pattern=pattern)
    inspect.run(config, run_dir, Report())
    row, = rundir.rows(run_dir, "inspections").to_pylist()
    assert (row["captured_at"].replace(tzinfo=None), row["captured_source"]) == (utc, "file name")


def test_the_zone_is_the_newest_calendar_that_nobody_took_back() -> None:
    typed: Callable[[], datetime] = lambda: inspected([("a.png", encoded(0))], captured_at="2026-01-15T12:00")[0]["captured_at"]     # noqa: E731
    assert typed() == datetime(2026, 1, 15, 12, tzinfo=UTC)
    calendar("Asia/Tokyo")
    newest = calendar("America/New_York")
    assert typed() == datetime(2026, 1, 15, 17, tzinfo=UTC)
    rundir.create("undo", {"run_id": newest}, state="completed")
    assert typed() == datetime(2026, 1, 15, 3, tzinfo=UTC)
    calendar("Mars/Olympus")
    with pytest.raises(ConfigError, match="Mars/Olympus"):
        typed()


def test_a_typed_time_with_a_zone_keeps_it() -> None:
    calendar("Asia/Tokyo")
    row, = inspected([("a.png", encoded(0))], captured_at="2026-01-15T12:00+01:00")
    assert row["captured_at"] == datetime(2026, 1, 15, 11, tzinfo=UTC)


def test_a_clock_that_was_never_set_is_told() -> None:
    config, run_dir = new_run([("a.jpg", encoded(0, "JPEG", exif=exif("1980:01:01 00:00:00"))), ("b.png", encoded(1))])
    warning, = inspect.run(config, run_dir, Report())["warnings"]
    assert warning.startswith("1 ") and "camera's clock" in warning


def test_units(house: Path) -> None:
    source = folder(house / "in", {n: encoded(k) for k, n in enumerate(("u7_left.png", "u7_right.png", "other.png", "u8/left.png"))})
    for pattern, expected in ((r"u(\d+)_", {"u7_left.png": "1/p//7", "u7_right.png": "1/p//7", "other.png": "", "u8/left.png": ""}),
                              (r"u(\d+)/", {"u7_left.png": "", "u7_right.png": "", "other.png": "", "u8/left.png": "1/p//8"})):
        config, run_dir = new_run(images=str(source), line="1", product="p", unit_pattern=pattern)
        inspect.run(config, run_dir, Report())
        assert {r["file_name"]: r["unit_id"] for r in rundir.rows(run_dir, "inspections").to_pylist()} == expected


# ── the disk ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_full_disk_keeps_the_rejects_and_a_few_good_ones(house: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inspect, "Keeper", partial(Keeper, lambda path: FULL))
    upload = [(f"{k}.png", encoded(k, size=(9, 9) if k % 3 else (60, 50))) for k in range(300)]
    config, run_dir = new_run(upload)
    result = inspect.run(config, run_dir, Report())
    rows, boxes = (rundir.rows(run_dir, t).to_pylist() for t in ("inspections", "detections"))
    bad = {b["inspection_id"] for b in boxes if b["confidence"] >= LIMIT}
    rejects, good = ([r for r in rows if (r["inspection_id"] in bad) is is_bad] for is_bad in (True, False))
    assert rejects and all(r["kept"] and r["kept_share"] == 1.0 for r in rejects)
    drawn = {r["image_id"] for r in good if int(r["image_id"][:8], 16) < 0.01 * 2**32}
    assert {r["image_id"] for r in good if r["kept"]} == drawn and all(r["kept_share"] == pytest.approx(0.01) for r in good)
    assert {p.stem for p in (house / "data" / "images").rglob("*.png")} == {r["image_id"] for r in rejects} | drawn
    assert "nearly full: 40.0 GB" in result["warnings"][0] and "1%" in result["warnings"][0]


def test_the_share_of_good_ones_is_one_in_a_hundred() -> None:
    keeper = Keeper(lambda path: FULL)
    ids = [images.sha256(str(k).encode()) for k in range(2_000)]
    kept = [i for i in ids if keeper.keep(b"x", i, "PNG", False)[0]]
    assert 3 <= len(kept) <= 38                            # 20 expected, 4 standard deviations
    assert kept == [i for i in ids if keeper.keep(b"x", i, "PNG", False)[0]], "the same lot every time"


@pytest.mark.parametrize(("usage", "share", "said"), [
    (ROOMY, 1.0, ""), (TIGHT, 1.0, "getting low: 70.0 GB"), (FULL, 0.01, "nearly full"),
    ((10**10, 0, 3 * 10**9), 1.0, "getting low"), ((10**10, 0, 19 * 10**8), 0.01, "nearly full")])     # small disk: 2 GB, not 5 %
def test_the_limit(usage: tuple[int, int, int], share: float, said: str) -> None:
    keeper = Keeper(lambda path: usage)
    assert keeper.share == share and (said in "".join(keeper.warnings)) and bool(keeper.warnings) is bool(said)


def test_what_was_kept_before_stays_kept() -> None:
    data = encoded(0)
    image_id = "f" * 64                                    # drawn for nothing below 100 %
    assert Keeper(lambda path: ROOMY).keep(data, image_id, "PNG", False) == (True, 1.0)
    assert Keeper(lambda path: FULL).keep(data, image_id, "PNG", False) == (True, 0.01)
    assert Keeper(lambda path: FULL).keep(data, "e" * 64, "PNG", False) == (False, 0.01)


def test_a_picture_that_cannot_be_written_costs_no_verdict(house: Path) -> None:
    (house / "data").mkdir(exist_ok=True)
    (house / "data" / "images").write_text("a file where the folder should be")
    config, run_dir = new_run([("a.png", encoded(0))])
    result = inspect.run(config, run_dir, Report())
    row, = rundir.rows(run_dir, "inspections").to_pylist()
    assert row["kept"] is False and "could not be kept" in result["warnings"][0]


# ── predict ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def predicted(house: Path, source: Path, lines: list[str] | None = None) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    listing = house / "list.txt"
    listing.write_text("\n".join(lines or []))
    config = Predict(model="tiny", images=str(source), list=str(listing) if lines is not None else None, out=str(house / "out"))
    result = predict.run(config, rundir.create("predict", config.to_json(), state="running"), Report())
    return json.loads((house / "out" / "predictions.json").read_text()), result


def test_predict_writes_every_box(house: Path) -> None:
    source = folder(house / "in", {f"{k:02}.png": encoded(k) for k in range(40)} | {"twin.png": encoded(0), "x.xml": b"<a/>"})
    (source / "cut.png").write_bytes(encoded(1)[:60])
    found, result = predicted(house, source)
    assert result["images"] == 41 and result["boxes"] == len(found) and result["path"] == str(house / "out" / "predictions.json")
    assert [r["file_name"] for r in result["refused"]] == ["cut.png"]
    assert list(dict.fromkeys(f["file_name"] for f in found)) == [f"{k:02}.png" for k in range(40)] + ["twin.png"]
    expected = Engine(rundir.find_model("tiny")).predict([np.asarray(Image.open(source / "07.png"))], 0.001)[0]
    mine = [f for f in found if f["file_name"] == "07.png"]
    assert [f["category"] for f in mine] == [CLASSES[int(k)] for k in expected[:, 5]]
    np.testing.assert_allclose([f["score"] for f in mine], expected[:, 4], atol=1e-4)
    np.testing.assert_allclose([f["bbox"] for f in mine], np.c_[expected[:, :2], expected[:, 2:4] - expected[:, :2]], atol=0.01)
    assert predicted(house, source)[0] == found, "the same again"


def test_a_list_names_stems_names_or_paths(house: Path) -> None:
    source = folder(house / "in", {"a/one.png": encoded(0), "a/two.png": encoded(1), "b/three 3.png": encoded(2), "b/two.png": encoded(3),
                                   "a/one.xml": b"<a/>", "c/four.v2.png": encoded(4)})
    names: Callable[[list[str]], list[str]] = lambda lines: list(dict.fromkeys(f["file_name"] for f in predicted(house, source, lines)[0]))  # noqa: E731
    assert names(["b/two.png", "", "one", "three 3.png"]) == ["a/one.png", "b/three 3.png", "b/two.png"]
    assert names(["./a/two", "a\\one.png", "a/one.png"]) == ["a/one.png", "a/two.png"]
    assert names(["four.v2"]) == ["c/four.v2.png"]
    with pytest.raises(InputError, match=r"2 of the list are not in .*: five, a/six.png"):
        names(["five", "one", "a/six.png"])
    with pytest.raises(InputError, match=r"1 of the list name more than one picture in .*: two\.$"):
        names(["two"])


def test_predict_cuts_large_pictures_as_inspection_does(house: Path) -> None:
    source = folder(house / "in", {"large.png": encoded(1, size=(300, 200))})
    engine, found = Engine(rundir.find_model("tiny")), {}
    for tile in (None, 100):
        config = Predict(model="tiny", images=str(source), out=str(house / "out"), tile=tile)
        predict.run(config, rundir.create("predict", config.to_json(), state="running"), Report())
        found[tile] = [f["score"] for f in json.loads((house / "out" / "predictions.json").read_text())]
        expected = engine.cutting(tile).predict([np.asarray(Image.open(source / "large.png"))], 0.001)[0]
        np.testing.assert_allclose(found[tile], expected[:, 4], atol=1e-4)
    assert found[None] != found[100]


def test_predict_says_what_is_missing(house: Path) -> None:
    source = str(folder(house / "in", {"a.png": encoded(0)}))
    (house / "binary").write_bytes(b"\xff\xfe\x00\x81")
    for settings, error, said in ((dict(images=source), ConfigError, "out"), (dict(out="x"), ConfigError, "Choose what"),
                                  (dict(images=source, out=str(house), list=str(house / "none")), InputError, "cannot be read"),
                                  (dict(images=source, out=str(house), list=str(house / "binary")), InputError, "cannot be read"),
                                  (dict(images=str(house / "gone"), out=str(house)), InputError, "no file or folder")):
        with pytest.raises(error, match=said):
            predict.run(Predict(model="tiny", **settings), rundir.create("predict", {}, state="running"), Report())


@pytest.mark.skipif(not (SHARED / "score").exists() or not (SHARED / "data" / "NEU-DET").exists(), reason="no shared data and scorer")
def test_the_shared_scorer_reads_the_predictions(house: Path) -> None:
    neu = SHARED / "data" / "NEU-DET"
    stems = (neu / "splits" / "test.txt").read_text().split()[::60]
    bundle(rundir.find_model("tiny"), classes=["crazing", "inclusion", "patches"])
    found, result = predicted(house, neu / "IMAGES", stems)
    assert result["images"] == len(stems) == 6 and {Path(f["file_name"]).stem for f in found} == set(stems)
    done = subprocess.run([sys.executable, str(SHARED / "score" / "score_detection.py"), str(house / "out" / "predictions.json"),
                           str(neu / "ANNOTATIONS"), "--list", str(house / "list.txt")], capture_output=True, text=True, timeout=120)
    score = json.loads(done.stdout)
    assert score["images"] == 6 and score["predictions"] == len(found) and score["ignored"] == 0 and 0 <= score["map50"] <= 1


def test_parts_fit_the_schema() -> None:
    config, run_dir = new_run([("a.png", encoded(0))])
    inspect.run(config, run_dir, Report())
    assert {p.name for p in rundir.parts(run_dir)} == {"detections-000001.parquet", "inspections-000001.parquet"}
    assert isinstance(rundir.read_part(rundir.parts(run_dir, "inspections")[0]), pa.Table)


def test_large_pictures_are_cut_into_tiles_where_that_is_asked(house: Path) -> None:
    folder(house / "in", {"large.png": encoded(1, size=(300, 200)), "small.png": encoded(2)})
    config, run_dir = new_run(images=str(house / "in"), tile=100)
    result = inspect.run(config, run_dir, Report())
    assert result["warnings"] == ["1 large picture was looked at in tiles of 100 pixels."]
    rows = {r["file_name"]: r for r in rundir.rows(run_dir, "inspections").to_pylist()}
    boxes = [b for b in rundir.rows(run_dir, "detections").to_pylist() if b["inspection_id"] == rows["large.png"]["inspection_id"]]
    expected = Engine(rundir.find_model("tiny")).cutting(100).predict([np.asarray(Image.open(house / "in" / "large.png"))], 0.05)[0]
    assert len(boxes) == len(expected) > 0 and rows["large.png"]["width"] == 300 and max(b["x2"] for b in boxes) > 150
    config, run_dir = new_run(images=str(house / "in"))
    assert inspect.run(config, run_dir, Report())["warnings"] == []                       # this model does not say what it learned from
    side = inspect.SHRUNK * Engine(rundir.find_model("tiny")).imgsz + 1
    folder(house / "huge", {"huge.png": encoded(3, size=(side, 40))})
    for tile, said in ((None, True), (0, False)):                                         # who wants no tiles is not told of them
        config, run_dir = new_run(images=str(house / "huge"), tile=tile)
        assert ["1 picture was shrunk" in w for w in inspect.run(config, run_dir, Report())["warnings"]] == [True] * said

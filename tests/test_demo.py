"""The demo plant: pictures that are the same everywhere, boxes that fit, and planted effects that plain pandas finds again."""

import hashlib
import json
from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from backend import rundir
from backend.config import Demo, demo_assets
from backend.data import demo, demo_plant, demo_schedule
from backend.data.demo_defects import CLASSES, SIDE
from backend.errors import Canceled, NotFoundError
from backend.jobs import alarms, control, signals
from backend.quality import reference, spc, stages
from backend.quality.episodes import episodes
from backend.quality.stages import Promotion, SavedChart
from backend.store import lines
from backend.store.database import Database
from backend.store.ingest import ingest

NOW = "2026-03-18T10:20:00.000000+00:00"         # a Wednesday, early shift in UTC

PIXELS = {
    "demo:1:1a:1:good": "4d7a14e6d3fd90e6",
    "demo:417:2c:1:pits+scratch": "12b9674e8e188fc8",
    "demo:999999999999:3d:2:stain": "a55d35511340ef23",
    "demo:12:1b:2:crack+dent+scale": "b5fbff4414df809b",
    "demo:0:3a:1:scratch": "f9971f4ba6e53c20",
}


def pixels(image: Image.Image) -> str:
    return hashlib.sha256(np.asarray(image).tobytes()).hexdigest()[:16]


def some_ids(n: int) -> list[str]:
    return list(demo.training_set(n, seed=5))


# ---- pictures

@pytest.mark.parametrize("image_id", PIXELS)
def test_an_id_gives_the_same_pixels_on_every_machine(image_id: str) -> None:
    assert pixels(demo.render(image_id).image) == PIXELS[image_id]


def test_a_picture_depends_on_each_part_of_its_id() -> None:
    ids = ["demo:7:2a:1:pits", "demo:8:2a:1:pits", "demo:7:3a:1:pits", "demo:7:2b:1:pits", "demo:7:2a:2:pits", "demo:7:2a:1:stain"]
    assert len({pixels(demo.render(i).image) for i in ids}) == len(ids)


def test_a_picture_is_rgb_steel_neither_black_nor_blown() -> None:
    for image_id in some_ids(20):
        image = demo.render(image_id).image
        assert image.mode == "RGB" and image.size == (SIDE, SIDE)
        grey = np.asarray(image.convert("L"), float)
        assert 80 < grey.mean() < 225 and 4 < grey.std() < 45, image_id


def test_the_good_twin_is_the_same_plate_before_the_damage() -> None:
    bad, good = demo.render("demo:31:1c:2:dent+scale"), demo.render("demo:31:1c:2:good")
    changed = np.abs(np.asarray(bad.image, int) - np.asarray(good.image, int)).max(2) > 25
    assert changed.sum() > 100 and not good.boxes and not good.mask.any()
    grown = np.zeros_like(changed)
    for _, x1, y1, x2, y2 in bad.boxes:
        grown[max(0, y1 - 6):y2 + 6, max(0, x1 - 6):x2 + 6] = True
    assert not (changed & ~grown).any()


@pytest.mark.parametrize("image_id", ["demo:1:2a:1", "demo:1:2a:1:rust", "demo:1:2a:1:pits+pits", "demo:1:2a:1:stain+pits",
                                      "demo:1:2e:1:good", "demo:-1:2a:1:good", "demo:1:2a:1:good\n", "demo:../2a:1:good", ""])
def test_what_is_no_demo_id_is_refused(image_id: str) -> None:
    with pytest.raises(NotFoundError):
        demo.render(image_id)


# ---- boxes and masks

@pytest.mark.parametrize("class_name", CLASSES)
def test_boxes_hold_the_mask_and_fit_it(class_name: str) -> None:
    kind = 1 + CLASSES.index(class_name)
    for seed in range(36):
        drawn = demo.render(demo.image_id(seed, 1 + seed % 3, "abcd"[seed % 4], 1 + seed % 2, (class_name,)))
        assert drawn.boxes and set(np.unique(drawn.mask)) <= {0, kind}
        left = drawn.mask == kind
        for name, x1, y1, x2, y2 in drawn.boxes:
            assert name == class_name and 0 <= x1 < x2 <= SIDE and 0 <= y1 < y2 <= SIDE
            ys, xs = np.nonzero(drawn.mask[y1:y2, x1:x2] == kind)
            slack = xs.min(), ys.min(), x2 - x1 - 1 - xs.max(), y2 - y1 - 1 - ys.max()
            assert max(slack) <= 2, (class_name, seed, slack)
            left[y1:y2, x1:x2] = False
        assert not left.any(), (class_name, seed)


def test_boxes_without_drawing_are_those_of_the_picture() -> None:
    for image_id in some_ids(30):
        boxes = demo.boxes(image_id)
        assert boxes == demo.render(image_id).boxes
        assert {b[0] for b in boxes} == set(demo.parse(image_id).classes) and len(boxes) <= 4


def test_a_defect_can_be_seen_where_its_mask_says() -> None:
    """Against its good twin, the masked pixels differ more than the rest; the faint stain included."""
    for class_name in CLASSES:
        inside, outside = [], []
        for seed in range(20):
            drawn = demo.render(f"demo:{seed}:1a:1:{class_name}")
            twin = demo.render(f"demo:{seed}:1a:1:good")
            change = np.abs(np.asarray(drawn.image.convert("L"), float) - np.asarray(twin.image.convert("L"), float))
            inside.append(change[drawn.mask > 0].mean())
            outside.append(change[drawn.mask == 0].mean())
        assert np.median(inside) > 8 and np.median(inside) > 20 * np.median(outside), class_name


# ---- sets of pictures

def test_a_training_set_is_balanced_and_a_quarter_good() -> None:
    ids = some_ids(1200)
    counts = Counter(c for i in ids for c in demo.parse(i).classes)
    assert len(set(ids)) == 1200 and sum(not demo.parse(i).classes for i in ids) == 300
    assert set(counts) == set(CLASSES) and max(counts.values()) < 1.25 * min(counts.values())
    assert some_ids(1200) == ids and list(demo.training_set(1200, seed=6)) != ids


def test_a_written_dataset_holds_what_was_drawn(tmp_path: Path) -> None:
    demo.write_dataset(tmp_path, 20, seed=3)
    stems = {s: (tmp_path / "splits" / f"{s}.txt").read_text().split() for s in ("train", "val", "test")}
    assert [len(v) for v in stems.values()] == [14, 3, 3] and len({s for v in stems.values() for s in v}) == 20
    for i, image_id in enumerate(demo.training_set(20, seed=3)):
        split = next(s for s, v in stems.items() if f"plate-{i:05d}" in v)
        drawn = demo.render(image_id)
        with Image.open(tmp_path / "images" / split / f"plate-{i:05d}.png") as image:
            assert pixels(image) == pixels(drawn.image)
        lines = (tmp_path / "labels" / split / f"plate-{i:05d}.txt").read_text().splitlines()
        for line, (name, x1, y1, x2, y2) in zip(lines, drawn.boxes, strict=True):
            kind, *xywh = line.split()
            assert CLASSES[int(kind)] == name
            assert np.allclose(np.array(xywh, float) * SIDE, [(x1 + x2) / 2, (y1 + y2) / 2, x2 - x1, y2 - y1], atol=1e-3)


def test_the_committed_samples_are_what_the_generator_draws() -> None:
    folder = demo_assets() / "samples"
    listed = demo.samples()
    assert sorted(p.name for p in folder.iterdir()) == sorted(name for name, _ in listed) and len(listed) == 20
    assert sum(p.stat().st_size for p in folder.iterdir()) < 600_000
    assert sum("pits" in i for _, i in listed) > 8 and sum(i.endswith("good") for _, i in listed) > 3
    for name, image_id in listed:
        with Image.open(folder / name) as image:
            difference = np.abs(np.asarray(image.convert("L"), float) - np.asarray(demo.render(image_id).image.convert("L"), float))
        assert difference.mean() < 3, name               # JPEG, whose decoder may differ in the last bits


# ---- the plant

class Made:
    """One demo run and its rows, read with pandas alone."""

    def __init__(self, run_dir: Path, config: Demo) -> None:
        self.run_dir, self.steps = run_dir, []
        self.result = json.loads(json.dumps(demo_plant.run(config, run_dir, lambda **k: self.steps.append(k))))
        self.planted = self.result["planted"]
        rows = rundir.rows(run_dir, "inspections").to_pandas()
        self.rows, self.masters = rows[rows.counted].reset_index(drop=True), rows[~rows.counted]
        self.boxes = rundir.rows(run_dir, "detections").to_pandas().merge(self.rows[["inspection_id", "model_id", "captured_at"]])
        self.history = rundir.rows(run_dir, "history").to_pandas()
        limits = rundir.rows(run_dir, "model_thresholds").to_pandas()
        self.boxes = self.boxes.merge(limits, on=["model_id", "class_name"], validate="many_to_one")
        passed = self.boxes[self.boxes.confidence >= self.boxes.threshold]
        for name in CLASSES:
            self.rows[name] = self.rows.inspection_id.isin(passed.inspection_id[passed.class_name == name])

    def events(self, recipe: str) -> list[dict[str, Any]]:
        chosen = self.history[self.history.recipe == recipe]
        return [{"event_at": at, **json.loads(c)} for at, c in zip(chosen["at"], chosen.config, strict=True)]


def make(root: Path, monkeypatch: pytest.MonkeyPatch, config: Demo, created_at: str = NOW, run_id: str = "") -> Made:
    monkeypatch.setenv("DIFFSPECT_DATA", str(root))
    run_dir = rundir.create("demo", config.to_json(), plant="demo")
    job = rundir.read_json(run_dir / "job.json")
    rundir.write_json(run_dir / "job.json", {**job, "created_at": created_at, "run_id": run_id or job["run_id"]})
    return Made(run_dir, config)


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The plant as it is installed: 90 days, about 200,000 inspections (2 s)."""
    with pytest.MonkeyPatch.context() as patch:
        yield make(tmp_path_factory.mktemp("full"), patch, Demo())


@pytest.fixture
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Made:
    return make(tmp_path, monkeypatch, Demo(days=7, inspections=2000))


def test_master_parts_are_steady_and_do_not_count(full: Made) -> None:
    readings = rundir.rows(full.run_dir, "masters").to_pandas().merge(full.masters[["inspection_id", "captured_at"]])
    assert len(readings) == len(full.masters) == 120 and set(full.masters.not_counted_why) == {"master part"}
    shifts = readings.captured_at.dt.floor("8h").astype(str).tolist()
    values = {m: reference.by_shift(shifts, readings.piece.tolist(), readings[m].to_numpy(float))[1] for m in ("brightness", "sharpness")}
    for steady in reference.imaging_check(values, {m: spc.fit("i", v[:57]) for m, v in values.items()}):
        assert steady.chart is not None and len(steady.chart.z) == 60 and not steady.violations


@pytest.mark.slow
def test_the_planted_fault_comes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """At a moment at which chance has put scratches on line 1 as well: the tour points at line 2."""
    at = "2026-03-21T03:20:00.000000+00:00"
    made = make(tmp_path, monkeypatch, Demo(days=34, inspections=75_000), at)
    rundir.set_state(made.run_dir, "completed", started_at=rundir.now(), finished_at=rundir.now())
    ingest(db := Database())
    now = datetime.fromisoformat(at)
    found = signals.raised(lines.lines_now(db, "demo", now), control.charts(db, "demo", now))
    found = alarms.raised(found, alarms.alarms(db, "demo"), now)
    db.close()
    assert found[["line", "state"]].values.tolist() == [["Line 2", "act"], ["Line 1", "act"], ["Line 3", "normal"]]
    assert found["class_name"][0] == "pits" and found["excess"][0] > found["excess"][1] > 3


def test_alarms_are_of_what_was_planted(full: Made) -> None:
    risen, missed = full.events("alarm")
    assert risen["line"] == "Line 1" and risen["since"] == full.planted["excursion"]["start"] and "Defects are up" in risen["text"]
    assert missed["line"] == "Line 2" and missed["since"] >= full.planted["process_shift"]["at"]
    assert "target at most 3.0 %" in missed["text"]
    assert [e["alarm"] for e in full.events("alarm-seen") + full.events("alarm-over")] == [risen["id"]] * 2
    assert len(full.events("target")) == 1 and [e["kind"] for e in full.events("alert")] == ["target", "rise"]


def test_its_size_is_as_asked_and_parts_are_small(full: Made) -> None:
    assert abs(len(full.rows) - 200_000) < 1000 and full.result["inspections"] == len(full.rows)
    assert full.rows.inspection_id.is_unique and full.rows.image_id.is_unique and (full.rows.plant == "demo").all()
    assert all(rundir.read_part(p).num_rows < 100_000 for p in rundir.parts(full.run_dir, "inspections"))
    assert full.steps[-1]["step"] == full.steps[-1]["total"] == 90


def test_it_covers_ninety_production_days_up_to_now(full: Made) -> None:
    days = (full.rows.captured_at - pd.Timedelta(hours=6)).dt.date
    assert days.nunique() == 90 and str(days.min()) == full.result["first_day"]
    assert str(days.max()) == full.result["last_day"] == "2026-03-18"
    now = pd.Timestamp(NOW)
    assert (full.rows.ingested_at <= now).all() and (full.rows.ingested_at >= full.rows.captured_at).all()
    assert now - full.rows.captured_at.max() < pd.Timedelta(minutes=10)


def shift_of(rows: pd.DataFrame) -> pd.Series:
    """Start of the 8-hour shift a row was captured in."""
    return (rows.captured_at - pd.Timedelta(hours=6)).dt.floor("8h") + pd.Timedelta(hours=6)


def test_a_line_makes_one_product_a_shift_and_two_cameras_look(full: Made) -> None:
    groups = full.rows.groupby(["line", shift_of(full.rows)])
    assert (groups["product"].nunique() == 1).all() and (groups.lot.nunique() == 1).all()
    assert full.rows.groupby("line")["product"].nunique().to_dict() == {"Line 1": 4, "Line 2": 4, "Line 3": 4}
    assert full.rows.groupby("line").camera.nunique().to_dict() == {"Line 1": 2, "Line 2": 2, "Line 3": 2}
    assert full.rows.camera.nunique() == 6


def test_on_line_3_two_pictures_are_one_unit(full: Made) -> None:
    line3 = full.rows[full.rows.line == "Line 3"]
    units = line3.groupby("unit_id")
    assert "" not in units.groups and units.size().max() == 2 and (units.size() == 2).mean() > 0.99
    assert (units.camera.nunique() == units.size()).all()
    assert (full.rows[full.rows.line != "Line 3"].unit_id == "").all()


def test_lines_rest_at_breaks_and_line_1_slows_at_weekends(full: Made) -> None:
    since = (full.rows.captured_at - shift_of(full.rows)).dt.total_seconds()
    lunch = 0.53 * 8 * 3600
    assert not ((since < 299) | ((since > lunch + 1) & (since < lunch + 1799))).any()
    line1 = full.rows[full.rows.line == "Line 1"]
    per_day = line1.groupby((line1.captured_at - pd.Timedelta(hours=6)).dt.date).size()
    weekend = pd.to_datetime(per_day.index).day_of_week >= 5
    assert per_day[weekend].mean() < 0.6 * per_day[~weekend].mean()


def test_pits_on_line_2_rise_from_two_to_six_percent(full: Made) -> None:
    planted, line2 = full.planted["process_shift"], full.rows[full.rows.line == "Line 2"]
    at = pd.Timestamp(planted["at"])
    assert timedelta(days=2.4) < pd.Timestamp(NOW) - at < timedelta(days=3) and planted["class_name"] == "pits"
    before, after = line2.pits[line2.captured_at < at].mean(), line2.pits[line2.captured_at >= at].mean()
    assert abs(before - 0.02) < 0.003 and abs(after - 0.06) < 0.015
    others = full.rows[full.rows.line != "Line 2"]
    assert others.pits[others.captured_at >= at].mean() < 0.006


def test_the_new_model_finds_somewhat_more_stains(full: Made) -> None:
    planted = full.planted["model_change"]
    at = pd.Timestamp(planted["at"])
    old = full.rows.captured_at < at
    assert planted["old"] != planted["new"]
    assert set(full.rows.model_id[old]) == {planted["old"]} and set(full.rows.model_id[~old]) == {planted["new"]}
    assert timedelta(days=40) <= pd.Timestamp(NOW) - at < timedelta(days=41)
    assert 1.1 < full.rows.stain[~old].mean() / full.rows.stain[old].mean() < 1.8
    promotions = full.events("promote")
    assert [p["model_id"] for p in promotions] == [planted["old"], planted["new"]] and promotions[1]["event_at"] == at
    assert set(rundir.rows(full.run_dir, "models")["model_id"].to_pylist()) >= {planted["old"]}


def test_line_1_had_scratches_and_somebody_wrote_why(full: Made) -> None:
    planted, line1 = full.planted["excursion"], full.rows[full.rows.line == "Line 1"]
    during = line1.captured_at.between(pd.Timestamp(planted["start"]), pd.Timestamp(planted["end"]))
    assert line1.scratch[during].mean() > 1.8 * line1.scratch[~during].mean()
    (note,), (known,) = full.events("note"), full.events("acknowledge")
    assert note["line"] == known["line"] == "Line 1" and known["day"] == planted["day"] and note["text"] == full.planted["note"]["text"]
    assert timedelta(days=20) < pd.Timestamp(NOW) - note["event_at"] < timedelta(days=22)


def test_one_shift_is_missing_on_line_3_and_no_other(full: Made) -> None:
    seen = set(zip(full.rows.line, shift_of(full.rows), strict=True))
    starts = pd.date_range(full.result["first_day"] + " 06:00Z", NOW, freq="8h")
    missing = [(line, start) for line in full.result["lines"] for start in starts if (line, start) not in seen]
    planted = full.planted["missed_shift"]
    assert missing == [("Line 3", pd.Timestamp(planted["at"]))]
    assert timedelta(days=8) < pd.Timestamp(NOW) - missing[0][1] < timedelta(days=10)


def test_thirty_doubtful_pictures_of_two_days_wait_for_review(full: Made) -> None:
    queue = full.rows[full.rows.inspection_id.isin(full.result["review_queue"])]
    assert len(queue) == 30 and (queue.captured_at > pd.Timestamp(NOW) - timedelta(days=2)).all()
    top = full.boxes[full.boxes.inspection_id.isin(queue.inspection_id)].groupby("inspection_id")[["confidence", "threshold"]].max()
    assert len(top) == 30 and (top.confidence / top.threshold).between(0.75, 1).all()
    assert 10 <= queue.image_id.str.endswith("good").sum() <= 20
    assert not set(queue.inspection_id) & {r["inspection_id"] for r in full.events("review")}


def test_two_hundred_reviews_tell_the_truth(full: Made) -> None:
    reviews = pd.DataFrame(full.events("review")).merge(full.rows, on="inspection_id", validate="one_to_one")
    assert len(reviews) == full.result["reviews"] == 200
    assert ((reviews.verdict == "good") == reviews.image_id.str.endswith("good")).all() and reviews.verdict.nunique() == 2
    assert (reviews.event_at > reviews.captured_at).all() and (reviews.event_at <= pd.Timestamp(NOW)).all()


def charted(full: Made, line: str) -> tuple[list[SavedChart], list[str], pd.DataFrame, list[Promotion]]:
    """A line's chart as it was saved over time, and its shifts that are over, counted with pandas: n units, k defective."""
    rows = full.rows[full.rows.line == line].assign(key=shift_of(full.rows).dt.tz_localize(None), bad=full.rows[list(CLASSES)].any(axis=1))
    units = rows.groupby(["key", rows.unit_id.where(rows.unit_id != "", rows.inspection_id.astype(str))]).bad.any()
    counts = units.groupby(level=0).agg(n="size", k="sum").iloc[:-1]                 # the last is under way
    saves = [SavedChart.from_json({k: v for k, v in e.items() if k != "event_at"}) for e in full.events("chart") if e["line"] == line]
    change = Promotion(pd.Timestamp(full.planted["model_change"]["at"]).tz_localize(None).isoformat(), "new")
    return saves, [k.isoformat() for k in counts.index], counts, [change]


@pytest.mark.parametrize("line", demo_schedule.LINES)
def test_each_line_has_a_chart_with_limits_from_calm_weeks_of_each_model(full: Made, line: str) -> None:
    saves, keys, counts, change = charted(full, line)
    assert len({s.owner for s in saves}) == 1 and [bool(s.excluded) for s in saves] == [False, line == "Line 1"]
    for saved in saves:
        again = stages.frozen(replace(saved, limits={}), keys, counts.k, counts.n, change)
        assert again == saved and saved.limits["subgroups"] >= 80
        keep = np.array([saved.since <= k <= saved.until and k not in saved.excluded for k in keys])
        assert spc.dispersion("p", counts.k, counts.n, keep).p_more > 0.01, "nothing speaks for another kind of chart"
    assert saves[0].until < change[0].at == saves[1].since


def test_charts_find_the_planted_shift_and_take_the_model_change_for_none(full: Made) -> None:
    at = pd.Timestamp(full.planted["process_shift"]["at"]).tz_localize(None).isoformat()
    said = {(e["line"], e["key"]) for e in full.events("explain")}
    for line in demo_schedule.LINES:
        saves, keys, counts, change = charted(full, line)
        judged = stages.watch(saves, keys, counts.k, counts.n, change)
        assert [s.provisional for s in judged] == [False, False] and keys[judged[1].first] == change[0].at
        alarms = [e for s in judged for e in episodes(s)]
        week = range(judged[1].first, judged[1].first + 20)
        assert not [e for e in alarms if e.at in week], "the new model finds more stains"
        late = [e for e in alarms if keys[e.at] >= at]
        assert [e.side for e in late] == ["above"] * (line == "Line 2")
        assert all(e.at - keys.index(at) < 3 and e.last == len(keys) - 1 for e in late), "within three shifts, and until now"
        first = full.history["at"][full.history.recipe == "chart"].min().tz_localize(None).isoformat()
        assert {(line, keys[e.at]) for e in alarms if first < keys[e.at] < at} == {(where, k) for where, k in said if where == line}


def test_nobody_puts_the_worn_roll_down_to_chance(full: Made) -> None:
    """Also where the alarm that spans it began by chance, a shift before."""
    begin, end = (pd.Timestamp(full.planted["excursion"][n]).tz_localize(None).isoformat() for n in ("start", "end"))
    saves, keys, counts, change = charted(full, "Line 1")
    alarms = [e for s in stages.watch(saves, keys, counts.k, counts.n, change) for e in episodes(s)]
    spanning = {keys[e.at] for e in alarms if keys[e.first] < end and keys[e.last] >= begin}
    said = [e["text"] for e in full.events("explain") if e["line"] == "Line 1" and e["key"] in spanning]
    assert said and not [text for text in said if "nothing in common" in text]


def test_confidences_leave_a_threshold_something_to_do(full: Made) -> None:
    below = full.boxes.confidence < full.boxes.threshold
    assert 0.2 < below.mean() < 0.5 and full.boxes.confidence.between(0.05, 0.97).all()
    bad = ~full.rows.image_id.str.endswith("good")
    found = full.rows[list(CLASSES)].any(axis=1)
    assert 0.03 < (bad & ~found).sum() / bad.sum() < 0.2         # missed
    assert 0.0005 < (found & ~bad).sum() / (~bad).sum() < 0.004  # false alarms
    shares = [(full.boxes.confidence > t).mean() for t in (0.3, 0.4, 0.5, 0.6, 0.7)]
    assert all(a - b > 0.03 for a, b in zip(shares, shares[1:], strict=False))


def test_logged_boxes_lie_on_the_picture_s_defects(full: Made) -> None:
    boxes = full.boxes.merge(full.rows[["inspection_id", "image_id"]])
    assert ((boxes.x1 >= 0) & (boxes.x1 < boxes.x2) & (boxes.x2 <= SIDE)).all()
    assert ((boxes.y1 >= 0) & (boxes.y1 < boxes.y2) & (boxes.y2 <= SIDE)).all()
    real = boxes[~boxes.image_id.str.endswith("good")].sample(200, random_state=0)
    for row in real.itertuples():
        near = [b for b in demo.boxes(row.image_id) if b[0] == row.class_name
                and max(abs(b[1] - row.x1), abs(b[2] - row.y1), abs(b[3] - row.x2), abs(b[4] - row.y2)) < 14]
        assert near, row


def test_the_same_job_writes_the_same_parts_again(small: Made) -> None:
    """An interrupted demo starts over: parts already ingested must not change."""
    before = {p.name: p.read_bytes() for p in rundir.parts(small.run_dir)}
    again = demo_plant.run(Demo(days=7, inspections=2000), small.run_dir, lambda **k: None)
    assert json.loads(json.dumps(again)) == small.result
    assert {p.name: p.read_bytes() for p in rundir.parts(small.run_dir)} == before


def test_seeds_and_runs_differ(small: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other = make(tmp_path, monkeypatch, Demo(seed=1, days=7, inspections=2000))
    assert not set(other.rows.inspection_id) & set(small.rows.inspection_id)
    assert not set(other.rows.image_id) & set(small.rows.image_id)
    twin = make(tmp_path, monkeypatch, Demo(days=7, inspections=2000))
    assert list(twin.rows.image_id) == list(small.rows.image_id) and not set(twin.rows.inspection_id) & set(small.rows.inspection_id)


def test_shifts_follow_the_plant_calendar_through_a_clock_change(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DIFFSPECT_DATA", str(tmp_path))
    chosen = {**demo_schedule.CALENDAR, "time_zone": "Europe/Berlin"}
    staged = rundir.create("calendar", chosen, state="staged")
    rundir.set_state(staged, "completed")
    rundir.publish(staged)
    made = make(tmp_path, monkeypatch, Demo(days=7, inspections=2000), created_at="2026-04-01T00:30:00.000000+00:00")
    assert made.result["time_zone"] == "Europe/Berlin" and made.result["last_day"] == "2026-03-31"        # 02:30: still the night shift
    local = made.rows.captured_at.dt.tz_convert("Europe/Berlin")
    for hour in (6, 14, 22):                      # five minutes of hand-over, then work; the clocks change on 29 March
        minutes = local[local.dt.hour == hour].groupby(local.dt.date).min().dt.minute
        assert len(minutes) == 7 and (minutes >= 5).all() and (minutes < 30).all(), hour


def test_a_short_demo_has_charts_that_wait_for_limits(small: Made) -> None:
    charts = small.events("chart")
    assert [c["line"] for c in charts] == list(demo_schedule.LINES) and not any(c["limits"] for c in charts)
    assert small.events("explain") == []


def test_a_demo_can_be_canceled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DIFFSPECT_DATA", str(tmp_path))

    def report(**progress: Any) -> None:
        if progress["step"] == 3:
            raise Canceled

    run_dir = rundir.create("demo", Demo(days=7, inspections=2000).to_json(), plant="demo")
    with pytest.raises(Canceled):
        demo_plant.run(Demo(days=7, inspections=2000), run_dir, report)
    assert not rundir.parts(run_dir, "inspections")


def test_no_moment_falls_into_a_break_or_beyond_now() -> None:
    shifts, _ = demo_schedule.schedule(4, datetime(2026, 3, 18, 10, 20, tzinfo=UTC), 20, demo_schedule.CALENDAR)
    for shift in shifts:
        at = shift.moments(np.linspace(0, 0.999999, 500))
        assert (np.diff(at) > 0).all() and at[-1] <= (shift.until - shift.start).total_seconds()
        assert not any(((at >= start) & (at < start + length)).any() for start, length in shift.gaps)

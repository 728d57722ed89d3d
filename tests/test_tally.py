"""Roll-ups: whatever happens to a plant, the pages' figures are those counted from its rows, one by one, in Python."""

import random
import shutil
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pandas as pd
import pytest

from backend import rundir
from backend.records import Filters
from backend.store import lines, named, queries, shifts, spc
from backend.store.database import Database
from backend.store.ingest import ingest, rebuild
from tests import small_plant as plant

Row = dict[str, Any]
BUCKETS: dict[str, Callable[[Row], Any]] = {
    "day": lambda r: r["production_day"], "shift": lambda r: r["shift_start"],
    "hour": lambda r: r["captured_local"].replace(minute=0, second=0, microsecond=0),
    "week": lambda r: r["production_day"] - timedelta(days=r["production_day"].weekday())}
CLASSES, SIDES = ("pits", "scratch", "stain"), ("cam1", "cam2")


# ---- a plant's past, drawn at random


def pictures(rng: random.Random, n: int = 40) -> list[Row]:
    """Single pictures, parts with two sides, parts that come again hours later, the same picture twice; some not counted, some late."""
    found = []
    for k in range(n):
        begin = datetime(2026, 10, 18, 5, tzinfo=UTC) + timedelta(minutes=rng.randrange(12 * 24 * 60))        # clocks change in there
        about: Row = dict(line=rng.choice(("L1", "L2", "")), product=rng.choice(("Plate", "Frame")), lot=rng.choice(("", "A")),
                          model_id=rng.choice(("m1", "m1", "m2")), unit_id=rng.choice(("", f"U{k}", f"U{rng.randrange(8)}")),
                          counted=rng.random() < 0.9, not_counted_why="")
        views = rng.choice((1, 1, 2, 3)) if about["unit_id"] else 1
        for view in range(views):
            boxes = [(rng.choice(CLASSES), rng.choice((0.2, 0.45, 0.6, 0.9))) for _ in range(rng.choice((0, 0, 1, 3)))]
            at = begin + timedelta(seconds=20 * view) * rng.choice((1, 1, 1, 300))
            twin = {"image_id": f"{rng.randrange(4):064x}"} if rng.random() < 0.1 else {}
            found.append(about | twin | dict(camera=SIDES[view % 2], captured_at=at, ingested_at=at, boxes=boxes))
    return found


def batch(rng: random.Random) -> list[str]:
    """A run of one or two parts, in half of them with an anomaly model's scores."""
    run = plant.batch([], end=False)
    for number in range(rng.choice((1, 2))):
        ids = plant.add(run, pictures(rng))
        if rng.random() < 0.5:
            rows = [dict(inspection_id=i, model_id="odd", anomaly_score=rng.random(), side=1, anomaly_map=None) for i in ids[::2]]
            rundir.write_part(run, "anomalies", rows, number + 1)
    plant.finish(run)
    return [run.name]


def decision(rng: random.Random, batches: list[str]) -> list[str]:
    """Something that a person decides about what is there."""
    run = rng.choice(batches)
    ids = [int(i) for i in rundir.rows(rundir.run_path(run), "inspections")["inspection_id"].to_pylist()]
    some = rng.choice(([], rng.sample(ids, 5)))
    minutes = rng.choice((0, 15))
    match rng.choice(("policy", "policy", "odd", "correct", "correct", "exclude", "include", "review", "calendar", "promote", "model")):
        case "policy":
            return [plant.decide("policy", product=rng.choice(("", "Plate")), class_name=rng.choice(("", *CLASSES)), min_side=0,
                                 action=rng.choice(("reject", "minor", "ignore")), threshold=rng.choice((None, 0.3, 0.5, 0.8)))]
        case "odd":
            return [plant.decide("policy", product="", class_name="unusual", action="reject", threshold=rng.random())]
        case "correct":
            field, to = rng.choice((("line", "L3"), ("product", "Frame"), ("lot", "B"), ("camera", "cam2"),
                                    ("captured_at", "2026-10-26T03:30")))
            return [plant.decide("correct", run_id=run, inspection_ids=some, fields={field: to})]
        case "review":
            return [plant.decide("review", inspection_id=ids[0], verdict="good")]
        case "calendar":
            shifts = [dict(name="Day", start=f"05:{minutes:02d}", end="17:00"), dict(name="Night", start="17:00", end="02:30")]
            return [plant.decide("calendar", time_zone=rng.choice(("Europe/Berlin", "Asia/Kolkata")), day_start="06:00", shifts=shifts)]
        case "promote":
            return [plant.decide("promote", model_id="m2", name="m2")]
        case "model":
            plant.model(rng.choice(("m1", "m2")), {"pits": rng.choice((0.1, 0.5)), "scratch": 0.6})
            return []
        case told:
            return [plant.decide(told, run_id=run, inspection_ids=some, reason="x")]


def happen(rng: random.Random, steps: int) -> Iterator[None]:
    """Batches, decisions, decisions taken back; and any of these removed, as nobody should."""
    batches = batch(rng)
    decisions: list[str] = []
    others = [plant.model("odd", {"unusual": 0.6}, kind="anomaly").name]
    for _ in range(steps):
        match rng.choice(("batch", "decide", "decide", "decide", "undo", "remove", "remove")):
            case "batch":
                batches += batch(rng)
            case "undo" if decisions:
                others.append(plant.decide("undo", run_id=decisions.pop(rng.randrange(len(decisions)))))
            case "remove" if len(batches) > 2 or others or decisions:
                of = rng.choice([runs for runs in (batches[2:] and batches, decisions, others) if runs])
                shutil.rmtree(rundir.run_path(of.pop(rng.randrange(len(of)))))
            case _:
                decisions += decision(rng, batches)
        yield


# ---- the same figures from rows


def asked(rng: random.Random) -> Filters:
    """Any filters: each is set now and then."""
    def maybe(*values: Any) -> Any:
        return rng.choice(values) if rng.random() < 0.3 else ""

    day = date(2026, 10, 18) + timedelta(days=rng.randrange(12))
    return Filters(line=maybe("L1", "L2", "L3"), product=maybe("Plate", "Frame"), lot=maybe("A", "B"), camera=maybe(*SIDES),
                   shift=maybe("Early", "Night", "Day"), class_name=maybe(*CLASSES), since=maybe(day) or None,
                   until=maybe(day + timedelta(days=3)) or None, counted=rng.random() < 0.8)


class Rows:
    """Facts and defects as Python has them."""

    def __init__(self, db: Database) -> None:
        self.facts = plant.facts(db)
        self.defects: dict[int, list[tuple[str, str]]] = defaultdict(list)
        with db.cursor() as cursor:
            for row in cursor.execute("SELECT inspection_id, class_name, action FROM defects").dicts():
                self.defects[row["inspection_id"]].append((row["class_name"], row["action"]))

    def fitting(self, f: Filters) -> list[Row]:
        same = [(n, v) for n in ("plant", "line", "product", "lot", "camera", "shift", "run_id") if (v := getattr(f, n))]
        return [r for r in self.facts if all(r[n] == v for n, v in same) and (r["counted"] or not f.counted)
                and (not f.since or r["production_day"] >= f.since) and (not f.until or r["production_day"] <= f.until)]

    def found(self, row: Row, f: Filters) -> int:
        """Defects that reject, of the class if one is asked for."""
        return sum(action == "reject" and f.class_name in ("", name) for name, action in self.defects[row["inspection_id"]])

    def units(self, f: Filters) -> list[list[Row]]:
        by: dict[int, list[Row]] = defaultdict(list)
        for row in self.fitting(f):
            by[row["unit"]].append(row)
        return list(by.values())

    def counts(self, f: Filters, key: Callable[[Row], Any]) -> dict[Any, tuple[int, int, int]]:
        """Units, defective ones and defects, for each value of `key` that a unit's first view has."""
        said: dict[Any, Counter[str]] = defaultdict(Counter)
        for unit in self.units(f):
            n = sum(self.found(r, f) for r in unit)
            said[key_of(unit, key)].update(units=1, defective=n > 0, defects=n)
        return {k: (c["units"], c["defective"], c["defects"]) for k, c in said.items()}

    def unusual(self, f: Filters) -> dict[Any, tuple[int, int, int]]:
        said: dict[Any, Counter[str]] = defaultdict(Counter)
        for unit in self.units(f):
            if seen := [r for r in unit if r["is_unusual"] is not None]:
                odd, bad = (any(r[n] for r in seen) for n in ("is_unusual", "is_defective"))
                said[min(r["shift_start"] for r in seen)].update(units=1, odd=odd, disagree=odd and not bad)
        return {k: (c["units"], c["odd"], c["disagree"]) for k, c in said.items()}

    def kinds(self, f: Filters) -> dict[tuple[str, bool], tuple[int, int]]:
        boxes: Counter[tuple[str, bool]] = Counter()
        units: dict[tuple[str, bool], set[int]] = defaultdict(set)
        for row in self.fitting(f):
            for name, action in self.defects[row["inspection_id"]]:
                if f.class_name in ("", name):
                    boxes[name, action == "minor"] += 1
                    units[name, action == "minor"].add(row["unit"])
        return {k: (n, len(units[k])) for k, n in boxes.items()}

    def lines(self, until: datetime) -> dict[str, tuple[int, int, float | None, datetime]]:
        """Of each line: units and defective ones of its last three shifts, the rate of 28 days before, its newest picture."""
        said: dict[str, tuple[int, int, float | None, datetime]] = {}
        for line in {r["line"] for r in self.fitting(Filters())}:
            rows = [r for r in self.fitting(Filters(line=line)) if r["captured_at"] <= until]
            since = min(sorted({r["shift_start"] for r in rows})[-3:], default=None)
            if since is not None:
                recent, usual = ([r for r in rows if (r["shift_start"] >= since) == now and r["shift_start"] >= since - timedelta(days=28)]
                                 for now in (True, False))
                n, k, n0, k0 = (len({r["unit"] for r in of if r["is_defective"] or every}) for of in (recent, usual) for every in (1, 0))
                said[line] = n, k, k0 / n0 if n0 else None, max(r["captured_at"] for r in rows)
        return said

    def newest(self, f: Filters) -> list[int]:
        """Pictures, the newest first."""
        return [r["inspection_id"] for r in sorted(self.pictures(f), key=lambda r: (-r["captured_at"].timestamp(), r["inspection_id"]))]

    def pictures(self, f: Filters) -> list[Row]:
        told = {"": lambda r: True, "defective": lambda r: r["is_defective"], "good": lambda r: not r["is_defective"],
                "unusual": lambda r: r["is_unusual"], "disagree": lambda r: r["is_unusual"] and not r["is_defective"]}[f.verdict]
        return [r for r in self.fitting(f)
                if told(r) and (not f.class_name or f.class_name in {n for n, _ in self.defects[r["inspection_id"]]})]


def key_of(unit: list[Row], key: Callable[[Row], Any]) -> Any:
    return min(key(r) for r in unit)


def figures(frame: pd.DataFrame, key: str, *columns: str) -> dict[Any, tuple[int, ...]]:
    keys = [k.to_pydatetime() if isinstance(k, pd.Timestamp) else k for k in frame[key]]
    return dict(zip(keys, frame[list(columns)].itertuples(index=False, name=None), strict=True))


def as_moments(counts: dict[Any, Any]) -> dict[Any, Any]:
    return {datetime.combine(k, datetime.min.time()) if type(k) is date else k: v for k, v in counts.items()}


def compare(db: Database, rows: Rows, f: Filters, rng: random.Random) -> None:
    """Every question that counts, once."""
    by, group = rng.choice(list(BUCKETS)), rng.choice(("line", "product", "shift", "camera", "lot", "weekday", "hour"))
    counts = ("inspected", "defective", "defects")
    total, seen = queries.totals(db, f), rows.fitting(f)
    assert (total["inspected"], total["units"]) == (len(seen), len(rows.units(f))), f
    assert (total["defective"], total["defects"]) == tuple(sum(c[n] for c in rows.counts(f, lambda r: 0).values()) for n in (1, 2)), f
    days = [r["production_day"] for r in seen]
    assert (total["first_day"], total["last_day"]) == (min(days, default=None), max(days, default=None)), f
    assert total["last_captured_at"] == max((r["captured_at"] for r in seen), default=None), f
    assert figures(queries.trend(db, f, by), "bucket", *counts) == as_moments(rows.counts(f, BUCKETS[by])), (by, f)
    parts = queries.breakdown(db, f, group)
    clock = (lambda v: f"{v:02d}:00") if group == "hour" else (lambda v: v)
    assert figures(parts, "value", *counts) == {clock(k): v for k, v in rows.counts(f, lambda r: r[group]).items()}, (group, f)
    numbers = [unit for unit in rows.units(f) if any(r["unit_id"] != str(r["inspection_id"]) for r in unit)]
    known = sum(map(len, numbers)) >= named.KNOWN * len(seen)
    parts_known = (sum(any(rows.found(r, f) for r in unit) for unit in numbers), len(numbers)) if known else (0, 0)
    assert f.run_id or named.named(db, f) == parts_known, f
    if f.line:
        since, now = f"2026-10-{rng.randrange(19, 31)}T00:00:00", spc.clock(db, "real", datetime(2026, 11, 5, tzinfo=UTC))
        every = spc.gaps(db, f, now)
        some = spc.gaps(db, f, now, since)
        assert some[some["key"] >= since].to_dict("records") == every[every["key"] >= since].to_dict("records"), (since, f)
    split = queries.trend(db, f, "shift", group)
    assert split["inspected"].sum() == len(rows.units(f)) and split["defects"].sum() == total["defects"], (group, f)
    if not f.run_id:
        told = queries.trend_of_kinds(db, f, by)
        for name in CLASSES:
            own = {k: d for k, (_, d, _) in as_moments(rows.counts(f.but(class_name=name), BUCKETS[by])).items() if d}
            said = told[told["class_name"] == name]
            assert dict(zip((b.to_pydatetime() for b in said["bucket"]), said["defective"], strict=True)) == own, (by, name, f)
    kinds = queries.pareto(db, f)
    found = {(k, bool(m)): (d, u) for k, m, d, u in kinds[["class_name", "minor", "defects", "units"]].itertuples(index=False, name=None)}
    assert found == rows.kinds(f), f
    assert figures(queries.unusual_trend(db, f, "shift"), "bucket", "inspected", "unusual", "disagree") == rows.unusual(f), f
    for verdict in ("", "defective", "good", "unusual", "disagree"):
        told = f.but(verdict=verdict)
        there = rows.newest(told)
        assert queries.images_count(db, told) == len(there), told
        first = rng.randrange(len(there) + 1)
        page = queries.images(db, told, "newest", 7, first)["inspection_id"].tolist()
        assert page == there[first:first + 7], told
        for one in page[:1]:                             # listed, so found together with the others; without, by itself
            together, alone = queries.detections(db, [one]), queries.detections(db, [one, one])
            pd.testing.assert_frame_equal(together, alone)
            assert queries.image_id(db, one) == queries.inspection(db, one)["image_id"]
    assert sorted(queries.images(db, f, "unsure", 10**6)["inspection_id"]) == sorted(rows.newest(f)), f


def compare_lines(db: Database, rows: Rows, at: datetime) -> None:
    """At a moment in the middle of it all, as if the rest were of the future."""
    now = lines.lines_now(db, "real", at).astype(object)
    told = now.where(now.notna(), None)[["inspected", "defective", "usual_rate", "last_captured_at"]].itertuples(index=False, name=None)
    assert dict(zip(now["line"], told, strict=True)) == rows.lines(at + lines.AHEAD), at


def compare_shifts(db: Database, rows: Rows, day: date, shift: str) -> None:
    """What a shift report is made of."""
    def of(rows: list[Row]) -> dict[int, list[Row]]:
        by: dict[int, list[Row]] = defaultdict(list)
        for row in rows:
            by[row["unit"]].append(row)
        return by

    near = [r for r in rows.fitting(Filters()) if day - timedelta(days=lines.USUAL_DAYS) <= r["production_day"] <= day
            and (r["production_day"] < day or r["shift"] == shift)]
    counted, kinds = shifts.counts(db, "real", day, shift)
    expected: dict[tuple[str, str, bool], list[Row]] = defaultdict(list)
    for row in near:
        expected[row["line"], row["product"], row["production_day"] == day].append(row)
    assert len(counted) == len(expected)
    for told in counted.to_dict("records"):
        seen = expected[told["line"], told["product"], told["recent"]]
        units = of(seen)
        bad, own = ({u for u, views in units.items() if any(is_so(v) for v in views)} for is_so in (
            lambda v: v["is_defective"], lambda v: v["unit_id"] != str(v["inspection_id"])))
        assert [told[n] for n in ("units", "defective", "defects", "pictures", "named", "named_defective")] == [
            len(units), len(bad), sum(r["defects"] for r in seen), len(seen), len(own), len(own & bad)], (day, shift, told)
        assert told["last"] == max(r["captured_at"] for r in seen)
    boxes: Counter[Any] = Counter()
    whose: dict[Any, set[int]] = defaultdict(set)
    for row in near:
        for name, action in rows.defects[row["inspection_id"]]:
            key = row["line"], row["production_day"] == day, name, action == "minor"
            boxes[key] += 1
            whose[key].add(row["unit"])
    assert {tuple(k): (d, u) for *k, d, u in kinds.itertuples(index=False, name=None)} == {k: (n, len(whose[k])) for k, n in boxes.items()}
    each: dict[tuple[date, str], list[Row]] = defaultdict(list)
    for row in rows.fitting(Filters()):
        each[row["production_day"], row["shift"]].append(row)
    listed = shifts.shifts(db, "real", days=1000, at=datetime(2027, 1, 1, tzinfo=UTC))
    told = {(r["day"].date() if isinstance(r["day"], datetime) else r["day"], r["shift"]): tuple(r[n] for n in (
        "start", "units", "defective", "defects")) for r in listed.to_dict("records")}
    assert told == {
        k: (min(r["shift_start"] for r in seen), len(of(seen)), len({r["unit"] for r in seen if r["is_defective"]}),
            sum(r["defects"] for r in seen)) for k, seen in each.items() if k[1]}


def test_per_million_is_of_a_selection_whose_pictures_carry_numbers(db: Database) -> None:
    """Whatever its last day is like."""
    def pictures(days: range, of: int, numbers: bool) -> list[Row]:
        return [dict(captured_at=plant.NOON + timedelta(days=d), kept=False, boxes=[("pits", 0.9)] * (not n), camera=f"cam{n % 2}",
                     **({"unit_id": f"U-{d}-{n // 2}"} if numbers else {})) for d in days for n in range(of)]
    plant.batch(pictures(range(9), 4, False) + pictures(range(9, 10), 4, True))
    ingest(db)
    assert named.named(db, Filters()) == (0, 0), "only the last day of ten has numbers"
    last = (plant.NOON + timedelta(days=9)).date()
    for only, found in ((Filters(), (1, 2)), (Filters(camera="cam1"), (0, 2)), (Filters(class_name="pits"), (1, 2))):
        assert named.named(db, only.but(since=last)) == found, only
    plant.batch(pictures(range(20, 30), 40, True) + pictures(range(30, 31), 4, False))
    ingest(db)
    assert named.named(db, Filters(since=last + timedelta(days=1))) == (10, 200), "99 of 100 pictures, not those of the last day"
    plant.batch(pictures(range(31, 32), 1, False))
    ingest(db)
    assert named.named(db, Filters(since=last + timedelta(days=1))) == (0, 0)


@pytest.mark.parametrize("seed", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_roll_ups_say_what_rows_say(db: Database, seed: int) -> None:
    rng = random.Random(seed)
    for step, _ in enumerate(happen(rng, 8)):
        if rng.random() < 0.6:                           # several things at once now and then
            ingest(db)
            rows = Rows(db)
            for _ in range(2):
                compare(db, rows, asked(rng), rng)
            compare_lines(db, rows, datetime(2026, 10, 19, tzinfo=UTC) + timedelta(minutes=rng.randrange(12 * 24 * 60)))
            some = rng.choice(rows.facts)
            compare_shifts(db, rows, some["production_day"], some["shift"])
            if step % 4 == 0:
                compare(db, rows, asked(rng).but(run_id=rng.choice(rows.facts)["run_id"]), rng)
    ingest(db)
    live = plant.tables(db)
    assert live["spread"] and any("'all'" in row for row in live["tallies"]), "units that lie apart, and with several cameras"
    rebuild(db)
    assert plant.tables(db) == live

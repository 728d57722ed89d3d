"""Recipe `demo`: 90 days of inspections of a plant that does not exist, ending at the moment its run was created.

Reads the run's job.json (id and moment), the plant calendar and the committed demo model's card; writes parts like any
inspection does: models, inspections, detections, history. The same job.json gives the same rows, so a run that was
interrupted writes the same parts again. `demo_schedule` says when and how often, `demo_inspections` draws each day.
"""

import hashlib
import json
import shutil
from collections.abc import Callable
from datetime import date, datetime, timedelta
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.random import PCG64, Generator

from backend import rundir
from backend.config import Demo, demo_assets
from backend.data import demo_alarms, demo_charts, demo_masters
from backend.data.demo_defects import CLASSES
from backend.data.demo_inspections import HURDLE, OLD_HURDLE, Detector, detections_table, draw, inspections_table, reviewable
from backend.data.demo_schedule import CALENDAR, LINES, PITS_AFTER, PRODUCTS, RATES, Planted, Shift, schedule

PART_ROWS = 50_000                               # a part closes at the first whole day beyond this; no part reaches twice as much
QUEUE, REVIEWS = 30, 200
NOTE = "Scratches came from a worn roll. Roll 3 changed, back to normal."
ACKNOWLEDGED = "Known: worn roll 3, changed."
FIRST_MODEL = "The demo plant's earlier model. It is part of the story: there is no file of it."
REVIEWERS = ("Ines", "Jonas")


def run(config: Demo, run_dir: Path, report: Callable[..., None]) -> dict[str, Any]:
    """Write the demo plant's parts. Returns what was planted, for the tour and for tests."""
    job = rundir.read_json(run_dir / "job.json")
    now = datetime.fromisoformat(job["created_at"])
    calendar = _calendar(job["created_at"])
    shifts, planted = schedule(config.seed, now, config.days, calendar)
    heads = _models(planted, shifts[0].start)
    old, new = (_detector(h, hurdle) for h, hurdle in zip(heads, (OLD_HURDLE, HURDLE), strict=True))
    counts, queued = _counts(shifts, config.inspections), _queued(shifts, now)

    # Models first: verdicts hang on their thresholds. The committed model's own row comes with the program.
    known = (demo_assets() / "model" / "model.json").exists()
    rundir.write_part(run_dir, "models", [{k: v for k, v in h.items() if k != "thresholds"} for h in heads[:1 if known else 2]], 1)
    rundir.write_part(run_dir, "model_thresholds", [dict(model_id=h["model_id"], class_name=c, threshold=t) for h in heads
                                                    for c, t in zip(CLASSES, h["thresholds"], strict=True)], 1)

    # One production day at a time, each from random numbers of its own, gathered into parts of whole days.
    writer = _Writer(run_dir)
    waiting_for_review, queue, tally = [], [], demo_charts.Tally(len(shifts))
    days = [(day, list(group)) for day, group in groupby(range(len(shifts)), lambda i: shifts[i].day)]
    for n, (day, own) in enumerate(days, 1):
        rng = Generator(PCG64([config.seed, 2, n]))
        drawn = draw(rng, job["run_id"], day, [shifts[i] for i in own], [counts[i] for i in own], [queued[i] for i in own],
                     planted.model_change, old, new)
        writer.add(inspections_table(drawn, now, old, new), detections_table(drawn))
        tally.add(own, drawn, old, new)
        waiting_for_review += reviewable(drawn, old, new)
        queue += drawn.ids[drawn.queue].tolist()
        report(step=n, total=len(days), message=f"{day:%d %B %Y}")
    writer.flush()
    demo_masters.write(run_dir, job["run_id"], config.seed, shifts, now, new)

    # What people did.
    reviews = _reviews(Generator(PCG64([config.seed, 3])), waiting_for_review, now)
    story = demo_charts.Story(planted, shifts[0].start, calendar["time_zone"], heads[1]["name"], REVIEWERS, NOTE)
    history = _history(planted, heads, shifts) + reviews + demo_charts.history(shifts, tally, story, now)
    history += demo_alarms.history(shifts, tally, story, now)
    rundir.write_part(run_dir, "history", sorted(history, key=lambda r: r["at"]), 1)
    lay_out_experiment()
    return dict(inspections=writer.inspections, detections=writer.detections, reviews=len(reviews), review_queue=queue,
                first_day=str(days[0][0]), last_day=str(days[-1][0]), time_zone=calendar["time_zone"], lines=list(LINES),
                products=list(PRODUCTS.values()), planted=_told(planted, shifts, heads))


def lay_out_experiment() -> None:
    """The finished experiment that comes with the program, among the runs; with the demo plant it goes."""
    for path in sorted((demo_assets() / "experiment").glob("*-*")):
        target = rundir.runs_root() / path.name
        staged = target.with_name(f".{path.name}")
        shutil.rmtree(staged, ignore_errors=True)
        if not target.exists():
            shutil.copytree(path, staged)
            rundir.publish(staged)


class _Writer:
    """Gathers days into parts. Numbers are given, so that a second attempt replaces parts, never adds to them."""

    def __init__(self, run_dir: Path) -> None:
        self.run_dir, self.part, self.inspections, self.detections = run_dir, 0, 0, 0
        self.waiting: list[tuple[pa.Table, pa.Table]] = []
        self.rows = 0

    def add(self, inspections: pa.Table, detections: pa.Table) -> None:
        for start in range(0, inspections.num_rows, PART_ROWS):                # a day longer than a part is cut
            self.waiting.append((inspections.slice(start, PART_ROWS), detections if start == 0 else detections.slice(0, 0)))
            self.rows += self.waiting[-1][0].num_rows
            if self.rows >= PART_ROWS:
                self.flush()

    def flush(self) -> None:
        if not self.waiting:
            return
        self.part += 1
        inspections, detections = (pa.concat_tables(tables) for tables in zip(*self.waiting, strict=True))
        rundir.write_part(self.run_dir, "detections", detections, self.part)
        rundir.write_part(self.run_dir, "inspections", inspections, self.part)
        self.inspections, self.detections = self.inspections + inspections.num_rows, self.detections + detections.num_rows
        self.waiting, self.rows = [], 0


def _calendar(created_at: str) -> dict[str, Any]:
    """The plant calendar in force when this run was made, else the first one set after it, else the usual shifts in UTC."""
    taken_back = rundir.undone()
    jobs = [rundir.read_json(p / "job.json") for p in rundir.completed("calendar") if p.name not in taken_back]       # newest first
    job = next((j for j in jobs if j["created_at"] <= created_at), jobs[-1] if jobs else None)
    return {**CALENDAR, **job["config"]} if job else CALENDAR


def _counts(shifts: list[Shift], total: int) -> list[int]:
    """Pictures in each shift, about `total` together."""
    weights = np.array([s.volume * s.working() for s in shifts])
    return [round(w) for w in (weights / weights.sum() * total).tolist()]


def _queued(shifts: list[Shift], now: datetime) -> list[int]:
    """How many of the review queue fall into each shift of the last two days."""
    weights = np.array([s.working() * (s.start >= now - timedelta(days=2)) for s in shifts])
    at = np.searchsorted(weights.cumsum(), (np.arange(QUEUE) + 0.5) / QUEUE * weights.sum())
    return [int(n) for n in np.bincount(at, minlength=len(shifts))]


# ---- models

def _models(planted: Planted, start: datetime) -> list[dict[str, Any]]:
    """Rows of `models`, with thresholds: one that is no more than a memory, and the one that comes with the program."""
    card = demo_assets() / "model" / "model.json"
    known = rundir.read_json(card) if card.exists() else {}
    thresholds = [float(known.get("thresholds", {}).get(c, 0.25)) for c in CLASSES]
    common = dict(kind="detector", snapshot_id="", imgsz=int(known.get("imgsz", 224)), classes=list(CLASSES))
    first = dict(common, model_id=_placeholder("demo, first model"), name="Demo detector, first version", metrics="{}",
                 thresholds=[0.25] * len(CLASSES), settings=json.dumps({"about": FIRST_MODEL}), created_at=start - timedelta(days=1))
    second = dict(common, model_id=known.get("model_id", _placeholder("demo")), name=known.get("name", "Demo detector"),
                  metrics=json.dumps(known.get("metrics", {})), settings=json.dumps(known.get("settings", {})), thresholds=thresholds,
                  created_at=planted.model_change - timedelta(hours=20), snapshot_id=known.get("snapshot_id", ""))
    return [first, second]


def _placeholder(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _detector(head: dict[str, Any], hurdle: np.ndarray) -> Detector:
    return Detector(head["model_id"], np.array(head["thresholds"]), hurdle)


# ---- what people did

def _event(at: datetime, recipe: str, by: str, /, **config: Any) -> dict[str, Any]:
    return dict(at=at, recipe=recipe, config=json.dumps(config), by=by)


def _history(planted: Planted, heads: list[dict[str, Any]], shifts: list[Shift]) -> list[dict[str, Any]]:
    """Two promotions; an excursion on line 1, noted and acknowledged."""
    promotions = [_event(at, "promote", "Demo", model_id=h["model_id"], name=h["name"])
                  for at, h in zip((shifts[0].start, planted.model_change), heads, strict=True)]
    day = _day(shifts, planted.excursion[0])
    return [*promotions, _event(planted.noted, "note", REVIEWERS[1], line="Line 1", at=planted.noted.isoformat(), text=NOTE),
            _event(planted.noted + timedelta(minutes=2), "acknowledge", REVIEWERS[1], line="Line 1", day=str(day), text=ACKNOWLEDGED)]


def _reviews(rng: Generator, candidates: list[dict[str, Any]], now: datetime) -> list[dict[str, Any]]:
    """Reviewers have worked through doubtful pictures of the last weeks, but not of the last three days; they are right."""
    old = [c for c in candidates if now - timedelta(days=35) <= c["captured_at"] < now - timedelta(days=3)]
    chosen = [old[i] for i in sorted(rng.permutation(len(old))[:REVIEWS].tolist())]
    return [_event(c["captured_at"] + timedelta(hours=rng.uniform(2, 30)), "review", who := REVIEWERS[i // 7 % 2], reviewer=who,
                   inspection_id=c["inspection_id"], verdict="defective" if c["class_name"] else "good", class_name=c["class_name"])
            for i, c in enumerate(chosen)]


def _day(shifts: list[Shift], at: datetime) -> date:
    return next(s.day for s in shifts if s.start >= at)


def _told(planted: Planted, shifts: list[Shift], heads: list[dict[str, Any]]) -> dict[str, Any]:
    """What was planted, in plain JSON."""
    begin, end = planted.excursion
    return dict(
        process_shift=dict(line="Line 2", class_name="pits", at=planted.process_shift.isoformat(),
                           before=RATES["Line 2"]["pits"], after=PITS_AFTER),
        model_change=dict(at=planted.model_change.isoformat(), class_name="stain", old=heads[0]["model_id"], new=heads[1]["model_id"]),
        excursion=dict(line="Line 1", class_name="scratch", start=begin.isoformat(), end=end.isoformat(), day=str(_day(shifts, begin))),
        note=dict(line="Line 1", at=planted.noted.isoformat(), text=NOTE),
        missed_shift=dict(line="Line 3", at=planted.missed.isoformat(), day=str(_day(shifts, planted.missed)),
                          shift=next(s.name for s in shifts if s.start == planted.missed)))

"""Recipe `shift-report`: one shift as one HTML file, `report.html` in its run; and how the numbers of it come out of the database.

    facts.json (numbers, by whoever has the database) ─► pictures drawn here ─► report.html

Where the run has no facts.json yet, its worker asks: by being there. The app, which has the database, answers within a second
(`answer`, each turn of its thread); where no app is, the worker opens the database itself. Reports by schedule come with their facts:
see `shift_plan`. Making one again from the same facts gives the same file. Knows nothing of sending.
"""

import logging
import os
import time
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

from backend import rundir
from backend.config import ShiftReport, data_root
from backend.errors import ConfigError, DiffspectError, ImageError, NotFoundError, StoreError
from backend.jobs import locks, messenger, pictures, report_runs, runs, shift_facts
from backend.quality import report as paper
from backend.store import ingest, lake, shifts, spc
from backend.store.calendar import Calendar, Span
from backend.store.database import Database

WIDTH = 480                            # of a picture: about 30 KB, sharp enough on paper in three columns
ASK_S, PATIENCE_S = 0.2, 20.0          # between two looks for an answer; so long an app may take before others try
Facts = dict[str, Any]
_log = logging.getLogger(__name__)


def run(config: ShiftReport, run_dir: Path, report: Callable[..., None]) -> dict[str, Any]:
    """Write report.html, and a copy where `out` says. Returns its sentence and the figures by which it is known to be overtaken."""
    known = _facts(config, run_dir, report)
    found, edition = known["facts"], known.get("edition")
    jpegs = []
    for n, one in enumerate(found["pictures"], 1):
        report(step=n, total=len(found["pictures"]) + 1, message="Drawing pictures")
        jpegs.append(picture(one))
    html = paper.html(found, jpegs, edition).encode()
    rundir.write_bytes(run_dir / report_runs.BARE, paper.html(found, None, edition).encode())      # before: who meets the other has both
    rundir.write_bytes(run_dir / "report.html", html)
    copied = _copy(html, found, config.out) if config.out else ""
    state, said = paper.headline(found)
    return dict(sentence=said, status=state, day=found["day"], shift=found["shift"], edition=(edition or {}).get("number", 1),
                figures=shift_facts.figures(found), name=paper.file_name(found), file=copied or str(run_dir / "report.html"),
                size_kb=len(html) // 1000)


def html(db: Database, plant: str, day: date, shift: str, at: datetime | None = None) -> tuple[str, str]:
    """The report of a shift made now, for a page: its file name and its text. Raises NotFoundError."""
    found = shift_facts.facts(db, plant, day, shift, at)
    return paper.file_name(found), paper.html(found, [picture(one) for one in found["pictures"]])


def picture(one: Facts) -> bytes | None:
    """A picture of the facts with its boxes as JPEG; None where it was not kept, or its file is damaged."""
    try:
        return pictures.drawn(one["image_id"], one["boxes"], WIDTH, "paper")
    except (NotFoundError, ImageError):
        return None


def _copy(html: bytes, found: Facts, out: str) -> str:
    """Where a person wants it: a file that ends in .html, else a folder, which is made. Replaced in one step."""
    path = Path(out) if out.endswith((".html", ".htm")) else Path(out) / paper.file_name(found)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        rundir.write_bytes(path, html)
    except OSError as error:
        raise ConfigError(f"The report cannot be written to {path}: {os.strerror(error.errno or 0)}.") from error
    return str(path)


# how the numbers come out of the database -----------------------------------------------------------------------------------


def _facts(config: ShiftReport, run_dir: Path, report: Callable[..., None]) -> Facts:
    """Those that came with the run, that the app wrote, or that this process reads where it can have the database."""
    began = time.monotonic()
    while (known := _answered(run_dir)) is None:
        app = locks.holder(messenger.app_lock()) not in (None, os.getpid())
        if not app or time.monotonic() > began + PATIENCE_S:
            try:
                _read(config, run_dir)
                continue
            except StoreError:                                   # somebody has it after all: they answer, or let go
                began = time.monotonic()
        report(step=0, total=1, message="Waiting for the numbers")
        time.sleep(ASK_S)
    if "error" in known:
        raise NotFoundError(known["error"])                      # it stays until the run is taken up: or the app would answer again
    return known


def _answered(run_dir: Path) -> Facts | None:
    """None while nobody has answered. An error that an earlier attempt was told is thrown away: it may be so no longer."""
    path = run_dir / "facts.json"
    if not path.exists():
        return None
    known: Facts = rundir.read_json(path)
    if "error" in known and known.get("attempt") != runs.state(run_dir)["attempt"]:
        path.unlink()
        return None
    return known


def _read(config: ShiftReport, run_dir: Path) -> None:
    """Raises StoreError while another process has the database."""
    with locks.hold(messenger.look_lock(), messenger.OPEN_S):
        db = lake.opened(data_root() / "inspection.duckdb")
        try:
            ingest.ingest(db)
            _write(db, run_dir, config)
        finally:
            db.close()


def answer(db: Database) -> None:
    """Write the facts that open runs wait for. The database has taken in all there is."""
    for run_dir, _ in runs.open_runs():
        if rundir.recipe_of(run_dir.name) == "shift-report" and not (run_dir / "facts.json").exists():
            _write(db, run_dir)


def _write(db: Database, run_dir: Path, config: ShiftReport | None = None) -> None:
    """The facts, or why there are none: a run that got no answer would be asked at every turn, before all others."""
    attempt = runs.state(run_dir)["attempt"]
    try:
        config = config or ShiftReport.from_json(runs.job(run_dir)["config"])
        span = asked(db, config)
        known: Facts = dict(facts=shift_facts.facts(db, config.plant, span.day, span.name))
    except DiffspectError as error:
        known = dict(error=str(error), attempt=attempt)
    except Exception as error:                                   # a day beyond the calendar, a damaged job.json, the database's own
        _log.exception("The numbers of %s cannot be read.", run_dir.name)
        known = dict(error=f"The numbers of the shift cannot be read: {error}", attempt=attempt)
    rundir.write_json(run_dir / "facts.json", known)


def asked(db: Database, config: ShiftReport) -> Span:
    """The shift that a config names; none: the last one that has ended. Raises ConfigError, NotFoundError."""
    plan = shifts.plan(db)
    if config.day and config.shift:
        return plan.span(_day(config.day), config.shift)
    if config.day or config.shift:
        raise ConfigError("Name both the day and the shift, or neither for the last shift.")
    return last(db, config.plant, plan)


def last(db: Database, plant: str, plan: Calendar, at: datetime | None = None) -> Span:
    """The last shift that has ended, whether or not anything came from it. Raises NotFoundError where the calendar has no shifts."""
    now = spc.clock(db, plant, at).now if plant == "demo" else at or datetime.now(UTC)
    ended = plan.ended(now, 48)
    if not ended:
        raise NotFoundError("The plant's calendar has no shifts. Set them in Trends, under the plant's clock.")
    return ended[0]


def _day(text: str) -> date:
    try:
        return date.fromisoformat(text)
    except ValueError:
        raise ConfigError(f"{text!r} is no day; write it as 2026-11-29.") from None


def listed(db: Database, plant: str, days: int = 14) -> list[dict[str, Any]]:
    """Shifts of the last days that may be reported on, the newest first: day, shift, start (plant time), units (0: nothing came),
    under_way."""
    plan, frame = shifts.plan(db), shifts.shifts(db, plant, days)
    units = {(day, shift): int(n) for day, shift, n in zip(frame["day"], frame["shift"], frame["units"], strict=True)}
    now = spc.clock(db, plant).now
    spans = plan.ended(now + timedelta(hours=24), days * 24)
    return [dict(day=s.day, shift=s.name, start=plan.local(s.start), units=units.get((s.day, s.name), 0), under_way=s.end > now)
            for s in spans if s.start <= now]

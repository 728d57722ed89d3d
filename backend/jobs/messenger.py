"""The messenger: a child of the supervisor that lives on when no page is open. `python -m backend messenger`.

    every 3 s      sends what is due (`delivery`), from files alone
    every 30 s     queues a software check where one is due
    every minute   where no app has the database: takes in what is new and looks (`lookout`). Else the app does

It has the database for the length of a look, under `look.lock`; who opens it meanwhile waits for that. An app that is there holds
`app.lock`, so that the messenger loads no DuckDB beside it. Ends with the supervisor.
"""

import logging
import os
import signal
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

from backend import formats, rundir
from backend.config import data_root
from backend.errors import StoreError
from backend.jobs import delivery, locks, logs, software, told

if TYPE_CHECKING:
    from backend.store.database import Database

DELIVER_S, CHECK_S, LOOK_S = 3.0, 30.0, 60.0
SHARE = 20                             # a look that takes long comes seldom: never more than a twentieth of the time
OPEN_S = 20.0                          # how long somebody who opens the database waits for a look to end
_log = logging.getLogger("messenger")


def look_lock() -> Path:
    return data_root() / "look.lock"


def app_lock() -> Path:
    return data_root() / "app.lock"


def main() -> int:
    """Serve this data folder until the supervisor is gone, or SIGTERM."""
    parent, ended = os.getppid(), threading.Event()

    def end(number: int, frame: FrameType | None) -> None:
        ended.set()

    signal.signal(signal.SIGTERM, end)
    signal.signal(signal.SIGINT, end)
    with locks.hold(data_root() / "messenger.lock") as taken, logs.kept("messenger"):
        rounds = Rounds()
        while taken and not ended.is_set() and os.getppid() == parent and data_root().exists():
            rounds.step()
            ended.wait(DELIVER_S)
    return 0


class Rounds:
    """When what is done next. Nothing that goes wrong in one ends the messenger."""

    def __init__(self) -> None:
        self.check_at = self.look_at = 0.0
        started = data_root() / "supervisor.json"
        self.started = datetime.fromisoformat(rundir.read_json(started)["started_at"]) if started.exists() else datetime.now(UTC)

    def step(self) -> None:
        self._try(delivery.deliver)
        if time.monotonic() >= self.check_at:
            self.check_at = time.monotonic() + CHECK_S
            self._try(self._check)
        if time.monotonic() >= self.look_at and locks.holder(app_lock()) is None:
            began = time.monotonic()
            self._try(look)
            self.look_at = time.monotonic() + max(LOOK_S, SHARE * (time.monotonic() - began))

    def _check(self) -> None:
        if software.due(self.started, datetime.now(UTC)):
            software.begin()

    def _try(self, what: object) -> None:
        assert callable(what)
        try:
            what()
        except Exception:
            _log.exception("A round of the messenger failed; the next one tries again.")


def look() -> bool:
    """Take in what is new and look. False where another process has the database."""
    from backend.jobs import lookout, shift_plan, shift_report
    from backend.store import ingest, lake

    formats.enter(rundir.runs_root())
    if not next(rundir.find(), None):
        return False
    with locks.hold(look_lock()) as taken:
        if not taken:
            return False
        try:
            db = lake.opened(data_root() / "inspection.duckdb")
        except StoreError:
            return False
        try:
            began = rundir.now()
            ingest.ingest(db)
            told.tell(db, began)
            each(db, lookout.look, shift_report.answer, shift_plan.look)
            return True
        finally:
            db.close()


def each(db: "Database", *looks: Callable[["Database"], object]) -> None:
    """One after the other, each whatever became of those before: a report that fails must not silence the alarms."""
    for one in looks:
        try:
            one(db)
        except Exception:
            _log.exception("%s.%s failed; the next look tries again.", one.__module__, one.__qualname__)

"""What the app process keeps open, once: the database, the thread that ingests and looks for alarms, the supervisor.

Opens at the first call from any page. Where another process owns the database, runs can still be submitted and followed;
what needs the database says so. Knows nothing of pages.
"""

import atexit
import logging
import os
import shutil
import subprocess
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from backend import formats, rundir
from backend.config import data_root
from backend.errors import ConfigError, StoreError
from backend.jobs import cluster, events, executor, locks, logs, messenger, runs, supervisor, told
from backend.store import mounts

if TYPE_CHECKING:
    from backend.store.database import Database

BUSY_S, IDLE_S = 0.3, 2.0               # between two looks for new parts: while runs are open, and otherwise
ALARMS_S = 30.0                         # between two looks at what people want to be told of
LOOK_S = 0.05                           # between two looks whether an open run has written a part, meanwhile
START_S = 5.0                           # how long a supervisor may take to come up before another is started
END_S = 20.0                            # longer than the supervisor takes to end a stuck run
log = logging.getLogger(__name__)
_guard = threading.RLock()
_opened: "House | None" = None
_started: "list[tuple[float, Path, subprocess.Popen[bytes]]]" = []      # supervisors: when, where, which; they outlive us


def opened() -> "House":
    """The open house of the current data folder."""
    global _opened
    with _guard:
        if _opened is None or _opened.root != data_root():
            close()
            _opened = House(data_root())
        return _opened


def database() -> "Database":
    """The process's one database. Raises StoreError while another process has it."""
    return opened().database()


def close() -> None:
    """Let go of everything but the supervisor, which lives on."""
    global _opened
    with _guard:
        if _opened is not None:
            _opened.close()
            _opened = None


atexit.register(close)


class House:
    def __init__(self, root: Path) -> None:
        self.root = root
        self._database: Database | None = None
        self._complaint = ""
        self._opening, self._ingesting = threading.Lock(), threading.Lock()
        self._wake, self._stopping = threading.Event(), threading.Event()
        self.caught_up = threading.Event()                       # once the first look at the run directories is done
        self._there = ExitStack()                                # the messenger leaves the database to an app that is there
        mounts.refuse_share(self.root)
        self.root.mkdir(parents=True, exist_ok=True)
        logs.form(), cluster.chosen()                            # before anything is held
        formats.enter(rundir.runs_root())
        self._first = self._there.enter_context(locks.hold(messenger.app_lock()))
        if self._first:
            self._there.enter_context(logs.kept("app"))          # one app writes it: a second says on its own stderr that it has to wait
        self._taken_in = ""                                      # when the last whole look at the runs began
        self._look_at = time.monotonic() + ALARMS_S
        try:
            self.database()
            events.move_in()
        except StoreError as error:
            self._complain(str(error))
        if os.environ.get("DIFFSPECT_SUPERVISOR") != "off":
            supervisor.retire_older()
        self._keep_supervisor()
        self._thread = threading.Thread(target=self._work, name="ingest", daemon=True)
        self._thread.start()

    def database(self) -> "Database":
        from backend.store import lake

        with self._opening:
            if self._database is None:
                with locks.hold(messenger.look_lock(), messenger.OPEN_S):        # the messenger has it for the length of a look
                    self._database = lake.opened(self.root / "inspection.duckdb")
            return self._database

    def remade(self) -> tuple[int, int] | None:
        """Runs looked at so far and all of them, while the database is being made again after an update; else None."""
        db = self._database
        return db.progress if db is not None and db.remade else None

    def ingest(self, wait_s: float = 15.0, run_ids: list[str] | None = None) -> bool:
        """Take in what is new, now, of these runs or of all. False where that has to wait: another thread is at it, or another process has
        the database."""
        from backend.store import ingest

        if not self._ingesting.acquire(timeout=wait_s):
            return False
        try:
            began = rundir.now()
            ingest.ingest(self.database(), run_ids)
            if run_ids is None:
                self._taken_in = began
                self.caught_up.set()
            return True
        except StoreError as error:
            self._complain(str(error))
            return False
        finally:
            self._ingesting.release()

    def remove(self, plant: str) -> None:
        """Take a plant's run directories and rows away. Its open runs are canceled first; raises ConfigError where one does not end."""
        gone = [p for p in rundir.find() if runs.job(p)["plant"] == plant]
        _end(gone)
        hidden = [p.rename(p.with_name(f".{p.name}")) for p in gone]
        self.ingest()                                            # drops the rows of runs that it no longer sees
        for path in hidden:
            shutil.rmtree(path, ignore_errors=True)

    def wake(self) -> None:
        """Look now rather than at the next turn."""
        self._wake.set()

    def close(self) -> None:
        self._stopping.set()
        self._wake.set()
        self._thread.join(30)
        with self._opening, self._ingesting:
            if self._database is not None:
                self._database.close()
                self._database = None
        self._there.close()

    def _look(self) -> None:
        """Open and close alarms and make shift reports, whether or not a page is open; only where all that is on disk is in."""
        if not self.caught_up.is_set() or not self._first:       # a second app has no database, but for a lake's
            return
        looks: list[Callable[[Database], object]] = [_answer]
        if time.monotonic() >= self._look_at:
            from backend.jobs import lookout, shift_plan

            self._look_at = time.monotonic() + ALARMS_S          # before: what fails is not tried again at every turn
            looks += [lookout.look, shift_plan.look, _tidy]
        messenger.each(self.database(), *looks)

    def _work(self) -> None:
        before = dict[Path, int]()
        while not self._stopping.is_set() and self.root == data_root():
            try:
                self._keep_supervisor()
                with suppress(OSError):                          # a run that cannot be asked keeps nobody from taking in the others
                    before = _open_now()                         # what is written while we look is for the next look, at once
                if self.ingest():
                    self._look()
                    told.tell(self.database(), self._taken_in)
                self._rest(before)
            except Exception:                                    # a thread that died silently would freeze every chart
                log.exception("Taking in results failed; the next turn tries again.")
                self._wake.wait(IDLE_S)                          # asks the disk nothing: it may be what failed
            self._wake.clear()

    def _rest(self, before: dict[Path, int]) -> None:
        """Until the next look; less where somebody wakes us, or where an open run has written something, or ended, since before the
        last one."""
        now = _open_now()
        until = time.monotonic() + (LOOK_S if now != before else BUSY_S if now else IDLE_S)
        while (left := until - time.monotonic()) > 0 and not self._wake.wait(min(LOOK_S, left)):
            if any(_written(folder) != at for folder, at in now.items()):
                self._wake.wait(LOOK_S)                          # a group is several parts
                return

    def _complain(self, message: str) -> None:
        """Once, not at every turn."""
        if message != self._complaint:
            log.warning("%s", message)
        self._complaint = message

    def _keep_supervisor(self) -> None:
        """Start one if there is none. Two that start at once settle it by the lock."""
        if os.environ.get("DIFFSPECT_SUPERVISOR") != "off" and not worker_alive():
            _started.append((time.monotonic(), self.root, executor.spawn("worker")))


def _tidy(db: "Database") -> None:
    """While nobody waits for rows."""
    if not any(runs.open_runs()):
        db.tidy()


def _answer(db: "Database") -> None:
    """Shift reports that wait for their numbers; what makes them is loaded once there is one."""
    if any(rundir.recipe_of(path.name) == "shift-report" for path, _ in runs.open_runs()):
        from backend.jobs import shift_report

        shift_report.answer(db)


def _open_now() -> dict[Path, int]:
    """The parts' folders of open runs; another number once something in one of them has come or gone."""
    return {folder: _written(folder) for folder in (path / "parts" for path, _ in runs.open_runs())}


def _written(folder: Path) -> int:
    """When, in ns; 0 where it is not there, goes at this moment, or cannot be asked."""
    try:
        return folder.stat().st_mtime_ns
    except OSError:
        return 0


def _end(paths: list[Path]) -> None:
    """Cancel these runs and wait until nobody works on them."""
    for path in paths:
        runs.cancel(path.name)
    until = time.monotonic() + END_S
    while any(locks.holder(path / "lock") is not None for path in paths):
        if time.monotonic() > until:
            raise ConfigError("One of its runs is still going on. Try again when it has ended.")
        time.sleep(0.05)


def caught_up(wait_s: float = 1.0) -> bool:
    """Whether what stands in run directories is in the database: for seconds after a start, or a rebuild, it is not."""
    return opened().caught_up.wait(wait_s)


def remade() -> tuple[int, int] | None:
    """While the database is being made again after an update: how many runs are in, and of how many. Else None."""
    return opened().remade()


def worker_alive() -> bool:
    """Whether somebody carries out runs; one that is just starting counts."""
    running = [(at, root) for at, root, process in _started if process.poll() is None]
    return any(root == data_root() and time.monotonic() < at + START_S for at, root in running) or supervisor.alive()

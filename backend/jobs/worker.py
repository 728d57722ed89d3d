"""The worker: carries out one run in this process, and leaves what it made in the run directory.

Its lock says that it lives. Under the lock it takes a pending run, sends what is printed to log.txt, builds the config from
job.json, calls the recipe, and writes result.json first and the state after it: a run with a result is a finished run,
whoever dies in between. Knows recipes by name only; an import error is a failed run.
"""

import errno
import logging
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

from backend import __version__, rundir
from backend.config import RECIPES, Config
from backend.errors import Canceled, ConfigError, DiffspectError, InputError
from backend.jobs import executor, limits, locks, logs, memory, recipes, runs
from backend.jobs.report import Reporter

CODES = {"completed": 0, "failed": 1, "canceled": 3, "interrupted": 4}
NOT_MINE = 75                           # exit code: someone else has the run, or it is not pending
GENTLE = 5                              # nice value of the heavy lane: an upload and the pages go first
TAKE_S = 5.0                            # the app or supervisor may hold the lock for a moment
OTHER = ("This machine of the cluster has version {} of the program, the dashboard's has {}. Install the same on all of them.")
STOPPED = "Diffspect was stopped before the run was finished. Resume goes on from the last good checkpoint."
log = logging.getLogger("worker")

Echo = Callable[[dict[str, Any]], None]


def main(run_id: str | None, limited: bool = False) -> int:
    """Carry out a pending run; without an id get warm, then wait for one on stdin. `limited`: this process is there for it alone, and is
    held to the limits of its recipe. Returns the exit code."""
    if run_id is None:
        warm_up()
        run_id = sys.stdin.readline().strip()
        if not run_id:
            return 0
    if recipes.lane(rundir.recipe_of(run_id)) == "heavy":
        os.nice(GENTLE)
    if limited:
        limits.lay_down(rundir.recipe_of(run_id))
    run_dir = rundir.run_path(run_id)
    with locks.hold(run_dir / "lock", TAKE_S) as taken, logs.kept("worker"):
        if not taken or rundir.read_json(run_dir / "state.json")["state"] != "pending":
            return NOT_MINE
        began = time.monotonic()
        log.info("%s: begins", run_id, extra={"run_id": run_id})
        with stoppable():
            state = carry_out(run_dir)
        log.info("%s: %s after %.1f s", run_id, state, time.monotonic() - began, extra={"run_id": run_id})
        return CODES[state]


class Stopped(BaseException):
    """SIGTERM: a person who canceled has waited, or the machine or the service is going down."""


@contextmanager
def stoppable() -> Iterator[None]:
    """SIGTERM ends a run as an event meanwhile; a second one may not disturb the ending. What the run forked dies of it, as ever."""
    mine = os.getpid()

    def stop(number: int, frame: FrameType | None) -> NoReturn:
        if os.getpid() != mine:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            os.kill(os.getpid(), signal.SIGTERM)
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        raise Stopped

    signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def foreground(config: Config, plant: str, echo: Echo, run_id: str = "") -> Path:
    """Make a run and carry it out here, in the caller's process. No supervisor can take it: it appears with its lock held."""
    os.environ.update(executor.offline())
    staged = rundir.create(recipes.name_of(config), config.to_json(), plant=plant, by="command line", state="staged", run_id=run_id)
    with locks.hold(staged / "lock"):
        rundir.set_state(staged, "running", pid=os.getpid(), started_at=rundir.now())
        run_dir = rundir.publish(staged)
        carry_out(run_dir, echo)
        executor.signal_remaining(run_dir, signal.SIGKILL)       # what it forked: no supervisor may have seen it
    return run_dir


def again(run_id: str, echo: Echo, waiting: bool = False) -> Path:
    """Take a run up in the caller's process, whatever ended it: its recipe goes on from its last good checkpoint. `waiting`: one that
    waits in the queue too. Raises ConfigError."""
    os.environ.update(executor.offline())
    run_dir = rundir.run_path(run_id)
    with locks.hold(run_dir / "lock", TAKE_S) as taken:
        now = rundir.read_json(run_dir / "state.json")
        pending = now["state"] == "pending"
        if not taken or (pending and not waiting):
            raise ConfigError("This run is still going on. Wait for it to end, or cancel it first.")
        if now["state"] == "completed":
            raise ConfigError("This run is complete; there is nothing to resume.")
        (run_dir / "cancel").unlink(missing_ok=True)
        rundir.set_state(run_dir, "running", attempt=now["attempt"] + (not pending))
        carry_out(run_dir, echo)
        executor.signal_remaining(run_dir, signal.SIGKILL)
    return run_dir


def carry_out(run_dir: Path, echo: Echo | None = None) -> str:
    """Run the recipe; the caller holds the lock. Returns the state it ended in."""
    rundir.set_state(run_dir, "running", message="", pid=os.getpid(), started_at=rundir.now(), finished_at=None, on=executor.on_cluster())
    with printed_to(run_dir / "log.txt"):
        state, message = outcome(run_dir, echo)
    rundir.set_state(run_dir, state, message=message, finished_at=rundir.now())
    return state


def outcome(run_dir: Path, echo: Echo | None) -> tuple[str, str]:
    killed_before = memory.kills()
    try:
        call(run_dir, Reporter(run_dir, echo))
        return "completed", ""
    except (Canceled, KeyboardInterrupt):
        return "canceled", "Canceled."
    except Stopped:
        return ("canceled", "Canceled.") if (run_dir / "cancel").exists() else ("interrupted", STOPPED)
    except (Exception, SystemExit) as error:
        traceback.print_exc()
        return "failed", sentence(error, memory.kills() > killed_before)


def call(run_dir: Path, report: Reporter) -> None:
    report.check()
    if (theirs := os.environ.get("DIFFSPECT_VERSION", __version__)) != __version__:
        raise DiffspectError(OTHER.format(__version__, theirs))
    name, values = _job(run_dir)
    try:
        recipe = recipes.load(name, spread=bool(executor.on_cluster()))
    except ImportError as error:
        raise DiffspectError(f"The recipe {name!r} cannot be loaded: {error}. The log has the details.") from error
    result = recipe(RECIPES[name].from_json(values), run_dir, report)
    report.flush()
    rundir.write_json(run_dir / "result.json", result or {})


def _job(run_dir: Path) -> tuple[str, dict[str, Any]]:
    """The recipe and its settings. Raises InputError where job.json is no longer what was written."""
    if runs.readable(run_dir) and (job := runs.job(run_dir))["recipe"] in RECIPES:
        return str(job["recipe"]), dict(job["config"])
    raise InputError("The description of this run, job.json, is damaged. Start it anew.")


def sentence(error: BaseException, kernel_killed: bool) -> str:
    """Why the run failed, for the person who reads it."""
    if kernel_killed:
        return memory.SENTENCE
    if memory.ran_out(error):
        return limits.reached() or memory.SENTENCE
    if isinstance(error, DiffspectError):
        return str(error)
    if isinstance(error, OSError) and error.errno == errno.ENOSPC:
        return "The disk is full. Free some space, then resume."
    first_line = f"{type(error).__name__}: {error}".splitlines()[0][:300].rstrip(". :")
    return f"Something went wrong: {first_line}. The log has the details."


@contextmanager
def printed_to(log: Path) -> Iterator[None]:
    """Send everything printed meanwhile, by C libraries and child processes too, to the end of the log."""
    sys.stdout.flush()
    sys.stderr.flush()
    saved = [(n, os.dup(n)) for n in (1, 2)]
    fd = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
    for n, _ in saved:
        os.dup2(fd, n)
    os.close(fd)
    try:
        yield
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        for n, before in saved:
            os.dup2(before, n)
            os.close(before)


def warm_up() -> None:
    """Load what an inspection needs, and the models in use, before there is one to do. Failing here costs only the warmth."""
    try:
        recipes.load("inspect")
        import_module("backend.inspection.inspect").warm_up()                        # kept there for the run that comes
    except Exception as error:
        logging.getLogger(__name__).warning("The worker stays cold: %s", error)

"""The supervisor: starts pending runs, watches them, ends those that must end. One per data folder, by its lock.

`python -m backend worker`. It lives on when no page is open and may die at any time: all it knows is in the run
directories, and runs that outlive it are adopted by the next. Two lanes, heavy and light, so that a small upload goes at
once while a training runs. State is changed only under the run's lock. A child of it, the `messenger`, tells of alarms. Knows nothing of
recipes beyond their lane.
"""

import logging
import os
import shutil
import signal
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

from backend import __version__, formats, rundir
from backend.config import data_root
from backend.jobs import cluster, executor, exposition, limits, locks, logs, memory, recipes, runs, watching, waves
from backend.jobs.worker import NOT_MINE

POLL_S, LOOK_S = 0.25, 0.02                                       # between two rounds; between two looks whether a run came, meanwhile
GRACE_S = float(os.environ.get("DIFFSPECT_CANCEL_GRACE", 10))     # from the wish to cancel to SIGTERM
KILL_S = float(os.environ.get("DIFFSPECT_KILL_GRACE", 5))         # from SIGTERM to SIGKILL
WARM = os.environ.get("DIFFSPECT_WARM", "on") != "off"            # off: no inspector kept ahead, where memory is scarce
REST_S = 60.0                                                     # before a warm worker that died by itself is replaced
MESSENGER = os.environ.get("DIFFSPECT_MESSENGER", "on") != "off"  # off: no message is sent, and nobody looks while no app is there
MESSENGER_S = 10.0                                                # before it starts: what people wait for goes first
TRIES = 3                                                         # of a run whose machine of the cluster is gone, by itself
PLANS_S = 1.0                                                     # between two looks at experiments: their runs take minutes
RESUME = "Resume goes on from the last good checkpoint."
HANDED = "Handed to the cluster; it begins there as soon as there is room."
AGAIN = "The machine of the cluster that carried it out is gone; it goes on at another."
log = logging.getLogger("supervisor")


def lock_path() -> Path:
    return data_root() / "supervisor.lock"


def alive() -> bool:
    return locks.holder(lock_path()) is not None


def retire_older() -> None:
    """End a supervisor that an earlier version of the program left running: it knows neither new recipes nor new rules. Its runs go on, and
    are adopted by the next."""
    try:
        version = rundir.read_json(data_root() / "supervisor.json")["code_version"]
    except (OSError, ValueError, KeyError, TypeError):
        return
    if version != __version__ and (holder := locks.holder(lock_path())) is not None:
        with suppress(ProcessLookupError, PermissionError):
            os.kill(holder, signal.SIGTERM)


def main() -> int:
    """Supervise this data folder until SIGTERM. Runs that go on then are left to themselves and adopted later."""
    data_root().mkdir(parents=True, exist_ok=True)
    formats.enter(rundir.runs_root())
    with locks.hold(lock_path()) as taken, logs.kept("supervisor"):
        if not taken:
            log.info("Another supervisor works on %s already.", data_root())
            return 0
        rundir.write_json(data_root() / "supervisor.json",
                          dict(pid=os.getpid(), code_version=__version__, started_at=rundir.now()))
        sweep()
        mine = Supervisor(executor.Local(), cluster.Cluster() if cluster.chosen() else None)
        with exposition.serving(mine.heart):
            mine.serve()
    return 0


def _changed() -> int:
    """Another number once a run has come or gone."""
    try:
        return os.stat(rundir.runs_root()).st_mtime_ns
    except FileNotFoundError:
        return 0


def sweep() -> None:
    """Remove what a killed submit or removal left half done: dotted run directories that nothing has touched for a day."""
    for path in rundir.runs_root().glob(".*"):
        if path.is_dir() and path.stat().st_mtime < time.time() - 86_400:
            shutil.rmtree(path, ignore_errors=True)


@dataclass
class Watch:
    """A run that this supervisor started, or found running."""

    job: executor.Job | cluster.RayJob | None                    # None: adopted, some other process's child
    attempt: int                                                 # which one: a person may resume it before its end is seen here
    kills: int = field(default_factory=memory.kills)
    asked_at: float | None = None                                # when the wish to cancel was seen
    signaled: int = 0                                            # the last signal sent
    silence: limits.Silence | None = None                        # of one that this supervisor started
    ended_for: str = ""                                          # why this supervisor ended it


class Supervisor:
    def __init__(self, local: executor.Local, many: cluster.Cluster | None = None) -> None:
        self.executor, self.cluster = local, many
        self.watched: dict[str, Watch] = {}
        self.ready: executor.Job | None = None                   # the warm worker
        self.warm_from = 0.0                                     # when one may be started again, after one that died
        self.plans_at = 0.0                                      # when experiments are looked at next
        self.messenger: executor.Job | None = None
        self.messenger_from = time.monotonic() + MESSENGER_S
        self.heart = exposition.Heart()
        self.stopping = False

    def serve(self) -> None:
        signal.signal(signal.SIGTERM, self._stop)
        signal.signal(signal.SIGINT, self._stop)
        held = os.stat(lock_path()).st_ino
        while not self.stopping and self._is_ours(held):
            before = _changed()
            try:
                self.step()
            except (OSError, ValueError):                        # a full disk or one damaged file must not end it
                log.exception("A round failed; the next one tries again.")
                time.sleep(2)
            self._rest(before)
        if self.ready is not None:
            self.ready.dismiss()
        if self.messenger is not None:
            self.messenger.signal(signal.SIGTERM)

    def _rest(self, before: int) -> None:
        """Until the next round, which is at once where a run came since `before`: somebody waits in front of it."""
        until = time.monotonic() + POLL_S
        while time.monotonic() < until and not self.stopping and _changed() == before:
            time.sleep(LOOK_S)

    def _stop(self, number: int, frame: FrameType | None) -> None:
        self.stopping = True

    def _is_ours(self, inode: int) -> bool:
        """False once the data folder was removed or replaced under us."""
        with suppress(FileNotFoundError):
            return os.stat(lock_path()).st_ino == inode
        return False

    def step(self) -> None:
        """One round."""
        self.heart.beat()
        self._reap()
        waiting = []
        if time.monotonic() >= self.plans_at:
            waves.see_to_all()
            watching.see_to_all()
            self._see_to_logs()
            self.plans_at = time.monotonic() + PLANS_S
        for run_dir, state in runs.open_runs():
            if waves.carried(run_dir, state):
                continue
            if state["state"] == "pending":
                waiting.append(run_dir)
            elif run_dir.name not in self.watched:
                self._adopt(run_dir, state)
        for run_id, watch in self.watched.items():
            self._escalate(rundir.runs_root() / run_id, watch)
            self._listen(rundir.runs_root() / run_id, watch)
        for run_dir in waiting:
            self._claim(run_dir)
        self._keep_warm()
        self._keep_messenger()

    def _see_to_logs(self) -> None:
        logs.turn()
        for run_id in self.watched:
            logs.cut(rundir.runs_root() / run_id / "log.txt")

    def _reap(self) -> None:
        """Settle the runs whose process has ended. An adopted one has when its lock is free."""
        for run_id, watch in list(self.watched.items()):
            run_dir = rundir.runs_root() / run_id
            if isinstance(watch.job, cluster.RayJob) and run_dir.exists() and runs.state(run_dir)["state"] == "canceled":
                watch.job.signal(signal.SIGTERM)                 # it may wait for a place yet; nobody waits for that
                del self.watched[run_id]
                continue
            code = watch.job.poll() if watch.job is not None else None
            if code is not None or (watch.job is None and locks.holder(run_dir / "lock") is None):
                del self.watched[run_id]
                said = watch.job.cluster.forget(watch.job.job_id) if isinstance(watch.job, cluster.RayJob) else ""
                if run_dir.exists():                             # it is not after the demo was removed
                    self._settle(run_dir, watch, code, said)

    def _settle(self, run_dir: Path, watch: Watch, code: int | None, said: str = "") -> None:
        """Give a run its last state where its worker could not, and end what it left behind. One whose machine is gone is tried again."""
        with locks.hold(run_dir / "lock", 1) as taken:
            if not taken or code == NOT_MINE or _begins_anew(run_dir, code):
                return
            executor.signal_remaining(run_dir, signal.SIGKILL)
            now = rundir.read_json(run_dir / "state.json")
            if now["state"] in rundir.OPEN_STATES and now["attempt"] == watch.attempt:
                state, message = verdict(run_dir, code, memory.kills() > watch.kills, watch.ended_for, said)
                log.info("%s: %s. %s", run_dir.name, state, message, extra={"run_id": run_dir.name})
                lost = now.get("lost", 0) + (code == cluster.LOST)
                rundir.set_state(run_dir, state, message=message, finished_at=rundir.now(), lost=lost)
                if state == "interrupted" and code == cluster.LOST and lost < TRIES:
                    rundir.set_state(run_dir, "pending", message=AGAIN, attempt=now["attempt"] + 1, finished_at=None)

    def _adopt(self, run_dir: Path, state: dict[str, Any]) -> None:
        """Watch a run that someone else started: an earlier supervisor, or a command line. Dead ones settle next round."""
        log.info("%s: found running as process %s", run_dir.name, state["pid"], extra={"run_id": run_dir.name})
        job = self.cluster.find(state["on"]) if self.cluster and state.get("on") else None
        self.watched[run_dir.name] = Watch(job, state["attempt"])

    def _escalate(self, run_dir: Path, watch: Watch) -> None:
        """A wish to cancel: the recipe may stop by itself, then SIGTERM, then SIGKILL, to all that belongs to the run."""
        if not (run_dir / "cancel").exists():
            return
        now = time.monotonic()
        watch.asked_at = watch.asked_at or now
        due = signal.SIGKILL if now > watch.asked_at + GRACE_S + KILL_S else signal.SIGTERM if now > watch.asked_at + GRACE_S else 0
        if due and due != watch.signaled:
            log.info("%s: does not stop by itself; sent %s", run_dir.name, signal.Signals(due).name, extra={"run_id": run_dir.name})
            watch.signaled = due
            self._signal(run_dir, watch, due)

    def _listen(self, run_dir: Path, watch: Watch) -> None:
        """One that opens files from outside and says nothing any more is ended: it would keep its lane for ever."""
        if watch.silence is None or watch.ended_for or runs.state(run_dir)["state"] != "running":
            return
        if watch.silence.too_long(run_dir):
            watch.ended_for = watch.silence.sentence
            log.warning("%s: %s", run_dir.name, watch.ended_for, extra={"run_id": run_dir.name})
            self._signal(run_dir, watch, signal.SIGKILL)

    def _signal(self, run_dir: Path, watch: Watch, number: int) -> None:
        if watch.job is not None:
            watch.job.signal(number)
        elif not runs.state(run_dir).get("on") and (holder := locks.holder(run_dir / "lock")) is not None:      # else no pid of ours
            with suppress(ProcessLookupError, PermissionError):
                os.kill(holder, number)
        executor.signal_remaining(run_dir, number)

    def _claim(self, run_dir: Path) -> None:
        """Start a pending run if its lane is free. The lock makes it the worker's: a second start ends at once."""
        recipe, attempt = rundir.recipe_of(run_dir.name), runs.state(run_dir)["attempt"]
        if run_dir.name in self.watched or locks.holder(run_dir / "lock") is not None:
            return
        if self.cluster is not None and recipes.for_cluster(recipe, runs.job(run_dir)["config"]):
            if not self.cluster.has_room(recipe):
                return
            job: executor.Job | cluster.RayJob = self.cluster.start(run_dir.name, attempt)
            self._tell(run_dir)
        elif self._busy(recipes.lane(recipe)):
            return
        else:
            job = (self._hand_over if recipe in recipes.INSPECTOR else self.executor.start)(run_dir.name)
        self.watched[run_dir.name] = Watch(job, attempt, silence=limits.Silence(recipe))

    def _tell(self, run_dir: Path) -> None:
        """Why a run of the cluster still waits, for the person who does too."""
        with locks.hold(run_dir / "lock") as taken:
            now = rundir.read_json(run_dir / "state.json")
            if taken and now["state"] == "pending":
                rundir.set_state(run_dir, "pending", message=now["message"] or HANDED)

    def _busy(self, lane: str) -> bool:
        """The heavy lane is the device's: a training started on the command line fills it too. What stands for days is in nobody's way,
        and neither is what a cluster does."""
        return lane != "standing" and any(recipes.lane(rundir.recipe_of(run_id)) == lane and (w.job is not None or lane == "heavy")
                   for run_id, w in self.watched.items() if not isinstance(w.job, cluster.RayJob))

    def _hand_over(self, run_id: str) -> executor.Job:
        ready, self.ready = self.ready, None
        if ready is not None and ready.hand(run_id):
            return ready
        return self.executor.start(run_id)

    def _keep_warm(self) -> None:
        if self.ready is not None and self.ready.poll() is not None:
            log.info("The warm worker died (exit code %s).", self.ready.poll())
            self.ready, self.warm_from = None, time.monotonic() + REST_S
        if WARM and self.ready is None and time.monotonic() >= self.warm_from:
            self.ready = self.executor.warm()

    def _keep_messenger(self) -> None:
        if self.messenger is not None and self.messenger.poll() is not None:
            log.info("The messenger ended (exit code %s).", self.messenger.poll())
            self.messenger, self.messenger_from = None, time.monotonic() + REST_S
        if MESSENGER and self.messenger is None and time.monotonic() >= self.messenger_from:
            self.messenger = executor.Job(executor.spawn("messenger"))


def _begins_anew(run_dir: Path, code: int | None) -> bool:
    """Whether a run never began: it found no room at the cluster for too long, or its machine was gone before. It is handed over again."""
    return code in (cluster.LOST, cluster.WAITED) and rundir.read_json(run_dir / "state.json")["state"] == "pending"


def verdict(run_dir: Path, code: int | None, kernel_killed: bool, ended_for: str = "", said: str = "") -> tuple[str, str]:
    """State and message of a run whose worker is gone without a word. A result means it was finished. `said`: a cluster's words on it."""
    if (run_dir / "result.json").exists():
        return "completed", ""
    if (run_dir / "cancel").exists():
        return "canceled", "Canceled."
    if ended_for:
        return "failed", ended_for
    if kernel_killed and code in (None, -signal.SIGKILL):
        return "failed", memory.SENTENCE
    if code == cluster.LOST:
        return "interrupted", f"The machine of the cluster that carried it out is gone. {RESUME} {said}".strip()
    how = f" ({signal.Signals(-code).name})" if code is not None and code < 0 else f" (exit code {code})" if code else ""
    return "interrupted", f"The worker stopped before the run was finished{how}. {RESUME} {said}".strip()

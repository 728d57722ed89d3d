"""Preflight: what this machine and this data folder are like, a line each: state in a word, what it means, what to do.

    python -m backend preflight        the page System shows the same

Nothing here changes anything but for a few kilobytes that are written and removed again. A check that itself fails says so and keeps none
of the others from being made. Knows nothing of pages.
"""

import os
import platform
import re
import secrets
import shutil
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from importlib import metadata
from pathlib import Path

from packaging.requirements import InvalidRequirement, Requirement

from backend import rundir
from backend.config import data_root
from backend.jobs import cluster, events, machine, supervisor
from backend.jobs.executor import ROOT
from backend.jobs.machine import Line
from backend.store import archive, mounts

LEAST_FREE, LEAST_SHARE = 2 * 10**9, 0.05           # as inspection.keeping: below, of good pictures only few are kept
SYNCS, SLOW_MS, TOO_SLOW_MS = 20, 20.0, 100.0       # an SSD takes 0.3 to 3 ms; a decision waits for four
SKEW_S, BACKUP_DAYS = 2.0, 7


def lines() -> list[Line]:
    """All checks, in the order in which a person would care. About half a second, most of it waiting for the disk."""
    return [line for check in _CHECKS for line in _made(check)]


def _made(check: Callable[[], Line | None]) -> list[Line]:
    try:
        line = check()
        return [line] if line else []
    except Exception as error:                       # a machine that is odd in one thing is to be told of all others
        name = check.__name__.strip("_").replace("_", " ").capitalize()
        return [Line(name, "look", f"This could not be checked: {type(error).__name__}: {error}")]


# the data folder -----------------------------------------------------------------------------------------------------------


def _data_folder() -> Line:
    root = data_root()
    try:
        with _scratch() as file:
            file.write_bytes(b"x")
    except OSError as error:
        return Line("Data folder", "bad", f"{root} cannot be written: {error.strerror}. Nothing can be inspected or decided.",
                    "Give the account that runs the program this folder, mount it for writing, or set DIFFSPECT_DATA to another.")
    if (root / archive.MARK).exists():
        return Line("Data folder", "bad", f"{root} was restored only in part; {archive.MARK} in it says what is missing.",
                    "Restore the backup into another empty folder and use that one.")
    return Line("Data folder", "good", f"{root} can be written.")


def _kind_of_disk() -> Line | None:
    point, kind = mounts.of(data_root())
    if not kind:
        return None
    if mounts.is_share(kind):
        return Line("Kind of disk", "bad", f"The data folder lies on a network share ({kind}, at {point}): its locks and the database "
                    "cannot be trusted there, so the program does not start on it.",
                    "Set DIFFSPECT_DATA to a folder on a disk of this machine; use the share for backups.")
    if kind in ("tmpfs", "ramfs"):
        return Line("Kind of disk", "bad", f"The data folder lies in memory ({kind}, at {point}): all of it is gone at the next start.",
                    "Set DIFFSPECT_DATA to a folder on a disk.")
    if kind == "overlay":
        return Line("Kind of disk", "look", "The data folder lies in a container's own layer and goes when the container goes.",
                    "Mount a volume for it, or a folder of the machine.")
    return Line("Kind of disk", "good", f"A disk of this machine ({kind}, at {point}).")


def _space() -> Line:
    total, _, free = shutil.disk_usage(data_root())
    limit = max(LEAST_FREE, LEAST_SHARE * total)
    said = f"{free / 1e9:,.1f} of {total / 1e9:,.0f} GB are free."
    if free >= 2 * limit:
        return Line("Disk space", "good", said)
    do = "Let old things go (Retention, below), or make room on the disk."
    if free >= limit:
        return Line("Disk space", "look", f"{said} Below {limit / 1e9:,.1f} GB only few good pictures are kept.", do)
    return Line("Disk space", "bad", f"{said} Of good pictures only few are kept; when it is full, nothing can be inspected.", do)


def _speed_of_disk() -> Line:
    took = []
    with _scratch() as file:
        for _ in range(SYNCS):
            began = time.perf_counter()
            rundir.write_bytes(file, b"x" * 4096)
            took.append(1000 * (time.perf_counter() - began))
    ms = statistics.median(took)
    said = f"Writing 4 kB for good takes {ms:.1f} ms (median of {SYNCS}; the slowest {max(took):.0f} ms)."
    if ms < SLOW_MS:
        return Line("Speed of disk", "good", said)
    return Line("Speed of disk", "look" if ms < TOO_SLOW_MS else "bad", f"{said} Each click that decides something waits for four of them.",
                "Put the data folder on an SSD, or see what else writes to this disk.")


@contextmanager
def _scratch() -> Iterator[Path]:
    """A file in the data folder that is gone afterwards."""
    file = data_root() / f".preflight-{os.getpid()}-{secrets.token_hex(2)}"
    try:
        yield file
    finally:
        with suppress(OSError):
            file.unlink(missing_ok=True)


# time ----------------------------------------------------------------------------------------------------------------------

def _clock() -> Line:
    now, jumped = datetime.now(UTC), machine.jumped()
    newest = next((p for p in rundir.find()), None)
    ahead = (datetime.strptime(newest.name[:22], "%Y%m%d-%H%M%S-%f").replace(tzinfo=UTC) - now).total_seconds() if newest else 0.0
    do = "Let the system keep its time (NTP), then look whether the newest entries stand where they belong."
    if ahead > 60:
        return Line("Clock", "bad", f"The newest entry is of {timedelta(seconds=round(ahead))} from now: the clock was set back, so what "
                    "comes now sorts before what was there.", do)
    if abs(jumped) > SKEW_S:
        return Line("Clock", "look", f"The clock jumped by {jumped:+.0f} s since the program started.", do)
    with _scratch() as file:
        file.write_bytes(b"x")
        skew = file.stat().st_mtime - time.time()
    if abs(skew) > SKEW_S:
        return Line("Clock", "look", f"The disk's clock and the machine's are {skew:+.0f} s apart.", do)
    return Line("Clock", "good", f"{now:%Y-%m-%d %H:%M} UTC, steady since the program started.")


def _time_zone() -> Line | None:
    here, taken_back = events.time_zone(), rundir.undone()
    newest = next((p for p in rundir.completed("calendar") if p.name not in taken_back), None)
    if newest is None:
        return None
    plant = str(rundir.read_json(newest / "job.json")["config"].get("time_zone", "UTC"))
    if plant == here:
        return Line("Time zone", "good", f"{plant}, of the plant's calendar and of this machine.")
    return Line("Time zone", "look", f"The plant's calendar says {plant}, this machine {here}. Shifts and days follow the calendar.",
                "Nothing, where the machine stands elsewhere; else set the calendar.")


# the program ---------------------------------------------------------------------------------------------------------------


def _versions() -> Line:
    lock = ROOT / "requirements.lock"
    if not lock.exists():
        return Line("Versions", "look", "There is no requirements.lock beside the program to compare with.")
    other = []
    for text in re.findall(r"^([A-Za-z0-9][^\s;]*==[^\\\n]+)", lock.read_text(), re.M):
        with suppress(InvalidRequirement):
            wanted = Requirement(text.strip())
            if wanted.marker is None or wanted.marker.evaluate():
                other += _differs(wanted)
    if not other:
        return Line("Versions", "good", f"All packages are those of the lock file; Python {platform.python_version()}.")
    shown = ", ".join(other[:4]) + (" …" if len(other) > 4 else "")
    return Line("Versions", "look", f"{len(other)} packages differ from the lock file: {shown}. What was measured was measured with those "
                "of the lock.", "Install again from the lock file.")


def _differs(wanted: Requirement) -> list[str]:
    try:
        there = metadata.version(wanted.name)
    except metadata.PackageNotFoundError:
        return [f"{wanted.name} is missing"]
    return [] if wanted.specifier.contains(there, prereleases=True) else [f"{wanted.name} {there}"]


def _worker() -> Line:
    if supervisor.alive():
        return Line("Worker", "good", "Runs are carried out.")
    return Line("Worker", "look", "Nobody carries out runs now. The dashboard starts a worker by itself when it is opened.",
                "Open the dashboard, or start `python -m backend worker`.")


def _cluster() -> Line | None:
    """Only where runs go to one."""
    if not cluster.chosen():
        return None
    try:
        has = cluster.size(5)
    except ConnectionError as error:
        return Line("Cluster", "bad", f"{error}. Runs for it wait; uploads are inspected here.",
                    "Start Ray, or see where DIFFSPECT_RAY leads.")
    said = f"{len(has.nodes)} nodes with {has.cpus:g} cores, {has.gpus:g} GPUs at {cluster.address()}."
    asked = cluster.Share.of("train-detector", has)
    if has.nodes and not has.fits(asked):
        return Line("Cluster", "bad", f"{said} None of them has the {asked.words} that a training asks for.",
                    "Ask for less: DIFFSPECT_RAY_CPUS, DIFFSPECT_RAY_GPUS.")
    if has.cpus:
        return Line("Cluster", "good", said)
    return Line("Cluster", "bad", said, "Start Ray on a node, too: the head has no cores to give.")


def _last_backup() -> Line:
    newest = next((p for p in rundir.completed("backup")), None)
    if newest is None:
        return Line("Backup", "look", "No backup was made from here yet.", "Make one (below), to another disk or machine.")
    made = datetime.fromisoformat(rundir.read_json(newest / "state.json")["finished_at"])
    to, days = rundir.read_json(newest / "job.json")["config"].get("to", ""), (datetime.now(UTC) - made).days
    said = f"The last one was made {'today' if days == 0 else f'{days} days ago'}, to {to}."
    return Line("Backup", "good" if days <= BACKUP_DAYS else "look", said, "" if days <= BACKUP_DAYS else "Make another.")


_CHECKS: tuple[Callable[[], Line | None], ...] = (
    _data_folder, _kind_of_disk, _space, _speed_of_disk, machine.memory, machine.processor, machine.graphics, _clock, _time_zone, _versions,
    _worker, _cluster, _last_backup)

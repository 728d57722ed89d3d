"""The recipe `watch`: a folder that a camera drops pictures into, inspected as they come until a person stops it.

    dropped: what is new and whole ─► reading, engine, desk, as for a batch ─► a group every two seconds ─► watchlog: counts, or never was

Each content is inspected once, through restarts and kills: see `watchlog`. Nothing in the folder is moved unless a person names a folder
for what is done (`done`). After some hours the run ends and names its successor (`next`), so that no run, and nothing held in memory,
grows without end; whoever carries runs out makes that one. Beside its parts a run has `watch.json`, which says how it stands.
Knows nothing of jobs or of the store.
"""

import ctypes
import os
import shutil
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

from backend import rundir
from backend.config import Watch
from backend.data import files
from backend.data.files import Refusal
from backend.errors import Canceled, ConfigError, InputError
from backend.inspection import capture, reading
from backend.inspection.dropped import POLL_S, Drop, Folder
from backend.inspection.engine import load
from backend.inspection.inspect import Desk, _beside
from backend.inspection.keeping import Keeper
from backend.inspection.looking import WITHOUT, Looked
from backend.inspection.reading import Picture
from backend.inspection.watchlog import Index, WatchLog

GATHER_S, FULL = 2.0, 128                # a group: what came in so long, or so many at once
MOST_GROUPS, MOST_PICTURES = 2_000, 200_000      # of one run; then its successor goes on
RECENT_S = 10.0                          # the pace is taken over so long
TELL_S = 1.0                             # between two words to those who look on
PROMOTED_S = 30.0                        # between two looks whether another model is in use by now
TRIM_S = 60.0                            # between two returns of free memory
NO_FOLDER = "There is no folder {}. Name one that the camera writes into."

Report = Callable[..., None]


def run(config: Watch, run_dir: Path, report: Report) -> dict[str, Any]:
    """Watch until a person stops it, or its successor goes on. Run again after a kill, it goes on."""
    log = WatchLog(run_dir)
    if "result" not in log.notes:
        log.note(result=_watched(config, run_dir, log, report))
    return dict(log.notes["result"])


def _watched(config: Watch, run_dir: Path, log: WatchLog, report: Report) -> dict[str, Any]:
    # What a person may have set wrongly is said before any work; a folder that is away for a while later on is waited for.
    root, done = reading.place(config.images), Path(config.done).expanduser() if config.done else None
    if not root.is_dir() and not Index.place(root).exists():         # a successor may begin while the folder is away
        raise InputError(NO_FOLDER.format(files.printable(str(root))))
    if done is not None and done.resolve() == root.resolve():
        raise ConfigError("The folder for what is done (done) cannot be the watched folder itself.")
    clock, unit, count = Arrivals(config, datetime.now(UTC), capture.plant_zone()), capture.unit_finder(config), capture.counter(config)
    with closing(Index(root, run_dir)) as index:
        report(step=log.accepted, total=log.accepted, message="Loading the model")
        wanted = log.notes.get("model_id") or config.model
        engine = load(rundir.find_model(wanted, "detector"), config.runtime).cutting(config.tile)
        beside = _beside(config.anomaly, log.notes, config.runtime)
        log.note(model_id=engine.model_id, anomaly_model_id=beside.model_id if beside else WITHOUT)
        desk = Desk(config, run_dir.name, engine, beside, clock, unit, count, Keeper())
        watcher = Watcher(Folder(root, config.settle, index.known, done), index, log, desk, clock, done)

        # Until it is stopped: what is ready, a group at a time.
        why = watcher.goes(lambda: (run_dir / "cancel").exists(), report, config)
        index.forget()
    with suppress(Canceled):
        watcher.tell(report, "Stopped" if why == "stopped" else "Its successor goes on", now=True)
    for warning in desk.warnings:
        print(warning)
    goes_on = why == "full" and not (run_dir / "cancel").exists()     # who presses Stop now means the watch, not this run of it
    more = {"next": rundir.new_id("watch", datetime.now(UTC))} if goes_on else {}
    return dict(log.counts, floor=desk.floor, warnings=desk.warnings, model_id=engine.model_id, model_name=engine.name,
                runtime=engine.runtime, **more)


def trimmed() -> None:
    """Give pages of the heap that lie free between others back to the system, which glibc does at its end only: watching for days, it would
    keep the scatter of all that ever was. A millisecond; elsewhere than with glibc nothing happens."""
    if trim := getattr(_libc(), "malloc_trim", None):
        trim(0)


@cache
def _libc() -> ctypes.CDLL | None:
    return ctypes.CDLL(None) if os.name == "posix" else None


class Arrivals(capture.Clock):
    """Tells when a picture was taken; where nothing else does, when its file was written."""

    written: dict[str, int] = {}

    def arrived(self, name: str) -> datetime:
        now, at = datetime.now(UTC), self.written.get(name)
        return now if at is None else min(now, datetime.fromtimestamp(at / 1e9, UTC))


@dataclass
class Watcher:
    """The loop: look, take what is ready, write it down, say how it stands."""

    folder: Folder
    index: Index
    log: WatchLog
    desk: Desk
    clock: Arrivals
    done: Path | None
    pace: deque[tuple[float, int]] = field(default_factory=deque)      # when so many had been inspected
    told_at: float = 0.0
    wrote_at: float = 0.0
    asked_at: float = field(default_factory=time.monotonic)
    trim_at: float = 0.0
    last_at: str = ""                                                  # when the last picture was inspected

    def goes(self, asked: Callable[[], bool], report: Report, config: Watch) -> str:
        """Until it is 'stopped' or 'full'."""
        while not asked():
            try:
                self.tell(report)
            except Canceled:
                break
            self.folder.look()
            for drop in self.folder.left:                              # a kill came before it was moved
                self.away(drop)
            self.folder.left = []
            drops = self.folder.ready(FULL)
            if drops and (len(drops) == FULL or time.monotonic() - self.wrote_at >= GATHER_S):
                self.group(drops)
            else:
                time.sleep(POLL_S / 4)
            if time.monotonic() >= self.trim_at:
                self.trim_at = time.monotonic() + TRIM_S
                trimmed()
            if self.full(config):
                return "full"
        return "stopped"

    def full(self, config: Watch) -> bool:
        """Whether the next run should go on: this one is large, or another model was put to use."""
        if self.log.number >= MOST_GROUPS or self.log.accepted >= MOST_PICTURES:
            return True
        if time.monotonic() - self.asked_at < PROMOTED_S:
            return False
        self.asked_at = time.monotonic()
        beside = self.desk.beside.model_id if self.desk.beside else ""
        return self.log.number > 0 and (not config.model and rundir.promoted_model("detector") != self.desk.engine.model_id
                                        or not config.anomaly.strip() and (rundir.promoted_model("anomaly") or "") != beside)

    def group(self, drops: list[Drop]) -> None:
        """Inspect these files and write down what was found."""
        by_name: dict[str, Drop] = {}
        for drop in drops:
            by_name.setdefault(drop.name, drop)                        # two names may print alike: the other one waits
        self.clock.written = {name: drop.mtime_ns for name, drop in by_name.items()}
        dealt, refused = dict(by_name), set[str]()
        self.wrote_at = time.monotonic()
        with reading.pictures([drop.entry() for drop in by_name.values()], self.desk.engine, self.desk.beside) as found, \
                closing(self.desk.looked(self._new(found, by_name, dealt, refused), {})) as looked:
            group = list(looked)
        if group:
            self.log.counts["defective"] += self._defective(group)
            self.desk.write(group, self.log)
        pictures = {one.item.image_id: one.item.name for one in group if isinstance(one.item, Picture)}
        refused |= {one.item.name for one in group if isinstance(one.item, Refusal)}
        self.index.add({drop.stamp: name in refused for name, drop in dealt.items()}, pictures, self.log.number)
        for name, drop in dealt.items():
            self.folder.done(drop)
            if name not in refused:
                self.away(drop)
        self.last_at = rundir.now() if pictures else self.last_at

    def _new(self, found: reading.Items, by_name: dict[str, Drop], dealt: dict[str, Drop], refused: set[str],
             ) -> Iterator[Picture | Refusal]:
        """What is to be inspected or refused. Without what may not be whole yet, which leaves `dealt` and comes again, and without files
        that were inspected under another name or before a kill; those `refused` before a kill are not refused once more."""
        for item in found:
            drop = by_name[item.name]
            if drop.changed() or (isinstance(item, Refusal) and not drop.reason and not drop.patient):
                self.folder.again(drop)
                del dealt[item.name]
            elif isinstance(item, Picture):
                before = self.index.name_of(item.image_id)
                if before is None:
                    yield item
                elif before != item.name and (self.folder.root / before).exists():
                    yield Refusal(item.name, f"Same picture as {before}.")
            elif item.name in self.index.refused:
                self.index.refused.discard(item.name)                  # once: what is written over is another file
                refused.add(item.name)
            else:
                yield item

    def _defective(self, group: list[Looked]) -> int:
        limits, classes = self.desk.engine.thresholds, self.desk.engine.classes
        return sum(any(c >= limits[classes[int(k)]] for c, k in one.boxes[:, 4:].tolist()) for one in group)

    def away(self, drop: Drop) -> None:
        """Move a file that is done, where a person asked for that. One that was written over since is another, for the next look."""
        if self.done is None:
            return
        to = self.done / drop.path.relative_to(self.folder.root)
        with suppress(OSError):                                        # gone, or in use: the next run moves it
            to.parent.mkdir(parents=True, exist_ok=True)
            while to.exists():
                to = to.with_name(f"{to.stem}_again{to.suffix}")
            if drop.changed():
                return
            try:
                os.rename(drop.path, to)
            except OSError:                                            # another disk
                shutil.move(drop.path, to)

    def tell(self, report: Report, what: str = "", now: bool = False) -> None:
        """How it stands, for pages and the command line. Raises Canceled."""
        at = time.monotonic()
        if at - self.told_at < TELL_S and not now:
            return
        self.told_at = at
        self.pace.append((at, self.log.accepted))
        while len(self.pace) > 1 and self.pace[1][0] <= at - RECENT_S:
            self.pace.popleft()
        (then, before), n = self.pace[0], self.log.accepted
        speed = (n - before) / (at - then) if at > then else 0.0
        state = dict(images_per_s=round(speed, 1), last_at=self.last_at, waiting=len(self.folder.waiting), gone=self.folder.gone,
                     closed=sorted(self.folder.closed))
        rundir.write_json(self.log.run_dir / "watching.json", dict(state, at=rundir.now(), **self.log.counts))
        what = what or ("The folder cannot be reached; waiting for it" if self.folder.gone else
                        f"{speed:.1f} images/s" if speed else "Waiting for pictures")
        more = f", {len(self.folder.waiting):,} waiting" if len(self.folder.waiting) > FULL else ""
        report(step=n, total=n, message=f"{n:,} inspected, {self.log.counts['refused']:,} not usable. {what}{more}")

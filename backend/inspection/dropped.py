"""A folder that somebody else writes pictures into: what is new in it, and whether it is whole.

A look goes through all subfolders and takes the name, size and time of each file; together they are its stamp, so a file that is written
over is a new one. What was dealt with is remembered by 8 bytes for each file that still lies there. A file is taken once it ends as its
kind of picture does, or has stood unchanged for a while. A look costs 5 µs a file, half a second for 100,000, and
looking may take a tenth of the time at most: in such a folder a picture waits some seconds. Knows nothing of pixels or of runs.
"""

import os
import stat
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np

from backend.data import files
from backend.data.files import Entry, Refusal

POLL_S, SHARE = 0.4, 0.1                 # between two looks at least; of the time, for looking
PATIENCE_S = 10.0                        # unchanged for so long, what cannot be read is refused
EMPTY_S = 60.0                           # empty for so long, a picture's file is no longer one that is about to be written
PICTURES = {"jpg", "jpeg", "png", "bmp", "tif", "tiff", "webp"}      # an empty file of another ending is a sign between machines
MOST_WAITING = 10_000                    # files known to be new; further ones are found by a later look
TEMPORARY = {"tmp", "temp", "part", "partial", "crdownload", "filepart", "swp", "lock"}      # endings of files that are renamed when whole
PASSED_OVER = TEMPORARY | files.NOT_PICTURES
CHUNK = 4096

Keys = np.ndarray[Any, np.dtype[np.int64]]
File = tuple[int, str, "os.DirEntry[str]", os.stat_result]                                   # key, name, entry, what the disk says


@dataclass
class Drop:
    """A file that is to be inspected."""

    path: Path
    name: str                            # printable, relative to the folder
    size: int
    mtime_ns: int
    stamp: int                           # of name, size and time, for the index
    key: int                             # the same for this process
    since: float                         # when it was first seen as it is now (monotonic)
    reason: str = ""                     # why it cannot be, whatever is in it
    not_before: float = 0.0              # it could not be read: not before then again
    is_whole: bool | None = None         # ends as a picture does; None: nobody has looked

    @property
    def patient(self) -> bool:
        """Whether nothing was added to it for so long that nothing will be."""
        return time.monotonic() - self.since >= PATIENCE_S

    def entry(self) -> Entry | Refusal:
        return Refusal(self.name, self.reason) if self.reason else Entry(self.name, self.size, lambda: open(self.path, "rb"), chosen=True)

    def changed(self) -> bool:
        """Whether it is another file by now, or none."""
        try:
            now = self.path.stat()
        except OSError:
            return True
        return (now.st_size, now.st_mtime_ns) != (self.size, self.mtime_ns)


@dataclass
class Folder:
    """`look` now and then; `ready` are the files to take, `done` says which were dealt with. `known` asks the index of earlier runs."""

    root: Path
    settle_s: float
    known: Callable[[list[int]], dict[int, bool]]            # those of these stamps that were dealt with, and whether they were refused
    without: Path | None = None          # a folder inside that is not looked at
    waiting: dict[str, Drop] = field(default_factory=dict)
    left: list[Drop] = field(default_factory=list)           # inspected by an earlier run, and still there
    gone: bool = False                                       # the folder itself cannot be reached
    closed: set[str] = field(default_factory=set)            # subfolders that cannot be opened
    _done: Keys = field(default_factory=lambda: np.zeros(0, np.int64))
    _recent: set[int] = field(default_factory=set)           # not in `_done` yet
    _next: float = 0.0

    def look(self) -> None:
        """Find what is new; nothing where the last look was a moment ago."""
        began = time.monotonic()
        if began < self._next:
            return
        self.closed, self.left, recent, seen = set(), [], set[int](), set[str]()
        still = np.zeros(len(self._done), bool)
        home = self.root.resolve()
        for some in _chunks(self._files()):
            keys = np.array([file[0] for file in some], np.int64)
            at, is_known = _places(keys, self._done)
            still[at[is_known]] = True
            unsure = [self._drop(*some[k], home) for k in np.flatnonzero(~is_known) if some[k][0] not in self._recent]
            recent |= self._recent.intersection(keys.tolist())
            fresh = [drop for drop in unsure if (old := self.waiting.get(drop.name)) is None or old.stamp != drop.stamp]
            before = self.known([drop.stamp for drop in fresh])
            self.left += [drop for drop in fresh if not before.get(drop.stamp, True)]
            recent |= {drop.key for drop in fresh if drop.stamp in before}
            seen |= {drop.name for drop in unsure if drop.stamp not in before}
            for drop in fresh:
                if drop.stamp not in before and (drop.name in self.waiting or len(self.waiting) < MOST_WAITING):
                    self.waiting[drop.name] = drop
        if not self.gone:
            self._keep(still, recent)
            self.waiting = {name: drop for name, drop in self.waiting.items() if name in seen}
        took = time.monotonic() - began
        self._next = began + took + max(POLL_S, took * (1 - SHARE) / SHARE)

    def _keep(self, still: "np.ndarray[Any, np.dtype[np.bool_]]", recent: set[int]) -> None:
        """Of what was dealt with, that which is still there. The array is made anew only where some went, or for some thousand at once: it
        is as large as the folder, and a few of them at every look scattered the heap (0.15 KB a file, where 8 bytes are kept)."""
        if not still.all() or len(recent) > CHUNK:
            known, new = self._done if still.all() else self._done[still], np.sort(np.fromiter(recent, np.int64, len(recent)))
            self._done, recent = np.insert(known, np.searchsorted(known, new), new), set()
        self._recent = recent

    def ready(self, most: int) -> list[Drop]:
        """Whole files, oldest first."""
        now = time.monotonic()
        whole = [d for d in self.waiting.values() if now >= d.not_before and (d.reason or self._whole(d, now))]
        return sorted(whole, key=lambda d: (d.mtime_ns, d.name))[:most]

    def _whole(self, drop: Drop, now: float) -> bool:
        if not drop.size:
            return now - drop.since >= EMPTY_S
        if now - drop.since >= self.settle_s:
            return True
        if drop.is_whole is None:
            drop.is_whole = ends(drop.path, drop.size)
        return drop.is_whole

    def done(self, drop: Drop) -> None:
        """It was dealt with."""
        self._recent.add(drop.key)
        if self.waiting.get(drop.name, drop).stamp == drop.stamp:
            self.waiting.pop(drop.name, None)

    def again(self, drop: Drop, wait_s: float = 1.0) -> None:
        """It could not be read yet."""
        drop.not_before, drop.is_whole = time.monotonic() + wait_s, False

    def _files(self) -> Iterator[File]:
        """Every file that may be a picture, in no order."""
        folders = [("", str(self.root))]
        self.gone, without = False, None if self.without is None else os.path.realpath(self.without)
        while folders:
            place, folder = folders.pop()
            try:
                with os.scandir(folder) as found:
                    for entry in found:
                        name = entry.name
                        if name[0] == "." or name[-1] == "~" or name.rpartition(".")[2].lower() in PASSED_OVER:
                            continue
                        if entry.is_dir(follow_symlinks=False):
                            if name.lower() not in files.SYSTEM and os.path.realpath(entry.path) != without:
                                folders.append((f"{place}{name}/", entry.path))
                        elif (now := _stat(entry)) and stat.S_ISREG(now.st_mode) and (now.st_size or _pictured(name)):
                            yield hash((place, name, now.st_size, now.st_mtime_ns)), f"{place}{name}", entry, now
            except OSError:
                self.gone = self.gone or folder == str(self.root)
                self.closed.add(files.printable(place or "."))

    def _drop(self, key: int, name: str, entry: "os.DirEntry[str]", now: os.stat_result, home: Path) -> Drop:
        outside = entry.is_symlink() and not Path(entry.path).resolve().is_relative_to(home)
        stamp = blake2b(f"{name}\0{now.st_size}\0{now.st_mtime_ns}".encode(errors="surrogateescape"), digest_size=8)
        return Drop(Path(entry.path), files.printable(name), now.st_size, now.st_mtime_ns,
                    int.from_bytes(stamp.digest(), "big", signed=True), key, time.monotonic(),
                    "It is a link to a place outside the folder." if outside else "")


def _stat(entry: "os.DirEntry[str]") -> os.stat_result | None:
    try:
        return entry.stat()
    except OSError:                                          # gone between the listing and now, or a link to nothing
        return None


def _pictured(name: str) -> bool:
    return name.rpartition(".")[2].lower() in PICTURES


def _chunks(found: Iterator[File]) -> Iterator[list[File]]:
    some: list[File] = []
    for file in found:
        some.append(file)
        if len(some) == CHUNK:
            yield some
            some = []
    if some:
        yield some


def _places(keys: Keys, among: Keys) -> "tuple[np.ndarray[Any, np.dtype[np.intp]], np.ndarray[Any, np.dtype[np.bool_]]]":
    """Where they would stand in a sorted array, and which of them stand there."""
    at = np.searchsorted(among, keys)
    if not len(among):
        return at, np.zeros(len(keys), bool)
    return at, among[np.minimum(at, len(among) - 1)] == keys


def ends(path: Path, size: int) -> bool:
    """Whether the file ends as its kind of picture does. False says nothing: TIFF has no end, and a camera may write more behind it."""
    try:
        with open(path, "rb") as f:
            head = f.read(32)
            f.seek(max(0, size - 16))
            tail = f.read(17)
    except OSError:
        return False
    kind = files.kind(head)
    if kind == "JPEG":
        return tail[:16].endswith(b"\xff\xd9")
    if kind == "PNG":
        return tail[:16].endswith(b"IEND\xaeB`\x82")
    if kind == "WEBP":
        return int.from_bytes(head[4:8], "little") + 8 == size
    return kind == "BMP" and int.from_bytes(head[2:6], "little") == size

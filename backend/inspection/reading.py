"""From a listing of files to pictures ready for the engine: threads read, hash, decode and fit a bounded way ahead.

Between `data.files` and the recipes. What cannot be used comes out as a `Refusal` in its place, so the order of the files
is the order of the results. Knows nothing of runs or of what the engine finds.
"""

from collections import Counter, deque
from collections.abc import Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import Protocol

import numpy as np

from backend.data import files, images
from backend.data.files import Entry, Refusal
from backend.device import cores
from backend.errors import ConfigError, ImageError
from backend.inspection.engine import Prepared

AHEAD = 40                              # files on their way: a group of 32 and the start of the next
AHEAD_BYTES = 256 * 10**6               # of files and fitted pictures waiting for the engine


class Fits(Protocol):
    """What fits pictures to a network: a detector's engine, or what stands before another's."""

    imgsz: int

    def prepare(self, image: np.ndarray) -> Prepared: ...


class FitsBeside(Protocol):
    """What fits pictures to a second network, which looks at all of them too: an anomaly model's engine."""

    imgsz: int

    def prepare(self, image: np.ndarray) -> np.ndarray: ...


@dataclass(frozen=True)
class Picture:
    """One file that decoded, fitted to the network, and to the second one if there is one."""

    name: str
    data: bytes
    image_id: str
    format: str
    prepared: Prepared
    beside: np.ndarray | None = None    # uint8 (S, S, 3) of the second network


Items = Iterator[Picture | Refusal]


def place(text: str) -> Path:
    """What a person named as the pictures' place. Raises ConfigError for nothing at all: it would mean the current folder."""
    if not text.strip():
        raise ConfigError("Choose what to look at: pictures, a folder or a zip.")
    return Path(text).expanduser()


@contextmanager
def pictures(entries: Iterable[Entry | Refusal], engine: Fits, beside: FitsBeside | None = None) -> Iterator[Items]:
    """Pictures and refusals in the order of the entries; what is clearly no picture is passed over. Leaving ends the threads."""
    with ThreadPoolExecutor(cores(), "decode") as pool, closing(_ahead(pool, entries, engine, beside)) as found:
        yield (item for item in found if item is not None)


def left(entries: Iterable[Entry | Refusal], done: "Counter[str]") -> Iterator[Entry | Refusal]:
    """Entries that are not yet done. Two uploads may share a name, hence counts."""
    done = done.copy()
    for entry in entries:
        if done[entry.name]:
            done[entry.name] -= 1
        else:
            yield entry


def _ahead(pool: ThreadPoolExecutor, entries: Iterable[Entry | Refusal], engine: Fits,
           beside: FitsBeside | None) -> Generator[Picture | Refusal | None, None, None]:
    waiting: deque[tuple[int, Future[Picture | Refusal | None]]] = deque()
    held = Held()
    fitted = 3 * (engine.imgsz**2 + (beside.imgsz**2 if beside else 0))
    try:
        for entry in entries:
            size = fitted + (0 if isinstance(entry, Refusal) else entry.size)
            waiting.append((size, pool.submit(held.look, size, entry, engine, beside)))
            held.add(size)
            while len(waiting) > AHEAD or (waiting and held.bytes > AHEAD_BYTES):
                yield held.taken(*waiting.popleft())
        while waiting:
            yield held.taken(*waiting.popleft())
    finally:
        for _, future in waiting:
            future.cancel()


class Held:
    """Bytes on their way: expected while a file is being read, then what it is: one cut into tiles takes more."""

    def __init__(self) -> None:
        self.bytes, self._guard = 0, Lock()

    def add(self, more: int) -> None:
        with self._guard:
            self.bytes += more

    def look(self, expected: int, entry: Entry | Refusal, engine: Fits, beside: FitsBeside | None) -> Picture | Refusal | None:
        """`_look`, in a thread."""
        item = _look(entry, engine, beside)
        if (more := _size(item) - expected) > 0:
            self.add(more)
        return item

    def taken(self, expected: int, future: "Future[Picture | Refusal | None]") -> Picture | Refusal | None:
        item = future.result()
        self.add(-max(expected, _size(item)))
        return item


def _size(item: Picture | Refusal | None) -> int:
    return item.prepared.nbytes if isinstance(item, Picture) else 0


def _look(entry: Entry | Refusal, engine: Fits, beside: FitsBeside | None) -> Picture | Refusal | None:
    """In a thread: the entry as a picture, a refusal, or None where it is clearly no picture."""
    source = entry if isinstance(entry, Refusal) else files.source(entry)
    if source is None or isinstance(source, Refusal):
        return source
    try:
        pixels, form = images.pixels(source.data, source.name)
        prepared = engine.prepare(pixels)
    except ImageError as e:
        return Refusal(source.name, str(e))
    return Picture(source.name, source.data, images.sha256(source.data), form, prepared, beside.prepare(pixels) if beside else None)

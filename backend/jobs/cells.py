"""Cells: small processes that decode what came from outside, in place of the app. What one may do `backend.cell` says.

`ask` hands a call to a free cell and waits. A cell that dies, or takes too long, is a picture that cannot be shown; the next call gets a
new one. They stay, two at most, and end with this process. Costs: 0.4 s and 45 MB for a cell to come up, at the first picture; then, for
a list's picture (640 × 512, 400 wide), 22.2 ms instead of 20.6, the least of 60 on a busy machine. Knows nothing of pictures.
"""

import atexit
import logging
import os
import pickle  # nosec B403  # written here, read in the cell; what comes back is bytes
import queue
import select
import subprocess  # nosec B404  # our own module, without a shell
import sys
import threading
import time
from typing import IO, Any

from backend.cell import LENGTH, SIGNS
from backend.config import data_root
from backend.device import cores
from backend.errors import ImageError, NotFoundError
from backend.jobs import drawings
from backend.jobs.executor import ROOT

COMMAND = (sys.executable, "-m", "backend.cell")
MOST = max(1, min(2, cores()))
WAIT_S = 600.0                     # a cell's minute of the processor, on a machine that does other things too, or rests
BUSY_S = 60.0                      # then whoever waits gets a sentence: a page must not hang on somebody else's picture
BUSY = "Other pictures take long to draw just now. Look again in a minute."
MISTAKEN = "It cannot be shown: something went wrong. The log has the details."
DIED = "It cannot be shown: what it holds stopped its reader. The file may be damaged, or made to do harm."
KEPT = ("PATH", "LD_LIBRARY_PATH", "LANG", "LC_ALL", "TZ", "VIRTUAL_ENV", "PYTHONPATH", "HOME", "SYSTEMROOT")     # and no secret


class Cell:
    """One process and the line to it."""

    def __init__(self) -> None:
        clean = {name: os.environ[name] for name in KEPT if name in os.environ}
        threads = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")      # a cell may begin no thread
        self.process = subprocess.Popen(COMMAND, bufsize=0, cwd=ROOT, env=clean | threads,  # nosec B603  # no shell, no word from outside
                                        stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def ask(self, asked: bytes) -> tuple[bytes, bytes]:
        """The sign and what comes with it. Raises OSError or EOFError where the cell is gone, TimeoutError."""
        assert self.process.stdin is not None and self.process.stdout is not None
        left = memoryview(LENGTH.pack(len(asked)) + asked)
        while left:
            left = left[self.process.stdin.write(left):]
        until = time.monotonic() + WAIT_S
        said = _read(self.process.stdout, LENGTH.unpack(_read(self.process.stdout, LENGTH.size, until))[0], until)
        return said[:1], said[1:]

    def end(self) -> None:
        self.process.kill()
        for line in (self.process.stdin, self.process.stdout):
            try:
                if line is not None:
                    line.close()
            except OSError:                                      # a call that never went through
                pass
        self.process.wait()


def _read(line: IO[bytes], size: int, until: float) -> bytes:
    parts, left, at, waiting = [], size, line.fileno(), select.poll()      # not `select`, which knows no file from the 1,024th on
    waiting.register(at, select.POLLIN | select.POLLHUP)
    while left:
        if not waiting.poll(1000 * max(0.0, until - time.monotonic())):
            raise TimeoutError
        if not (part := os.read(at, min(left, 1 << 20))):
            raise EOFError
        parts.append(part)
        left -= len(part)
    return b"".join(parts)


_free: "queue.LifoQueue[Cell | None]" = queue.LifoQueue()          # None: one that may be begun
for _ in range(MOST):
    _free.put(None)
_guard = threading.Lock()
_all: list[Cell] = []
_log = logging.getLogger(__name__)


def ask(what: str, *arguments: Any, of: tuple[str, ...] = ()) -> bytes:
    """What one of `cell.DOORS` answers, of this data folder. `of`: what it is about, see `drawings`: what cannot be drawn is asked once.
    Raises the DiffspectError that it raised there, or ImageError where the cell came to its end over it."""
    asked = pickle.dumps((what, str(data_root()), arguments))
    of = (str(data_root()), *of) if of else ()
    view = (what, *(str(a) for a in arguments if a is None or isinstance(a, (int, str)))) if of else ()      # no boxes, no maps
    if (said := drawings.known(of, view, asked)) is not None:
        return said
    with drawings.turn(of, BUSY_S) as ours:
        if not ours:
            raise ImageError(BUSY)
        said = drawings.known(of, view, asked)                   # somebody may have asked for it while we waited
        return said if said is not None else _ask(what, asked, of, view)


def _ask(what: str, asked: bytes, of: drawings.Of, view: drawings.Of) -> bytes:
    try:
        cell = _free.get(timeout=BUSY_S)
    except queue.Empty:
        raise ImageError(BUSY) from None
    try:
        if cell is not None and cell.process.poll() is not None:
            _ended(cell)                                         # killed while nobody asked, for memory for instance
            cell = None
        cell, began = cell or _begun(), time.monotonic()
        sign, said = cell.ask(asked)
    except (OSError, EOFError) as error:
        _ended(cell)
        cell = None
        drawings.failed(of + view, ImageError(DIED), died=True)
        raise ImageError(DIED) from error
    except BaseException:                                        # interrupted in between: its next answer would be that to this call
        _ended(cell)
        cell = None
        raise
    finally:
        _free.put(cell)
    if sign == b"+":
        drawings.answered(of, asked, said, time.monotonic() - began)
        return said
    words = said.decode("utf-8", "replace")
    if sign not in SIGNS:
        _log.error("A cell could not do %r: %s", what, words)
        raise ImageError(MISTAKEN)
    if SIGNS[sign] is not NotFoundError:                         # what is missing may come
        drawings.failed(of if SIGNS[sign] is ImageError else of + view, SIGNS[sign](words))
    raise SIGNS[sign](words)


def _begun() -> Cell:
    cell = Cell()
    with _guard:
        _all.append(cell)
    return cell


def _ended(cell: Cell | None) -> None:
    if cell is not None:
        cell.end()
        with _guard:
            if cell in _all:                                     # not where `close` came between
                _all.remove(cell)


@atexit.register
def close() -> None:
    """End all of them."""
    with _guard:
        while _all:
            _all.pop().end()

"""What app, supervisor, messenger and workers say they do: `logs/<who>.log` in the data folder, and stderr where somebody may read it.

    DIFFSPECT_LOG   text (default), or json: one object a line with at (UTC), level, who, pid, logger, message, and run_id, error where
                    there is one

Several processes may append to one file. Once it is full the supervisor gives it another name (`turn`); who writes looks before each line
whether the file is still there. `output.log` is what processes print before they open a log, and last words of those that die. A run's own
log.txt is for people and stays text; the supervisor cuts one that has grown too long (`cut`). The password of a lake's catalogue, which
engines quote in their errors, is written nowhere.
"""

import json
import logging
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from logging.handlers import WatchedFileHandler
from pathlib import Path
from typing import Any, TextIO

from backend.config import data_root
from backend.errors import ConfigError
from backend.store.place import without_password

FULL, KEPT = 5 * 2**20, 4               # bytes of a log, and how many full ones are kept: at most 25 MiB of each process
LONG, TAIL = 20 * 2**20, 2**20          # bytes of a run's log, and what is left of a longer one
MOST = 6000                             # characters of a message or traceback in JSON: one write is one line
SPAWNED = "DIFFSPECT_SPAWNED"           # set for children whose stderr is output.log: their own log goes there not again
_OURS = ("backend", "supervisor", "messenger", "worker")
_STREAMLITS = ("streamlit.error_util",)  # it tells of pages that failed, and hands nothing on to the loggers above it


def folder() -> Path:
    return data_root() / "logs"


def form() -> str:
    """text | json. Raises ConfigError for anything else."""
    chosen = os.environ.get("DIFFSPECT_LOG") or "text"
    if chosen not in ("text", "json"):
        raise ConfigError(f"DIFFSPECT_LOG is text or json, not {chosen!r}.")
    return chosen


@contextmanager
def kept(who: str) -> Iterator[None]:
    """Meanwhile, keep the log of this process. Raises ConfigError."""
    handlers = list(_handlers(who))
    loggers = [logging.getLogger(), *map(logging.getLogger, _STREAMLITS)]
    before = {name: logging.getLogger(name).level for name in _OURS}
    for handler in handlers:
        for logger in loggers if isinstance(handler, _File) else loggers[:1]:                # Streamlit prints its own to stderr
            logger.addHandler(handler)
    for name in _OURS:
        logging.getLogger(name).setLevel(logging.INFO)
    try:
        yield
    finally:
        for handler in handlers:
            for logger in loggers:
                logger.removeHandler(handler)
            with suppress(OSError):                              # what is left in it, on a full disk: whoever ends is not kept from it
                handler.close()
        for name, level in before.items():
            logging.getLogger(name).setLevel(level)


def _handlers(who: str) -> Iterator[logging.Handler]:
    written = _Json(who) if form() == "json" else _Text()
    if SPAWNED not in os.environ or who == "worker":
        spoken = _Stderr()
        if SPAWNED in os.environ:                                # a worker's is the log of its run, for people
            spoken.setLevel(logging.WARNING)
        spoken.setFormatter(_Text() if SPAWNED in os.environ else written)
        yield spoken
    with suppress(OSError):                                      # a disk that takes nothing: stderr is what is left
        folder().mkdir(parents=True, exist_ok=True)
        file = _File(folder() / f"{who}.log", encoding="utf-8", delay=True)
        file.setFormatter(written)
        yield file


class _File(WatchedFileHandler):
    def emit(self, record: logging.LogRecord) -> None:
        """Its parent looks after a file that was turned over before it guards itself: on a full disk what was left of the old one raised
        out of whoever logged, and ended the thread that takes results in."""
        try:
            super().emit(record)
        except OSError:
            stream, self.stream = self.stream, None      # opened anew at the next line
            if stream is not None:
                with suppress(OSError):
                    stream.close()

    def handleError(self, record: logging.LogRecord) -> None:
        """A full disk must not fill stderr as well."""


class _Stderr(logging.StreamHandler[TextIO]):
    """To whatever stderr is at that moment."""

    def emit(self, record: logging.LogRecord) -> None:
        self.stream = sys.stderr
        super().emit(record)

    def handleError(self, record: logging.LogRecord) -> None:
        """Nobody is left to tell."""


class _Text(logging.Formatter):
    """A line a message, whatever line breaks people's names have in them; a traceback follows on lines of its own."""

    converter = time.gmtime      # type: ignore[assignment]  # typeshed has it without its argument

    def __init__(self) -> None:
        super().__init__("%(asctime)s.%(msecs)03dZ %(levelname)-7s %(name)s: %(message)s", "%Y-%m-%dT%H:%M:%S")

    def formatMessage(self, record: logging.LogRecord) -> str:
        return super().formatMessage(record).replace("\r", "\\r").replace("\n", "\\n")

    def format(self, record: logging.LogRecord) -> str:
        """All of it at the end: a traceback may have been put into words by another handler before."""
        return without_password(super().format(record))


class _Json(logging.Formatter):
    def __init__(self, who: str) -> None:
        super().__init__()
        self.who = who

    def format(self, record: logging.LogRecord) -> str:
        said: dict[str, Any] = dict(at=datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
                                    level=record.levelname.lower(), who=self.who, pid=record.process, logger=record.name,
                                    message=without_password(record.getMessage())[:MOST])
        if run_id := getattr(record, "run_id", ""):
            said["run_id"] = run_id
        if record.exc_info:
            said["error"] = without_password(self.formatException(record.exc_info))[-MOST:]
        return json.dumps(said, ensure_ascii=False)


def turn() -> None:
    """Give full logs another name, the oldest none. Of one process: the supervisor."""
    for log in folder().glob("*.log"):
        if _size(log) < FULL:
            continue
        for number in range(KEPT - 1, 0, -1):
            older = log.with_name(f"{log.name}.{number}")
            if older.exists():
                os.replace(older, log.with_name(f"{log.name}.{number + 1}"))
        os.replace(log, log.with_name(f"{log.name}.1"))


def cut(log: Path) -> None:
    """Of a run's log that has grown too long, keep the end. Its writers append, so they go on where it ends now."""
    if _size(log) <= LONG:
        return
    with open(log, "r+b") as f:
        f.seek(-TAIL, os.SEEK_END)
        end = f.read().partition(b"\n")[2]
        f.truncate(0)
    with open(log, "ab") as f:
        f.write(f"(What stood here was cut off: the log was over {LONG // 2**20} MiB.)\n".encode() + end)


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0

"""Who is alive: a POSIX record lock on a file, held by a process while it lives.

The kernel frees it on any death, a kill -9 or a power cut included; forked children do not inherit it. Two traps: closing
*any* descriptor of the file drops the process's lock, and threads of one process do not exclude one another. Both are
kept in here by a table of the locks that this process holds. Linux only (F_GETLK's layout). Knows nothing of runs.
"""

import fcntl
import os
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_FLOCK = "hhqqi4x"                       # struct flock: type, whence, start, length, pid
_mine: set[tuple[int, int]] = set()      # device and inode: a run's directory is renamed while its lock is held
_guard = threading.Lock()


@contextmanager
def hold(path: Path, wait_s: float = 0.0) -> Iterator[bool]:
    """Hold the lock for the length of the block; False where someone else still has it after `wait_s` seconds."""
    taken = _take(path, time.monotonic() + wait_s)
    try:
        yield taken is not None
    finally:
        if taken is not None:
            with _guard:
                _mine.discard(_identity(os.fstat(taken)))
                os.close(taken)


def holder(path: Path) -> int | None:
    """Pid of the process that holds the lock, None where it is free. Takes nothing, so it disturbs nobody."""
    with _guard:
        if not path.exists():
            return None
        if _identity(path.stat()) in _mine:
            return os.getpid()
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            answer = fcntl.fcntl(fd, fcntl.F_GETLK, struct.pack(_FLOCK, fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0))
        finally:
            os.close(fd)
    kind, _, _, _, pid = struct.unpack(_FLOCK, answer)
    return None if kind == fcntl.F_UNLCK else int(pid)


def _take(path: Path, until: float) -> int | None:
    while (fd := _try(path)) is None and time.monotonic() < until:
        time.sleep(0.02)
    return fd


def _try(path: Path) -> int | None:
    with _guard:
        if path.exists() and _identity(path.stat()) in _mine:
            return None
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            fcntl.lockf(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:                  # EACCES or EAGAIN: someone else's
            os.close(fd)
            return None
        except BaseException:
            os.close(fd)
            raise
        _mine.add(_identity(os.fstat(fd)))
        return fd


def _identity(of: os.stat_result) -> tuple[int, int]:
    return of.st_dev, of.st_ino

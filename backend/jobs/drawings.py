"""What cells were asked before: what they could not draw, and answers that took long. So a picture costs its minute once, not each visitor.

What cannot be read is known by what was to be drawn (`of`: an id, which is its content's hash, or a file with its size and time), in
whichever view: another width would fail alike. What takes too much memory or time is known by the view too (`of` and more words). A cell
that dies may have been ended by the machine, so that counts from the second time on, and for an hour. Two that ask for the same at once
take turns. Bounded, in this process alone. Knows nothing of cells or pictures.
"""

import threading
import time
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager

from backend.errors import DiffspectError

Of = tuple[str, ...]
FAILURES = 2_000                       # some 300 bytes each
LONG_S = 1.0                           # an answer that took so long is kept; a list's picture takes 0.02 s
ANSWERS, BYTES = 64, 64 * 2**20
DEATHS, AGAIN_S = 2, 3600.0            # so many deaths count, and for so long

_guard = threading.Lock()
_failed: OrderedDict[Of, tuple[DiffspectError, int, float]] = OrderedDict()       # why, how often, when last (monotonic)
_answers: OrderedDict[tuple[Of, bytes], bytes] = OrderedDict()
_turns: dict[Of, tuple[threading.Lock, int]] = {}                                 # and how many are at it, or wait


def known(of: Of, view: Of, asked: bytes) -> bytes | None:
    """The answer, where it took long; None where it is to be asked for. Raises what was raised before."""
    with _guard:
        for key in (of, of + view, *((of[0], one) for one in of[1:])):            # of several in one drawing, one is enough
            error, times, at = _failed.get(key, (None, 0, 0.0))
            if error is not None and (not times or (times >= DEATHS and time.monotonic() - at < AGAIN_S)):
                raise type(error)(*error.args)
        if (of, asked) in _answers:
            _answers.move_to_end((of, asked))
        return _answers.get((of, asked))


def failed(of: Of, error: DiffspectError, died: bool = False) -> None:
    if of:
        with _guard:
            _, times, at = _failed.pop(of, (None, 0, 0.0))
            times = times + 1 if time.monotonic() - at < AGAIN_S else 1
            _failed[of] = error, times if died else 0, time.monotonic()
            while len(_failed) > FAILURES:
                _failed.popitem(last=False)


def answered(of: Of, asked: bytes, said: bytes, took_s: float) -> None:
    with _guard:
        if of and took_s >= LONG_S:
            _answers[of, asked] = said
        while len(_answers) > ANSWERS or sum(map(len, _answers.values())) > BYTES:
            _answers.popitem(last=False)


@contextmanager
def turn(of: Of, wait_s: float) -> Iterator[bool]:
    """Nobody else asks for the same while the block lasts; False where somebody still does after so long."""
    if not of:
        yield True
        return
    with _guard:
        lock, waiting = _turns.get(of, (threading.Lock(), 0))
        _turns[of] = lock, waiting + 1
    taken = lock.acquire(timeout=wait_s)
    try:
        yield taken
    finally:
        if taken:
            lock.release()
        with _guard:
            _turns[of] = lock, _turns[of][1] - 1
            if not _turns[of][1]:
                del _turns[of]


def forget() -> None:
    """All of it."""
    with _guard:
        _failed.clear()
        _answers.clear()

"""The server's memory is swept once a minute, not after each run of a page.

Streamlit sweeps all of it (`gc.collect`) whenever a page has run, while everybody else's page stands still: 100 ms of a core with what the
program keeps (Plotly's classes, pandas, people's sessions), four times what most pages take themselves. What lived through a sweep of ours
is frozen, so that those of Streamlit look only at what is newer; a minute later all is swept, frozen or not, so nothing is kept for ever.
Then the C library is asked to give back what it holds free: a thread for each person scatters it over as many heaps.
"""

import ctypes
import gc
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

FIRST_S, EVERY_S = 5.0, 60.0             # after the start, when pages have been loaded; later


@contextmanager
def swept() -> Iterator[None]:
    """Meanwhile, sweep once a minute."""
    over = threading.Event()
    threading.Thread(target=_sweep, args=(over,), name="heap", daemon=True).start()
    try:
        yield
    finally:
        over.set()


def _sweep(over: threading.Event) -> None:
    rest = FIRST_S
    while not over.wait(rest):
        once()
        rest = EVERY_S


def once() -> None:
    """Let go of what nobody holds, then freeze what is left. About 0.2 s, in which nothing else of the process runs."""
    gc.unfreeze()
    gc.collect()
    gc.freeze()
    if sys.platform == "linux":
        with suppress(AttributeError):           # another C library than GNU's
            ctypes.CDLL(None).malloc_trim(0)

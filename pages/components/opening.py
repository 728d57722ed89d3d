"""The program opens with the server and not with its first visitor: after a reboot at night folder watches, alarms and shift reports go on
though nobody looks. Where it cannot be opened, each page says why; here the log does."""

import logging
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from backend import jobs
from pages.components import heap

_log = logging.getLogger(__name__)


@asynccontextmanager
async def opened(app: Any) -> AsyncIterator[None]:
    """For the whole of the server's life; its start waits for nothing."""
    threading.Thread(target=_open, name="opening", daemon=True).start()
    with heap.swept():
        yield


def _open() -> None:
    try:
        jobs.caught_up(0)
    except jobs.DiffspectError as error:
        _log.warning("%s", error)

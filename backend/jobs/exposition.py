"""A small endpoint of the supervisor on 127.0.0.1, off unless DIFFSPECT_METRICS names its port (9464 is usual).

    /metrics   the figures of `figures`, for Prometheus
    /health    200 and {"status": "ok"}, or 503 with what is wrong, a sentence each

Nothing on it changes anything. Its thread ends with the process; where the port is taken the supervisor says so and goes on.
"""

import json
import logging
import os
import shutil
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from socketserver import ThreadingMixIn
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from backend.config import data_root
from backend.jobs import locks, messenger, told

ROUND_S, TAKEN_IN_S, FREE = 60.0, 300.0, 500 * 10**6             # what is older, or less, is not healthy
END_S = 0.1                                                      # how long its thread may take to see that it is to end
_log = logging.getLogger("supervisor")
Start = Callable[..., Any]


class _Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True


class _Quiet(WSGIRequestHandler):
    timeout = 10                                                 # who connects and says nothing holds a thread no longer

    def log_message(self, format: str, *args: Any) -> None:
        """An ask every few seconds is no news."""


class Heart:
    """When the supervisor made its last round."""

    def __init__(self) -> None:
        self._at = time.monotonic()

    def beat(self) -> None:
        self._at = time.monotonic()

    def silent_s(self) -> float:
        return time.monotonic() - self._at


@contextmanager
def serving(heart: Heart) -> Iterator[int]:
    """Meanwhile, answer. Yields the port; 0 where nobody asked for it, or it cannot be had."""
    server = _bound(heart) if told.wanted() else None
    if server is None:
        yield 0
        return
    threading.Thread(target=server.serve_forever, args=(END_S,), name="metrics", daemon=True).start()
    _log.info("Metrics are at http://127.0.0.1:%s/metrics", server.server_port)
    try:
        yield server.server_port
    finally:
        server.shutdown()
        server.server_close()


def _bound(heart: Heart) -> WSGIServer | None:
    try:
        return make_server("127.0.0.1", int(os.environ["DIFFSPECT_METRICS"]), _application(heart), _Server, _Quiet)
    except (ValueError, OverflowError, OSError) as error:
        _log.warning("There are no metrics: DIFFSPECT_METRICS must name a free port, such as 9464 (%s).", error)
        return None


def _application(heart: Heart) -> Callable[[dict[str, Any], Start], Iterable[bytes]]:
    from prometheus_client import CollectorRegistry, PlatformCollector, ProcessCollector, make_wsgi_app

    from backend.jobs.figures import Figures

    registry = CollectorRegistry()
    registry.register(Figures())
    ProcessCollector(registry=registry)
    PlatformCollector(registry=registry)
    metrics = make_wsgi_app(registry)

    def answer(environ: dict[str, Any], start: Start) -> Iterable[bytes]:
        if environ["PATH_INFO"] == "/health":
            wrong = problems(heart)
            start("503 Service Unavailable" if wrong else "200 OK", [("Content-Type", "application/json")])
            return [json.dumps({"status": "bad", "problems": wrong} if wrong else {"status": "ok"}).encode()]
        if environ["PATH_INFO"] != "/metrics":
            start("404 Not Found", [("Content-Type", "text/plain")])
            return [b"Here are /metrics and /health."]
        found: Iterable[bytes] = metrics(environ, start)
        return found

    return answer


def problems(heart: Heart) -> list[str]:
    """What is wrong, a sentence each; nothing where all is well."""
    found = []
    if heart.silent_s() > ROUND_S:
        found.append(f"The supervisor has made no round for {heart.silent_s():.0f} s.")
    if not data_root().is_dir():
        return [*found, "The data folder is gone."]
    free = shutil.disk_usage(data_root()).free
    if free < FREE:
        found.append(f"Only {free / 1e6:.0f} MB are free on the disk of the data folder.")
    taken_in, there = told.read()["taken_in"], locks.holder(messenger.app_lock()) is not None
    if there and taken_in and (age := (datetime.now(UTC) - taken_in).total_seconds()) > TAKEN_IN_S:
        found.append(f"Results have not been taken in for {age / 60:.0f} minutes.")
    return found

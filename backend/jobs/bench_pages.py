"""The pages of `bench dashboard`: a Streamlit server on a plant's data folder, and visitors who ask for its pages over WebSockets.

A page is timed from the question to its last byte: `fresh` when a few pictures of one line came in before; `again` right after. What a
browser does with it, and what fetching its pictures takes, is not in it; that they are drawn is.
"""

import contextlib
import os
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections import defaultdict
from collections.abc import Iterator, Sized
from dataclasses import dataclass
from pathlib import Path
from urllib.error import URLError

import psutil

from backend.config import data_root
from backend.errors import DiffspectError
from backend.jobs import bench_plant
from backend.jobs.bench_client import Visitor

ROOT = Path(__file__).resolve().parents[2]
TAKEN_IN_S = 3.0                               # the app looks for what is new every 2 s
THINK_S = 2.0                                  # of a visitor, between two pages
START_S = 600.0
PAGES = {"Overview": ("overview", ""), "Trends, 28 days": ("trends", ""), "Trends, all": ("trends", "period=All"),
         "Trends, a class on a line": ("trends", "line=Line+2&kind=pits"), "Control charts": ("control", ""), "Review": ("review", ""),
         "Shift report": ("report", ""), "Alarms": ("alarms", ""), "Rules and targets": ("alarms", "alarms_view=Rules+and+targets")}


@dataclass
class Server:
    port: int
    process: "subprocess.Popen[bytes]"

    def memory(self) -> float:
        """Megabytes that it holds now."""
        return float(psutil.Process(self.process.pid).memory_info().rss) / 1e6


@contextlib.contextmanager
def serving() -> Iterator[Server]:
    """The dashboard of the current data folder, once it has taken in all that is there. No worker: nothing is inspected meanwhile."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = int(free.getsockname()[1])
    off = {"DIFFSPECT_DATA": str(data_root()), "DIFFSPECT_SUPERVISOR": "off", "DIFFSPECT_WARM": "off"}
    with open(data_root() / "server.log", "ab") as log:
        process = subprocess.Popen([sys.executable, "-m", "streamlit", "run", "app.py", "--server.port", str(port)], cwd=ROOT,
                                   env=os.environ | off, stdout=log, stderr=log)
    try:
        _healthy(port, process)
        with Visitor(port) as first:
            first.ask("overview", timeout=START_S)
        yield Server(port, process)
    finally:
        process.terminate()
        process.wait(60)


def _healthy(port: int, process: "subprocess.Popen[bytes]") -> None:
    until = time.monotonic() + START_S
    while time.monotonic() < until and process.poll() is None:
        with contextlib.suppress(URLError, OSError):
            if urllib.request.urlopen(f"http://127.0.0.1:{port}/_stcore/health", timeout=5).status == 200:  # nosec B310 # ours
                return
        time.sleep(0.3)
    raise DiffspectError(f"The dashboard did not start. Its log is {data_root() / 'server.log'}")


def reruns(server: Server, pages: dict[str, tuple[str, str]], rounds: int) -> Iterator[tuple[str, list[float]]]:
    """name, milliseconds: each page fresh and again."""
    with Visitor(server.port) as visitor:
        for name, (page, query) in pages.items():
            visitor.ask(page, query)
            taken: dict[str, list[float]] = defaultdict(list)
            for _ in range(rounds):
                something_new()
                for how in ("fresh", "again"):
                    taken[how].append(1000 * visitor.ask(page, query).seconds)
            yield from ((f"{name}, {how}", values) for how, values in taken.items())


def something_new() -> None:
    """A few pictures of one line, and the time that they take to come in: what a page has kept is of yesterday then."""
    bench_plant.late()
    time.sleep(TAKEN_IN_S)


def together(server: Server, visitors: int, seconds: float, going: Sized = (True,)) -> list[float]:
    """Milliseconds of pages that visitors ask for at the same time, each with a pause for reading, for so long or until nothing is left in
    `going`. Raises what one of them met."""
    taken: list[float] = []
    failed: list[BaseException] = []
    until = time.monotonic() + seconds

    def visit(number: int) -> None:
        try:
            with Visitor(server.port) as visitor:
                pages = list(PAGES.values())
                while time.monotonic() < until and going and not failed:
                    number += 1
                    taken.append(1000 * visitor.ask(*pages[number % len(pages)]).seconds)
                    time.sleep(THINK_S)
        except BaseException as error:                           # a thread's own would be lost
            failed.append(error)

    threads = [threading.Thread(target=visit, args=(n,)) for n in range(visitors)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failed:
        raise failed[0]
    return taken


def arrived(server: Server, page: str, query: str, sign: str) -> float:
    """Wait until a page shows a sign; the time at which it did (`time.monotonic`)."""
    until = time.monotonic() + START_S
    with Visitor(server.port) as visitor:
        while time.monotonic() < until:
            if sign.encode() in visitor.ask(page, query).content:
                return time.monotonic()
            time.sleep(0.5)
    raise DiffspectError(f"{sign!r} did not appear on {page}.")

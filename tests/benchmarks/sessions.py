"""Many people at once: 30 sessions over WebSockets and one Chromium, on all pages of the demo plant, with small batches uploaded meanwhile.

    python -m tests.benchmarks.sessions [--clients 30] [--minutes 10] [--data DIR]

Each session opens a page, thinks for 5 to 15 s, opens another, in an order of its own; one in twelve times it uploads three pictures and
looks at what was found in them; after 25 pages it leaves, and another comes. Chromium goes from page to page as a person would and counts
what its console and network complain of. Seconds are from the question to the last byte. Memory is the dashboard process's, every 5 s;
"flat" is a slope of the minutes' medians, without the first fifth, whose 95 % interval ends below 1 MB a minute.
"""

import argparse
import os
import random
import secrets
import subprocess
import sys
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from statistics import median

import psutil
from playwright.sync_api import Error as BrowserError
from playwright.sync_api import sync_playwright
from websockets.exceptions import WebSocketException

from backend.device import cores
from backend.errors import DiffspectError
from backend.jobs.bench_client import Visitor
from backend.jobs.bench_dashboard import quantile
from tests.benchmarks.record import ROOT, write
from tests.benchmarks.soak import slope
from tests.browser.conftest import CHROMIUM, free_port, stop_everything, wait_healthy

THINK_S, PAGES_A_SESSION, EVERY_S, FLAT, AIM_MS = (5.0, 15.0), 25, 5.0, 1.0, 1500.0
UPLOADS = 12                             # one in so many
BATCH = 3
DEMO = "plant=demo"
PAGES = [("overview", DEMO), ("trends", DEMO), ("trends", f"{DEMO}&period=All"), ("trends", f"{DEMO}&line=Line+2"), ("control", DEMO),
         ("report", DEMO), ("review", DEMO), ("alarms", DEMO), ("alarms", f"{DEMO}&alarms_view=Rules+and+targets"), ("inspection", ""),
         ("datasets", ""), ("synthesis", ""), ("training", ""), ("comparison", ""), ("models", ""), ("runs", ""), ("system", "")]
SAMPLES = ROOT / "data" / "demo" / "samples"


class Told:
    """What all sessions met, gathered from their threads."""

    def __init__(self) -> None:
        self.reruns: dict[str, list[float]] = defaultdict(list)          # page -> milliseconds
        self.uploads: list[float] = []                                   # seconds until the batch's page was there
        self.errors: list[str] = []
        self.memory: list[dict[str, float]] = []
        self.sessions = self.browsed = 0
        self._guard = threading.Lock()

    def rerun(self, page: str, seconds: float) -> None:
        with self._guard:
            self.reruns[page].append(round(1000 * seconds))

    def error(self, what: str) -> None:
        with self._guard:
            self.errors.append(what[:300])
            print(f"  error: {what[:300]}", file=sys.stderr, flush=True)


def visit(number: int, port: int, until: float, told: Told) -> None:
    """One seat: session after session until the time is over. What one of them meets ends it, not the seat."""
    chance = random.Random(number)
    time.sleep(chance.uniform(0, THINK_S[1]))
    while time.monotonic() < until:
        told.sessions += 1
        try:
            with Visitor(port) as visitor:
                for _ in range(PAGES_A_SESSION):
                    if time.monotonic() >= until:
                        return
                    step(visitor, chance, told)
                    time.sleep(min(chance.uniform(*THINK_S), max(0.0, until - time.monotonic())))
        except (DiffspectError, WebSocketException, OSError, AssertionError) as error:
            told.error(f"{type(error).__name__}: {error}")
            time.sleep(1)


def step(visitor: Visitor, chance: random.Random, told: Told) -> None:
    """A page, or an upload and the page of its batch."""
    if chance.randrange(UPLOADS):
        page, query = chance.choice(PAGES)
        told.rerun(page, visitor.ask(page, query).seconds)
        return
    start = time.perf_counter()
    shown = visitor.upload("inspection", pictures(chance), f"Inspect {BATCH} files")
    told.uploads.append(round(time.perf_counter() - start, 3))
    if "batch=" not in shown.query:
        raise DiffspectError("No batch came of an upload.")
    told.rerun("inspection of a batch", visitor.ask("inspection", shown.query).seconds)


def pictures(chance: random.Random) -> list[tuple[str, bytes]]:
    """Sample plates, of which no two are the same file: some bytes follow the end of each."""
    chosen = chance.sample(sorted(SAMPLES.glob("*.jpg")), BATCH)
    return [(f"{secrets.token_hex(4)}.jpg", p.read_bytes() + secrets.token_bytes(8)) for p in chosen]


def sample(process: psutil.Process, began: float, until: float, told: Told) -> None:
    while (now := time.monotonic()) < until:
        told.memory.append(dict(minutes=(now - began) / 60, rss_mb=process.memory_info().rss / 1e6))
        time.sleep(EVERY_S)


def browse(url: str, until: float, told: Told) -> None:
    """Chromium, from page to page by its menu."""
    with sync_playwright() as p:
        chromium = p.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu", "--disable-background-networking"])
        page = chromium.new_page()
        page.set_default_timeout(60_000)
        page.on("pageerror", lambda error: told.error(f"Chromium: {error}"))
        page.on("response", lambda r: told.error(f"Chromium: {r.status} of {r.url.removeprefix(url)}") if r.status >= 400 else None)
        try:
            page.goto(f"{url}/?{DEMO}")
            chance = random.Random(1000)
            while time.monotonic() < until:
                page.get_by_test_id("stSidebarNavLink").first.wait_for(state="attached")
                chance.choice(page.get_by_test_id("stSidebarNavLink").all()).dispatch_event("click")         # wherever it is scrolled to
                page.get_by_role("heading").first.wait_for()
                told.browsed += 1
                page.wait_for_timeout(1000 * min(chance.uniform(*THINK_S), max(0.1, until - time.monotonic())))
        except BrowserError as error:
            told.error(f"Chromium: {error.message.splitlines()[0]}")
        chromium.close()


def prepared(port: int, data: Path) -> None:
    """The demo plant is there and in the charts."""
    until = time.monotonic() + 1800
    while time.monotonic() < until:
        with Visitor(port) as first:
            if b"Line 2" in first.ask("overview", DEMO, timeout=600).content:
                return
        time.sleep(2)
    raise DiffspectError(f"The demo plant did not come about in {data}.")


def measure(clients: int, minutes: float, data: Path) -> Told:
    port, told = free_port(), Told()
    url = f"http://127.0.0.1:{port}"
    data.mkdir(parents=True, exist_ok=True)
    with open(data / "server.log", "ab") as log:
        server = subprocess.Popen([sys.executable, "-m", "streamlit", "run", "app.py", "--server.port", str(port)], cwd=ROOT,
                                  env={**os.environ, "DIFFSPECT_DATA": str(data)}, stdout=log, stderr=log)
    try:
        wait_healthy(url, server, 600)
        prepared(port, data)
        began = time.monotonic()
        until = began + 60 * minutes
        seats: list[Callable[[], None]] = [lambda n=n: visit(n, port, until, told) for n in range(clients)]      # type: ignore[misc]
        seats.append(lambda: sample(psutil.Process(server.pid), began, until, told))
        threads = [threading.Thread(target=seat, daemon=True) for seat in seats]
        for thread in threads:
            thread.start()
        browse(url, until, told)                                 # Playwright belongs to the thread that started it
        for thread in threads:
            thread.join(300)
        if server.poll() is not None:
            told.error(f"the server ended with code {server.returncode}")
    finally:
        stop_everything(data, server)
    return told


def tell(told: Told, clients: int, minutes: float) -> None:
    taken = [ms for values in told.reruns.values() for ms in values]
    growth, last = slope(told.memory, "rss_mb"), int(told.memory[-1]["minutes"])
    each = {m: [s["rss_mb"] for s in told.memory if int(s["minutes"]) == m] for m in range(last + 1)}
    p95 = quantile(taken, 0.95)
    arm = {"reruns": [len(taken)], "sessions": [told.sessions], "uploads": [len(told.uploads)], "pages in Chromium": [told.browsed],
           "errors": [len(told.errors)], "p50 of a rerun, ms": [quantile(taken, 0.5)], "p95 of a rerun, ms": [p95],
           **{f"ms: {page}": values for page, values in sorted(told.reruns.items())}, "upload s": told.uploads or [0.0],
           "memory MB, at the start": [round(told.memory[0]["rss_mb"], 1)],
           "memory MB, minute by minute": [round(median(values), 1) for values in each.values() if values],
           "MB a minute": [growth[k] for k in ("slope", "low", "high")]}
    flat = "flat" if growth["high"] < FLAT else "not flat"
    notes = (f"{clients} sessions with {THINK_S[0]:g} to {THINK_S[1]:g} s of thought and one Chromium for {minutes:g} minutes, on the demo "
             f"plant of 200,000 inspections and what is uploaded meanwhile; {cores()} cores for server, workers, sessions and Chromium. "
             f"95 of 100 reruns within {p95:,.0f} ms (aim: {AIM_MS:,.0f}). Memory: {flat} (95 % interval of the slope below {FLAT:g} MB a "
             f"minute). {'No error.' if not told.errors else 'Errors: ' + '; '.join(sorted(set(told.errors))[:5])}")
    command = f"python -m tests.benchmarks.sessions --clients {clients} --minutes {minutes:g}"
    path = write("sessions", command, {"dashboard": arm}, [], notes, ("streamlit", "duckdb", "websockets", "playwright"))
    print(f"{len(taken)} reruns, p50 {quantile(taken, 0.5):,.0f} ms, p95 {p95:,.0f} ms, {len(told.errors)} errors, {len(told.uploads)} "
          f"uploads; memory {told.memory[0]['rss_mb']:.0f} to {told.memory[-1]['rss_mb']:.0f} MB, {flat}: {growth}\n{path}")


def main() -> None:
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--clients", type=int, default=30)
    ap.add_argument("--minutes", type=float, default=10.0)
    ap.add_argument("--data", type=Path, help="data folder, kept, where the demo plant may be already; default: a temporary one")
    a = ap.parse_args()
    with tempfile.TemporaryDirectory(prefix="sessions-") as folder:
        data = a.data.resolve() if a.data else Path(folder) / "data"
        tell(measure(a.clients, a.minutes, data), a.clients, a.minutes)


if __name__ == "__main__":
    main()

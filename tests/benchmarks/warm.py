"""The warm path in a real browser: click to first overlay of 20 uploaded pictures, click to Trends of 200, medians of several.

    python -m tests.benchmarks.warm [--rounds 7] [--first 20] [--many 200]

The app with its supervisor and warm inspector on a data folder of its own, without the demo plant; NEU-DET's test files where they are
(200 px, the network takes 224), else drawn plates; the demo model. Before each round the inspector is warm: its process waits for a run.
First overlay: the first picture of the batch, with its boxes, is decoded on the screen. Trends: a second tab, open on Trends meanwhile,
shows the new total without a hand on it. Where the time goes: when the run was submitted, taken, its first and last rows written.
"""

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

import psutil
from playwright.sync_api import Page, sync_playwright

from backend.jobs import events
from tests.benchmarks.inference import files
from tests.benchmarks.record import ROOT, write

sys.path.insert(0, str(ROOT / "tests" / "browser"))
from conftest import CHROMIUM, free_port, settled, stop_everything, wait_healthy
from test_journey import choose

SHOWN = "() => [...document.querySelectorAll('[data-testid=stImage] img')].some(i => i.complete && i.naturalWidth > 50)"


def warm(data: Path) -> None:
    """Wait until a process waits for a run with its model loaded: it has used its processor time and rests."""
    until, before = time.monotonic() + 120, -1.0
    while time.monotonic() < until:
        found = [p for p in psutil.process_iter() if _is_warm(p, data)]
        used = sum(sum(p.cpu_times()[:2]) for p in found)
        if found and used > 0.5 and used == before:
            return
        before = used
        time.sleep(1)
    raise AssertionError("no warm inspector came up")


def _is_warm(process: "psutil.Process", data: Path) -> bool:
    try:
        return "--warm" in process.cmdline() and process.environ().get("DIFFSPECT_DATA") == str(data)
    except (psutil.NoSuchProcess, psutil.AccessDenied):
        return False


def batch(page: Page, url: str, paths: list[Path], line: str) -> None:
    """Everything but the click."""
    page.goto(f"{url}/inspection")
    page.locator("input[type=file]").first.set_input_files([str(p) for p in paths])
    page.get_by_text(f"{len(paths)} files ready").wait_for()
    settled(page)
    box = page.locator(".st-key-batch_line").get_by_role("combobox")
    if box.input_value() != line:                                            # later it stands there from the last time
        choose(page, "Line", line)
    page.get_by_text("Off: without a line").wait_for(state="detached")
    settled(page)


def stages(data: Path) -> dict[str, float]:
    """Seconds from the run's making to its taking, its first rows, its last rows."""
    run = max((data / "runs").glob("*-inspect-*"))
    made = _at(json.loads((run / "job.json").read_text())["created_at"])
    parts = sorted(p.stat().st_mtime for p in (run / "parts").glob("inspections-*"))
    taken = _at(json.loads((run / "state.json").read_text())["started_at"])
    return {"taken": taken - made, "first rows": parts[0] - made, "last rows": parts[-1] - made}


def _at(iso: str) -> float:
    from datetime import datetime

    return datetime.fromisoformat(iso).timestamp()


def first_overlay(page: Page, url: str, paths: list[Path], data: Path) -> dict[str, float]:
    batch(page, url, paths, "Line A")
    warm(data)
    began = time.perf_counter()
    page.get_by_role("button", name=re.compile(f"Inspect {len(paths)} files")).click()
    page.wait_for_function(SHOWN, polling=20)
    found = {"first overlay": time.perf_counter() - began}
    page.get_by_role("heading", name=f"of {len(paths)} defective").wait_for()
    found["all shown"] = time.perf_counter() - began
    page.wait_for_timeout(1500)
    return found | stages(data)


def into_trends(page: Page, other: Page, url: str, paths: list[Path], data: Path, there: int) -> dict[str, float]:
    batch(page, url, paths, "Line A")
    other.goto(f"{url}/trends?plant=real")
    other.get_by_test_id("stMetric").first.wait_for()
    warm(data)
    began = time.perf_counter()
    page.get_by_role("button", name=re.compile(f"Inspect {len(paths)} files")).click()
    other.get_by_text(re.compile(rf"of {there + len(paths):,}\b")).first.wait_for()
    found = {"in Trends": time.perf_counter() - began}
    page.wait_for_timeout(3000)
    return found | stages(data)


def main() -> None:
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--rounds", type=int, default=7)
    ap.add_argument("--first", type=int, default=20)
    ap.add_argument("--many", type=int, default=200)
    a = ap.parse_args()
    with tempfile.TemporaryDirectory(prefix="warm-") as folder, sync_playwright() as p:
        root, port = Path(folder), free_port()
        data, url = root / "data", f"http://127.0.0.1:{port}"
        shown = files(root / "pictures", a.rounds * (a.first + a.many))
        pictures = sorted((root / "pictures").iterdir())
        os.environ["DIFFSPECT_DATA"] = str(data)
        events.set_calendar()                                                # a folder with a run in it gets no demo plant
        server = subprocess.Popen([sys.executable, "-m", "streamlit", "run", "app.py", "--server.port", str(port)], cwd=ROOT,
                                  stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        told: dict[str, list[dict[str, float]]] = {"first": [], "many": []}
        try:
            wait_healthy(url, server, 180)
            quiet = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
            chromium = p.chromium.launch(executable_path=CHROMIUM, args=quiet)
            page, other, there = chromium.new_page(), chromium.new_page(), 0
            for one in (page, other):
                one.set_default_timeout(180_000)
            for k in range(a.rounds):
                some = pictures[k * (a.first + a.many):][:a.first + a.many]
                told["first"].append(first_overlay(page, url, some[:a.first], data))
                told["many"].append(into_trends(page, other, url, some[a.first:], data, there + a.first))
                there += a.first + a.many
                print(json.dumps({kind: {m: round(v, 2) for m, v in rounds[-1].items()} for kind, rounds in told.items()}), flush=True)
        finally:
            stop_everything(data, server)
    arms: dict[str, dict[str, list[float]]] = {
        title: {f"{m}, s": [round(one[m], 3) for one in told[kind]] for m in told[kind][0]}
        for kind, title in (("first", f"{a.first} uploaded pictures"), ("many", f"{a.many} uploaded pictures"))}
    path = write("warm", f"python -m tests.benchmarks.warm --rounds {a.rounds}", arms, [],
                 f"{shown}; the demo model at 224 px, the inspector warm, a real browser here too; seconds from the click "
                 "(first overlay, all shown, in Trends) or from the run's making (taken, first rows, last rows).",
                 ("streamlit", "duckdb", "openvino"))
    summary: dict[str, Any] = {title: {m: round(median(v), 3) for m, v in values.items()} for title, values in arms.items()}
    print(json.dumps(summary | dict(path=str(path))))


if __name__ == "__main__":
    main()

"""How light the dashboard's own process is: first paint, and its memory while 1,000 pictures of 250 KB are uploaded.

    python -m tests.benchmarks.dashboard

Needs Chromium. The pictures are noise: they are accepted, stored and inspected like any others.
"""

import subprocess
import sys
import tempfile
import threading
import time
from io import BytesIO
from os import environ
from pathlib import Path
from statistics import median

import numpy as np
import psutil
from PIL import Image
from playwright.sync_api import Page, sync_playwright

from tests.benchmarks.record import ROOT, write

sys.path.insert(0, str(ROOT / "tests" / "browser"))
from conftest import CHROMIUM, free_port, stop_everything, wait_healthy

N, BYTES = 1000, 250_000


class Memory(threading.Thread):
    """Samples the resident memory of one process, in MB, until stopped."""

    def __init__(self, pid: int) -> None:
        super().__init__(daemon=True)
        self.process, self.peak, self.going = psutil.Process(pid), 0.0, True

    def now(self) -> float:
        return float(self.process.memory_info().rss) / 1e6

    def run(self) -> None:
        while self.going:
            self.peak = max(self.peak, self.now())
            time.sleep(0.1)


def picture(seed: int) -> bytes:
    """A JPEG of noise of about BYTES."""
    pixels = np.random.default_rng(seed).integers(0, 256, (340, 340, 3), dtype=np.uint8)
    out = BytesIO()
    Image.fromarray(pixels).save(out, "JPEG", quality=97, subsampling=0)
    return out.getvalue() + bytes(max(0, BYTES - out.tell()))      # trailing zeros: only the size matters here


def first_paint(page: Page, url: str) -> float:
    start = time.perf_counter()
    page.goto(url)
    page.get_by_role("heading", name="Overview").wait_for()
    return time.perf_counter() - start


def main() -> None:
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as p:
        root, port = Path(folder), free_port()
        files = [root / f"part-{k:04d}.jpg" for k in range(N)]
        for k, file in enumerate(files):
            file.write_bytes(picture(k))
        url, data = f"http://127.0.0.1:{port}", root / "data"
        server = subprocess.Popen([sys.executable, "-m", "streamlit", "run", "app.py", "--server.port", str(port)], cwd=ROOT,
                                  env={**environ, "DIFFSPECT_DATA": str(data)}, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            wait_healthy(url, server)
            quiet = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
            chromium = p.chromium.launch(executable_path=CHROMIUM, args=quiet)
            page = chromium.new_page()
            page.set_default_timeout(180_000)
            cold = first_paint(page, url)
            page.get_by_role("heading", name="Line 2").first.wait_for()
            paints = [first_paint(chromium.new_page(), url) for _ in range(5)]
            page.goto(f"{url}/inspection")
            page.get_by_role("heading", name="Inspection").wait_for()
            time.sleep(3)
            memory = Memory(server.pid)
            before = memory.now()
            memory.start()
            start = time.perf_counter()
            page.locator("input[type=file]").first.set_input_files([str(f) for f in files])
            page.get_by_role("button", name=f"Inspect {N:,} files").click()
            page.get_by_role("heading", name="defective").first.wait_for()
            first = time.perf_counter() - start
            page.get_by_role("heading", name=f"of {N:,} defective").wait_for()
            done = time.perf_counter() - start
            time.sleep(30)
            memory.going = False
            arm = {"first paint s, median of 5": [median(paints)], "first paint s, new server": [cold],
                   "upload peak MB above start": [memory.peak - before], "MB above start 30 s after": [memory.now() - before],
                   "first result s": [first], "all results s": [done]}
            write("dashboard_light", "python -m tests.benchmarks.dashboard", {"dashboard process": arm}, [],
                  f"Demo plant of 200,000 inspections; {N:,} JPEGs of {BYTES // 1000} KB through the browser's file input, 340 px.",
                  ("streamlit", "duckdb", "onnxruntime"))
            print(arm)
        finally:
            stop_everything(data, server)


if __name__ == "__main__":
    main()

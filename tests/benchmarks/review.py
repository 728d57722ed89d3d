"""How long a reviewer waits: from a key press to the next picture, decoded and painted, in a real browser.

    python -m tests.benchmarks.review [--presses 30]

On the demo plant of 200,000 inspections: the random sample, the doubtful queue, and drawing boxes. It counts, too, how often the whole page
ran for it. Needs Chromium and a machine that does nothing else.
"""

import argparse
import subprocess
import sys
import tempfile
from os import environ, getloadavg
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from playwright.sync_api import Page, WebSocket, sync_playwright
from streamlit.proto.ForwardMsg_pb2 import ForwardMsg

from tests.benchmarks.record import ROOT, write

sys.path.insert(0, str(ROOT / "tests" / "browser"))
from conftest import CHROMIUM, free_port, settled, stop_everything, wait_healthy

QUEUES = {"random sample": ("Random+sample", "g", "to look at"), "doubtful": ("Doubtful", "g", "to look at"),
          "boxes": ("Label", "Enter", "to label")}

# Resolves with the milliseconds from now until another picture than this one is decoded and the frame after it has begun.
NEXT = """() => new Promise(done => {
  const canvas = [...document.querySelectorAll('*')].find(e => e.shadowRoot && e.shadowRoot.querySelector('.canvas'));
  const source = () => canvas ? canvas.shadowRoot.querySelector('image').getAttribute('href')
                              : (document.querySelector('[data-testid="stImage"] img') || {}).src;
  const before = source(), start = performance.now(), seen = new MutationObserver(look);
  async function look() {
    const now = source();
    if (!now || now === before) return;
    seen.disconnect();
    const image = new Image();
    image.src = now;
    await image.decode();
    requestAnimationFrame(() => setTimeout(() => done(performance.now() - start)));
  }
  for (const root of canvas ? [canvas.shadowRoot, document.body] : [document.body])
    seen.observe(root, {subtree: true, childList: true, attributes: true, attributeFilter: ['src', 'href']});
})"""


def waits(page: Page, key: str, presses: int) -> list[float]:
    """Milliseconds, press by press; between two of them a person looks for a second."""
    found = []
    for _ in range(presses):
        page.evaluate(f"() => {{ window.next = ({NEXT})(); }}")
        page.keyboard.press(key)
        found.append(float(page.evaluate("() => window.next")))
        page.wait_for_timeout(1000)
    return found


def listen(socket: WebSocket, runs: list[str]) -> None:
    """Note which script runs came to their end."""
    def frame(data: Any) -> None:
        message = ForwardMsg()
        if isinstance(data, bytes):
            message.ParseFromString(data)
            if message.WhichOneof("type") == "script_finished":
                runs.append(ForwardMsg.ScriptFinishedStatus.Name(message.script_finished))
    socket.on("framereceived", frame)


def measure(page: Page, url: str, presses: int) -> dict[str, dict[str, list[float]]]:
    runs: list[str] = []
    page.on("websocket", lambda socket: listen(socket, runs))
    page.goto(f"{url}/review?plant=demo&queue=Random+sample")
    page.get_by_role("button", name="Draw the sample").click(timeout=180_000)
    page.get_by_text("to look at").first.wait_for()
    arms = {}
    for name, (queue, key, sign) in QUEUES.items():
        page.goto(f"{url}/review?plant=demo&queue={queue}")
        page.get_by_text(sign).first.wait_for()
        settled(page)
        page.wait_for_timeout(2000)
        runs.clear()
        found = waits(page, key, presses)
        arms[name] = {"ms, median": [median(found)], "ms, 95 of 100 within": [float(np.quantile(found, 0.95))],
                      "whole pages run": [float(sum("FRAGMENT" not in r for r in runs))]}
        print(name, arms[name], flush=True)
    return arms


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--presses", type=int, default=30)
    presses = parser.parse_args().presses
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as p:
        data, port = Path(folder) / "data", free_port()
        url, env = f"http://127.0.0.1:{port}", {**environ, "DIFFSPECT_DATA": str(data)}
        subprocess.run([sys.executable, "-m", "backend", "demo"], cwd=ROOT, env=env, check=True, capture_output=True)
        server = subprocess.Popen([sys.executable, "-m", "streamlit", "run", "app.py", "--server.port", str(port)], cwd=ROOT, env=env,
                                  stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            wait_healthy(url, server)
            page = p.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu", "--disable-background-networking"]) \
                .new_page(viewport={"width": 1400, "height": 1000})
            page.set_default_timeout(180_000)
            busy = getloadavg()[0]
            arms = measure(page, url, presses)
            write("review", "python -m tests.benchmarks.review", arms, [], f"Demo plant of 200,000 inspections, {presses} presses each, a "
                  f"second apart; headless Chromium beside the server on one machine, whose load was {busy:.1f} before.",
                  ("streamlit", "duckdb"))
        finally:
            stop_everything(data, server)


if __name__ == "__main__":
    main()

"""A real server and a real browser: `app` is the dashboard on a data folder of the module's own, `page` is headless Chromium.

A new folder gets a calendar; a module that says `DEMO = True` gets what everybody does, the demo plant and a warm worker too, which take
ten seconds of a core before they are there.

Chromium is Debian's (`apt-get install chromium`); where there is none, the tests say that they are skipped.
"""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright

from backend.jobs import events

ROOT = Path(__file__).resolve().parents[2]
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.browser)
            if CHROMIUM is None:
                item.add_marker(pytest.mark.skip(reason="no Chromium here: apt-get install chromium"))


def settled(page: Page) -> None:
    """Wait until the server has nothing left to draw: what is clicked while it draws may move under the pointer."""
    page.wait_for_timeout(300)
    expect(page.get_by_test_id("stApp").and_(page.locator('[data-test-script-state="notRunning"]'))).to_be_attached(timeout=60_000)
    expect(page.get_by_test_id("stStatusWidget")).to_have_count(0, timeout=60_000)


@dataclass
class App:
    url: str
    data: Path
    process: "subprocess.Popen[bytes]"


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])


def wait_healthy(url: str, process: "subprocess.Popen[bytes]", seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        assert process.poll() is None, "the server ended early"
        try:
            if urllib.request.urlopen(f"{url}/_stcore/health", timeout=2).status == 200:
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.2)
    raise AssertionError("the server did not come up")


def stop_everything(data: Path, process: "subprocess.Popen[bytes]") -> None:
    """End the server and the supervisor and workers it left running: those whose environment names this data folder."""
    process.send_signal(signal.SIGTERM)
    process.wait(20)
    for p in psutil.process_iter():
        try:
            if p.environ().get("DIFFSPECT_DATA") == str(data) and p.pid != os.getpid():
                p.kill()
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue


@pytest.fixture(scope="module")
def app(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[App]:
    folder, port = tmp_path_factory.mktemp("app"), free_port()
    data, log, more = folder / "data", open(folder / "server.log", "wb"), {}
    if not getattr(request.module, "DEMO", False):
        more = {"DIFFSPECT_WARM": "off"}
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("DIFFSPECT_DATA", str(data))
            events.set_calendar()                                # no new folder any more
    process = subprocess.Popen(
        [sys.executable, "-m", "streamlit", "run", "app.py", "--server.port", str(port)], cwd=ROOT, stdout=log, stderr=subprocess.STDOUT,
        env={**os.environ, "DIFFSPECT_DATA": str(data), "DIFFSPECT_MESSENGER": "off", **more})
    try:
        wait_healthy(f"http://127.0.0.1:{port}", process)
        yield App(f"http://127.0.0.1:{port}", data, process)
    finally:
        stop_everything(data, process)
        log.close()
        print((folder / "server.log").read_text()[-4000:])


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    with sync_playwright() as p:
        chromium = p.chromium.launch(executable_path=CHROMIUM, args=[
            "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
            "--disable-background-networking", "--disable-component-update", "--disable-sync"])
        yield chromium
        chromium.close()


@pytest.fixture
def page(browser: Browser, app: App, request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Page]:
    """A page that fails the test on any request to a foreign host; its last picture is kept."""
    context = browser.new_context(viewport={"width": 1400, "height": 1000}, accept_downloads=True)
    page = context.new_page()
    foreign: list[str] = []
    ours = (app.url, app.url.replace("http", "ws"), "data:", "blob:")
    page.on("request", lambda r: None if r.url.startswith(ours) else foreign.append(r.url))
    page.set_default_timeout(30_000)
    yield page
    page.screenshot(path=str(tmp_path / "last.png"), full_page=True)
    context.close()
    assert not foreign, f"the page asked a foreign host: {foreign[:3]}"

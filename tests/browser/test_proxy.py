"""The reverse proxy of docs/proxy.md, as it stands there: nginx with a self-made certificate, and a phone's browser behind it."""

import os
import re
import shutil
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import ROOT, free_port, stop_everything, wait_healthy
from playwright.sync_api import Browser, expect

from backend.jobs import people

MINUTE = 60_000
NAME, SECRET = "diffspect.plant.example", "the roll was changed at noon"
pytestmark = [pytest.mark.slow, pytest.mark.skipif(shutil.which("nginx") is None, reason="no nginx here: apt-get install nginx")]


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    subprocess.run(["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-keyout", tmp_path / "own.key", "-out",
                    tmp_path / "own.crt", "-subj", f"/CN={NAME}", "-addext", f"subjectAltName=DNS:{NAME}"], check=True, capture_output=True)
    return tmp_path / "own.crt"


def nginx(tmp_path: Path, certificate: Path, port: int, inner: int) -> "subprocess.Popen[bytes]":
    """As documented, but for the port, the certificate's place, and that it is not the machine's own nginx."""
    told = re.search(r"```nginx\n(.*?)```", (ROOT / "docs" / "proxy.md").read_text(), re.DOTALL)
    assert told
    site = told[1].replace("listen 443 ssl", f"listen 127.0.0.1:{port} ssl").replace("127.0.0.1:8501", f"127.0.0.1:{inner}")
    site = site.replace("/etc/ssl/diffspect.crt", str(certificate)).replace("/etc/ssl/diffspect.key", str(certificate.with_suffix(".key")))
    assert site.count(str(certificate.with_suffix(""))) == 2
    scratch = "".join(f"{kind}_temp_path {tmp_path}/{kind};\n" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
    (tmp_path / "nginx.conf").write_text(f"daemon off; pid {tmp_path}/nginx.pid; error_log {tmp_path}/nginx.log;\nevents {{}}\n"
                                         f"http {{ access_log off;\n{scratch}{site} }}\n")
    return subprocess.Popen(["nginx", "-p", str(tmp_path), "-c", str(tmp_path / "nginx.conf")])


@pytest.fixture
def behind(tmp_path: Path, certificate: Path) -> Iterator[tuple[str, str]]:
    """Addresses of the dashboard: over nginx, and its own."""
    data, inner, port = tmp_path / "data", free_port(), free_port()
    given = {**os.environ, "DIFFSPECT_DATA": str(data), "DIFFSPECT_MESSENGER": "off", "DIFFSPECT_PROXY": "127.0.0.1"}
    subprocess.run([sys.executable, "-m", "backend", "accounts", "add", "Kim", "--role", "admin", "--password-stdin"], cwd=ROOT, env=given,
                   input=SECRET, text=True, check=True, timeout=120)
    server = subprocess.Popen([sys.executable, "-m", "streamlit", "run", "app.py", "--server.port", str(inner)], cwd=ROOT, env=given)
    proxy = nginx(tmp_path, certificate, port, inner)
    try:
        wait_healthy(f"http://127.0.0.1:{inner}", server, 120)
        yield f"https://{NAME}:{port}", f"http://127.0.0.1:{inner}"
    finally:
        proxy.send_signal(signal.SIGTERM)
        proxy.wait(20)
        stop_everything(data, server)
        print((tmp_path / "nginx.log").read_text())


@pytest.mark.timeout(400)
def test_a_manager_s_phone_gets_in_over_tls(behind: tuple[str, str], browser: Browser, tmp_path: Path,
                                            monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DIFFSPECT_DATA", str(tmp_path / "data"))
    outer, inner = behind
    for headers in ({"X-Forwarded-For": "10.1.2.3", "X-Forwarded-Proto": "http"}, {"Host": NAME}):
        with pytest.raises(urllib.error.HTTPError) as refused:
            urllib.request.urlopen(urllib.request.Request(inner, headers=headers), timeout=20)
        assert refused.value.code == 403 and "unprotected line" in refused.value.read().decode()

    phone = browser.browser_type.launch(executable_path=shutil.which("chromium"), args=[
        "--no-sandbox", "--disable-gpu", f"--host-resolver-rules=MAP {NAME} 127.0.0.1"])
    context = phone.new_context(viewport={"width": 390, "height": 844}, has_touch=True, is_mobile=True, ignore_https_errors=True)
    page = context.new_page()
    sockets: list[str] = []
    page.on("websocket", lambda socket: sockets.append(socket.url))
    page.set_default_timeout(MINUTE)
    page.goto(outer)
    page.locator(".st-key-sign_in_name input").fill("Kim")
    page.locator(".st-key-sign_in_password input").fill(SECRET)
    page.get_by_role("button", name="Sign in", exact=True).click()
    expect(page.get_by_role("button", name="Sign in", exact=True)).to_have_count(0, timeout=2 * MINUTE)
    page.wait_for_function("() => document.querySelector('[data-test-script-state=notRunning]')")
    expect(page.get_by_text("Demo plant").first).to_be_visible(timeout=2 * MINUTE)
    cookie = next(c for c in context.cookies() if c["name"].startswith("diffspect_session_"))
    assert cookie["secure"] and cookie["httpOnly"] and cookie["sameSite"] == "Strict" and people.person(cookie["value"]) is not None
    page.reload()
    expect(page.get_by_text("Demo plant").first).to_be_visible(timeout=2 * MINUTE)
    assert sockets and all(url.startswith(outer.replace("https", "wss")) for url in sockets)
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    page.screenshot(path=str(tmp_path / "phone.png"))
    phone.close()

"""A page of somebody else cannot upload in a visitor's name: the running server refuses what does not carry the token of its own cookie."""

import http.client
import os
import re
import subprocess
import sys
import time
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import settle_down

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture
def port(tmp_path: Path) -> Iterator[int]:
    """The dashboard itself, as `make app` starts it."""
    import socket

    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        free = int(s.getsockname()[1])
    quiet = dict(DIFFSPECT_DATA=str(tmp_path / "data"), DIFFSPECT_SUPERVISOR="off", DIFFSPECT_MESSENGER="off")
    server = subprocess.Popen([sys.executable, "-m", "streamlit", "run", "app.py", "--server.port", str(free)], cwd=ROOT,
                              env=os.environ | quiet, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        until = time.monotonic() + 60
        while time.monotonic() < until and server.poll() is None:
            try:
                if ask(free, "GET", "/_stcore/health")[0] == 200:
                    break
            except OSError:
                time.sleep(0.1)
        yield free
    finally:
        server.terminate()
        server.wait(20)
        settle_down(tmp_path / "data")


def ask(port: int, method: str, path: str, **headers: str) -> tuple[int, str, str]:
    """Status, body and cookies of an answer."""
    line = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    try:
        line.request(method, path, b"GIF89a" if method == "PUT" else None, {k.replace("_", "-"): v for k, v in headers.items()})
        answer = line.getresponse()
        return answer.status, answer.read().decode(errors="replace"), answer.getheader("Set-Cookie") or ""
    finally:
        line.close()


def test_the_guard_is_on() -> None:
    config = tomllib.loads((ROOT / ".streamlit" / "config.toml").read_text())
    assert config["server"]["enableXsrfProtection"] is True and config["server"].get("enableCORS", True) is True
    assert config["browser"]["gatherUsageStats"] is False and config["server"]["address"] == "127.0.0.1"


def test_an_upload_without_the_token_is_refused_by_the_running_server(port: int) -> None:
    place = "/_stcore/upload_file/someone/one"
    cookie = next(found for path in ("/_stcore/health", "/_stcore/host-config") if (found := ask(port, "GET", path)[2]))
    name, token = re.match(r"(_streamlit_xsrf)=([^;]+)", cookie).groups()                         # type: ignore[union-attr]
    for headers in ({}, {"Cookie": f"{name}={token}"}, {"X-Xsrftoken": token}, {"Cookie": f"{name}={token}", "X-Xsrftoken": "2|wrong|0|1"},
                    {"Cookie": f"{name}=other", "X-Xsrftoken": token}):
        status, said, _ = ask(port, "PUT", place, **headers)
        assert status == 403 and "XSRF" in said, (headers, status, said)
        assert ask(port, "DELETE", place, **headers)[0] == 403
    status, said, _ = ask(port, "PUT", place, Cookie=f"{name}={token}", X_Xsrftoken=token)
    assert status == 400 and "session" in said, "with both it is another question: whose session this is"

"""Signing in in a browser: the cookie no script can read, which outlives a reload and opens other tabs; a refused page and a refused deed;
and the way out, in all tabs. Before that: who asks from elsewhere is not answered."""

import http.client
import json
import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import ROOT, App, free_port, settled, stop_everything, wait_healthy
from playwright.sync_api import Browser, Page, expect
from streamlit.web.server.starlette.starlette_app_utils import create_signed_value

from backend.jobs import audit, people

MINUTE = 60_000
COOKIES = "a long text that only the server knows"
SECRET = "the roll was changed at noon"


def command(app: App, *arguments: str, typed: str = "") -> None:
    subprocess.run([sys.executable, "-m", "backend", *arguments], cwd=ROOT, input=typed, text=True, check=True, timeout=120,
                   env={**os.environ, "DIFFSPECT_DATA": str(app.data)})


def answer(app: App, path: str, method: str = "GET", **headers: str) -> tuple[int, str]:
    asked = urllib.request.Request(f"{app.url}{path}", method=method, headers={k.replace("_", "-"): v for k, v in headers.items()})
    try:
        with urllib.request.urlopen(asked, timeout=20) as said:
            return said.status, said.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


@pytest.mark.timeout(400)
def test_a_manager_signs_in_is_refused_and_signs_out(app: App, page: Page, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DIFFSPECT_DATA", str(app.data))
    assert answer(app, "/")[0] == 200
    code, said = answer(app, "/", Host="plant.example")
    assert code == 403 and "at this machine only" in said
    assert answer(app, "/", X_Forwarded_For="10.1.2.3")[0] == 403 and answer(app, "/_stcore/health", Host="plant.example")[0] == 200

    # the first account, at the machine; it signs in at once, and a reload keeps it in
    page.goto(f"{app.url}/users")
    for key, value in (("first_name", "Ana"), ("first_password", SECRET), ("first_again", SECRET)):
        page.locator(f".st-key-{key} input").fill(value)
    page.get_by_role("button", name="Set up and sign in").click()
    expect(page.get_by_text("Choose somebody to change")).to_be_visible(timeout=MINUTE)
    settled(page)
    cookie = next(c for c in page.context.cookies() if c["name"].startswith("diffspect_session_"))
    assert cookie["httpOnly"] and cookie["sameSite"] == "Strict" and "diffspect_session" not in page.evaluate("document.cookie")
    command(app, "accounts", "add", "Kim", "--role", "manager", "--password-stdin", typed=f"{SECRET}\n")
    page.reload()
    expect(page.get_by_text("Choose somebody to change")).to_be_visible(timeout=MINUTE)
    page.get_by_text("My account", exact=True).click()
    page.get_by_role("button", name="Sign out").click()

    # the manager: by password, in two tabs
    expect(page.get_by_role("button", name="Sign in", exact=True)).to_be_visible(timeout=MINUTE)
    page.locator(".st-key-sign_in_name input").fill("Kim")
    page.locator(".st-key-sign_in_password input").fill("wrong")
    page.get_by_role("button", name="Sign in", exact=True).click()
    expect(page.get_by_text("do not belong together")).to_be_visible(timeout=MINUTE)
    settled(page)
    page.locator(".st-key-sign_in_password input").fill(SECRET)
    page.get_by_role("button", name="Sign in", exact=True).click()
    menu = page.get_by_test_id("stSidebarNav")
    expect(menu.get_by_text("Trends")).to_be_visible(timeout=MINUTE)
    expect(menu.get_by_text("Models")).to_have_count(0)
    expect(menu.get_by_text("My account")).to_be_visible()
    settled(page)
    other = page.context.new_page()
    other.goto(f"{app.url}/models")
    expect(other.get_by_text("is for engineers and admins; Kim has the role manager")).to_be_visible(timeout=MINUTE)
    name, token = next((c["name"], c["value"]) for c in page.context.cookies() if c["name"].startswith("diffspect_session_"))
    assert people.person(token) == people.Person("Kim", "manager")

    # out in one tab is out in all, and the token is worth nothing
    page.goto(f"{app.url}/users")
    page.get_by_role("button", name="Sign out").click()
    expect(page.get_by_role("button", name="Sign in", exact=True)).to_be_visible(timeout=MINUTE)
    other.reload()
    expect(other.get_by_role("button", name="Sign in", exact=True)).to_be_visible(timeout=MINUTE)
    assert people.person(token) is None
    assert answer(app, "/_stcore/upload_file/x/y", "PUT", Cookie=f"{name}={token}")[0] == 403
    assert answer(app, "/session", "POST", Origin="https://evil.example")[0] == 403
    said = [(e["who"], e["what"]) for e in reversed(audit.entries())]
    assert said[:2] == [("Ana", "account"), ("Ana", "sign-in")]
    assert said[-3:] == [("Kim", "refused"), ("Kim", "sign-in"), ("Kim", "sign-out")]
    assert audit.verify().holds


@pytest.fixture
def provided(tmp_path: Path) -> Iterator[App]:
    """The dashboard with a sign-in provider in its secrets, whom nobody can reach."""
    data, port = tmp_path / "data", free_port()
    (tmp_path / "secrets.toml").write_text(f'''[auth]
redirect_uri = "http://127.0.0.1:{port}/oauth2callback"
cookie_secret = "{COOKIES}"
client_id = "us"
client_secret = "known to nobody"
server_metadata_url = "http://127.0.0.1:9/.well-known/openid-configuration"
''')
    process = subprocess.Popen([sys.executable, "-m", "streamlit", "run", "app.py", "--server.port", str(port), "--secrets.files",
                                str(tmp_path / "secrets.toml")], cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                               env={**os.environ, "DIFFSPECT_DATA": str(data), "DIFFSPECT_MESSENGER": "off"})
    try:
        wait_healthy(f"http://127.0.0.1:{port}", process)
        yield App(f"http://127.0.0.1:{port}", data, process)
    finally:
        stop_everything(data, process)


@pytest.mark.timeout(300)
def test_out_with_a_provider_is_out_in_every_tab(provided: App, browser: Browser) -> None:
    """The provider's word is Streamlit's own cookie, as its callback would set it; each tab reads it when it connects."""
    command(provided, "accounts", "add", "Ana", "--role", "admin", "--password-stdin", typed=f"{SECRET}\n")
    command(provided, "accounts", "add", "Pat", "--role", "manager", "--address", "pat@plant.example")
    said = dict(origin=provided.url, is_logged_in=True, provider="default", email="pat@plant.example", email_verified=True,
                iat=int(time.time()))
    context = browser.new_context()
    context.add_cookies([dict(name="_streamlit_user", url=provided.url,
                              value=create_signed_value(COOKIES, "_streamlit_user", json.dumps(said)).decode())])
    here, other = context.new_page(), context.new_page()
    for page in (here, other):
        page.goto(f"{provided.url}/users")
        expect(page.get_by_text("Signed in with your company's account")).to_be_visible(timeout=MINUTE)
        settled(page)
    here.get_by_role("button", name="Sign out").click()
    for page in (here, other):                                   # the other one finds it by itself
        expect(page.get_by_role("button", name="Sign in with your company's account")).to_be_visible(timeout=MINUTE)
    settled(other)
    other.get_by_role("button", name="Sign in", exact=True).click()          # a run of the page, with what it still holds
    expect(other.get_by_text("do not belong together")).to_be_visible(timeout=MINUTE)
    expect(other.get_by_text("My account")).to_have_count(0)
    context.close()


@pytest.mark.timeout(120)
def test_a_server_that_listens_wider_does_not_start(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-m", "streamlit", "run", "app.py", "--server.address", "0.0.0.0", "--server.port", "8699"],
                          cwd=ROOT, env={**os.environ, "DIFFSPECT_DATA": str(tmp_path)}, capture_output=True, text=True, timeout=100)
    assert done.returncode != 0 and "nobody has set up accounts" in done.stderr + done.stdout
    with pytest.raises(OSError):
        http.client.HTTPConnection("127.0.0.1", 8699, timeout=2).request("GET", "/")

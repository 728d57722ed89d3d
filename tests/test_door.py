"""The routes beside Streamlit's, without a browser: the session's cookie and its name, and tickets that are none."""

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.testclient import TestClient

from backend.jobs import people
from pages.components import door

OWN = {"Origin": "http://testserver"}
SECRET = "the roll was changed at noon"


@pytest.fixture
def browser(data_folder: Path) -> Iterator[TestClient]:
    with TestClient(Starlette(routes=door.routes())) as client:
        yield client


def set_cookies(browser: TestClient, ticket: str) -> str:
    answer = browser.post("/session", content=ticket, headers=OWN)
    assert answer.status_code == 204
    return str(answer.headers["set-cookie"])


def test_two_servers_at_one_host_do_not_share_their_sessions(browser: TestClient, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Cookies know no ports: one browser, two data folders."""
    tokens = {}
    for folder in ("one", "two"):
        monkeypatch.setenv("DIFFSPECT_DATA", str(tmp_path / folder))
        tokens[folder] = people.set_up("Ana", SECRET, here=True)
        said = set_cookies(browser, people.ticket(tokens[folder]))
        assert "HttpOnly" in said and "SameSite=strict" in said
    for folder, token in tokens.items():
        monkeypatch.setenv("DIFFSPECT_DATA", str(tmp_path / folder))
        assert browser.cookies[people.cookie()] == token and people.person(token) is not None
    assert browser.post("/session/end", headers=OWN).status_code == 204
    monkeypatch.setenv("DIFFSPECT_DATA", str(tmp_path / "one"))
    assert list(browser.cookies) == [people.cookie()], "out of the second, and of that alone"
    assert people.person(tokens["one"]) is not None


def test_the_way_out_ends_the_session_of_the_cookie_too(browser: TestClient) -> None:
    """Two tabs that signed in one after the other: the first one's way out is the browser's."""
    first = people.set_up("Ana", SECRET, here=True)
    second = people.sign_in("Ana", SECRET)
    for token in (first, second):
        set_cookies(browser, people.ticket(token))
    people.sign_out(first)
    assert browser.post("/session/end", headers={"Origin": "https://evil.example"}).status_code == 403 and people.person(second)
    assert browser.post("/session/end", headers=OWN).status_code == 204 and people.person(second) is None and not browser.cookies


def test_a_ticket_of_excessive_size_is_refused(browser: TestClient) -> None:
    """What is larger than a ticket is not even held: the answer comes before the end of what is sent."""
    assert browser.post("/session", content="x" * (door.TICKET + 1), headers=OWN).status_code == 413
    assert browser.post("/session", content="x" * door.TICKET, headers=OWN).status_code == 403, "no ticket of ours"
    read, said = 0, list[Any]()

    async def receive() -> dict[str, Any]:
        nonlocal read
        read += 1
        return dict(type="http.request", body=b"x" * 150, more_body=True)                # without end

    async def send(message: Any) -> None:
        said.append(message)

    headers = [(b"origin", b"http://testserver"), (b"host", b"testserver")]
    scope = dict(type="http", method="POST", path="/session", raw_path=b"/session", query_string=b"", root_path="", headers=headers)
    asyncio.run(Starlette(routes=door.routes())(scope, receive, send))
    assert said[0]["status"] == 413 and read == 2


def test_another_site_s_page_sets_and_ends_nothing(browser: TestClient) -> None:
    token = people.set_up("Ana", SECRET, here=True)
    ticket = people.ticket(token)
    for path in ("/session", "/session/end"):
        answer = browser.post(path, content=ticket, headers={"Origin": "https://evil.example"})
        assert answer.status_code == 403 and "set-cookie" not in answer.headers
    assert people.pending(ticket), "it was not taken in"

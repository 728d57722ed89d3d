"""Before any page: whether the server may listen where it is told to, who may reach it, and the cookie that holds a session.

Routes of the server itself, beside Streamlit's: `POST /session` takes a page's ticket in and sets the cookie, which no script can read and
no other site can send; `POST /session/end` takes it away and ends its session. `Guard` stands before everything that the server answers.
What is allowed is said in `backend.jobs.entrance`.
"""

import sys
from typing import Any

import streamlit as st
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from backend import jobs
from backend.jobs import entrance, people, privileges

OPEN = ("/_stcore/health",)            # asked by whoever watches over the machine; it says "ok"
UPLOAD = "/_stcore/upload_file/"
TICKET = 200                           # bytes; a ticket has 32


def may_listen() -> None:
    """End the start of a server that listens wider than it may, with a sentence."""
    try:
        entrance.may_listen(st.get_option("server.address"), bool(st.get_option("server.sslCertFile")))
        if said := privileges.warning(st.get_option("server.address")):
            print(said, file=sys.stderr, flush=True)
    except jobs.DiffspectError as error:
        print(error, file=sys.stderr, flush=True)
        raise SystemExit(2) from None


def base() -> str:
    """'/plant' where the dashboard lives below a path, else ''."""
    path = str(st.get_option("server.baseUrlPath") or "").strip("/")
    return f"/{path}" if path else ""


def asked(scope: Any) -> entrance.Request:
    """What the server knows of a request. A port of 0 stands where a proxy on this machine told uvicorn whose address to put there."""
    peer, port = scope.get("client") or ("127.0.0.1", 1)
    headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}
    return entrance.Request(peer, port == 0, headers, bool(st.get_option("server.sslCertFile")))


class Guard:
    """ASGI middleware: refuses what may not come in, before anything of it is read."""

    def __init__(self, app: Any) -> None:
        self.app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        why = self.why_not(scope) if scope["type"] in ("http", "websocket") else ""
        if not why:
            await self.app(scope, receive, send)
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008, "reason": why[:120]})
        else:
            await PlainTextResponse(why, 403)(scope, receive, send)

    def why_not(self, scope: Any) -> str:
        path = str(scope["path"]).removeprefix(base())
        if path in OPEN:
            return ""
        if why := entrance.why_not(asked(scope)):
            return why
        if path.startswith(UPLOAD) and people.there() and people.person(Request(scope).cookies.get(people.cookie(), "")) is None:
            return "Sign in before you upload."                  # else anybody who reaches the server could fill its memory
        return ""


async def begin(request: Request) -> Response:
    """A page's own script hands its ticket in; what another site's form sends is refused."""
    if not _own(request):
        return Response(status_code=403)
    given = b""
    async for part in request.stream():
        given += part
        if len(given) > TICKET:                                  # anybody may ask: nothing larger is ever held
            return Response(status_code=413)
    token = people.exchange(given.decode("latin-1"))
    if token is None:
        return Response(status_code=403)
    answer = Response(status_code=204, headers={"Cache-Control": "no-store"})
    answer.set_cookie(people.cookie(), token, max_age=int(people.LASTS.total_seconds()), path=base() or "/", httponly=True,
                      samesite="strict", secure=entrance.over_tls(asked(request.scope)))
    return answer


async def end(request: Request) -> Response:
    """Take the cookie away, and end its session, which may be another tab's: each signed in by itself, and the last one has the cookie."""
    answer = Response(status_code=204 if _own(request) else 403, headers={"Cache-Control": "no-store"})
    if answer.status_code == 204:
        await run_in_threadpool(people.sign_out, request.cookies.get(people.cookie(), ""))
        answer.delete_cookie(people.cookie(), path=base() or "/", httponly=True, samesite="strict")
    return answer


def _own(request: Request) -> bool:
    """Whether a page of this server asks: browsers say where a POST comes from."""
    return entrance.host_of(request.headers.get("origin", "")) == entrance.host_of(request.headers.get("host", "?"))


def routes() -> list[Route]:
    return [Route(f"{base()}/session", begin, methods=["POST"]), Route(f"{base()}/session/end", end, methods=["POST"])]

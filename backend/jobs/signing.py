"""Signing in and out: passwords, lockout, sessions of twelve hours, and the ticket by which a browser gets its cookie.

    sign_in ─► token ─► ticket ─► (browser posts it to /session, once) ─► cookie, HttpOnly ─► person(token) at every call

A session is a file of `access/sessions`, named by the SHA-256 of its token: who reads the folder cannot take a session over. It ends twelve
hours after the sign-in, when somebody signs out (in all tabs of that browser), when the account is closed, and when the password is
changed. A sign-in provider's word is known by its address and second: once signed out, no session of it goes on and none begins, in
whichever tab still has it. The role is the account's at the moment of each call. Wrong passwords lock a name out (`tries`), an unknown
one alike, so nobody learns who there is. Knows nothing of browsers or pages.
"""

import hashlib
import json
import secrets
import threading
import time
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from pathlib import Path
from typing import Any

from backend.errors import AccessError, NotFoundError
from backend.jobs import accounts, audit, tries
from backend.jobs.accounts import Account
from backend.jobs.needs import Person, needs

LASTS = timedelta(hours=12)
TICKET_S = 60.0
WRONG = "This name and password do not belong together."
SIGNED_OUT = "You have signed out. Sign in again to go on."
NO_ROLE = "{} is signed in, but has no role here yet. An admin gives it on the page Users."


_tickets: dict[str, tuple[str, float]] = {}            # ticket -> token, until when (monotonic)
_guard = threading.Lock()
_computing = threading.BoundedSemaphore(2)             # argon2 takes 64 MiB each: whoever floods the sign-in waits in line


# ---- sign-in

@needs("")
def sign_in(name: str, password: str, at: datetime | None = None) -> str:
    """The token of a new session. Raises AccessError with a sentence: wrong, or locked until when."""
    return begin(proven(name, password, at), at)


def proven(name: str, password: str, at: datetime | None = None) -> Account:
    """The account that name and password belong to. Raises AccessError as `sign_in`, which it is but for the session."""
    now = at or datetime.now(UTC)
    with _computing:
        tries.refuse_locked(name, now)               # in here: of a thousand tries at once, most would have been asked before the lock
        account = _matching(name, password)
        if account is None:
            tries.count(name, now)
            raise AccessError(WRONG)
    tries.right(name)
    return account


@needs("")
def sign_in_elsewhere(address: str, verified: bool, issued: datetime, at: datetime | None = None) -> str:
    """The token of a session for whom the sign-in provider knows by this address, twelve hours from when it said so. Raises AccessError:
    the address is not verified, belongs to nobody here, or was said too long ago, or the person has signed out since."""
    now = at or datetime.now(UTC)
    if signed_out(address, issued):
        raise AccessError(SIGNED_OUT)
    account = accounts.of_address(address) if verified else None
    if not verified:
        raise AccessError("Your sign-in provider has not verified your mail address, so it counts for nothing here.")
    if issued + LASTS <= now:
        raise AccessError("The session has ended after twelve hours. Sign in again.")
    if account is None or account.closed or not account.role:
        tries.once(("no-role", address.casefold()), lambda: audit.write("no-role", address, who=Person(address, "", "oidc")))
        raise AccessError(NO_ROLE.format(address))
    return begin(account, now, "oidc", issued + LASTS, _login(address, issued))


@needs("")
def signed_out(address: str, issued: datetime) -> bool:
    """Whether the person signed out after the sign-in provider said this: a tab that was open goes on holding it."""
    return _over(_login(address, issued)).exists()


def _matching(name: str, password: str) -> Account | None:
    """The account that name and password belong to. Of an unknown name as much is computed as of a known one."""
    from argon2.exceptions import Argon2Error, InvalidHashError

    try:
        account = accounts.find(name)
    except NotFoundError:
        account = None
    known = account.password if account and account.password and not account.closed else ""
    with suppress(Argon2Error, InvalidHashError):
        accounts.hasher().verify(known or _nobody(), accounts.plain(password[:accounts.LONGEST + 1]))
        return account if known else None
    return None


@lru_cache(maxsize=1)
def _nobody() -> str:
    return accounts.hasher().hash(secrets.token_urlsafe())


@needs("users")
def locked_until(name: str, at: datetime | None = None) -> datetime | None:
    """Until when this name is locked out; None where it is not."""
    return tries.locked(name, at or datetime.now(UTC))


# ---- sessions

def begin(account: Account, at: datetime | None = None, kind: str = "account", end: datetime | None = None, login: str = "") -> str:
    """The token of a new session of whoever has proven to be this person. `login`: what a sign-in provider said, see `_login`."""
    token, now = secrets.token_urlsafe(32), at or datetime.now(UTC)
    until = end or now + LASTS
    audit.write("sign-in", account.name, dict(until=until.isoformat(timespec="seconds")), Person(account.name, account.role, kind))
    _sessions().mkdir(mode=0o700, exist_ok=True)
    accounts.write_private(_file(token), dict(account=account.key, kind=kind, began=now.isoformat(), until=until.isoformat(),
                                             login=login))
    _sweep(now)
    tries.settle(now)
    return token


def _sessions() -> Path:
    return accounts.private_folder() / "sessions"


def _file(token: str) -> Path:
    return accounts.root() / "sessions" / f"{hashlib.sha256(token.encode()).hexdigest()}.json"


def _login(address: str, issued: datetime) -> str:
    """What a sign-in provider said, once: each sign-in there has a second of its own."""
    return hashlib.sha256(f"{address.strip().casefold()} {issued.timestamp():.0f}".encode()).hexdigest()


def _over(login: str) -> Path:
    return accounts.root() / "sessions" / f"signed-out-{login}.json"


def _sweep(now: datetime) -> None:
    """Sessions that are over, and sign-outs of what counts no more, leave their files behind; the next sign-in takes them away."""
    for path in _sessions().glob("*.json"):
        with suppress(OSError, ValueError, KeyError):
            if datetime.fromisoformat(json.loads(path.read_bytes())["until"]) <= now:
                path.unlink(missing_ok=True)


@needs("")
def cookie() -> str:
    """What a session's cookie is called. Browsers send one host's cookies to all its ports, so two servers there must not call theirs the
    same: the name hangs on the data folder, whose sessions it is about."""
    return f"diffspect_session_{hashlib.sha256(str(accounts.root()).encode()).hexdigest()[:8]}"


@needs("")
def person(token: str, at: datetime | None = None) -> Person | None:
    """Whose session this is, with the role of this moment; None where it is over, or never was."""
    now = at or datetime.now(UTC)
    session = _session(token) if token else None
    if session is None or datetime.fromisoformat(session["until"]) <= now or (session.get("login") and _over(session["login"]).exists()):
        return None
    account = next((a for a in accounts.accounts() if a.key == session["account"]), None)
    if account is None or account.closed or session["began"] < account.since:
        return None
    return Person(account.name, account.role, session["kind"])


@needs("")
def until(token: str) -> datetime | None:
    """When a session ends; None where there is none."""
    session = _session(token) if token else None
    return datetime.fromisoformat(session["until"]) if session else None


def _session(token: str) -> dict[str, Any] | None:
    path = _file(token)
    try:
        return _read(path, path.stat().st_mtime_ns)
    except (OSError, ValueError):
        return None


@lru_cache(maxsize=500)
def _read(path: Path, written_ns: int) -> dict[str, Any]:
    return dict(json.loads(path.read_bytes()))


@needs("")
def sign_out(token: str, address: str = "", issued: datetime | None = None) -> None:
    """End a session, in whichever tabs it is open; and what a sign-in provider said, of which each tab may have a session of its own:
    that of this session, and that which the page still holds (`address`, `issued`)."""
    who, session = person(token), _session(token) or {}
    _file(token).unlink(missing_ok=True)
    logins = {str(session.get("login") or ""), _login(address, issued) if address and issued else ""}
    for login in logins - {""}:
        _sessions().mkdir(mode=0o700, exist_ok=True)
        accounts.write_private(_over(login), dict(until=((issued or datetime.now(UTC)) + LASTS).isoformat()))
    if who is not None:
        audit.write("sign-out", who.name, who=who)


# ---- tickets

@needs("")
def ticket(token: str) -> str:
    """What a page hands to its browser in place of the token: good once, for a minute, in this process."""
    made, now = secrets.token_urlsafe(24), time.monotonic()
    with _guard:
        for old in [t for t, (_, end) in _tickets.items() if end <= now]:
            del _tickets[old]
        _tickets[made] = token, now + TICKET_S
    return made


@needs("")
def pending(made: str) -> bool:
    """Whether nobody has taken a ticket in yet, and it still can be."""
    with _guard:
        return made in _tickets and _tickets[made][1] > time.monotonic()


@needs("")
def exchange(made: str) -> str | None:
    """The token of a ticket, once."""
    with _guard:
        token, end = _tickets.pop(made, ("", 0.0))
    return token if token and end > time.monotonic() else None

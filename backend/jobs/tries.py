"""Wrong passwords: counted by name, locked out after five in a row, told to the audit log.

Those of an account are counted in `access/tries.json`, so that a restart forgets nothing and the command line can take a lock off; those of
any other name in memory, since names can be made up without end, and one that was typed wrong may be a password: it is not written down.

Entries of the audit log are never removed, so whoever tries for weeks must not fill it. Of an account the first wrong password of an hour
has an entry, and so has the first lock; the others are counted, and how many stands in the next entry of the name ("more tries"): at its
next hour, its next sign-in, or anybody's sign-in after the hour. That is 3 entries an hour at most, where there could be 20 tries. All
other names together have one an hour. Knows nothing of passwords.
"""

import json
import math
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from backend.errors import AccessError, StoreError
from backend.jobs import accounts, audit, locks
from backend.jobs.accounts import Account
from backend.jobs.needs import Person

TRIES, LOCKED, FORGOTTEN = 5, timedelta(minutes=15), timedelta(hours=1)
TOLD = timedelta(hours=1)              # of so long one entry speaks
NAMES = 2_000                          # names without an account whose wrong passwords are counted; the oldest is forgotten first

_strangers: "OrderedDict[tuple[Path, str], dict[str, Any]]" = OrderedDict()
_said: OrderedDict[tuple[Any, ...], None] = OrderedDict()
_guard = threading.Lock()


def refuse_locked(name: str, now: datetime) -> None:
    """Raises AccessError where a name is locked out, with the minute in which it no longer is."""
    until = locked(name, now)
    if until is not None:
        minutes = math.ceil((until - now).total_seconds() / 60)
        raise AccessError(f"Too many wrong passwords. This name can sign in again in {minutes} minute{'s' * (minutes != 1)}, "
                          f"at {until.astimezone():%H:%M}. An admin can take the lock off.")


def locked(name: str, now: datetime) -> datetime | None:
    """Until when this name is locked out; None where it is not."""
    known = _account(name) is not None                           # a name may have been tried before it was an account's
    with _guard:
        tried = _kept().get(accounts.key_of(name), {}) if known else _strangers.get((accounts.root(), accounts.key_of(name)), {})
        until = datetime.fromisoformat(tried["until"]) if tried.get("until") else None
    return until if until is not None and until > now else None


def count(name: str, now: datetime) -> None:
    """One more wrong password."""
    known = _account(name)
    with _tried(name) as tried:
        lately = "last" in tried and now - datetime.fromisoformat(tried["last"]) < FORGOTTEN
        tried |= dict(wrong=tried.get("wrong", 0) + 1 if lately else 1, last=now.isoformat())
        if is_locked := tried["wrong"] >= TRIES:
            tried |= dict(wrong=0, until=(now + LOCKED).isoformat())
        told = _told(tried, is_locked, now) if known else None
    if known and told is not None:
        _write(known, "locked" if is_locked else "refused", told)
    if not known:
        who = Person("", "", "account")
        once(("unknown", now.strftime("%Y%m%d%H")), lambda: audit.write("refused", "an unknown name (one entry an hour)", who=who))


def right(name: str) -> None:
    """The right password came, or an admin takes the lock off: it counts anew, and what was not told yet is."""
    known = _account(name)
    if known is None or known.key not in _kept():
        return
    with _tried(name) as tried:
        untold = tried.get("untold", 0)
        tried.clear()
    if untold:
        _write(known, "refused", _more(untold))


def settle(now: datetime) -> None:
    """Tell what was counted of names that nobody tried any more since their hour was over."""
    for key in [k for k, tried in _kept().items() if tried.get("untold") and _is_over(tried, now)]:
        if (known := _account(key)) is not None:
            with _tried(key) as tried:
                untold = tried.pop("untold", 0)
            if untold:
                _write(known, "refused", _more(untold))


def once(key: tuple[Any, ...], write: Callable[[], object]) -> None:
    """What anybody outside can bring about as often as they like is written down once, as far as this process remembers."""
    key = (accounts.root(), *key)
    with _guard:
        if key in _said:
            return
        _said[key] = None
        while len(_said) > NAMES:
            _said.popitem(last=False)
    write()


def _told(tried: dict[str, Any], is_locked: bool, now: datetime) -> dict[str, Any] | None:
    """What more the entry of this wrong password says; None where it has none, and is counted."""
    if first := _is_over(tried, now):
        tried |= dict(hour=now.isoformat(), lock_told=False)
    if not first and not (is_locked and not tried["lock_told"]):
        tried["untold"] = tried.get("untold", 0) + 1
        return None
    tried["lock_told"] |= is_locked
    return (dict(until=tried["until"]) if is_locked else {}) | _more(tried.pop("untold", 0))


def _is_over(tried: dict[str, Any], now: datetime) -> bool:
    return "hour" not in tried or now - datetime.fromisoformat(tried["hour"]) >= TOLD


def _more(untold: int) -> dict[str, Any]:
    return {"more tries": untold} if untold else {}


def _write(of: Account, what: str, more: dict[str, Any]) -> None:
    audit.write(what, of.name, more, Person(of.name, "", "account"))


def _account(name: str) -> Account | None:
    return next((a for a in accounts.accounts() if a.key == accounts.key_of(name)), None)


@contextmanager
def _tried(name: str) -> Iterator[dict[str, Any]]:
    """What is counted of a name, to be changed. Raises StoreError."""
    key = accounts.key_of(name)
    if _account(name) is None:
        with _guard:
            yield _strangers.setdefault((accounts.root(), key), {})
            while len(_strangers) > NAMES:
                _strangers.popitem(last=False)
        return
    accounts.private_folder()
    with locks.hold(accounts.root() / "tries.lock", 5.0) as taken:
        if not taken:
            raise StoreError("Somebody else is signing in at this moment. Try again.")
        known = _kept()
        yield known.setdefault(key, {})
        accounts.write_private(accounts.root() / "tries.json", {k: v for k, v in known.items() if v})


def _kept() -> dict[str, dict[str, Any]]:
    with suppress(OSError, ValueError):
        return dict(json.loads((accounts.root() / "tries.json").read_bytes()))
    return {}

"""What the page Users and the command line ask: set-up, accounts and their changes, each written to the audit log; and the log itself.

    there set_up sign_in sign_in_elsewhere      anybody: how one gets in; `signed_out` says what opens no door any more
    me change_password sign_out figures_of      whoever is signed in, of themselves
    listed add change close open_again unlock   the admin, of everybody
    entries verify table csv                    the admin, of the audit log
    person until ticket pending exchange cookie what holds a browser's session together, see `signing`
"""

from dataclasses import replace
from datetime import datetime
from typing import TYPE_CHECKING, Any

from backend.errors import AccessError, ConfigError
from backend.jobs import accounts, audit, needs, signing, tries
from backend.jobs.accounts import Account
from backend.jobs.audit import WORDS, Verdict
from backend.jobs.needs import NEEDS, ROLES, Person, asked_of, why_not
from backend.jobs.signing import (
    LASTS,
    cookie,
    exchange,
    locked_until,
    pending,
    person,
    sign_in,
    sign_in_elsewhere,
    sign_out,
    signed_out,
    ticket,
    until,
)

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["LASTS", "NEEDS", "ROLES", "WORDS", "Account", "Person", "Verdict", "add", "asked_of", "change", "change_password", "close",
           "cookie", "csv", "entries", "exchange", "figures_of", "listed", "locked_until", "me", "open_again", "pending", "person",
           "set_up", "sign_in", "sign_in_elsewhere", "sign_out", "signed_out", "table", "there", "ticket", "unlock", "until", "verify",
           "why_not"]


# ---- anybody

@needs.needs("")
def there() -> bool:
    """Whether there are accounts; while there are none the product is for one person on this machine."""
    return accounts.there()


@needs.needs("")
def set_up(name: str, password: str, here: bool) -> str:
    """Make the first account, an admin, and sign it in; returns the token. `here`: whether it is asked for from this machine.
    Raises AccessError, ConfigError."""
    if not here:
        raise AccessError("The first account is made at the machine itself: open http://localhost there, or run "
                          "`python -m backend accounts add NAME --role admin`.")
    return signing.begin(accounts.add(name, "admin", password, told=_told, first=True))


# ---- whoever is signed in

@needs.needs("")
def me() -> Person:
    """Who acts. Raises AccessError where nobody is signed in."""
    return needs.acting()


@needs.needs("")
def change_password(old: str, new: str) -> str:
    """Change one's own password; all sessions of the account end; the token of a new one. Raises AccessError, ConfigError."""
    who = needs.acting()
    if who.kind not in ("account", "oidc") or not accounts.find(who.name).password:
        raise ConfigError("You sign in without a password here, so there is none to change.")
    signing.proven(who.name, old)
    return signing.begin(accounts.change(who.name, _told, password=new), kind=who.kind)


@needs.needs("read")
def figures_of(name: str) -> bool:
    """Whether whoever acts may see figures of this person: they are that person's, and the admin's."""
    who = needs.acting()
    return who.may("users") or accounts.key_of(name) == accounts.key_of(who.name)


# ---- the admin, of everybody

@needs.needs("users")
def listed() -> list[Account]:
    """All accounts, those who have left last. Of a password it says "set" or nothing."""
    return sorted((replace(a, password="set" if a.password else "") for a in accounts.accounts()), key=lambda a: (a.closed, a.key))


@needs.needs("users")
def add(name: str, role: str, password: str = "", address: str = "") -> Account:
    """Raises ConfigError."""
    return accounts.add(name, role, password, address, _told)


@needs.needs("users")
def change(name: str, role: str | None = None, address: str | None = None, password: str | None = None) -> Account:
    """Raises ConfigError, NotFoundError."""
    return accounts.change(name, _told, role, address, password)


@needs.needs("users")
def close(name: str) -> Account:
    """The person has left: no sign-in any more, and sessions end at once. Raises ConfigError, NotFoundError."""
    return accounts.change(name, _told, closed=True)


@needs.needs("users")
def open_again(name: str) -> Account:
    return accounts.change(name, _told, closed=False)


@needs.needs("users")
def unlock(name: str) -> None:
    """Let somebody who typed too many wrong passwords try again now."""
    audit.write("unlocked", accounts.find(name).name)
    tries.right(name)


def _told(new: Account, old: Account | None) -> None:
    """The entries that a change makes in the audit log, before it holds."""
    who = needs.acting()
    if who.kind == "anybody":                                    # the first one makes itself
        who = Person(new.name, new.role)
    if old is None:
        audit.write("account", new.name, dict(role=new.role, address=new.address), who)
        return
    if new.role != old.role:
        audit.write("role", new.name, dict(before=old.role, after=new.role))
    if new.address != old.address:
        audit.write("address", new.name, dict(before=old.address, after=new.address))
    if new.password != old.password:
        audit.write("password", new.name)
    if new.closed != old.closed:
        audit.write("closed" if new.closed else "opened", new.name)


# ---- the audit log

@needs.needs("users")
def entries(what: str = "", who: str = "", since: datetime | None = None, limit: int = 10_000) -> list[dict[str, Any]]:
    """Entries, the newest first: of one kind, of one person, since a moment."""
    return [e for e in audit.entries(limit) if what in ("", e["what"]) and (not who or accounts.key_of(e["who"]) == accounts.key_of(who))
            and (since is None or datetime.fromisoformat(e["at"]) >= since)]


@needs.needs("users")
def verify(expected: str = "") -> Verdict:
    """Whether the chain holds; reads every entry."""
    return audit.verify(expected)


def _cell(entry: dict[str, Any]) -> dict[str, Any]:
    more = ", ".join(f"{k} {v}" for k, v in entry["more"].items())
    return {"Number": entry["seq"], "At (UTC)": entry["at"], "Who": entry["who"], "Role": entry["role"], "By": entry["kind"],
            "What": WORDS.get(entry["what"], entry["what"]), "On": entry["on"], "More": more, "Run": entry.get("run", ""),
            "Hash": entry["hash"]}


@needs.needs("users")
def table(found: list[dict[str, Any]]) -> "pd.DataFrame":
    """Entries as a person reads them."""
    import pandas as pd  # half a second that a starting worker need not pay

    return pd.DataFrame([_cell(e) for e in found], columns=list(_cell(dict(seq=0, at="", who="", role="", kind="", what="", on="", more={},
                                                                         hash=""))))


@needs.needs("users")
def csv(found: list[dict[str, Any]]) -> bytes:
    """Entries as CSV that a spreadsheet opens safely; that they were taken away is an entry, too."""
    from backend.jobs import spreadsheet

    audit.write("export", f"{len(found):,} entries of the audit log")
    return spreadsheet.csv(table(found))

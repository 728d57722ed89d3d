"""`python -m backend accounts …` and `audit verify`: what whoever governs the machine may do without a sign-in, and is recorded as.

Who can read and write the data folder could change its files anyway. Passwords are asked for at the terminal, or read from standard input,
never given as an argument, which others on the machine would see.
"""

import argparse
import getpass
import json
import sys
from collections.abc import Callable
from typing import Any

from backend.errors import ConfigError
from backend.jobs import needs, people


def person() -> needs.Person:
    """The operator, by the name that the machine knows."""
    try:
        name = getpass.getuser()
    except (KeyError, OSError):                      # a container's user may have none
        name = "unknown"
    return needs.Person(f"{name} (command line)", "admin", "operator")


def commands(top: Any) -> None:
    """Add `accounts` and `audit` to the command line's sub-commands."""
    accounts = top.add_parser("accounts", help="Who may sign in, and with which role.")
    known = accounts.add_subparsers(dest="act", required=True, metavar="act")
    _flags(known.add_parser("list", help="All accounts."))
    add = _flags(known.add_parser("add", help="Make one; the password is asked for."), name=True)
    add.add_argument("--role", required=True, choices=list(needs.ROLES), help="What the person may.")
    add.add_argument("--address", default="", help="Mail address that the sign-in provider (OIDC) knows the person by; then no password.")
    role = _flags(known.add_parser("role", help="Give another role."), name=True)
    role.add_argument("--role", required=True, choices=list(needs.ROLES), help="What the person may.")
    for act, about in (("password", "Set a new password; it is asked for."), ("close", "The person has left."),
                       ("open", "The person is back."), ("unlock", "Take a lock off after wrong passwords.")):
        _flags(known.add_parser(act, help=about), name=True)
    log = top.add_parser("audit", help="The audit log.").add_subparsers(dest="act", required=True, metavar="act")
    verify = _flags(log.add_parser("verify", help="Whether its chain holds, and where it breaks."))
    verify.add_argument("--expect", default="", metavar="NUMBER:HASH", help="The newest entry as you kept it elsewhere.")


def _flags(of: argparse.ArgumentParser, name: bool = False) -> argparse.ArgumentParser:
    if name:
        of.add_argument("name", help="The person's name, as it is typed to sign in.")
        of.add_argument("--password-stdin", action="store_true", help="read the password from standard input")
    of.add_argument("--json", action="store_true", help="print one JSON document as the last line")
    return of


def main(command: str, options: dict[str, Any], as_json: bool) -> int:
    """Carry it out; returns the exit code, 1 where a chain does not hold. Raises DiffspectError."""
    with needs.acting_as(person()):
        said = _verify(options["expect"]) if command == "audit" else _ACTS[options["act"]](options)
    print(json.dumps(said, ensure_ascii=False) if as_json else said["text"], flush=True)
    return 0 if said.get("holds", True) else 1


def _verify(expected: str) -> dict[str, Any]:
    found = people.verify(expected)
    lines = [f"The chain holds: {found.entries:,} entries. Newest: {found.last or 'none'}"] if found.holds else \
        ["The chain does not hold:", *(f"  {p}" for p in found.problems)]
    return dict(text="\n".join([*lines, *found.notes]), holds=found.holds, entries=found.entries, last=found.last, problems=found.problems,
                notes=found.notes)


def _list(options: dict[str, Any]) -> dict[str, Any]:
    rows = people.listed()
    text = "\n".join(f"{a.name:<30} {'left' if a.closed else a.role or 'no role':<10} {a.address}" for a in rows)
    return dict(text=text or "Nobody has set up accounts: Diffspect is for one person at this machine.",
                accounts=[dict(name=a.name, role=a.role, address=a.address, closed=a.closed) for a in rows])


def _add(options: dict[str, Any]) -> dict[str, Any]:
    password = "" if options["address"] and not options["password_stdin"] else _password(options)
    made = people.add(options["name"], options["role"], password, options["address"])
    return dict(text=f"{made.name} can sign in now, as {made.role}.", name=made.name, role=made.role)


def _password(options: dict[str, Any]) -> str:
    if options["password_stdin"]:
        return sys.stdin.readline().rstrip("\r\n")
    if not sys.stdin.isatty():
        raise ConfigError("A password is asked for at a terminal. Elsewhere give it by standard input, with --password-stdin.")
    password = getpass.getpass("Password: ")
    if getpass.getpass("Again: ") != password:
        raise ConfigError("The two differ. Nothing was changed.")
    return password


def _role(options: dict[str, Any]) -> dict[str, Any]:
    made = people.change(options["name"], role=options["role"])
    return dict(text=f"{made.name} has the role {made.role} now.", name=made.name, role=made.role)


def _new_password(options: dict[str, Any]) -> dict[str, Any]:
    made = people.change(options["name"], password=_password(options))
    return dict(text=f"{made.name} has a new password; sessions so far are over.", name=made.name)


def _close(options: dict[str, Any]) -> dict[str, Any]:
    return dict(text=f"{people.close(options['name']).name} cannot sign in any more.")


def _open(options: dict[str, Any]) -> dict[str, Any]:
    return dict(text=f"{people.open_again(options['name']).name} can sign in again.")


def _unlock(options: dict[str, Any]) -> dict[str, Any]:
    people.unlock(options["name"])
    return dict(text=f"{options['name']} can try again now.")


_ACTS: dict[str, Callable[[dict[str, Any]], dict[str, Any]]] = {
    "list": _list, "add": _add, "role": _role, "password": _new_password, "close": _close, "open": _open, "unlock": _unlock}

"""Accounts: who there is, with which role; kept in `access/accounts.json` of the data folder, readable by its owner alone.

While there is none the product is for one person on this machine. The first one, an admin, is made from this machine; from then on
everybody signs in (`signing`). An account has a password, or an address under which a sign-in provider (OIDC) knows the person, or both.
A person who leaves is closed, never removed: the name stands in events, and nobody else may come to bear it. What changes is said to
the audit log before it holds. Passwords are kept as argon2id alone. Knows nothing of sessions, roles' meaning or pages.
"""

import json
import os
import re
import secrets
import unicodedata
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from backend import rundir
from backend.config import data_root
from backend.errors import ConfigError, NotFoundError, ResourceError, StoreError
from backend.jobs import locks

if TYPE_CHECKING:
    from argon2 import PasswordHasher

SHORTEST, LONGEST = 10, 200            # characters of a password
WAIT_S = 10.0
ROLES = ("", "manager", "engineer", "admin")           # '': none yet
_NAME = re.compile(r"[^\W_][\w .'’@+-]{0,58}[\w.)]|[^\W_]")
_ADDRESS = re.compile(r"[^\s@,;<>\"]{1,64}@[^\s@,;<>\"]{1,180}")
# What is tried first by whoever guesses; longer than SHORTEST, so that the length does not keep them out.
_COMMON = ("1234567890", "0123456789", "password", "passwort", "qwertyuiop", "qwertzuiop", "diffspect", "inspection", "letmein", "welcome")


@dataclass(frozen=True)
class Account:
    name: str
    role: str                          # one of ROLES
    address: str = ""                  # as the sign-in provider gives it; '': password alone
    password: str = field(default="", repr=False)      # argon2id; '': no sign-in by password
    made_at: str = ""
    since: str = ""                    # sessions that began before are over: the password or the account was changed
    closed: bool = False

    @property
    def key(self) -> str:
        return key_of(self.name)


def root() -> Path:
    """The folder of what nobody else may read."""
    return data_root() / "access"


def there() -> bool:
    """Whether anybody was set up. A file that cannot be read counts: it must not open the door."""
    return (root() / "accounts.json").exists()


def accounts() -> list[Account]:
    """All of them, by name. Raises StoreError where the file is damaged."""
    path = root() / "accounts.json"
    try:
        seen = path.stat()
    except FileNotFoundError:
        return []
    return list(_read(path, (seen.st_ino, seen.st_mtime_ns, seen.st_size)))


@lru_cache(maxsize=4)
def _read(path: Path, signature: tuple[int, ...]) -> tuple[Account, ...]:
    """Asked at every call of the façade: read again only where the file is another one."""
    try:
        found = [Account(**one) for one in json.loads(path.read_bytes())["accounts"]]
    except (ValueError, KeyError, TypeError, OSError) as error:
        raise StoreError(f"The list of accounts ({path.name}) cannot be read, so nobody can sign in. Restore it from a backup.") from error
    return tuple(sorted(found, key=lambda a: a.key))


def find(name: str) -> Account:
    """By name, in any writing. Raises NotFoundError."""
    found = next((a for a in accounts() if a.key == key_of(name)), None)
    if found is None:
        raise NotFoundError(f"There is no account {name!r}.")
    return found


def of_address(address: str) -> Account | None:
    """The account of a person whom the sign-in provider knows by this address."""
    wanted = address.strip().casefold()
    return next((a for a in accounts() if wanted and a.address.casefold() == wanted), None)


def key_of(name: str) -> str:
    """Names that look alike are one."""
    return " ".join(unicodedata.normalize("NFKC", name).split()).casefold()


# ---- changes

Told = Callable[[Account, Account | None], None]       # is told what an account becomes and what it was, before it holds


def add(name: str, role: str, password: str = "", address: str = "", told: Told | None = None, first: bool = False) -> Account:
    """Make an account. `first`: only where there is none. Raises ConfigError."""
    name = " ".join(unicodedata.normalize("NFKC", name).split())
    if not _NAME.fullmatch(name):
        raise ConfigError("A name begins with a letter or digit and has at most 60 letters, digits, spaces or one of . ' @ + -")
    if not password and not address:
        raise ConfigError("An account needs a password, or the address under which the person signs in elsewhere.")
    now = rundir.now()
    made = Account(name, _role(role), _address(address), hashed(password, name) if password else "", now, now)
    with _held() as known:
        if first and known:
            raise ConfigError("Somebody has set up the first account already. Sign in with it.")
        _free(made, known)
        _change([*known, made], made, None, told)
    return made


def change(name: str, told: Told | None = None, role: str | None = None, address: str | None = None, password: str | None = None,
           closed: bool | None = None) -> Account:
    """Change what is given. The last admin stays one. Raises ConfigError, NotFoundError."""
    find(name)
    with _held() as known:
        old = next(a for a in known if a.key == key_of(name))
        new = replace(old, role=old.role if role is None else _role(role), address=old.address if address is None else _address(address),
                      password=old.password if password is None else hashed(password, old.name),
                      closed=old.closed if closed is None else closed,
                      since=rundir.now() if password is not None or closed is not None else old.since)
        others = [a for a in known if a.key != old.key]
        _free(new, others)
        if not any(_governs(a) for a in [*others, new]):
            raise ConfigError("This is the only admin who can sign in. Give the role to somebody else first.")
        _change([*others, new], new, old, told)
    return new


def _governs(account: Account) -> bool:
    return account.role == "admin" and not account.closed and bool(account.password or account.address)


def _free(wanted: Account, others: list[Account]) -> None:
    if any(a.key == wanted.key for a in others):
        raise ConfigError(f"The name {wanted.name!r} is taken, be it by somebody who has left. Choose another.")
    if wanted.address and any(a.address.casefold() == wanted.address.casefold() for a in others):
        raise ConfigError(f"The address {wanted.address} belongs to another account.")


def _role(role: str) -> str:
    if role not in ROLES:
        raise ConfigError(f"A role is one of {', '.join(filter(None, ROLES))}, not {role!r}.")
    return role


def _address(address: str) -> str:
    address = address.strip()
    if address and not _ADDRESS.fullmatch(address):
        raise ConfigError(f"{address!r} is no mail address.")
    return address


@contextmanager
def _held() -> Iterator[list[Account]]:
    """The accounts as they are now, which nobody else changes for the length of the block."""
    private_folder()
    with locks.hold(root() / "lock", WAIT_S) as taken:
        if not taken:
            raise StoreError("Somebody else is changing accounts at this moment. Try again.")
        yield accounts()


def _change(after: list[Account], new: Account, old: Account | None, told: Told | None) -> None:
    if told is not None:
        told(new, old)
    write_private(root() / "accounts.json", dict(version=1, accounts=[asdict(a) for a in after]))


# ---- passwords

@lru_cache(maxsize=1)
def hasher() -> "PasswordHasher":
    """argon2id with the library's settings (RFC 9106: 64 MiB, 3 passes), about 0.05 s of a core."""
    from argon2 import PasswordHasher

    return PasswordHasher()


def hashed(password: str, name: str) -> str:
    """What is kept of a password. Raises ConfigError for one that is easily guessed."""
    password = plain(password)
    if not SHORTEST <= len(password) <= LONGEST:
        raise ConfigError(f"A password has {SHORTEST} to {LONGEST} characters. A sentence is easily remembered and hard to guess.")
    known = password.casefold()
    if len(set(password)) < 5 or key_of(name) in known or any(known.strip("0123456789!.?") == c or known == c for c in _COMMON):
        raise ConfigError("This password is easily guessed: too few different characters, your name, or one of the commonest. "
                          "Take a sentence.")
    return hasher().hash(password)


def plain(password: str) -> str:
    """One form of what keyboards write in several."""
    return unicodedata.normalize("NFKC", password)


# ---- files that only their owner reads

def private_folder() -> Path:
    try:
        root().mkdir(mode=0o700, parents=True, exist_ok=True)
        os.chmod(root(), 0o700)
    except OSError as error:
        raise ResourceError(f"The data folder cannot be written to ({error.strerror}), so nobody can sign in.") from error
    return root()


def write_private(path: Path, value: object) -> None:
    """Replace a file in one step, its bytes on disk before its name, readable by its owner alone. Raises ResourceError."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(2)}")
    try:
        with open(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "wb") as f:
            f.write(json.dumps(value, ensure_ascii=False).encode())
            f.flush()
            os.fsync(f.fileno())
        os.replace(temporary, path)
    except OSError as error:
        raise ResourceError(f"This could not be written down ({error.strerror}), so nothing was changed.") from error
    finally:
        temporary.unlink(missing_ok=True)

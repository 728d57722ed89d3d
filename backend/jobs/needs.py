"""Who may do what. Each function of the façade says what it needs; the role of whoever acts is held against it at every call.

A function that changes something says it above itself, and one that hangs on what is asked gives a function of its arguments:

    @needs("run")
    def resume(run_id: str) -> None: ...

    @needs(lambda recipe, *_, **__: of_event(recipe))
    def record(recipe: str, config: ...) -> str: ...

Whatever else a module of the façade offers needs "read": `reading(globals())` at its end. "" is for what anybody may ask, as the
sign-in. tests/test_accounts.py walks all of them. Where a person's name is kept, `signed(by)` gives it: what a person typed while there
are no accounts, else the name of whoever is signed in. `audit.write` tells the audit log.

Who acts is asked of a resolver that `asked_of` takes: pages give the person of the browser's session, the command line the operator of
this machine. Supervisor, workers and messenger call no function of the façade. Without accounts everybody may all; with accounts and
without a person nobody may anything. Knows nothing of passwords.
"""

import errno
import functools
import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from types import FunctionType
from typing import Any, ParamSpec, TypeVar, cast

from backend.errors import AccessError, ResourceError
from backend.jobs import accounts

P = ParamSpec("P")
R = TypeVar("R")

ROLES = {"manager": "reads, annotates, acknowledges", "engineer": "runs, reviews, synthesises, and all that a manager may",
         "admin": "puts models to use, looks after users, keeps and removes data; may all"}
# what is needed -> the least role that has it, and the sentence's beginning where a person has it not
NEEDS = {
    "read": ("manager", "Reading the plant's figures"),
    "annotate": ("manager", "Writing notes"),
    "acknowledge": ("manager", "Acknowledging"),
    "run": ("engineer", "Starting and stopping tasks"),
    "review": ("engineer", "Judging and labelling pictures"),
    "synthesise": ("engineer", "Making pictures"),
    "adjust": ("engineer", "Changing thresholds, charts, targets and rules"),
    "promote": ("admin", "Putting a model to use"),
    "settings": ("admin", "Changing the plant's settings and where messages go"),
    "users": ("admin", "Looking after users"),
    "retention": ("admin", "Keeping and removing data"),
}
# what a person decides (events of `record`); what is not here is nobody's but an admin's
_EVENTS = {
    **dict.fromkeys(("note",), "annotate"),
    **dict.fromkeys(("acknowledge", "alarm-seen", "alarm-rest", "explain"), "acknowledge"),
    **dict.fromkeys(("review", "read", "sample", "ability", "label", "judge"), "review"),
    **dict.fromkeys(("policy", "correct", "exclude", "include", "chart", "retire", "target", "alert", "standstill"), "adjust"),
    **dict.fromkeys(("channel", "alert-test", "report-plan", "calendar"), "settings"),
    "promote": "promote",
}
_RUNS = {
    **dict.fromkeys(("synthesize", "adapt-prior", "train-prior", "measure-synthesis", "search-synthesis", "collect-masks", "combine"),
                    "synthesise"),
    **dict.fromkeys(("backup", "restore", "retention"), "retention"),
}
SIGN_IN = "Nobody is signed in here, or the session has ended. Sign in to go on."


@dataclass(frozen=True)
class Person:
    """Whoever acts. `kind`: account (by password) | oidc | operator (of the command line) | anybody (there are no accounts)."""

    name: str
    role: str                          # a key of ROLES, '' for none yet
    kind: str = "account"

    def may(self, need: str) -> bool:
        """Roles are ordered: each may all that those before it may."""
        order = list(ROLES)
        return not need or (self.role in order and order.index(self.role) >= order.index(NEEDS[need][0]))


ANYBODY = Person("", "admin", "anybody")
_resolver: Callable[[], Person | None] = lambda: None                   # noqa: E731 (until somebody says whom to ask)
_instead: ContextVar[Person | None] = ContextVar("instead", default=None)


def asked_of(resolver: Callable[[], Person | None]) -> None:
    """Ask this of who acts, at each call, in the thread that calls; None stands for nobody."""
    global _resolver
    _resolver = resolver


@contextmanager
def acting_as(person: Person) -> Iterator[None]:
    """For the length of the block, in this thread, this person acts: the operator of the command line."""
    before = _instead.set(person)
    try:
        yield
    finally:
        _instead.reset(before)


def acting() -> Person:
    """Who acts. Raises AccessError where there are accounts and nobody is signed in."""
    person = _instead.get() or _resolver()
    if person is not None:
        return person
    if accounts.there():
        raise AccessError(SIGN_IN)
    return ANYBODY


def signed(by: str = "") -> str:
    """The name to keep beside what a person does: `by` as it was typed while there are no accounts; else nothing can be typed."""
    person = acting()
    return by if person.kind == "anybody" else person.name


def claimed(config: dict[str, Any]) -> dict[str, Any]:
    """A config in which a person's name stands, with that of whoever acts."""
    return {k: signed(str(v)) if k in ("by", "reviewer") else v for k, v in config.items()}


def check(need: str) -> Person:
    """Who acts, where that person has what is needed. Raises AccessError with the reason."""
    person = acting() if need else ANYBODY
    if not person.may(need):
        raise AccessError(why_not(person, need))
    return person


def why_not(person: Person, need: str) -> str:
    role, what = NEEDS[need]
    has = f"{person.name or 'You'} {'has' if person.name else 'have'} {f'the role {person.role}' if person.role else 'no role yet'}"
    return f"{what} is for {_and_above(role)}; {has}. An admin gives roles on the page Users."


def _and_above(role: str) -> str:
    order = list(ROLES)
    return f"{' and '.join(f'{r}s' for r in order[order.index(role):])}" if role != "manager" else "people with a role"


def of_event(recipe: str) -> str:
    """What a decision of this kind needs."""
    return _EVENTS.get(recipe, "settings")


def of_run(recipe: str) -> str:
    """What a run of this recipe needs."""
    return _RUNS.get(recipe, "run")


def needs(need: str | Callable[..., str]) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Hold the role of whoever acts against `need` before anything is done; see this module's docstring."""
    assert callable(need) or need in NEEDS or not need, need

    def guarded(fn: Callable[P, R]) -> Callable[P, R]:
        @functools.wraps(fn)
        def call(*args: P.args, **kwargs: P.kwargs) -> R:
            check(need(*args, **kwargs) if callable(need) else need)
            try:
                return fn(*args, **kwargs)
            except OSError as error:
                if refused := disk_refused(error):
                    raise refused from error
                raise

        call.__dict__["need"] = need
        return call

    return guarded


def disk_refused(error: OSError) -> ResourceError | None:
    """What to say where the disk takes nothing any more; None for any other error."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return ResourceError("The disk of the data folder is full, so this could not be done. Free some space there, then try again.")
    if error.errno == errno.EROFS:
        return ResourceError("The disk of the data folder is read-only now, so this could not be done. The page System says more.")
    return None


def need_of(fn: Any) -> str | Callable[..., str] | None:
    """What a function says that it needs; None where it says nothing."""
    return cast("str | Callable[..., str] | None", getattr(fn, "need", None))


def reading(module: dict[str, Any]) -> None:
    """Every public function of this module that says nothing else needs "read"."""
    for name, fn in list(module.items()):
        if isinstance(fn, FunctionType) and not name.startswith("_") and fn.__module__ == module["__name__"] and need_of(fn) is None \
                and not inspect.isgeneratorfunction(fn):
            module[name] = needs("read")(fn)

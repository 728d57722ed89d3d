"""The audit log: who did what, when, on what; each entry a small inline run `audit` that carries the hash of the one before it.

    entry = {seq, at, who, role, kind, what, on, more, entry (its run's id), run, run_sha256 (of the job.json it speaks of), previous, hash}
    hash  = SHA-256 of all of it but the hash, keys sorted

So an entry that is edited, taken out or put in between breaks the chain at its place. The newest entry's number and hash stand in
`access/audit.json` as well, and each decision that matters has an entry that knows its bytes: a tail that is cut off shows by either. What
no chain can show is one that was made anew from the beginning by somebody who writes the data folder: who wants to know keeps the last
hash elsewhere (`audit verify` and the page Users say it) and has it held against the log later.

An entry is written before what it speaks of, which is not done where it cannot be written. Entries are never removed, by retention
neither: what anybody outside can bring about is folded into few (`tries`). Verdicts on pictures, one a key press, are runs of their own and
have none. Knows nothing of pages.
"""

import hashlib
import json
import shutil
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from backend import rundir
from backend.errors import ResourceError, StoreError
from backend.jobs import accounts, locks, needs

RECIPE = "audit"
# Decisions (events of `record`) that have an entry.
DECISIONS = ("promote", "policy", "correct", "exclude", "include", "calendar", "chart", "retire", "target", "alert", "standstill",
             "channel", "report-plan")
WORDS = {
    "sign-in": "Signed in", "sign-out": "Signed out", "refused": "Sign-in failed", "locked": "Locked out",
    "no-role": "Signed in, no role yet",
    "account": "Account made", "role": "Role changed", "password": "Password changed", "address": "Address changed",
    "closed": "Account closed", "opened": "Account opened again", "unlocked": "Lock taken off",
    "promote": "Model put to use", "policy": "Threshold changed", "correct": "Batch corrected", "exclude": "Taken out of trends",
    "include": "Counted after all", "calendar": "Plant's clock changed", "chart": "Control chart saved", "retire": "Control chart put away",
    "target": "Target changed", "alert": "Alarm rule changed", "standstill": "Standstill planned", "channel": "Way of messages changed",
    "report-plan": "Plan of reports changed", "undo": "Taken back",
    "delete": "Removed", "export": "Taken away (export)", "retention": "Removed by retention", "backup": "Backup", "restore": "Restored",
}
WAIT_S = 15.0
_NONE = "0" * 64


@dataclass(frozen=True)
class Verdict:
    """Whether the chain holds. `problems` are breaks, each with its place; `notes` are what a person may want to know."""

    entries: int
    last: str                          # 'seq:hash' of the newest entry, to be kept elsewhere; '' where there is none
    problems: list[str]
    notes: list[str]

    @property
    def holds(self) -> bool:
        return not self.problems


def write(what: str, on: str = "", more: dict[str, Any] | None = None, who: needs.Person | None = None, run: Path | None = None) -> str:
    """Add an entry; returns its run's id. `run`: the directory of the decision that it speaks of, staged or there. `who`: not whoever acts.
    Raises ResourceError, StoreError where it cannot be written: what it speaks of must not be done then."""
    assert what in WORDS, what
    person = who or needs.acting()
    of = dict(run=run.name.removeprefix("."), run_sha256=_sha256(run / "job.json")) if run is not None else {}
    accounts.private_folder()
    with locks.hold(accounts.root() / "audit.lock", WAIT_S) as taken:
        if not taken:
            raise StoreError("The audit log is busy, so nothing was done. Try again.")
        try:
            return _append(dict(who=person.name, role=person.role, kind=person.kind, what=what, on=on[:500], more=more or {}, **of))
        except OSError as error:
            raise ResourceError(f"The audit log could not be written ({error.strerror}), so nothing was done.") from error


def subject(config: dict[str, Any]) -> str:
    """What a decision is about, by the first of its names."""
    named = (config.get(k) for k in ("name", "line", "product", "class_name", "model_id", "run_id", "id", "chart", "time_zone"))
    return str(next((v for v in named if v), ""))


def _append(said: dict[str, Any]) -> str:
    """After the newest entry."""
    staged = rundir.create(RECIPE, {}, by=str(said["who"]), state="staged")
    try:
        job = rundir.read_json(staged / "job.json")
        seq, previous = _tail()
        entry = dict(seq=seq + 1, at=job["created_at"], **said, entry=job["run_id"], previous=previous)
        entry["hash"] = hash_of(entry)
        rundir.write_json(staged / "job.json", job | dict(config=entry))
        rundir.write_json(staged / "result.json", {})
        rundir.set_state(staged, "completed", started_at=entry["at"], finished_at=entry["at"])
        run_id = rundir.publish(staged).name
    finally:
        shutil.rmtree(staged, ignore_errors=True)                # gone already unless something failed
    accounts.write_private(_witness(), dict(seq=entry["seq"], hash=entry["hash"]))
    return run_id


def _tail() -> tuple[int, str]:
    """Number and hash of the newest entry: of what is there, or what was, where the tail was cut off, so that the gap shows for good. By
    number, since the machine's clock may have been set back; whoever was killed before the second file was written left the first ahead."""
    newest = next((e for path in rundir.find(RECIPE) if (e := _entry(path))), {})
    known = _known()
    last = newest if newest.get("seq", 0) >= known.get("seq", 0) else known
    return (last["seq"], last["hash"]) if last else (0, _NONE)


def _witness() -> Path:
    return accounts.root() / "audit.json"


def _known() -> dict[str, Any]:
    with suppress(OSError, ValueError):
        return dict(rundir.read_json(_witness()))
    return {}


def hash_of(entry: dict[str, Any]) -> str:
    rest = {k: v for k, v in entry.items() if k != "hash"}
    return hashlib.sha256(json.dumps(rest, sort_keys=True, ensure_ascii=False, separators=(",", ":")).encode()).hexdigest()


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


# ---- reading

def entries(limit: int = 10_000) -> list[dict[str, Any]]:
    """The newest first. A damaged one is left out; `verify` names it."""
    found = (_kept(path, (path / "job.json").stat().st_mtime_ns) for path, _ in zip(rundir.find(RECIPE), range(limit), strict=False)
             if (path / "job.json").exists())
    return sorted((dict(e) for e in found if e), key=lambda e: -int(e["seq"]))


@lru_cache(maxsize=20_000)
def _kept(path: Path, written_ns: int) -> dict[str, Any]:
    return _entry(path)


def _entry(path: Path) -> dict[str, Any]:
    """What stands in one entry; {} where it is damaged."""
    try:
        entry = rundir.read_json(path / "job.json")["config"]
        return dict(entry) if isinstance(entry["seq"], int) and isinstance(entry["hash"], str) and entry["at"] else {}
    except (OSError, ValueError, KeyError, TypeError):
        return {}


def verify(expected: str = "") -> Verdict:
    """Whether the chain holds, and each place where it does not. `expected`: 'seq:hash' that somebody kept elsewhere."""
    found = [(path, _entry(path)) for path in rundir.find(RECIPE)]
    sound = sorted(((p, e) for p, e in found if e), key=lambda one: (one[1]["seq"], one[0].name))
    problems = [f"{p.name}: cannot be read" for p, e in found if not e]
    problems += [*_links(sound), *_end(sound, expected), *_decisions([e for _, e in sound])]
    gone = [e for _, e in sound if e.get("run") and not (rundir.runs_root() / e["run"]).exists()]
    notes = [f"Entry {e['seq']}: the decision {e['run']} is there no more; it was removed, or never finished." for e in gone]
    last = sound[-1][1] if sound else None
    return Verdict(len(sound), f"{last['seq']}:{last['hash']}" if last else "", problems, notes)


def _links(sound: list[tuple[Path, dict[str, Any]]]) -> Iterator[str]:
    """Each entry by itself, and against the one before it."""
    seq, previous = 0, _NONE
    for path, entry in sound:
        at = f"Entry {entry['seq']} ({path.name})"
        if entry["seq"] > seq + 1:
            yield f"Between entry {seq} and entry {entry['seq']} {entry['seq'] - seq - 1} are missing."
        elif entry["seq"] <= seq:
            yield f"{at}: its number stands twice; one of the two was put in."
        elif entry.get("previous") != previous:
            yield f"{at}: it does not follow from the entry before it; one of the two was changed."
        if hash_of(entry) != entry["hash"]:
            yield f"{at}: it was changed after it was written."
        if entry.get("entry") != path.name:
            yield f"{at}: it stands under another name."
        if entry.get("run") and _other(rundir.runs_root() / entry["run"] / "job.json", entry.get("run_sha256")):
            yield f"{at}: the decision that it speaks of, {entry['run']}, was changed since."
        seq, previous = entry["seq"], entry["hash"]


def _other(path: Path, known: Any) -> bool:
    return path.exists() and _sha256(path) != known


def _end(sound: list[tuple[Path, dict[str, Any]]], expected: str) -> Iterator[str]:
    """Against what is known elsewhere of the newest entry: the tail that was cut off."""
    last, known = (sound[-1][1]["seq"] if sound else 0), _known()
    by_seq = {e["seq"]: e["hash"] for _, e in sound}
    if known.get("seq", 0) > last:
        yield f"After entry {last} {known['seq'] - last} are missing: the log once had {known['seq']}."
    elif known and by_seq.get(known["seq"], known["hash"]) != known["hash"]:
        yield f"Entry {known['seq']} is another one than was written."
    elif sound and not known:
        yield f"Nothing says whether entry {last} is the last one: {_witness().name} is gone."
    number, _, digest = expected.partition(":")
    if expected and not number.isdigit():
        yield f"{expected!r} is no 'number:hash', as verify says it."
    elif expected and by_seq.get(int(number)) != digest:
        yield f"Entry {number} is another one than you kept, or is missing."


def _decisions(found: list[dict[str, Any]]) -> Iterator[str]:
    """Decisions that must have an entry and have none. What is older than the log has none, nor has what the program itself decided."""
    if not found:
        return
    named, begin = {e["run"] for e in found if e.get("run")}, found[0]["at"]
    for path in rundir.find(*DECISIONS):
        with suppress(OSError, ValueError, KeyError):
            job = rundir.read_json(path / "job.json")
            if job["created_at"] > begin and path.name not in named and job["by"] != "installation" and job["plant"] == "real":
                yield f"The decision {path.name} has no entry: it was made past the log, or its entry is missing."

"""Retention: what an admin lets go after so many days, so that the disk of a plant that runs for years does not fill.

    pictures    kept pictures of inspections; what was found in them, counts and trends stay, and pages say that the picture was let go
    logs        what ended runs printed; one sentence takes its place
    leftovers   uploads and checkpoints that ended runs left to go on from; such a run can only be started anew
    synthetic   pictures of synthetic sets of which nobody accepted one, and that no dataset, model, comparison or other run refers to

Never what anything refers to (`references`, `wanted`), never a run's parts, model, result or settings, never a decision, never the audit
log. `outlook` says what would go and why the rest stays; the recipe `retention` (in `letting_go`) lets go. From run directories alone; role
admin. Knows nothing of pages.
"""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from backend import rundir
from backend.config import RECIPES, Retention, data_root
from backend.errors import ConfigError
from backend.jobs import references
from backend.jobs.references import Held
from backend.jobs.wanted import Wanted
from backend.store import vault

KINDS = {"pictures": "Pictures of inspections", "logs": "Logs of ended runs", "leftovers": "Uploads and checkpoints of ended runs",
         "synthetic": "Synthetic sets nobody accepted"}
SHORT = 200                             # bytes: nothing is gained by letting such a log go, and the sentence in its place is one
_WORK = re.compile(r"inbox|\.?[a-z]+ing(-[a-z]+)*")               # folders that recipes work in: training, building-repository …


@dataclass(frozen=True)
class Piece:
    """One thing that goes: a picture's id, a run's id, or '<run>/<folder>'; its bytes; of a picture, its inspections, and when last."""

    kind: str
    name: str
    size: int
    inspections: tuple[int, ...] = ()
    newest: datetime | None = None


@dataclass
class Sorted:
    """What goes, how many things stay for each reason, and what refers to pictures and sets, to look at it again."""

    going: list[Piece] = field(default_factory=list)
    stays: dict[str, dict[str, int]] = field(default_factory=lambda: {kind: {} for kind in KINDS})

    held: Held | None = None
    wanted: Wanted | None = None

    def stay(self, kind: str, why: str) -> None:
        self.stays[kind][why] = self.stays[kind].get(why, 0) + 1

    def of(self, kind: str) -> list[Piece]:
        return [piece for piece in self.going if piece.kind == kind]


def outlook(config: Retention, at: datetime | None = None) -> dict[str, Any]:
    """What would go: for each kind asked for `count` and `bytes`; `stays` ({kind: {why: how many}}) and `notes`, the same in sentences.
    Raises ConfigError where nothing is asked for, references.Unsure where it cannot be told what stays."""
    return told(config, plan(config, at or datetime.now(UTC)))


def told(config: Retention, found: Sorted) -> dict[str, Any]:
    asked = [kind for kind in KINDS if getattr(config, kind) is not None]
    counts: dict[str, Any] = {kind: dict(count=len(of := found.of(kind)), bytes=sum(p.size for p in of)) for kind in asked}
    notes = [f"{KINDS[kind]} that stay: " + "; ".join(f"{n:,} ({why})" for why, n in sorted(found.stays[kind].items(), key=lambda i: -i[1]))
             for kind in asked if found.stays[kind]]
    return counts | dict(stays={kind: found.stays[kind] for kind in asked}, notes=notes)


# what goes -----------------------------------------------------------------------------------------------------------------


def plan(config: Retention, at: datetime) -> Sorted:
    """What is older than its days at this moment and nothing refers to. Raises ConfigError, references.Unsure."""
    asked = {kind: at - timedelta(days=days) for kind in KINDS if (days := getattr(config, kind)) is not None}
    if not asked:
        raise ConfigError("Say after how many days something goes: pictures, logs, leftovers or synthetic.")
    found = Sorted()
    for kind, cutoff in asked.items():
        _PLANS[kind](found, cutoff, getattr(config, kind))
    return found


def _pictures(found: Sorted, cutoff: datetime, days: int) -> None:
    there = {path.stem: path for folder in (data_root() / "images").glob("[0-9a-f][0-9a-f]") for path in folder.glob("[0-9a-f]*")}
    whose = _inspected(there)
    found.held = held = references.held(cutoff)
    for image_id, path in sorted(there.items()):
        newest, ids = whose.get(image_id, (None, []))
        try:
            seen = path.stat()
        except FileNotFoundError:
            continue
        if newest is None:
            found.stay("pictures", "of no inspection: datasets and masks")
        elif newest > cutoff:
            found.stay("pictures", f"inspected in the last {days} days")
        elif why := held.why(image_id, ids, newest):
            found.stay("pictures", why)
        elif seen.st_mtime > cutoff.timestamp():
            found.stay("pictures", f"used again in the last {days} days")
        else:
            found.going.append(Piece("pictures", image_id, seen.st_size, tuple(ids), newest))


def _inspected(there: dict[str, Path]) -> dict[str, tuple[datetime, list[int]]]:
    """Of each picture on disk that was inspected: when last, and its inspections. Raises references.Unsure."""
    wanted, whose = pa.array(list(there), pa.string()), dict[str, tuple[datetime, list[int]]]()
    for path in rundir.find():
        for part in rundir.parts(path, "inspections"):
            try:
                rows = rundir.read_part(part, ["inspection_id", "image_id", "ingested_at"])
            except (OSError, ValueError) as error:
                raise references.Unsure(f"The part {part.name} of the run {path.name} cannot be read ({error}), so it is not known which "
                                        "pictures are its. Nothing was let go.") from error
            for row in rows.filter(pc.is_in(rows["image_id"], value_set=wanted)).to_pylist():
                newest, ids = whose.get(row["image_id"], (row["ingested_at"], []))
                whose[row["image_id"]] = max(newest, row["ingested_at"]), [*ids, row["inspection_id"]]
    return whose


def _ended(found: Sorted, kind: str, cutoff: datetime, days: int, has: Callable[[Path], object]) -> Iterator[Path]:
    """Runs that ended before and have something of this kind; of the others that have it is told why they stay."""
    for path in (p for p in rundir.find(*RECIPES) if has(p)):
        try:
            state = rundir.read_json(path / "state.json")
        except (OSError, ValueError):
            continue
        if state["state"] in rundir.OPEN_STATES:
            found.stay(kind, "the run goes on")
        elif references.moment(state.get("finished_at") or rundir.read_json(path / "job.json")["created_at"]) > cutoff:
            found.stay(kind, f"ended in the last {days} days")
        else:
            yield path


def _logs(found: Sorted, cutoff: datetime, days: int) -> None:
    for path in _ended(found, "logs", cutoff, days, lambda p: _size(p / "log.txt") > SHORT):
        found.going.append(Piece("logs", path.name, _size(path / "log.txt")))


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _work(path: Path) -> list[Path]:
    return sorted(p for p in path.iterdir() if p.is_dir() and _WORK.fullmatch(p.name))


def _leftovers(found: Sorted, cutoff: datetime, days: int) -> None:
    held = experimenting()
    for path in _ended(found, "leftovers", cutoff, days, _work):
        for folder in _work(path):
            if path.name in held:
                found.stay("leftovers", "an experiment that is not complete has the run")
            else:
                found.going.append(Piece("leftovers", f"{path.name}/{folder.name}", sum(p.stat().st_size for p in vault.walk(folder))))


def experimenting() -> set[str]:
    """Runs of experiments that are not complete."""
    return {run for p in rundir.find("experiment") if rundir.read_json(p / "state.json")["state"] != "completed"
            for run in references.named_runs(p / "plan.json")}


def _synthetic(found: Sorted, cutoff: datetime, days: int) -> None:
    found.wanted = Wanted()
    for path in _ended(found, "synthetic", cutoff, days, lambda p: (p / "synthetic" / "head.json").exists()):
        if why := found.wanted.why(folder := path / "synthetic"):
            found.stay("synthetic", why)
        else:
            found.going.append(Piece("synthetic", path.name, sum(p.stat().st_size for p in vault.walk(folder))))


_PLANS: dict[str, Callable[[Sorted, datetime, int], None]] = {"pictures": _pictures, "logs": _logs, "leftovers": _leftovers,
                                                             "synthetic": _synthetic}

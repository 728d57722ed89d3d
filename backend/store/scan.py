"""What is new in run directories since the last commit: the first half of ingest. Reads files, writes nothing, knows no SQL.

Cheap with thousands of closed runs: each costs one `stat` of its state.json, which is a new file whenever the state changes.
"""

import hashlib
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import chain
from pathlib import Path
from typing import Any

import pyarrow as pa

from backend import formats, rundir
from backend.config import demo_assets
from backend.errors import FormatError

EVENTS = ("promote", "policy", "correct", "exclude", "include", "review", "note", "acknowledge", "calendar", "judge", "chart", "retire",
          "target", "alert", "standstill", "alarm", "alarm-over", "alarm-seen", "alarm-rest", "channel", "alert-test", "report-plan",
          "explain", "sample", "read", "ability", "label", "undo")
LOT_BYTES = 64 * 2**20            # of Parquet in one transaction: about 800,000 inspections; at a quarter of it they took 1.4 times as long
_SMALL = 4096                     # what an event or a run's end weighs against it


@dataclass
class Item:
    """One thing to take in. Kinds: part · event (an inline run) · end (of a run) · again (an ended run goes on) ·
    bundle (the model that comes with the program) · damaged (what cannot be read)."""

    run_id: str
    kind: str
    name: str = ""                # of the part
    rows: pa.Table | None = None  # of the part; of an end: its curves (step, name, value, at_s)
    weight: int = _SMALL
    job: dict[str, Any] = field(default_factory=dict)
    state: dict[str, Any] = field(default_factory=dict)
    result: Any = None
    reason: str = ""


@dataclass
class Memory:
    """What is in the database, so that a look asks it nothing; and which runs need no look at all."""

    guards: dict[str, set[str]]                              # parts that are in, per run
    ends: dict[str, tuple[Any, ...]]                         # how each ended run ended
    events: set[str]                                         # inline runs that are in
    aside: set[tuple[str, str]] = field(default_factory=set)                 # tried again after a restart
    closed: dict[str, tuple[int, int, int]] = field(default_factory=dict)    # state.json as it was when nothing was left to take

    def known(self) -> set[str]:
        return {*self.guards, *self.ends, *self.events} - {""}

    def keep(self, item: Item) -> None:
        """An item is committed."""
        if item.kind == "part":
            self.guards.setdefault(item.run_id, set()).add(item.name)
        elif item.kind == "bundle":
            self.guards[""] = {item.name}
        elif item.kind == "event":
            self.events.add(item.run_id)
        elif item.kind == "end":
            self.ends[item.run_id] = end_of(item.state)
        elif item.kind == "again":
            self.ends.pop(item.run_id, None)
        else:
            self.aside.add((item.run_id, item.name))


def look(path: Path, memory: Memory) -> Iterator[Item]:
    """What is new in one run directory. The state is read before the parts: once a run has ended no part follows."""
    if rundir.recipe_of(path.name) == "audit":                   # read from files: what it must show is whether they were changed
        return
    try:
        signature = _signature(f"{path}/state.json")
        if memory.closed.get(path.name) == signature:
            return
        state, job = rundir.read_json(path / "state.json"), rundir.read_json(path / "job.json")
        ended = state["state"] in rundir.END_STATES
        formats.check(job)
        yield from _event(path.name, job, state, memory) if job["recipe"] in EVENTS else _run(path, job, state, memory)
        if ended:
            memory.closed[path.name] = signature
    except FileNotFoundError:
        return                                               # taken away meanwhile
    except FormatError as error:
        yield from _left(path.name, "all of it", str(error), memory)
        memory.closed[path.name] = signature
    except (ValueError, OSError, KeyError, TypeError) as error:
        yield from _damaged(path.name, "job", error, memory)


def _event(run_id: str, job: dict[str, Any], state: dict[str, Any], memory: Memory) -> Iterator[Item]:
    if state["state"] == "completed" and run_id not in memory.events and (run_id, "event") not in memory.aside:
        yield Item(run_id, "event", job=job)


def _run(path: Path, job: dict[str, Any], state: dict[str, Any], memory: Memory) -> Iterator[Item]:
    yield from _parts(path, job, memory)
    if state["state"] not in rundir.END_STATES:
        if path.name in memory.ends:
            yield Item(path.name, "again")
    elif memory.ends.get(path.name) != end_of(state) and (path.name, "end") not in memory.aside:
        yield Item(path.name, "end", rows=_metrics(path), job=job, state=state, result=_result(path))


def _parts(path: Path, job: dict[str, Any], memory: Memory) -> Iterator[Item]:
    for part in rundir.parts(path):
        if part.stem in memory.guards.get(path.name, ()) or (path.name, part.stem) in memory.aside:
            continue
        try:
            yield Item(path.name, "part", part.stem, _whole(path, part), part.stat().st_size, job)
        except FileNotFoundError:
            raise
        except (pa.ArrowException, OSError, KeyError) as error:
            yield from _damaged(path.name, part.stem, error, memory)


def _whole(path: Path, part: Path) -> pa.Table:
    """The rows of a part. What its test set is, a snapshot of an older program does not say in it; it follows from the rest of the run."""
    rows = rundir.read_part(part)
    if part.stem.startswith("snapshots-") and rows["test_set_id"].null_count:
        manifest = path / "manifest.json"
        known = rundir.test_set_of(rundir.read_json(manifest)["images"]) if manifest.exists() else ""
        rows = rows.set_column(rows.schema.get_field_index("test_set_id"), "test_set_id", pa.repeat(known, rows.num_rows))
    return rows


def _damaged(run_id: str, name: str, error: Exception, memory: Memory) -> Iterator[Item]:
    yield from _left(run_id, name, f"{type(error).__name__}: {error}", memory)


def _left(run_id: str, name: str, reason: str, memory: Memory) -> Iterator[Item]:
    if (run_id, name) not in memory.aside:
        yield Item(run_id, "damaged", name, reason=reason)


def lots(*sources: Iterator[Item]) -> Iterator[list[Item]]:
    """Items of all sources in order, in lots of bounded weight."""
    lot: list[Item] = []
    weight = 0
    for item in chain.from_iterable(sources):
        if lot and weight + item.weight > LOT_BYTES:
            yield lot
            lot, weight = [], 0
        lot.append(item)
        weight += item.weight
    if lot:
        yield lot


def bundle(memory: Memory) -> Iterator[Item]:
    """The demo model that comes with the program, as a part of a run called ''. Its name is its content's."""
    path = demo_assets() / "model" / "model.json"
    if path.exists():
        content = path.read_bytes()
        name = hashlib.sha256(content).hexdigest()[:16]
        if name not in memory.guards.get("", ()) and ("", name) not in memory.aside:
            yield Item("", "bundle", name, job=json.loads(content))


def end_of(state: dict[str, Any]) -> tuple[Any, ...]:
    """What tells one end of a run from another: a resumed run ends anew."""
    return state["state"], state.get("attempt"), moment(state.get("finished_at"))


def moment(value: Any) -> datetime | None:
    """A moment from JSON or from the database; without an offset it is UTC."""
    if value is None:
        return None
    read = value if isinstance(value, datetime) else datetime.fromisoformat(value)
    return read if read.tzinfo else read.replace(tzinfo=UTC)


def _signature(path: str) -> tuple[int, int, int]:
    seen = os.stat(path)
    return seen.st_ino, seen.st_mtime_ns, seen.st_size


def _result(path: Path) -> Any:
    try:
        return rundir.read_json(path / "result.json")
    except (FileNotFoundError, ValueError):
        return None


def _metrics(path: Path) -> pa.Table:
    """The last value of each (step, name), and when that was; a line cut short by a kill is passed over, null is a gap in the curve."""
    last: dict[tuple[int, str], tuple[float | None, float | None]] = {}
    lines = (path / "metrics.jsonl").read_bytes().splitlines() if (path / "metrics.jsonl").exists() else []
    for line in lines:
        try:
            values = json.loads(line)
            step, at_s = int(values.pop("step")), values.pop("at_s", None)
            last.update({(step, name): (None if value is None else float(value), at_s) for name, value in values.items()})
        except (ValueError, TypeError, KeyError, AttributeError):
            continue
    return pa.table({"step": pa.array([s for s, _ in last], pa.int32()), "name": pa.array([n for _, n in last], pa.string()),
                     "value": pa.array([v for v, _ in last.values()], pa.float64()),
                     "at_s": pa.array([s for _, s in last.values()], pa.float64())})

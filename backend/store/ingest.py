"""From run directories to raw tables, exactly once per (run_id, part), while runs still go on.

Each look at the runs finds what is new (`scan`): parts, the end of a run, people's decisions. A lot of it goes in as one
transaction, with the guard rows and the verdicts that follow from it, so a kill at any moment leaves all of it or none.
Arrival order, wall clock and process leave no trace: `rebuild` gives the same rows. What cannot be read is named in
the log, set aside, and does not keep the rest out. Knows nothing of processes or of what recipes do.
"""

import json
import logging
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa

from backend import rundir
from backend.errors import StoreError
from backend.records import SCHEMAS
from backend.store import facts, scan, touched
from backend.store.database import Cursor, Database
from backend.store.scan import Item, Memory

_TABLES = (*(t for t in SCHEMAS if t != "history"), "events", "runs", "metrics", "ingested", "set_aside")
_EVENT = pa.schema([("event_id", pa.string()), ("run_id", pa.string()), ("recipe", pa.string()), ("plant", pa.string()),
                    ("at", pa.timestamp("us", "UTC")), ("config", pa.string()), ("by", pa.string()), ("undone", pa.bool_())])
# Not the fault of what is taken in: nothing is set aside for these.
_OURS = (duckdb.OutOfMemoryException, duckdb.InternalException, duckdb.FatalException, duckdb.TransactionException)
_LARGE = ("inspections", "detections", "anomalies")
_PICTURES = ("inspect", "watch")               # recipes that say nothing but what is in pictures
_STAYS = {"anomalies": ["anomaly_map"]}        # columns that are read from the part when somebody asks
_log = logging.getLogger(__name__)


def ingest(db: Database, run_ids: Iterable[str] | None = None) -> int:
    """Take in what is new in these runs (none given: in all), and drop runs that are gone. Returns how many things went in."""
    with db.lock:
        try:
            asked = None if run_ids is None else sorted(set(run_ids))
            return db.in_turn(lambda: _ingest(db, asked))
        except BaseException:
            db.memory.clear()                            # it may be ahead of what was committed
            raise


def _ingest(db: Database, run_ids: list[str] | None) -> int:
    db.refresh()
    paths = list(rundir.find())[::-1] if run_ids is None else [rundir.runs_root() / r for r in run_ids]
    if run_ids is None and rundir.runs_root().exists():
        forget(db, _memory(db).known() - {p.name for p in paths})
    memory = _memory(db)
    taken = sum(_take(db, lot, memory) for lot in scan.lots(scan.bundle(memory), _looked(db, paths, memory)))
    if run_ids is None:
        db.whole()
    return taken


def _looked(db: Database, paths: list[Path], memory: Memory) -> Iterator[Item]:
    """What is new, run by run, with word of how many have been looked at."""
    for n, path in enumerate(paths):
        db.progress = (n, len(paths))
        yield from scan.look(path, memory)


def rebuild(db: Database) -> int:
    """Drop everything and take all runs in again. Returns how many things went in."""
    with db.lock:
        db.in_turn(db.clear)
        return ingest(db)


def forget(db: Database, run_ids: Iterable[str]) -> None:
    """Drop every row of runs whose directories are gone, and derive again what that changes."""
    gone = sorted(set(run_ids))
    if not gone:
        return
    with db.lock:
        with db.write() as cursor:
            touched.begin(cursor)
            touched.by_gone(cursor, gone)
            for table in _TABLES:
                cursor.execute(f"DELETE FROM {table} WHERE run_id IN (SELECT unnest(?))", [gone])
            touched.mark_undone(cursor)
            facts.derive(cursor)
        db.memory.clear()


def remove_plant(db: Database, plant: str) -> None:
    """Forget the runs of a plant, once their directories are gone."""
    with db.cursor() as cursor:
        runs = cursor.execute("SELECT run_id FROM runs WHERE plant = $p UNION SELECT run_id FROM events WHERE plant = $p "
                              "UNION SELECT run_id FROM inspections WHERE plant = $p", {"p": plant}).column()
    db.in_turn(lambda: forget(db, runs))


def _memory(db: Database) -> Memory:
    """What is in, read once; after that it is kept up with each commit. What was set aside is tried again, by a newer program perhaps."""
    if "ingest" not in db.memory:
        with db.cursor() as cursor:
            aside = cursor.execute("SELECT count(*) FROM set_aside").one()
        if aside:
            with db.write() as cursor:
                cursor.execute("DELETE FROM set_aside")
        db.memory["turn"] = db.turn()                    # before what it vouches for is read
        with db.cursor() as cursor:
            guards: dict[str, set[str]] = {}
            for row in cursor.execute("SELECT run_id, part FROM ingested").dicts():
                guards.setdefault(row["run_id"], set()).add(row["part"])
            ends = {row["run_id"]: scan.end_of(row) for row in
                    cursor.execute("SELECT run_id, state, attempt, finished_at FROM runs").dicts()}
            events = set(cursor.execute("SELECT run_id FROM events WHERE event_id = run_id").column())
        db.memory["ingest"] = Memory(guards, ends, events)
    memory: Memory = db.memory["ingest"]
    return memory


# taking in -----------------------------------------------------------------------------------------------------------------


def _take(db: Database, lot: list[Item], memory: Memory) -> int:
    """One transaction. Where the database refuses a lot, each of it goes in alone, and what is refused alone is set aside."""
    try:
        with db.write() as cursor:
            touched.begin(cursor)
            _put_events(cursor, [i for i in lot if i.kind == "event"])
            _put_many(cursor, [i for i in lot if _is_large(i)])
            for item in lot:
                if item.kind != "event" and not _is_large(item):
                    _PUT[item.kind](cursor, item)
            facts.derive(cursor)
            cursor.about = _about(lot, cursor)
    except _OURS as error:
        raise StoreError(f"The database could not take in new results: {error}") from error
    except (duckdb.Error, pa.ArrowException, ValueError, TypeError, KeyError, AttributeError) as error:
        if len(lot) > 1:
            return sum(_take(db, [item], memory) for item in lot)
        return _take(db, [Item(lot[0].run_id, "damaged", lot[0].name or lot[0].kind, reason=str(error))], memory)
    for item in lot:
        memory.keep(item)
    return len(lot)


def _about(lot: list[Item], cursor: Cursor) -> set[str] | None:
    """Plants whose pictures these are; None where more than pictures came in, which may be about any."""
    if cursor.moved is None or any(i.kind not in ("part", "end") or rundir.recipe_of(i.run_id) not in _PICTURES for i in lot):
        return None
    return {str(i.job["plant"]) for i in lot} | {plant for plant, _ in cursor.moved}


def _is_large(item: Item) -> bool:
    return item.kind == "part" and item.name.rsplit("-", 1)[0] in _LARGE


def _put_many(cursor: Cursor, items: list[Item]) -> None:
    """Parts of one table and one shape together: a statement for each of a hundred took twice as long, on one core. Which comes first
    makes no difference, since all that is touched is derived at the end."""
    together: dict[tuple[str, pa.Schema], list[pa.Table]] = {}
    for item in items:
        table, rows = _rows(item)
        together.setdefault((table, rows.schema), []).append(rows)
    for (table, _), parts in together.items():
        _put_rows(cursor, table, pa.concat_tables(parts))
    _guard(cursor, items)


def _put_part(cursor: Cursor, item: Item) -> None:
    table, rows = _rows(item)
    _put_rows(cursor, table, rows)
    _guard(cursor, [item])


def _rows(item: Item) -> tuple[str, pa.Table]:
    """The table that a part is of, and its rows with where they are from."""
    assert item.rows is not None
    table = item.name.rsplit("-", 1)[0]
    if table == "history":
        return "events", _history(item)
    rows = item.rows.drop_columns(_STAYS.get(table, []))
    for column in ("run_id", "part"):
        rows = rows.append_column(column, pa.repeat(item.run_id if column == "run_id" else item.name, rows.num_rows))
    return table, rows


def _guard(cursor: Cursor, items: list[Item]) -> None:
    """Say that these parts are in."""
    if items:
        known = pa.table({"run_id": [i.run_id for i in items], "part": [i.name for i in items],
                          "rows": [i.rows.num_rows if i.rows is not None else 0 for i in items]})
        with cursor.lend("known", known):
            cursor.execute("DELETE FROM set_aside USING known WHERE set_aside.run_id = known.run_id AND set_aside.part = known.part")
            cursor.execute("INSERT INTO ingested SELECT run_id, part, rows FROM known")


def _put_rows(cursor: Cursor, table: str, rows: pa.Table) -> None:
    with cursor.lend("part_rows", rows):
        cursor.execute(f"INSERT INTO {table} BY NAME SELECT * FROM part_rows")
        if table in (*_LARGE, "let_go"):
            cursor.execute("INSERT INTO touched SELECT inspection_id FROM part_rows")
        elif table == "model_thresholds":
            cursor.execute("INSERT INTO touched SELECT inspection_id FROM inspections SEMI JOIN detections USING (inspection_id) "
                           "WHERE model_id IN (SELECT model_id FROM part_rows) "
                           "UNION ALL SELECT inspection_id FROM anomalies WHERE model_id IN (SELECT model_id FROM part_rows)")
    if table == "events":
        touched.by_events(cursor, rows["event_id"].to_pylist())


def _history(item: Item) -> pa.Table:
    """Rows of a `history` part as events; the row's place is its name."""
    assert item.rows is not None
    n = item.rows.num_rows
    more = {"event_id": [f"{item.run_id}/{item.name}/{i:06d}" for i in range(n)], "run_id": [item.run_id] * n,
            "plant": [item.job["plant"]] * n, "undone": [False] * n}
    return pa.table({**{c: item.rows[c] for c in item.rows.column_names}, **more}).select(_EVENT.names).cast(_EVENT)


def _put_events(cursor: Cursor, items: list[Item]) -> None:
    """Inline runs, in one go: thousands of reviews would otherwise be thousands of statements."""
    if items:
        rows = [dict(event_id=i.run_id, run_id=i.run_id, recipe=i.job["recipe"], plant=i.job["plant"], at=scan.moment(i.job["created_at"]),
                     config=json.dumps(i.job["config"], ensure_ascii=False), by=i.job.get("by") or "", undone=False) for i in items]
        _put_rows(cursor, "events", pa.Table.from_pylist(rows, _EVENT))


def _put_end(cursor: Cursor, item: Item) -> None:
    """The row of a run that ended, and its curves; over what was there when it ended before."""
    _put_again(cursor, item)
    job, state = item.job, item.state
    cursor.execute("INSERT INTO runs VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", [
        item.run_id, job["recipe"], job["plant"], state["state"], state.get("message") or "", state.get("attempt"),
        *map(scan.moment, (job["created_at"], state.get("started_at"), state.get("finished_at"))),
        json.dumps(job["config"], ensure_ascii=False), json.dumps(item.result, ensure_ascii=False),
        job.get("code_version") or "", job.get("by") or ""])
    assert item.rows is not None
    with cursor.lend("curves", item.rows):
        cursor.execute("INSERT INTO metrics SELECT ?, step, name, value, at_s FROM curves", [item.run_id])


def _put_again(cursor: Cursor, item: Item) -> None:
    """A run that had ended goes on: live state is not for the store."""
    for table in ("runs", "metrics"):
        cursor.execute(f"DELETE FROM {table} WHERE run_id = ?", [item.run_id])


def _put_bundle(cursor: Cursor, item: Item) -> None:
    """The demo model of this version of the program, instead of an earlier one's."""
    cursor.execute("INSERT INTO touched SELECT inspection_id FROM inspections SEMI JOIN detections USING (inspection_id) "
                   "WHERE model_id IN (SELECT model_id FROM model_thresholds WHERE run_id = '')")
    for table in ("models", "model_thresholds", "ingested"):
        cursor.execute(f"DELETE FROM {table} WHERE run_id = ''")
    cursor.execute("INSERT INTO ingested VALUES ('', ?, 1)", [item.name])
    head = item.job
    row = {**head, **{k: json.dumps(head.get(k) or {}, ensure_ascii=False) for k in ("metrics", "settings")},
           "created_at": scan.moment(head["created_at"]), "run_id": "", "part": item.name}
    schema = SCHEMAS["models"].append(pa.field("run_id", pa.string())).append(pa.field("part", pa.string()))
    _put_rows(cursor, "models", pa.Table.from_pylist([row], schema))
    names = list(head["thresholds"])
    _put_rows(cursor, "model_thresholds", pa.table({
        "model_id": [head["model_id"]] * len(names), "class_name": pa.array(names, pa.string()),
        "threshold": pa.array(head["thresholds"].values(), pa.float32()), "run_id": [""] * len(names), "part": [item.name] * len(names)}))


def _put_damaged(cursor: Cursor, item: Item) -> None:
    _log.warning("%s of the run %s cannot be read (%s). It is left out; everything else goes on.", item.name, item.run_id, item.reason)
    cursor.execute("DELETE FROM set_aside WHERE run_id = ? AND part = ?", [item.run_id, item.name])
    cursor.execute("INSERT INTO set_aside VALUES (?, ?, ?)", [item.run_id, item.name, item.reason])


_PUT: dict[str, Any] = {"part": _put_part, "end": _put_end, "again": _put_again, "bundle": _put_bundle, "damaged": _put_damaged}

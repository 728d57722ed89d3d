"""Each line at a glance: normal, look or act, and why, in a sentence for somebody who runs a plant.

What is new is the line's last three shifts with data; usual is what the 28 days before them showed; `rises` judges one by the other. A line
is worth a look too where nothing came for 24 hours, or where a shift that ended within 24 hours brought nothing, though it worked on that
weekday in at least three of the four weeks before.

An acknowledgement stands beside the state and does not hide it. Pictures from the future, by a camera clock that runs ahead, are left out:
one of them would silence "nothing came" for years. Control charts that know drift and overdispersion are another matter (quality).
"""

from datetime import UTC, datetime, timedelta
from typing import Any

import pandas as pd
import pyarrow as pa

from backend.store import annotations, calendar, rises
from backend.store.database import Cursor, Database
from backend.store.rises import Rise

SHIFTS, USUAL_DAYS, OLD = 3, 28, timedelta(hours=24)
AHEAD = timedelta(hours=1)                  # a camera clock may run ahead of ours by this much
DEMO_STANDS_STILL = timedelta(days=2)       # the demo plant ends on the day it was made: no alarm about its age at first
COLUMNS = ("line", "state", "reason", "inspected", "defective", "rate", "usual_rate", "excess", "last_captured_at", "class_name", "note",
           "acknowledged")

# Hours that are surely past by $settled (plant time) are read from roll-ups, what came later from rows: a camera clock may run ahead.
_SHIFTS = """
SELECT line, shift_start, production_day AS day FROM tallies WHERE plant = $plant AND counted AND hour_start < $settled
UNION ALL
SELECT line, shift_start, production_day FROM facts
WHERE plant = $plant AND counted AND captured_local >= $settled AND captured_at <= $until
"""
_EDGES = f"""
SELECT line, min(shift_start) AS since, min(day) AS since_day, max(shift_start) AS newest FROM (
    SELECT line, shift_start, max(day) AS day, row_number() OVER (PARTITION BY line ORDER BY shift_start DESC) AS back
    FROM ({_SHIFTS}) GROUP BY line, shift_start QUALIFY back <= {SHIFTS})
GROUP BY line ORDER BY line
"""
# A line's newest picture is in its newest shift, or, where shifts overlap, in one that began two days before at most.
_LAST = """
SELECT line, max(captured_at) AS last FROM facts f JOIN edges e USING (line)
WHERE f.plant = $plant AND f.counted AND f.captured_at <= $until AND f.shift_start >= $oldest::TIMESTAMP - INTERVAL 2 DAY
  AND f.shift_start >= e.newest - INTERVAL 2 DAY GROUP BY line
"""
# Units and defective units, recent and usual, of a line (class_name '') and of each of its kinds of defect. A unit that does not lie in one
# hour counts in each of the two that it falls into.
_COUNTS = f"""
WITH whole AS (
    SELECT line, shift_start, '' AS class_name, units AS n, defective AS k FROM tallies
    WHERE plant = $plant AND counted AND hour_start < $settled AND shift_start >= $since AND view <> 'each'
    UNION ALL
    SELECT line, shift_start, class_name, 0, units FROM kind_tallies
    WHERE plant = $plant AND counted AND hour_start < $settled AND shift_start >= $since AND view <> 'each' AND action = 'reject'),
apart AS (
    SELECT line, shift_start, unit, is_defective, [k.class_name FOR k IN kinds IF k.action = 'reject'] AS names
    FROM spread WHERE plant = $plant AND counted AND captured_at <= $until AND shift_start >= $since
    UNION ALL
    SELECT line, shift_start, unit, is_defective, (SELECT list(class_name) FROM defects d WHERE d.inspection_id = f.inspection_id
                                                   AND action = 'reject')
    FROM facts f WHERE plant = $plant AND counted AND captured_local >= $settled AND captured_at <= $until AND shift_start >= $since
      AND unit NOT IN (SELECT unit FROM spread WHERE plant = $plant)),
near AS (SELECT a.*, a.shift_start >= e.since AS recent FROM apart a JOIN edges e USING (line)
         WHERE a.shift_start >= e.since - INTERVAL {USUAL_DAYS} DAY),
counted AS (
    SELECT w.line, w.shift_start >= e.since AS recent, class_name, n, k FROM whole w JOIN edges e USING (line)
    WHERE w.shift_start >= e.since - INTERVAL {USUAL_DAYS} DAY
    UNION ALL
    SELECT line, recent, '', 1, bool_or(is_defective)::INTEGER FROM near GROUP BY line, recent, unit
    UNION ALL
    SELECT line, recent, class_name, 0, count(DISTINCT unit) FROM (SELECT line, recent, unit, unnest(names) AS class_name FROM near)
    GROUP BY line, recent, class_name)
SELECT line, recent, class_name, sum(n)::BIGINT AS n, sum(k)::BIGINT AS k FROM counted GROUP BY line, recent, class_name
HAVING sum(n) > 0 OR sum(k) > 0
"""
_SETTLED_H = 3                # longer than a clock is set back, and than the cell that `until` lies in


def lines_now(db: Database, plant: str, at: datetime | None = None) -> pd.DataFrame:
    """One row per line, the worst first. `at` is the present moment."""
    with db.cursor() as cursor:
        plan = calendar.current(cursor, plant)
        asked = _asked(cursor, plant, plan.time_zone, (at or datetime.now(UTC)) + AHEAD)
        rows, counts = _counted(cursor, asked, plan.time_zone)
        now, local = present(cursor, plan.time_zone, max((r["last"] for r in rows), default=None), plant, at)
        notes = _notes(cursor, plant)
        came = _came(cursor, plant, local)
    complete = plan.complete(local)
    found: list[dict[str, Any]] = []
    for row in rows:
        line = row["line"]
        missing = _age(row, now, local) or _missed(line, complete, came)
        note, acknowledged = _note(notes, line, row["since_day"])
        found.append(rises.judge(*_rises([c for c in counts if c["line"] == line]), missing)
                     | dict(line=line, last_captured_at=row["last"], note=note, acknowledged=acknowledged))
    return pd.DataFrame(rises.worst_first(found), columns=list(COLUMNS))


def newest(cursor: Cursor, plant: str, zone: str, until: datetime) -> dict[str, datetime]:
    """When the newest picture of each line was taken, UTC; without what lies after `until`, by a camera clock that runs ahead. Looks at the
    rows of the last shifts alone: the lookout asks twice a minute, and all of ten million took it a second."""
    asked = _asked(cursor, plant, zone, until)
    edges = cursor.execute(_EDGES, asked).table()
    return {row["line"]: row["last"] for row in _last(cursor, asked, zone, edges)}


def _asked(cursor: Cursor, plant: str, zone: str, until: datetime) -> dict[str, Any]:
    """plant, until (UTC), settled (plant time)."""
    local = cursor.execute("SELECT date_trunc('hour', timezone(?, ?::TIMESTAMPTZ))", [zone, until.isoformat()]).one()
    return {"plant": plant, "until": until, "settled": local - timedelta(hours=_SETTLED_H)}


def _counted(cursor: Cursor, asked: dict[str, Any], zone: str) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Of each line: since, since_day (of its last shifts), last (UTC), last_local. And the counts of recent and usual."""
    edges = cursor.execute(_EDGES, asked).table()
    if not edges.num_rows:
        return [], []
    last = {row["line"]: row for row in _last(cursor, asked, zone, edges)}
    with cursor.lend("edges", edges):
        counts = cursor.execute(_COUNTS, asked | {"since": min(edges["since"].to_pylist()) - timedelta(days=USUAL_DAYS)}).dicts()
    return [row | last[row["line"]] for row in edges.to_pylist()], counts


def _last(cursor: Cursor, asked: dict[str, Any], zone: str, edges: pa.Table) -> list[dict[str, Any]]:
    """line, last (UTC), last_local of each line's newest picture."""
    if not edges.num_rows:
        return []
    with cursor.lend("edges", edges):
        return cursor.execute(f"SELECT *, timezone($zone, last) AS last_local FROM ({_LAST})", {
            "zone": zone, "plant": asked["plant"], "until": asked["until"], "oldest": min(edges["newest"].to_pylist())}).dicts()


def _age(row: dict[str, Any], now: datetime, local: datetime) -> str:
    return f"Nothing has arrived since {_when(row['last_local'], local)}" if now - row["last"] > OLD else ""


def _rises(counts: list[dict[str, Any]]) -> tuple[Rise, list[Rise]]:
    """The line's own, and one for each kind of defect, in the order of names."""
    got = {(c["class_name"], c["recent"]): (c["n"], c["k"]) for c in counts}
    (n, k), (n0, k0) = (got.get(("", recent), (0, 0)) for recent in (True, False))
    names = sorted({name for name, _ in got} - {""})
    return Rise("", n, k, n0, k0), [Rise(c, n, got.get((c, True), (0, 0))[1], n0, got.get((c, False), (0, 0))[1]) for c in names]


def present(cursor: Cursor, zone: str, newest: datetime | None, plant: str, at: datetime | None) -> tuple[datetime, datetime]:
    """The present moment, in UTC and in plant time. The demo plant's stands still at its newest picture for two days."""
    now = at or datetime.now(UTC)
    if plant == "demo" and newest is not None and now - newest < DEMO_STANDS_STILL:
        now = newest
    return now, cursor.execute("SELECT timezone(?, ?::TIMESTAMPTZ)", [zone, now.isoformat()]).one()


def _came(cursor: Cursor, plant: str, local: datetime) -> set[tuple[str, str, Any]]:
    """(line, shift, start) of every shift that brought anything, in the last five weeks; from the future too."""
    rows = cursor.execute("SELECT DISTINCT line, shift, shift_start FROM tallies WHERE plant = ? AND counted AND shift_start >= ?",
                          [plant, local - timedelta(days=36)]).dicts()
    return {(r["line"], r["shift"], r["shift_start"]) for r in rows}


def _missed(line: str, complete: list[tuple[str, datetime]], came: set[tuple[str, str, Any]]) -> str:
    for name, start in complete:
        weeks = sum((line, name, start - timedelta(days=7 * w)) in came for w in range(1, 5))
        if (line, name, start) not in came and weeks >= 3:
            return f"Nothing came from the {name} shift of {start:%A}"
    return ""


def _notes(cursor: Cursor, plant: str) -> list[dict[str, Any]]:
    """What people wrote about lines, newest first."""
    return cursor.execute(f"SELECT 'note' AS recipe, line, text, try_cast(day AS DATE) AS day, said FROM ({annotations.CURRENT}) "
                          "WHERE NOT removed UNION ALL "
                          "SELECT 'acknowledge', (config->>'$.line'), (config->>'$.text'), try_cast((config->>'$.day') AS DATE), \"at\" "
                          "FROM events WHERE recipe = 'acknowledge' AND NOT undone AND plant = $plant ORDER BY said DESC",
                          {"plant": plant}).dicts()


def _note(notes: list[dict[str, Any]], line: str, since: Any) -> tuple[str, str]:
    """The newest note and the newest acknowledgement of what is shown: on a day of the last shifts, or later. '' where there is none."""
    ours = [n for n in notes if n["line"] == line and n["day"] is not None and n["day"] >= since]
    note, acknowledged = (next((n["text"] or "" for n in ours if n["recipe"] == kind), "") for kind in ("note", "acknowledge"))
    return note, acknowledged


def _when(then: datetime, now: datetime) -> str:
    """Tuesday 06:42; with the date where the weekday alone could be another week's."""
    return f"{then:%A %H:%M}" if now - then < timedelta(days=6) else f"{then:%A} {then.day} {then:%B %Y}, {then:%H:%M}"

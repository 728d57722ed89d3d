"""What a shift report is made of: counts of one shift and of the days before it, who sent nothing, what people decided meanwhile.

A shift is named by its production day and its name in the plant's calendar. Usual is what the 28 production days before showed, all shifts
together. What the numbers mean, and in which words, is not here: see `jobs.shift_facts`.
"""

from datetime import UTC, date, datetime, timedelta

import pandas as pd

from backend.store import annotations, calendar
from backend.store.database import Database
from backend.store.decisions import tell, told
from backend.store.lines import AHEAD, USUAL_DAYS

# Decisions that may explain a number. What was said of single pictures is counted, not listed; notes are `annotations`.
TOLD = ("promote", "policy", "calendar", "acknowledge", "explain", "chart", "retire", "exclude", "include", "correct", "target",
        "standstill")

# Counted from the roll-ups (see tally): a unit of one hour stands in a sum, one of several is put together from its pictures. From rows
# the counts of a shift took 160 ms with a million of them.
_NEAR = "plant = $plant AND counted AND production_day BETWEEN $first AND $day AND (production_day < $day OR shift = $shift)"
_COUNTS = f"""
WITH each AS (
    SELECT line, product, production_day = $day AS recent, pictures, if(view <> 'each', units, 0) AS units,
           if(view <> 'each', defective, 0) AS defective, if(view <> 'each', defects, 0) AS defects, if(view <> 'each', named, 0) AS named,
           if(view <> 'each', named_defective, 0) AS named_defective FROM tallies WHERE {_NEAR}
    UNION ALL
    SELECT min(line), min(product), production_day = $day, 0, 1, bool_or(is_defective)::INTEGER, sum(defects), bool_and(named)::INTEGER,
           (bool_and(named) AND bool_or(is_defective))::INTEGER FROM spread WHERE {_NEAR} GROUP BY production_day = $day, unit),
newest AS (SELECT line, product, production_day = $day AS recent, max(captured_at) AS last FROM facts WHERE {_NEAR} GROUP BY ALL)
SELECT line, product, recent, any_value(last) AS last,
       {", ".join(f"sum({n})::BIGINT AS {n}" for n in ("units", "defective", "defects", "pictures", "named", "named_defective"))}
FROM each JOIN newest USING (line, product, recent) GROUP BY line, product, recent ORDER BY line, product, recent
"""
_KINDS = f"""
WITH each AS (
    SELECT line, production_day = $day AS recent, class_name, "action", defects, units FROM kind_tallies WHERE view <> 'each' AND {_NEAR}
    UNION ALL
    SELECT line, recent, kind.class_name, kind."action", sum(kind.boxes), 1 FROM (
        SELECT line, production_day = $day AS recent, unit, unnest(kinds) AS kind FROM spread WHERE {_NEAR})
    GROUP BY line, recent, unit, kind.class_name, kind."action")
SELECT line, recent, class_name, "action" = 'minor' AS minor, sum(defects)::BIGINT AS defects, sum(units)::BIGINT AS units
FROM each GROUP BY ALL HAVING sum(defects) > 0 ORDER BY ALL
"""
_SHIFTS = """
WITH each AS (
    SELECT production_day, shift, shift_start, units, defective, defects FROM tallies
    WHERE plant = $plant AND counted AND view <> 'each' AND shift <> '' AND production_day >= $since
    UNION ALL
    SELECT production_day, shift, min(shift_start), 1, bool_or(is_defective)::INTEGER, sum(defects) FROM spread
    WHERE plant = $plant AND counted AND shift <> '' AND production_day >= $since GROUP BY production_day, shift, unit)
SELECT production_day AS day, shift, min(shift_start) AS start, sum(units)::BIGINT AS units, sum(defective)::BIGINT AS defective,
       sum(defects)::BIGINT AS defects
FROM each GROUP BY production_day, shift HAVING sum(units) > 0 ORDER BY start DESC
"""
_WEEKS = """
SELECT line, count(DISTINCT production_day) AS weeks FROM facts
WHERE plant = $plant AND counted AND shift = $shift AND production_day IN (SELECT unnest($days)) GROUP BY line ORDER BY line
"""
# What was taken back did hold for a while, so it is told, and so is who took it back. Promotions of all plants count, but for those that a
# demo plant's history made up (`event_id` <> `run_id`).
_DECIDED = """
WITH back AS (
    SELECT (config->>'$.run_id') AS run_id, min("at") AS "at", min_by("by", "at") AS "by" FROM events WHERE recipe = 'undo' GROUP BY 1),
ours AS (
    SELECT e.*, b."at" AS back_at, b."by" AS back_by
    FROM events e LEFT JOIN back b ON e.undone AND e.event_id = e.run_id AND b.run_id = e.run_id
    WHERE e."by" <> 'installation' AND e.recipe IN (SELECT unnest($recipes)) AND (NOT e.undone OR e.event_id = e.run_id)
      AND (e.plant = $plant OR e.recipe IN ('calendar', 'promote') AND e.event_id = e.run_id))
SELECT "at", recipe, config, "by", event_id, FALSE AS undo, back_at FROM ours WHERE "at" >= $begin AND "at" < $end
UNION ALL
SELECT back_at, recipe, config, back_by, event_id, TRUE, NULL FROM ours WHERE back_at >= $begin AND back_at < $end
ORDER BY "at", event_id, undo
"""


def counts(db: Database, plant: str, day: date, shift: str) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Of the shift (recent) and of the days before, by line and product: units, defective, defects, pictures, named (units that have a
    number of their own), named_defective, last (UTC). And by line the kinds of defect: class_name, minor, defects, units."""
    with db.cursor() as cursor:
        asked = {"plant": plant, "day": day, "first": day - timedelta(days=USUAL_DAYS), "shift": shift}
        return cursor.execute(_COUNTS, asked).frame(), cursor.execute(_KINDS, asked).frame()


def shifts(db: Database, plant: str, days: int = 14, at: datetime | None = None) -> pd.DataFrame:
    """day, shift, start (plant time), units, defective, defects of every shift that brought anything in the plant's last days, newest
    first. A picture from the future, by a camera clock that runs ahead, does not say which days are the last."""
    until = (at or datetime.now(UTC)) + AHEAD
    with db.cursor() as cursor:
        last = cursor.execute("SELECT max(production_day) FROM tallies WHERE plant = ? AND counted AND hour_start <= ?",
                              [plant, calendar.current(cursor, plant).local(until)]).one()
        since = (last or date.min + timedelta(days=days)) - timedelta(days=days - 1)
        return cursor.execute(_SHIFTS, {"plant": plant, "since": since}).frame()


def weeks(db: Database, plant: str, day: date, shift: str) -> dict[str, int]:
    """In how many of the four weeks before each line worked in this shift of this weekday."""
    with db.cursor() as cursor:
        rows = cursor.execute(_WEEKS, {"plant": plant, "shift": shift, "days": [day - timedelta(days=7 * w) for w in range(1, 5)]}).dicts()
    return {r["line"]: r["weeks"] for r in rows}


def decided(db: Database, plant: str, begin: datetime, end: datetime) -> pd.DataFrame:
    """at (of a note: the moment it speaks of), text, by, back_at (when it was taken back, by now; NaT: it holds): what people decided, took
    back and noted between two moments, oldest first."""
    with db.cursor() as cursor:
        rows = told(cursor, cursor.execute(_DECIDED, {"plant": plant, "begin": begin, "end": end, "recipes": list(TOLD)}).dicts())
    for row in rows:
        row["text"] = f"Taken back: {row['text']}" if row["undo"] else row["text"]
    notes = annotations.annotations(db, plant, since=begin, until=end - timedelta(microseconds=1))
    for at, line, text, by in zip(notes["at"], notes["line"], notes["text"], notes["by"], strict=True):
        rows.append(dict(at=at, text=tell("note", dict(line=line, text=text)), by=by))
    found = pd.DataFrame(rows, columns=["at", "text", "by", "back_at"]).sort_values("at", kind="stable", ignore_index=True)
    return found.assign(back_at=pd.to_datetime(found["back_at"], utc=True))


def reviewed(db: Database, plant: str, begin: datetime, end: datetime) -> int:
    """Pictures that people judged between two moments."""
    with db.cursor() as cursor:
        return int(cursor.execute("SELECT count(*) FROM events WHERE recipe = 'review' AND NOT undone AND plant = $plant "
                                  'AND "at" >= $begin AND "at" < $end', {"plant": plant, "begin": begin, "end": end}).one())


def plan(db: Database) -> calendar.Calendar:
    """The calendar in force."""
    with db.cursor() as cursor:
        return calendar.current(cursor)

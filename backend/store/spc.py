"""What control charts are made of: counts of each subgroup, gaps between defects, which model judged, and what people decided.

A chart is of one line: its filters name one. Counts are those of `queries.trend`, so that a chart never says another number than
Trends. `key` names a subgroup: the plant time at which it began, as ISO text. What lies in the future, by a camera clock that runs
ahead, is left out. Judgement is not here: limits and rules are `quality`'s, and who puts the two together is `jobs.control`.
"""

import json
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pandas as pd

from backend.records import Filters
from backend.store import calendar, judging, lines, queries, shadow
from backend.store.counting import BUCKETS
from backend.store.database import Cursor, Database
from backend.store.decisions import tell
from backend.store.engineering import MODELS

_OURS = """f.plant = $plant AND f.counted AND f.line = $line AND ($product = '' OR f.product = $product)
    AND ($since::DATE IS NULL OR f.production_day >= $since)"""
# Whose verdict most pictures of a subgroup carry: what was promoted when says less, for old pictures are inspected late, and a roll-back
# leaves no trace in what is in force.
_JUDGES = """
SELECT bucket, model_id FROM (SELECT {bucket} AS bucket, model_id, sum(pictures) AS n FROM tallies f WHERE {ours} GROUP BY ALL)
QUALIFY row_number() OVER (PARTITION BY bucket ORDER BY n DESC, model_id) = 1
"""
# Defective units in the order of time. Clocks that are set back an hour must not turn that order: a key never falls behind the last.
_GAPS = f"""
WITH earlier AS (SELECT unit FROM spread WHERE plant = $plant AND counted AND line = $line AND production_day < $since::DATE),
unit AS (
    SELECT f.unit, min(f.captured_at) AS seen, min(f.captured_local) AS local, min_by(f.model_id, f.captured_at) AS model_id,
           bool_or(if($class_name = '', f.is_defective, hit.inspection_id IS NOT NULL)) AS bad
    FROM facts f LEFT JOIN (SELECT DISTINCT inspection_id FROM defects WHERE action = 'reject' AND class_name = $class_name) hit
        USING (inspection_id)
    WHERE {_OURS} AND f.captured_at <= $until AND ($since::DATE IS NULL OR f.unit NOT IN (SELECT unit FROM earlier)) GROUP BY f.unit),
bad AS (
    SELECT *, place - lag(place) OVER w - 1 AS good, epoch(seen - lag(seen) OVER w) / 3600 AS hours,
           max(local) OVER (w ROWS UNBOUNDED PRECEDING) AS bucket
    FROM (SELECT *, row_number() OVER (ORDER BY seen, unit) AS place FROM unit) WHERE bad WINDOW w AS (ORDER BY seen, unit))
SELECT bucket, good, hours, model_id,
       row_number() OVER (PARTITION BY date_trunc('second', bucket) ORDER BY seen, unit) AS nth FROM bad
QUALIFY good IS NOT NULL ORDER BY seen, unit
"""
# A day with a defect, before a day: from there on no gap that is asked for is cut. Of units that lie in one hour, so that it is theirs.
_BEFORE = f"""
SELECT max(production_day) FROM {{table}} f WHERE {_OURS} AND view <> 'each' AND {{bad}} AND production_day < $before::DATE
"""
# Moments at which the verdicts on a class may have been stated anew, for all of the past.
_RESTATING = """
WITH spoken AS (
    SELECT * FROM events WHERE "by" <> 'installation' AND (recipe = 'calendar' OR recipe = 'policy' AND plant = $plant
        AND coalesce((config->>'$.class_name'), '') <> 'unusual' AND coalesce((config->>'$.product'), '') IN ('', $product)
        AND ($class_name = '' OR coalesce((config->>'$.class_name'), '') IN ('', $class_name))))
SELECT "at", timezone($zone, "at") AS "local", recipe, config, undone FROM spoken
UNION ALL
SELECT u."at", timezone($zone, u."at"), u.recipe, u.config, TRUE FROM events u JOIN spoken s ON (u.config->>'$.run_id') = s.run_id
WHERE u.recipe = 'undo' ORDER BY 1
"""
# The same pictures under both models: recorded by the old one, looked back on with the new one.
_LOOK_BACK = f"""
SELECT r.run_id FROM runs r WHERE r.recipe = 'shadow' AND r.state = 'completed' AND r.plant = $plant
AND (r.result->>'$.model_id') = $new AND coalesce((r.config->>'$.line'), '') IN ('', $line)
AND coalesce((r.config->>'$.product'), '') IN ('', $product)
AND EXISTS (SELECT 1 FROM shadows s JOIN facts f USING (plant, image_id) WHERE s.run_id = r.run_id AND s.why = '' AND f.model_id = $old
            AND {_OURS})
ORDER BY r.run_id DESC LIMIT 1
"""
_LOOKED = f"""
CREATE OR REPLACE TEMP TABLE looked AS
SELECT f.inspection_id, f.plant, f.product, s.model_id, s.boxes FROM facts f JOIN shadows s USING (plant, image_id)
WHERE s.run_id = $run AND s.why = '' AND f.model_id = $old AND {_OURS}
"""
_BOTH = """
WITH kinds AS (SELECT inspection_id, FALSE AS new, class_name FROM defects SEMI JOIN looked USING (inspection_id) WHERE action = 'reject'
               UNION ALL SELECT inspection_id, TRUE, class_name FROM anew WHERE passes AND action = 'reject')
SELECT f.inspection_id, f.unit, if(f.lot = '', f.unit, hash(f.line, f.product, f.lot)) AS lot, 1 / i.kept_share::DOUBLE AS weight,
       count(*) FILTER (NOT new) > 0 AS was, count(*) FILTER (new) > 0 AS would
FROM looked JOIN facts f USING (inspection_id) JOIN inspections i USING (inspection_id)
LEFT JOIN kinds k ON k.inspection_id = f.inspection_id AND ($class_name = '' OR class_name = $class_name)
GROUP BY ALL ORDER BY f.inspection_id
"""


@dataclass(frozen=True)
class Clock:
    """The plant's calendar and its present moment, in plant time and, since plant time has one hour a year twice, in UTC (`now`); what was
    captured after `until` (UTC) is from the future."""

    plan: calendar.Calendar
    local: datetime
    until: datetime
    now: datetime


def clock(db: Database, plant: str, at: datetime | None = None) -> Clock:
    """The moment that Overview speaks of. Asked once for many charts: to check a calendar costs more than to count a line's shifts."""
    until = (at or datetime.now(UTC)) + lines.AHEAD
    with db.cursor() as cursor:
        plan = calendar.current(cursor, plant)
        newest = max(lines.newest(cursor, plant, plan.time_zone, until).values(), default=None) if plant == "demo" else None
        now, local = lines.present(cursor, plan.time_zone, newest, plant, at)
        return Clock(plan, local, until, now)


def subgroups(db: Database, filters: Filters, by: str, clock: Clock) -> pd.DataFrame:
    """key, bucket (plant time), over (when it ends), ended (False: it is still under way), units, defective, defects, model_id, model (its
    name)."""
    with db.cursor() as cursor:
        judges = cursor.execute(_JUDGES.format(bucket=BUCKETS[by], ours=_OURS), _asked(filters)).frame()
        names = _names(cursor)
    frame = queries.trend(db, filters, by).rename(columns={"inspected": "units"}).merge(judges, on="bucket")
    frame = frame[frame["bucket"] <= clock.local].reset_index(drop=True)
    over = frame["bucket"] + pd.to_timedelta([_length(clock.plan, by, begin) for begin in frame["bucket"]])
    return frame[["bucket", "units", "defective", "defects", "model_id"]].assign(
        key=pd.Series([b.isoformat() for b in frame["bucket"]], dtype="str"), over=over, ended=over <= clock.local,
        model=_called(names, frame["model_id"]))


def gaps(db: Database, filters: Filters, clock: Clock, since: str = "") -> pd.DataFrame:
    """One row for each defective unit but the first, before which nobody knows what was: key, bucket (plant time), over (the same), ended
    (True), good (units since the defective one before), hours (since then), model_id, model. With `since`, a key, all from that on, and
    some before."""
    with db.cursor() as cursor:
        asked = _asked(filters) | {"since": _before(cursor, filters, since)}
        frame = cursor.execute(_GAPS, asked | {"class_name": filters.class_name, "until": clock.until}).frame()
        names = _names(cursor)
    keys = [f"{b:%Y-%m-%dT%H:%M:%S}.{n:06d}" for b, n in zip(frame["bucket"], frame.pop("nth"), strict=True)]
    return frame.assign(key=pd.Series(keys, dtype="str"), over=frame["bucket"], ended=True,
                        model=_called(names, frame["model_id"]))


def _before(cursor: Cursor, filters: Filters, since: str) -> date | None:
    """The day to begin with so that the first gap after `since` is whole; None: with the first of all. A production day is over three days
    after its date at the latest, whatever the calendar."""
    if not since:
        return None
    table, bad, values = "tallies", "defective > 0", _asked(filters)
    if filters.class_name:
        table, bad = "kind_tallies", "class_name = $class_name AND action = 'reject' AND units > 0"
        values["class_name"] = filters.class_name
    values["before"] = datetime.fromisoformat(since[:19]).date() - timedelta(days=3)
    found: date | None = cursor.execute(_BEFORE.format(table=table, bad=bad), values).one()
    return found


def _length(plan: calendar.Calendar, by: str, begin: datetime) -> timedelta:
    """How long after `begin` a subgroup is over. Outside all shifts: when the next one begins."""
    if by != "shift":
        opening = timedelta(minutes=plan.day_start) if by != "hour" else timedelta()
        return opening + {"hour": timedelta(hours=1), "day": timedelta(days=1), "week": timedelta(days=7)}[by]
    minute = begin.hour * 60 + begin.minute
    own = [s.minutes for s in plan.shifts if s.start == minute]
    to_next = [(s.start - minute - 1) % calendar.DAY + 1 for s in plan.shifts]
    return timedelta(minutes=next(iter(own), min(to_next, default=calendar.DAY)))


def _asked(filters: Filters) -> dict[str, Any]:
    return {name: getattr(filters, name) for name in ("plant", "line", "product", "since")}


def _called(names: dict[str, str], model_ids: "pd.Series[str]") -> "pd.Series[str]":
    """Names of models; the id of one whose name is gone."""
    return pd.Series([names.get(m, m) for m in model_ids], index=model_ids.index, dtype="str")


def _names(cursor: Cursor) -> dict[str, str]:
    return {m["model_id"]: m["name"] for m in cursor.execute(f"SELECT model_id, name FROM ({MODELS})").dicts()}


# what people decided -------------------------------------------------------------------------------------------------------


def decided(db: Database, plant: str, clock: Clock) -> list[dict[str, Any]]:
    """Charts that were saved (`chart`) and put away (`retire`), alarms that were explained (`explain`), oldest first: recipe, run_id (to
    undo it; '' where it is part of a history), at (UTC), local (plant time), config, by."""
    with db.cursor() as cursor:
        rows = cursor.execute("""
            SELECT recipe, if(event_id = run_id, run_id, '') AS run_id, "at", timezone($zone, "at") AS "local", config, "by" FROM events
            WHERE recipe IN ('chart', 'retire', 'explain') AND NOT undone AND plant = $plant ORDER BY "at", event_id""",
            {"plant": plant, "zone": clock.plan.time_zone}).dicts()
    return [row | {"config": json.loads(row["config"])} for row in rows]


def rules_key(db: Database) -> str:
    """Another text once anything changed that a chart hangs on besides its counts: decisions, but for notes and reviews; names of models;
    look-backs."""
    with db.cursor() as cursor:
        return str(cursor.execute("""
            SELECT [(SELECT bit_xor(hash(event_id, undone)) FROM events WHERE recipe NOT IN ('note', 'review')),
                    (SELECT bit_xor(hash(model_id, name)) FROM models),
                    (SELECT bit_xor(hash(run_id, state)) FROM runs WHERE recipe = 'shadow')]""").one())


def restating(db: Database, filters: Filters, clock: Clock) -> pd.DataFrame:
    """at, local, text: when rules or the calendar changed, so that all counts were stated anew. What was taken back since has no text, but
    restated too, twice."""
    with db.cursor() as cursor:
        rows = cursor.execute(_RESTATING, {n: getattr(filters, n) for n in ("plant", "product", "class_name")}
                              | {"zone": clock.plan.time_zone}).dicts()
    text = ["" if row["undone"] else tell(row["recipe"], json.loads(row["config"])) for row in rows]
    return pd.DataFrame(dict(at=[r["at"] for r in rows], local=[r["local"] for r in rows], text=text), columns=["at", "local", "text"])


# the step between two models -----------------------------------------------------------------------------------------------


def step(db: Database, filters: Filters, old: str, new: str) -> dict[str, Any] | None:
    """What `shadow.step` says of the pictures that the old model judged and a look-back showed to the new one, and run_id, both, only_old,
    only_new (shares of pictures); None where nobody looked back."""
    values = _asked(filters) | {"old": old}
    with db.cursor() as cursor:
        run = cursor.execute(_LOOK_BACK, values | {"new": new}).one()
        if run is None:
            return None
        cursor.execute(_LOOKED, values | {"run": run})
        cursor.execute(f"CREATE OR REPLACE TEMP TABLE anew AS "
                       f"{judging.judged('looked', '(SELECT inspection_id, unnest(boxes, recursive := true) FROM looked)')}")
        rows = cursor.execute(_BOTH, {"class_name": filters.class_name}).frame()
    for name in ("unit", "lot"):
        rows[name] = pd.factorize(rows[name])[0]
    share = rows["weight"] / rows["weight"].sum()
    cells = {"both": rows["was"] & rows["would"], "only_old": rows["was"] & ~rows["would"], "only_new": rows["would"] & ~rows["was"]}
    return shadow.step(rows) | {name: float(share[cell].sum()) for name, cell in cells.items()} | {"run_id": run}

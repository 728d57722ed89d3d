"""How a question of the pages becomes SQL: conditions on facts, and counts of units from the roll-ups or, where these cannot say, rows.

What belongs to a run (`run_id`) is counted from rows; all else from `tallies`, `kind_tallies` and `spread` (see tally). Both give the
same numbers: a test takes a plant through a random past and compares them. Conditions hold on every one of these tables, under the name f.
Every value from outside is a bound parameter; column names come from the tables below.
"""

from datetime import date
from typing import Any, TypeVar

from backend.errors import ConfigError
from backend.records import Filters
from backend.store.database import Cursor

_Chosen = TypeVar("_Chosen")
BUCKETS = {"day": "production_day::TIMESTAMP", "shift": "shift_start", "hour": "hour_start",
           "week": "date_trunc('week', production_day)::TIMESTAMP"}
GROUPS = {"line": "line", "product": "product", "shift": "shift", "camera": "camera", "lot": "lot",
          "weekday": "weekday", "hour": "hour"}
VERDICTS = {"defective": "f.is_defective", "good": "NOT f.is_defective", "unusual": "f.is_unusual",
            "disagree": "f.is_unusual AND NOT f.is_defective"}
# Pictures with a verdict, as sums of a row of the roll-ups.
_PICTURES = {"": "pictures", "defective": "bad_pictures", "good": "pictures - bad_pictures", "unusual": "odd_pictures",
         "disagree": "odd_good_pictures"}

# One row per unit: where its first view fell, how many defects all views show.
_ROWS = """
SELECT min({bucket}) AS bucket, min({group}) AS grouped, count(*) AS pictures, 1 AS units, (sum({defects}) > 0)::INTEGER AS defective,
       sum({defects})::BIGINT AS defects
FROM (SELECT *, date_trunc('hour', captured_local) AS hour_start FROM facts) f {hit} WHERE {where} GROUP BY f.unit
"""
_HIT = """LEFT JOIN (SELECT inspection_id, count(*) AS n FROM defects WHERE action = 'reject' AND class_name = $class_name
                     GROUP BY inspection_id) hit USING (inspection_id)"""
# Rows that stand for many units; units of `spread` one by one, whose pictures are in tallies with the others.
_ROLLED = """
SELECT {bucket} AS bucket, {group} AS grouped, pictures, if({view}, units, 0) AS units, {own} FROM tallies f WHERE {where}
{kinds}
UNION ALL
SELECT min({bucket}), min({group}), 0, 1, (sum({spread}) > 0)::INTEGER, sum({spread})::BIGINT FROM spread f WHERE {where} GROUP BY f.unit
"""
_KINDS = """
UNION ALL
SELECT {bucket}, {group}, 0, 0, units, defects FROM kind_tallies f
WHERE {where} AND {view} AND class_name = $class_name AND action = 'reject'
"""
_EACH_KIND = """
SELECT bucket, class_name, sum(units)::BIGINT AS defective FROM (
    SELECT {bucket} AS bucket, class_name, units FROM kind_tallies f WHERE {where} AND {view} AND "action" = 'reject'
    UNION ALL
    SELECT any_value(bucket), kind.class_name, 1 FROM (
        SELECT min({bucket}) OVER (PARTITION BY f.unit) AS bucket, f.unit, unnest(kinds) AS kind FROM spread f WHERE {where})
    WHERE kind."action" = 'reject' GROUP BY unit, kind.class_name)
GROUP BY ALL HAVING sum(units) > 0 ORDER BY ALL
"""
SPREAD_KIND = "coalesce(list_sum([k.boxes FOR k IN kinds IF k.class_name = $class_name AND k.action = 'reject']), 0)"


def units(filters: Filters, bucket: str = "NULL", group: str = "''") -> tuple[str, dict[str, Any]]:
    """SQL of rows (bucket, grouped, pictures, units, defective, defects) that are to be summed, and its values. Defects and defective units
    are of the class in the filters. A bucket in which `units` come to nothing is none."""
    condition, values = where(filters)
    said = dict(bucket=bucket, group=group, where=condition)
    if filters.run_id:
        hit, defects = (_HIT, "coalesce(hit.n, 0)") if filters.class_name else ("", "f.defects")
        return _ROWS.format(**said, hit=hit, defects=defects), values
    said["view"] = view(filters)
    if filters.class_name:
        return _ROLLED.format(**said, own="0 AS defective, 0 AS defects", kinds=_KINDS.format(**said), spread=SPREAD_KIND), values
    own = ", ".join(f"if({said['view']}, {n}, 0) AS {n}" for n in ("defective", "defects"))
    return _ROLLED.format(**said, own=own, kinds="", spread="f.defects"), values


def each_kind(filters: Filters, bucket: str) -> tuple[str, dict[str, Any]]:
    """SQL of rows (bucket, class_name, defective): units that a class rejects, as `units` counts them with that class in the filters; and
    its values. Not of a run."""
    assert not filters.run_id, "what belongs to a run is counted from rows"
    condition, values = where(filters)
    return _EACH_KIND.format(bucket=bucket, where=condition, view=view(filters)), values


def view(filters: Filters) -> str:
    """Condition on rows of roll-ups that count units: whole ones, or as one camera sees them."""
    return "view <> 'all'" if filters.camera else "view <> 'each'"


def where(filters: Filters) -> tuple[str, dict[str, Any]]:
    """Conditions on f, and their values; class_name is among the values whether or not it is asked for."""
    asked = {n: getattr(filters, n) for n in ("line", "product", "lot", "camera", "shift", "run_id") if getattr(filters, n)}
    parts = ["f.plant = $plant", *(f"f.{n} = ${n}" for n in asked)]
    days = {n: v for n, v in (("since", filters.since), ("until", filters.until)) if v is not None}
    parts += [f"f.production_day {'>=' if n == 'since' else '<='} ${n}" for n in days]
    parts += ["f.counted"] if filters.counted else []
    return " AND ".join([*parts, "$class_name IS NOT NULL"]), {"plant": filters.plant, "class_name": filters.class_name, **asked, **days}


def pictures(filters: Filters) -> tuple[str, dict[str, Any]]:
    """As `where`, for lists of pictures: those with the class, and with the verdict."""
    condition, values = where(filters)
    if filters.class_name:
        condition += " AND f.inspection_id IN (SELECT inspection_id FROM defects WHERE class_name = $class_name)"
    if filters.verdict:
        condition += f" AND {pick(VERDICTS, filters.verdict)}"
    return condition, values


def picture_count(filters: Filters) -> tuple[str, dict[str, Any]]:
    """SQL of how many `pictures` finds, and its values."""
    if filters.run_id:
        condition, values = pictures(filters)
        return f"SELECT count(*) FROM facts f WHERE {condition}", values
    rows, values = _told(filters)
    return f"SELECT coalesce(sum(n), 0)::BIGINT FROM ({rows})", values


def _told(filters: Filters) -> tuple[str, dict[str, Any]]:
    """SQL of rows (hour_start, n) of the pictures that `pictures` finds, and its values; not those of a run."""
    condition, values = where(filters)
    table, kind = ("kind_tallies", " AND class_name = $class_name") if filters.class_name else ("tallies", "")
    return f"SELECT hour_start, {pick(_PICTURES, filters.verdict)} AS n FROM {table} f WHERE {condition}{kind}", values


def hours(cursor: Cursor, filters: Filters, limit: int, offset: int) -> tuple[dict[str, Any], int]:
    """In which hours (begin to end, plant time) the newest pictures from the offset on lie, and how many of that span are newer still: so
    that of ten million rows those of a few hours are looked at, on whichever page. Clocks that are set back do so within an hour's name."""
    rows, values = _told(filters)
    found = cursor.execute(
        f"WITH each AS (SELECT hour_start, sum(n) AS n FROM ({rows}) GROUP BY hour_start), "
        "run AS (SELECT hour_start, n, sum(n) OVER (ORDER BY hour_start DESC) AS upto FROM each WHERE n > 0) "
        "SELECT min(hour_start) AS first, max(hour_start) + INTERVAL 1 HOUR AS last, coalesce(min(upto - n), 0)::BIGINT AS newer "
        "FROM run WHERE upto > $offset AND upto - n < $offset + $limit", values | {"limit": limit, "offset": offset}).dicts()[0]
    return {"begin": found["first"], "end": found["last"]}, offset - found["newer"]


def days(cursor: Cursor, filters: Filters) -> dict[str, Any]:
    """first_day, last_day, last_captured_at of what fits; None where nothing does.

    The newest picture lies in the last three production days with any: a day begins 48 hours before its last picture at most, and clocks
    change by less than the third. So rows are asked for no more than these, which lie together.
    """
    condition, values = where(filters)
    table = "facts" if filters.run_id else "tallies"
    found = cursor.execute(f"SELECT min(production_day) AS first_day, max(production_day) AS last_day FROM {table} f WHERE {condition}",
                           values).dicts()[0]
    newest = f"SELECT max(captured_at) FROM facts f WHERE {condition} AND production_day >= $last::DATE - 2"
    return found | {"last_captured_at": cursor.execute(newest, values | {"last": found["last_day"]}).one()}


def days_so_far(cursor: Cursor, filters: Filters, today: date) -> dict[str, Any]:
    """As `days`, without what lies in the future: by a camera clock that runs ahead one picture would be the newest for years. Of nothing
    else that."""
    found = days(cursor, filters)
    if found["last_day"] is None or found["last_day"] <= today:
        return found
    past = days(cursor, filters.but(until=today))
    return found if past["last_day"] is None else past


def pick(table: dict[str, _Chosen], name: str) -> _Chosen:
    if name not in table:
        raise ConfigError(f"{name!r} is none of {', '.join(table)}.")
    return table[name]

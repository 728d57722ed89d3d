"""What the plant's pages ask: how many, how often, since when, and which pictures are behind it.

Rates count units: several views of a unit are one, defective if any view is. Filtering by class asks for units with that
defect among all units; `verdict` narrows lists of pictures only. Every value from outside is a bound parameter; column
names come from the tables below. Times in `bucket` and `captured_local` are plant time, `captured_at` is UTC.
"""

from datetime import UTC, date, datetime
from typing import Any

import numpy as np
import pandas as pd

from backend import rundir
from backend.errors import NotFoundError
from backend.records import Filters, unpack_map
from backend.store import calendar, counting, judging, listed
from backend.store.counting import BUCKETS, GROUPS, pick
from backend.store.database import Cursor, Database
from backend.store.lines import AHEAD

Array = np.ndarray[Any, np.dtype[Any]]
# Scores of two anomaly models share no scale, so how odd a picture is, is told in limits: that of its model and product, in force now, as
# a person or the model set it. Where nothing is above a limit, or the limit is not above nothing, scores follow after the rest. Limits
# are looked up for what is unusual only, a few per cent of the rows. Names with _ are none of facts' columns.
_LOOKED = "SELECT DISTINCT plant, product, anomaly_model_id AS model_id FROM facts WHERE is_unusual"
_LIMIT = ("(SELECT threshold FROM (SELECT plant AS _plant, product AS _product, model_id AS _model, threshold "
          f"FROM ({judging.unusual_rules(_LOOKED)})) WHERE _plant = plant AND _product = product AND _model = anomaly_model_id)")
_ODDEST = f"anomaly_score / nullif(greatest({_LIMIT}, 0), 0) DESC NULLS LAST, anomaly_score DESC NULLS LAST"
ORDERS = {"newest": "captured_at DESC", "surest": "top_confidence DESC NULLS LAST, captured_at DESC",
          "unsure": "margin ASC NULLS LAST, captured_at DESC", "oddest": f"{_ODDEST}, captured_at DESC"}
# Kinds of doubt that are worth a person's look, and which comes first.
DOUBTS = {"doubtful": ("margin IS NOT NULL", "margin"), "disagreement": ("is_unusual AND NOT is_defective", _ODDEST)}

_COUNTS = "sum(units)::BIGINT AS inspected, sum(defective)::BIGINT AS defective, sum(defects)::BIGINT AS defects"
_UNUSUAL_ROWS = """
SELECT min({bucket}) AS bucket, 1 AS looked, bool_or(is_unusual)::INTEGER AS unusual,
       (bool_or(is_unusual) AND NOT bool_or(is_defective))::INTEGER AS disagree
FROM {source} f WHERE {where} AND is_unusual IS NOT NULL GROUP BY f.unit
"""
_UNUSUAL = """
SELECT {bucket} AS bucket, looked, unusual, disagree FROM tallies f WHERE {where} AND {view} AND looked > 0 UNION ALL
""" + _UNUSUAL_ROWS
_KINDS_ROWS = """
SELECT class_name, action, count(*) AS defects, count(DISTINCT f.unit) AS units FROM defects JOIN facts f USING (inspection_id)
WHERE {where} GROUP BY class_name, action
"""
_KINDS = """
SELECT class_name, action, defects, units FROM kind_tallies f WHERE {where} AND {view}
UNION ALL
SELECT class_name, action, sum(boxes), count(DISTINCT unit) FROM (SELECT unit, unnest(kinds, recursive := true) FROM spread f WHERE {where})
GROUP BY class_name, action
"""


def plants(db: Database) -> dict[str, int]:
    """Inspections per plant that is looked after here."""
    return {"demo": 0, "real": 0} | _inspected(db, "plant IN ('demo', 'real')")


def elsewhere(db: Database) -> dict[str, int]:
    """Inspections of each plant, by its name, whose records are here while its pictures and its people are elsewhere. See `lake`."""
    return dict.fromkeys(db.elsewhere(), 0) | _inspected(db, "plant NOT IN ('demo', 'real')") if db.elsewhere() else {}


def _inspected(db: Database, which: str) -> dict[str, int]:
    with db.cursor() as cursor:
        rows = cursor.execute(f"SELECT plant, sum(pictures)::BIGINT AS n FROM tallies WHERE {which} GROUP BY plant").dicts()
    return {r["plant"]: r["n"] for r in rows}


def kept_by(db: Database, inspection_id: int) -> str:
    """The plant that has an inspection's picture, where that is another one; else ''."""
    if not db.elsewhere():
        return ""
    with db.cursor() as cursor:
        plant = cursor.execute("SELECT plant FROM facts WHERE inspection_id = ?", [inspection_id]).one()
    return str(plant) if plant in db.elsewhere() else ""


def choices(db: Database, plant: str) -> dict[str, Any]:
    """What there is to choose from: lines, products, shifts, lots, cameras, classes; and of what counts in trends first_day, last_day,
    last_captured_at: a picture that does not count makes no chart younger."""
    names = ("line", "product", "shift", "lot", "camera")
    with db.cursor() as cursor:
        found = cursor.execute("SELECT " + ", ".join(f"list_sort(list(DISTINCT {n}) FILTER ({n} <> '')) AS {n}s" for n in names)
                               + f" FROM (SELECT DISTINCT {', '.join(names)} FROM tallies WHERE plant = ?)", [plant]).dicts()[0]
        plan = calendar.current(cursor, plant)
        found = {n: values or [] for n, values in found.items()} | counting.days_so_far(cursor, Filters(plant), _today(plan))
        order = [s.name for s in plan.shifts]
        found["shifts"].sort(key=lambda s: (order.index(s) if s in order else len(order), s))
        found["classes"] = sorted(cursor.execute("SELECT DISTINCT class_name FROM kind_tallies WHERE plant = ?", [plant]).column())
    return found


def _today(plan: calendar.Calendar) -> date:
    return plan.local(datetime.now(UTC) + AHEAD).date()


def last(cursor: Cursor, plant: str) -> datetime | None:
    """When the newest picture was taken, whether or not it counts; what is worth a look is of the days before it."""
    today = _today(calendar.current(cursor, plant))
    at: datetime | None = counting.days_so_far(cursor, Filters(plant, counted=False), today)["last_captured_at"]
    return at


def totals(db: Database, filters: Filters) -> dict[str, Any]:
    """inspected counts pictures; units, defective and all rates count units. Rates are None where there is nothing to rate."""
    sql, values = counting.units(filters)
    counts = ", ".join(f"coalesce(sum({of}), 0)::BIGINT AS {name}" for name, of in
                       (("inspected", "pictures"), ("units", "units"), ("defective", "defective"), ("defects", "defects")))
    with db.cursor() as cursor:
        row = cursor.execute(f"SELECT {counts} FROM ({sql})", values).dicts()[0] | counting.days(cursor, filters)
    n, k = row["units"], row["defective"]
    low, high = wilson(np.array([k]), np.array([n]))
    return row | ({"rate": k / n, "low": float(low[0]), "high": float(high[0]), "good_first_time": 1 - k / n,
                   "defects_per_unit": row["defects"] / n} if n else
                  dict.fromkeys(("rate", "low", "high", "good_first_time", "defects_per_unit")))


def trend(db: Database, filters: Filters, by: str = "day", split: str = "") -> pd.DataFrame:
    """bucket, [group], inspected (units), defective, rate, low, high, defects; a bucket without units has no row."""
    sql, values = counting.units(filters, pick(BUCKETS, by), pick(GROUPS, split) if split else "''")
    with db.cursor() as cursor:
        frame = cursor.execute(f"SELECT bucket, grouped, {_COUNTS} FROM ({sql}) GROUP BY bucket, grouped HAVING sum(units) > 0 "
                               "ORDER BY ALL", values).frame()
    return _rated(frame.rename(columns={"grouped": "group"}) if split else frame.drop(columns="grouped"))


def trend_of_kinds(db: Database, filters: Filters, by: str = "day") -> pd.DataFrame:
    """bucket, class_name, defective: for every class what `trend` says with it in the filters, in one question; nothing where that is 0."""
    sql, values = counting.each_kind(filters.but(class_name=""), pick(BUCKETS, by))
    with db.cursor() as cursor:
        return cursor.execute(sql, values).frame()


def unusual_trend(db: Database, filters: Filters, by: str = "day") -> pd.DataFrame:
    """bucket, inspected (units that an anomaly model looked at and had a threshold for), unusual, rate, low, high, disagree (unusual units
    in which no detection rejects anything: what nobody has labelled yet). A class or a verdict in the filters says nothing here."""
    where, values = counting.where(filters)
    source = "(SELECT *, date_trunc('hour', captured_local) AS hour_start FROM facts)" if filters.run_id else "spread"
    sql = (_UNUSUAL_ROWS if filters.run_id else _UNUSUAL).format(bucket=pick(BUCKETS, by), where=where, source=source,
                                                                 view=counting.view(filters))
    with db.cursor() as cursor:
        frame = cursor.execute("SELECT bucket, sum(looked)::BIGINT AS inspected, sum(unusual)::BIGINT AS unusual, "
                               f"sum(disagree)::BIGINT AS disagree FROM ({sql}) GROUP BY bucket ORDER BY bucket", values).frame()
    return _rated(frame, "unusual")


def breakdown(db: Database, filters: Filters, by: str) -> pd.DataFrame:
    """value, inspected (units), defective, rate, low, high, defects. Weekdays (1 is Monday) and hours ("06:00") in their order,
    the rest by rate."""
    sql, values = counting.units(filters, group=pick(GROUPS, by))
    with db.cursor() as cursor:
        frame = _rated(cursor.execute(f"SELECT grouped AS value, {_COUNTS} FROM ({sql}) GROUP BY grouped HAVING sum(units) > 0 "
                                      "ORDER BY grouped", values).frame())
    if by == "hour":
        frame["value"] = [f"{v:02d}:00" for v in frame["value"]]
    elif by != "weekday":
        frame = frame.sort_values("rate", ascending=False, kind="stable", ignore_index=True)
    return frame


def pareto(db: Database, filters: Filters) -> pd.DataFrame:
    """class_name, defects, units, share, cumulative, minor (True or False): the most frequent first. Minor ones come after, in
    rows of their own, and take no part in the shares."""
    where, values = counting.where(filters)
    sql = (_KINDS_ROWS if filters.run_id else _KINDS).format(where=where, view=counting.view(filters))
    with db.cursor() as cursor:
        frame = cursor.execute(
            "SELECT class_name, sum(defects)::BIGINT AS defects, sum(units)::BIGINT AS units, action = 'minor' AS minor "
            f"FROM ({sql}) WHERE $class_name = '' OR class_name = $class_name GROUP BY class_name, action HAVING sum(units) > 0 "
            "ORDER BY minor, 2 DESC, class_name", values).frame()
    rejects = frame["defects"].where(~frame["minor"])
    frame.insert(3, "share", rejects / rejects.sum())
    frame.insert(4, "cumulative", frame["share"].cumsum())
    return frame


def images(db: Database, filters: Filters, order: str = "newest", limit: int = 24, offset: int = 0) -> pd.DataFrame:
    """Columns of facts, and boxes (how many pass). Which rows is found out first, from the few columns that this takes."""
    where, values = counting.pictures(filters)
    by, revision = f"{pick(ORDERS, order)}, inspection_id", db.revision
    with db.cursor() as cursor:
        if order == "newest" and not filters.run_id:
            span, offset = counting.hours(cursor, filters, limit, offset)
            where, values = f"{where} AND f.captured_local >= $begin AND f.captured_local < $end", values | span
        found = cursor.execute(
            f"SELECT f.*, f.defects + f.minor AS boxes FROM facts f JOIN (SELECT f.{db.place} AS place FROM facts f "
            f"WHERE {where} ORDER BY {by} LIMIT $limit OFFSET $offset) ON f.{db.place} = place ORDER BY {by}",
            values | {"limit": limit, "offset": offset}).frame()
    listed.remember(db, found, filters.plant, revision)
    return found


def images_count(db: Database, filters: Filters) -> int:
    sql, values = counting.picture_count(filters)
    with db.cursor() as cursor:
        return int(cursor.execute(sql, values).one())


def inspection(db: Database, inspection_id: int) -> dict[str, Any]:
    """One inspection: columns of facts, runtime, model and anomaly_model (names; '' where none). Raises NotFoundError."""
    with db.cursor() as cursor:
        rows = cursor.execute(
            "SELECT f.*, i.runtime, coalesce((SELECT min(name) FROM models m WHERE m.model_id = f.model_id), '') AS model, "
            "coalesce((SELECT min(name) FROM models m WHERE m.model_id = f.anomaly_model_id), '') AS anomaly_model "
            "FROM facts f JOIN inspections i USING (inspection_id) WHERE f.inspection_id = ?", [inspection_id]).dicts()
    if not rows:
        raise NotFoundError("This picture is not in the records any more.")
    return rows[0]


def image_id(db: Database, inspection_id: int) -> str:
    """Which picture an inspection looked at. Raises NotFoundError."""
    found = listed.image_id(db, inspection_id)
    if found is None:
        with db.cursor() as cursor:
            found = cursor.execute("SELECT image_id FROM facts WHERE inspection_id = ?", [inspection_id]).one()
    if found is None:
        raise NotFoundError("This picture is not in the records any more.")
    return str(found)


def detections(db: Database, inspection_ids: list[int]) -> pd.DataFrame:
    """All raw detections, the most confident first: inspection_id, class_name, confidence, x1..y2, side, action, threshold, min_side,
    passes."""
    if len(inspection_ids) == 1:
        found = listed.detections(db, int(inspection_ids[0]), lambda ids: _detections(db, ids))
        if found is not None:
            return found
    return _detections(db, [int(i) for i in inspection_ids])


def _detections(db: Database, inspection_ids: list[int]) -> pd.DataFrame:
    with db.cursor() as cursor:
        cursor.execute("CREATE OR REPLACE TEMP TABLE asked AS SELECT inspection_id, plant, product, model_id FROM facts "
                       "WHERE inspection_id IN (SELECT unnest(?::BIGINT[]))", [inspection_ids])
        return cursor.execute("SELECT inspection_id, class_name, confidence, x1, y1, x2, y2, side, action, threshold, min_side, passes "
                              f"FROM ({judging.judged('asked')}) ORDER BY inspection_id, confidence DESC, class_name, x1, y1").frame()


def anomaly_map(db: Database, inspection_id: int) -> dict[str, Any]:
    """What an anomaly model saw in a picture: model_id, anomaly_score, values (uint8 (side, side), 0 and 255 are the model's map_range).
    Raises NotFoundError."""
    with db.cursor() as cursor:
        rows = cursor.execute("SELECT * FROM anomalies WHERE inspection_id = ? ORDER BY model_id, anomaly_score LIMIT 1",
                              [inspection_id]).dicts()
    if not rows:
        raise NotFoundError("No anomaly model looked at this picture.")
    row = rows[0]
    try:
        part = rundir.read_part(rundir.runs_root() / row["run_id"] / "parts" / f"{row['part']}.parquet")
        packed = dict(zip(part["inspection_id"].to_pylist(), part["anomaly_map"].to_pylist(), strict=True))[inspection_id]
        if packed is None:
            raise NotFoundError("The heat map of this picture was not kept.")
        return {**row, "values": unpack_map(packed, row["side"])}
    except (OSError, KeyError, ValueError) as error:         # gone since, or damaged: pyarrow's own errors are ValueErrors
        raise NotFoundError("The heat map of this picture cannot be read any more.") from error


def let_go(db: Database, inspection_id: int) -> datetime | None:
    """When retention let the picture of an inspection go (UTC); None where it did not."""
    with db.cursor() as cursor:
        at: datetime | None = cursor.execute('SELECT max("at") FROM let_go WHERE inspection_id = ?', [inspection_id]).one()
    return at


def review_queue(db: Database, plant: str, limit: int = 30, kind: str = "doubtful") -> pd.DataFrame:
    """Rows of facts worth a person's look: from the last seven days with data, never reviewed, picture kept. Of kind `doubtful` the
    nearest to a threshold first; of kind `disagreement` what an anomaly model calls unusual and no detection rejects, the oddest first."""
    which, order = pick(DOUBTS, kind)
    revision = db.revision
    with db.cursor() as cursor:
        found = cursor.execute(f"SELECT * FROM facts WHERE plant = $plant AND review = '' AND kept AND {which} "
                               "AND why <> 'it shows a master part' "
                               "AND captured_at > $last::TIMESTAMPTZ - INTERVAL 7 DAY "
                               f"ORDER BY {order}, captured_at DESC, inspection_id LIMIT $limit",
                               {"plant": plant, "limit": limit, "last": last(cursor, plant)}).frame()
    listed.remember(db, found, plant, revision)
    return found


def wilson(k: Array, n: Array, z: float = 1.959964) -> tuple[Array, Array]:
    """95 % interval of k in n (Wilson 1927): honest near 0 %, where the usual one has no width. Nothing for n = 0."""
    n = np.where(n > 0, n, np.nan)
    middle = (k + z * z / 2) / (n + z * z)
    half = z / (n + z * z) * np.sqrt(k * (n - k) / n + z * z / 4)
    return np.clip(middle - half, 0, 1), np.clip(middle + half, 0, 1)


def _rated(frame: pd.DataFrame, what: str = "defective") -> pd.DataFrame:
    """rate, low and high after what is rated."""
    k, n = frame[what].to_numpy(float), frame["inspected"].to_numpy(float)
    low, high = wilson(k, n)
    at = int(frame.columns.get_indexer(pd.Index([what]))[0]) + 1
    for name, values in (("high", high), ("low", low), ("rate", k / np.where(n > 0, n, np.nan))):
        frame.insert(at, name, values)
    return frame

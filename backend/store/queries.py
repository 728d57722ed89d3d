"""What the plant's pages ask: how many, how often, since when, and which pictures are behind it.

Rates count units: several views of a unit are one, defective if any view is. Filtering by class asks for units with that
defect among all units; `verdict` narrows lists of pictures only. Every value from outside is a bound parameter; column
names come from the tables below. Times in `bucket` and `captured_local` are plant time, `captured_at` is UTC.
"""

from typing import Any, TypeVar

import numpy as np
import pandas as pd

from backend import rundir
from backend.errors import ConfigError, NotFoundError
from backend.records import Filters, unpack_map
from backend.store import calendar, facts
from backend.store.database import Database

Array = np.ndarray[Any, np.dtype[Any]]
_Chosen = TypeVar("_Chosen")
BUCKETS = {"day": "production_day::TIMESTAMP", "shift": "shift_start", "hour": "date_trunc('hour', captured_local)",
           "week": "date_trunc('week', production_day)::TIMESTAMP"}
GROUPS = {"line": "line", "product": "product", "shift": "shift", "camera": "camera", "lot": "lot",
          "weekday": "weekday", "hour": "hour"}
ORDERS = {"newest": "captured_at DESC", "surest": "top_confidence DESC NULLS LAST, captured_at DESC",
          "unsure": "margin ASC NULLS LAST, captured_at DESC",
          "oddest": "anomaly_score DESC NULLS LAST, captured_at DESC"}
VERDICTS = {"defective": "f.is_defective", "good": "NOT f.is_defective", "unusual": "f.is_unusual",
            "disagree": "f.is_unusual AND NOT f.is_defective"}
# Kinds of doubt that are worth a person's look, and which comes first.
DOUBTS = {"doubtful": ("margin IS NOT NULL", "margin"), "disagreement": ("is_unusual AND NOT is_defective", "anomaly_score DESC")}

# One row per unit: where its first view fell, how many defects all views show.
_UNITS = """
WITH unit AS (SELECT min({bucket}) AS bucket, min({group}) AS grouped, count(*) AS pictures, sum({defects})::BIGINT AS defects
              FROM facts f {hit} WHERE {where} GROUP BY f.unit)
"""
_HIT = """LEFT JOIN (SELECT inspection_id, count(*) AS n FROM defects WHERE action = 'reject' AND class_name = $class_name
                     GROUP BY inspection_id) hit USING (inspection_id)"""


def plants(db: Database) -> dict[str, int]:
    """Inspections per plant."""
    with db.cursor() as cursor:
        rows = cursor.execute("SELECT plant, count(*) AS n FROM facts GROUP BY plant").dicts()
    return {"demo": 0, "real": 0} | {r["plant"]: r["n"] for r in rows}


def choices(db: Database, plant: str) -> dict[str, Any]:
    """What there is to choose from: lines, products, shifts, lots, cameras, classes; and of what counts in trends first_day, last_day,
    last_captured_at: a picture that does not count makes no chart younger."""
    names = ("line", "product", "shift", "lot", "camera")
    with db.cursor() as cursor:
        found = cursor.execute("SELECT " + ", ".join(f"list_sort(list(DISTINCT {n}) FILTER ({n} <> '')) AS {n}s" for n in names)
                               + ", min(production_day) FILTER (counted) AS first_day, max(production_day) FILTER (counted) AS last_day, "
                               "max(captured_at) FILTER (counted) AS last_captured_at FROM facts WHERE plant = ?", [plant]).dicts()[0]
        found |= {f"{n}s": found[f"{n}s"] or [] for n in names}
        order = [s.name for s in calendar.current(cursor).shifts]
        found["shifts"].sort(key=lambda s: (order.index(s) if s in order else len(order), s))
        found["classes"] = sorted(cursor.execute("SELECT DISTINCT class_name FROM defects SEMI JOIN (SELECT inspection_id FROM facts "
                                                 "WHERE plant = ?) USING (inspection_id)", [plant]).column())
    return found


def totals(db: Database, filters: Filters) -> dict[str, Any]:
    """inspected counts pictures; units, defective and all rates count units. Rates are None where there is nothing to rate."""
    sql, values = _units(filters)
    where, more = _where(filters)
    with db.cursor() as cursor:
        found = cursor.execute(sql + "SELECT coalesce(sum(pictures), 0)::BIGINT AS inspected, count(*) AS units, "
                               "count(*) FILTER (defects > 0) AS defective, coalesce(sum(defects), 0)::BIGINT AS defects FROM unit", values)
        row = found.dicts()[0]
        row |= cursor.execute("SELECT min(production_day) AS first_day, max(production_day) AS last_day, "
                              f"max(captured_at) AS last_captured_at FROM facts f WHERE {where}", more).dicts()[0]
    n, k = row["units"], row["defective"]
    low, high = wilson(np.array([k]), np.array([n]))
    return row | ({"rate": k / n, "low": float(low[0]), "high": float(high[0]), "good_first_time": 1 - k / n,
                   "defects_per_unit": row["defects"] / n} if n else
                  dict.fromkeys(("rate", "low", "high", "good_first_time", "defects_per_unit")))


def trend(db: Database, filters: Filters, by: str = "day", split: str = "") -> pd.DataFrame:
    """bucket, [group], inspected (units), defective, rate, low, high, defects; a bucket without units has no row."""
    sql, values = _units(filters, _pick(BUCKETS, by), _pick(GROUPS, split) if split else "''")
    with db.cursor() as cursor:
        frame = cursor.execute(sql + f"SELECT bucket, {_COUNTS} FROM unit GROUP BY bucket, grouped ORDER BY ALL", values).frame()
    return _rated(frame.rename(columns={"grouped": "group"}) if split else frame.drop(columns="grouped"))


def unusual_trend(db: Database, filters: Filters, by: str = "day") -> pd.DataFrame:
    """bucket, inspected (units that an anomaly model looked at and had a threshold for), unusual, rate, low, high, disagree (unusual units
    in which no detection rejects anything: what nobody has labelled yet). A class or a verdict in the filters says nothing here."""
    where, values = _where(filters)
    with db.cursor() as cursor:
        frame = cursor.execute(
            f"WITH unit AS (SELECT min({_pick(BUCKETS, by)}) AS bucket, bool_or(is_unusual) AS odd, bool_or(is_defective) AS bad "
            f"FROM facts f WHERE {where} AND is_unusual IS NOT NULL GROUP BY f.unit) "
            "SELECT bucket, count(*) AS inspected, count(*) FILTER (odd) AS unusual, count(*) FILTER (odd AND NOT bad) AS disagree "
            "FROM unit GROUP BY bucket ORDER BY bucket", values).frame()
    return _rated(frame, "unusual")


def breakdown(db: Database, filters: Filters, by: str) -> pd.DataFrame:
    """value, inspected (units), defective, rate, low, high, defects. Weekdays (1 is Monday) and hours ("06:00") in their order,
    the rest by rate."""
    sql, values = _units(filters, group=_pick(GROUPS, by))
    with db.cursor() as cursor:
        frame = _rated(cursor.execute(sql + f"SELECT {_COUNTS} FROM unit GROUP BY grouped ORDER BY grouped", values).frame())
    frame = frame.rename(columns={"grouped": "value"})
    if by == "hour":
        frame["value"] = [f"{v:02d}:00" for v in frame["value"]]
    elif by != "weekday":
        frame = frame.sort_values("rate", ascending=False, kind="stable", ignore_index=True)
    return frame


def pareto(db: Database, filters: Filters) -> pd.DataFrame:
    """class_name, defects, units, share, cumulative, minor (True or False): the most frequent first. Minor ones come after, in
    rows of their own, and take no part in the shares."""
    where, values = _where(filters)
    with db.cursor() as cursor:
        frame = cursor.execute(
            "SELECT class_name, count(*) AS defects, count(DISTINCT f.unit) AS units, action = 'minor' AS minor "
            f"FROM defects JOIN facts f USING (inspection_id) WHERE {where} AND ($class_name = '' OR class_name = $class_name) "
            "GROUP BY class_name, action ORDER BY minor, 2 DESC, class_name", values).frame()
    rejects = frame["defects"].where(~frame["minor"])
    frame.insert(3, "share", rejects / rejects.sum())
    frame.insert(4, "cumulative", frame["share"].cumsum())
    return frame


def images(db: Database, filters: Filters, order: str = "newest", limit: int = 24, offset: int = 0) -> pd.DataFrame:
    """Columns of facts, and boxes (how many pass)."""
    where, values = _pictures(filters)
    with db.cursor() as cursor:
        return cursor.execute(f"SELECT f.*, f.defects + f.minor AS boxes FROM facts f WHERE {where} "
                              f"ORDER BY {_pick(ORDERS, order)}, inspection_id LIMIT $limit OFFSET $offset",
                              values | {"limit": limit, "offset": offset}).frame()


def images_count(db: Database, filters: Filters) -> int:
    where, values = _pictures(filters)
    with db.cursor() as cursor:
        return int(cursor.execute(f"SELECT count(*) FROM facts f WHERE {where}", values).one())


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


def detections(db: Database, inspection_ids: list[int]) -> pd.DataFrame:
    """All raw detections, the most confident first: inspection_id, class_name, confidence, x1..y2, side, action, threshold, min_side,
    passes."""
    with db.cursor() as cursor:
        cursor.execute("CREATE OR REPLACE TEMP TABLE asked AS SELECT inspection_id, plant, product, model_id FROM facts "
                       "WHERE inspection_id IN (SELECT unnest(?::BIGINT[]))", [[int(i) for i in inspection_ids]])
        return cursor.execute("SELECT inspection_id, class_name, confidence, x1, y1, x2, y2, side, action, threshold, min_side, passes "
                              f"FROM ({facts.judged('asked')}) ORDER BY inspection_id, confidence DESC, class_name, x1, y1").frame()


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


def review_queue(db: Database, plant: str, limit: int = 30, kind: str = "doubtful") -> pd.DataFrame:
    """Rows of facts worth a person's look: from the last seven days with data, never reviewed, picture kept. Of kind `doubtful` the
    nearest to a threshold first; of kind `disagreement` what an anomaly model calls unusual and no detection rejects, the oddest first."""
    which, order = _pick(DOUBTS, kind)
    with db.cursor() as cursor:
        return cursor.execute(f"SELECT * FROM facts WHERE plant = $plant AND review = '' AND kept AND {which} "
                              "AND captured_at > (SELECT max(captured_at) FROM facts WHERE plant = $plant) - INTERVAL 7 DAY "
                              f"ORDER BY {order}, captured_at DESC, inspection_id LIMIT $limit", {"plant": plant, "limit": limit}).frame()


def wilson(k: Array, n: Array, z: float = 1.959964) -> tuple[Array, Array]:
    """95 % interval of k in n (Wilson 1927): honest near 0 %, where the usual one has no width. Nothing for n = 0."""
    n = np.where(n > 0, n, np.nan)
    middle = (k + z * z / 2) / (n + z * z)
    half = z / (n + z * z) * np.sqrt(k * (n - k) / n + z * z / 4)
    return np.clip(middle - half, 0, 1), np.clip(middle + half, 0, 1)


# how a question becomes SQL ------------------------------------------------------------------------------------------------

_COUNTS = "grouped, count(*) AS inspected, count(*) FILTER (defects > 0) AS defective, sum(defects)::BIGINT AS defects"


def _rated(frame: pd.DataFrame, what: str = "defective") -> pd.DataFrame:
    """rate, low and high after what is rated."""
    k, n = frame[what].to_numpy(float), frame["inspected"].to_numpy(float)
    low, high = wilson(k, n)
    at = int(frame.columns.get_indexer(pd.Index([what]))[0]) + 1
    for name, values in (("high", high), ("low", low), ("rate", k / np.where(n > 0, n, np.nan))):
        frame.insert(at, name, values)
    return frame


def _units(filters: Filters, bucket: str = "production_day::TIMESTAMP", group: str = "''") -> tuple[str, dict[str, Any]]:
    where, values = _where(filters)
    hit, defects = (_HIT, "coalesce(hit.n, 0)") if filters.class_name else ("", "f.defects")
    return _UNITS.format(bucket=bucket, group=group, where=where, hit=hit, defects=defects), values


def _where(filters: Filters) -> tuple[str, dict[str, Any]]:
    """Conditions on `facts f`, and their values; class_name is among the values whether or not it is asked for."""
    asked = {n: getattr(filters, n) for n in ("line", "product", "lot", "camera", "shift", "run_id") if getattr(filters, n)}
    parts = ["f.plant = $plant", *(f"f.{n} = ${n}" for n in asked)]
    days = {n: v for n, v in (("since", filters.since), ("until", filters.until)) if v is not None}
    parts += [f"f.production_day {'>=' if n == 'since' else '<='} ${n}" for n in days]
    parts += ["f.counted"] if filters.counted else []
    return " AND ".join([*parts, "$class_name IS NOT NULL"]), {"plant": filters.plant, "class_name": filters.class_name, **asked, **days}


def _pictures(filters: Filters) -> tuple[str, dict[str, Any]]:
    """As `_where`, for lists of pictures: those with the class, and with the verdict."""
    where, values = _where(filters)
    if filters.class_name:
        where += " AND f.inspection_id IN (SELECT inspection_id FROM defects WHERE class_name = $class_name)"
    if filters.verdict:
        where += f" AND {_pick(VERDICTS, filters.verdict)}"
    return where, values


def _pick(table: dict[str, _Chosen], name: str) -> _Chosen:
    if name not in table:
        raise ConfigError(f"{name!r} is none of {', '.join(table)}.")
    return table[name]

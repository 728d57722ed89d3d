"""Roll-ups of the verdicts: what charts count, summed up for each hour, so that ten million rows are counted as fast as a thousand.

    facts ─► seen ─► tallies        hour × line, product, lot, camera, model: units and pictures
                     kind_tallies   the same, for each class that rejects or is minor
                     spread         pictures of units that do not lie in one hour

A unit is counted once however many pictures it has, so sums over pictures do not do. Nearly all units lie in one cell (an hour of one
shift, line, product, lot, model): those are summed. The others are few, are kept picture by picture in `spread`, and are put together
when somebody asks. A unit may be seen by several cameras; `view` tells how a row counts it:

    one    the unit has this camera alone (pictures of `spread` units too, with no units: pictures add up wherever they lie)
    each   one camera of several, by the pictures of that camera: for who asks for one camera
    all    the unit as a whole, under the first of its cameras: for who asks for all

`facts.derive` calls `before` and `after` within its transaction: the sums of the units that it touches are taken off, then put on anew.
Whole numbers only, so nothing is ever off by a little; what comes to nothing leaves no row. Knows nothing of questions: see `counting`.
"""

from backend.store.database import Cursor

TABLES = ("tallies", "kind_tallies", "spread")
_CELL = ("plant", "counted", "line", "product", "lot", "model_id", "production_day", "shift", "shift_start", "hour_start", "hour",
         "weekday")
_PICTURES = {"pictures": "count(*)", "bad_pictures": "count(*) FILTER (is_defective)", "odd_pictures": "count(*) FILTER (is_unusual)",
             "odd_good_pictures": "count(*) FILTER (is_unusual AND NOT is_defective)"}
_UNITS = {"units": "1", "defective": "(sum(defects) > 0)::INTEGER", "defects": "sum(defects)", "named": "bool_or(named)::INTEGER",
          "named_defective": "(bool_or(named) AND sum(defects) > 0)::INTEGER", "looked": "(count(is_unusual) > 0)::INTEGER",
          "unusual": "coalesce(bool_or(is_unusual), FALSE)::INTEGER",
          "disagree": "coalesce(bool_or(is_unusual) AND NOT bool_or(is_defective) FILTER (is_unusual IS NOT NULL), FALSE)::INTEGER"}
_KIND_UNITS = {"units": "1", "defects": "sum(boxes)", "named": "bool_or(named)::INTEGER"}

_COLUMNS = ("inspection_id", "unit", "camera", "captured_at", "captured_local", "defects", "is_defective", "is_unusual",
            *(c for c in _CELL if c != "hour_start"))

# All pictures of the units that a derivation touches, before it and, once the touched ones are replaced, after it.
_HIT = """
CREATE OR REPLACE TEMP TABLE hit AS
SELECT unit FROM facts SEMI JOIN touched USING (inspection_id) UNION SELECT unit FROM fresh
"""
_OWN = f"SELECT {', '.join(_COLUMNS)}, unit_id <> inspection_id::VARCHAR AS named FROM facts"
_KIN = f"CREATE OR REPLACE TEMP TABLE kin AS {_OWN} SEMI JOIN hit USING (unit)"
_KIN_AFTER = ("DELETE FROM kin WHERE inspection_id IN (SELECT inspection_id FROM touched)",
              f"INSERT INTO kin {_OWN} SEMI JOIN touched USING (inspection_id)")
# Two cells that share a 64-bit hash would be one: at a million cells once in 10 million plants.
_SEEN = f"""
CREATE OR REPLACE TEMP TABLE seen AS
WITH own AS (
    SELECT * EXCLUDE (captured_local), date_trunc('hour', captured_local) AS hour_start, hash({", ".join(_CELL)}) AS cell FROM kin),
several AS (
    SELECT plant, unit, min(cell) <> max(cell) AS apart, min(camera) AS first_camera, min(camera) <> max(camera) AS cameras
    FROM own GROUP BY plant, unit HAVING count(*) > 1)
SELECT own.*, coalesce(apart, FALSE) AS apart, coalesce(cameras, FALSE) AS cameras, coalesce(first_camera, camera) AS first_camera
FROM own LEFT JOIN several USING (plant, unit)
"""
_SEEN_KINDS = """
CREATE OR REPLACE TEMP TABLE seen_kinds AS
SELECT seen.*, class_name, action, boxes FROM seen JOIN (
    SELECT inspection_id, class_name, action, count(*) AS boxes FROM defects SEMI JOIN seen USING (inspection_id) GROUP BY ALL)
USING (inspection_id)
"""
_SPREAD = f"""
INSERT INTO spread
SELECT unit, inspection_id, camera, named, captured_at, defects, is_defective, is_unusual, coalesce(kinds, []), {", ".join(_CELL)} FROM seen
LEFT JOIN (SELECT inspection_id, list({{class_name: class_name, "action": "action", boxes: boxes}} ORDER BY class_name, action) AS kinds
           FROM seen_kinds WHERE apart GROUP BY inspection_id) USING (inspection_id)
WHERE apart
"""


def _summed(source: str, more: tuple[str, ...], units: dict[str, str]) -> str:
    """SQL of the sums of `source` for each cell, view, camera and what there is `more`."""
    keys, kinds = ", ".join(["cell", "view", "camera", *more]), "".join(f", {m}" for m in more)
    counts = {**units, **_PICTURES}
    each, none = ", ".join(f"{v} AS {n}" for n, v in counts.items()), dict.fromkeys(units, "0") | _PICTURES
    whole = ", ".join(f"{v} AS {n}" for n, v in (units | dict.fromkeys(_PICTURES, "0")).items())
    apart = ", ".join(f"{v} AS {n}" for n, v in none.items())
    return f"""
SELECT {keys}, {", ".join(f"sum({n})::BIGINT AS {n}" for n in counts)} FROM (
    SELECT cell, if(cameras, 'each', 'one') AS view, camera{kinds}, {each} FROM {source} WHERE NOT apart
    GROUP BY cell, unit, cameras, camera{kinds}
    UNION ALL
    SELECT cell, 'all', first_camera{kinds}, {whole} FROM {source} WHERE cameras AND NOT apart GROUP BY cell, unit, first_camera{kinds}
    UNION ALL
    SELECT cell, 'one', camera{kinds}, {apart} FROM {source} WHERE apart GROUP BY cell, camera{kinds})
GROUP BY {keys}"""


class _Table:
    """A table of sums: which source, which keys besides the cell's, which counts; and the statements that move it."""

    def __init__(self, name: str, source: str, more: tuple[str, ...], units: dict[str, str]) -> None:
        counts = [*units, *_PICTURES]
        keys = ", ".join(["cell", "view", "camera", *more])
        every = ", ".join([keys, *_CELL, *counts])
        any_of, added = (", ".join(f"{how}({c}){cast} AS {c}" for c in of) for how, of, cast in
                         (("any_value", _CELL, ""), ("sum", counts, "::BIGINT")))
        moved = ", ".join(f"$sign * {c} AS {c}" for c in counts)
        self.count = f"""
INSERT INTO {name}_moved
SELECT {keys}, {", ".join(_CELL)}, {moved} FROM ({_summed(source, more, units)})
JOIN (SELECT cell, {any_of} FROM seen GROUP BY cell) USING (cell)"""
        self.empty = f"CREATE OR REPLACE TEMP TABLE {name}_moved AS SELECT {every} FROM {name} LIMIT 0"
        self.net = f"""
CREATE OR REPLACE TEMP TABLE {name}_net AS SELECT {keys}, {any_of}, {added} FROM {name}_moved GROUP BY {keys}
HAVING {" OR ".join(f"sum({c}) <> 0" for c in counts)}"""
        self.take = f"INSERT INTO {name}_net SELECT {every} FROM {name} SEMI JOIN {name}_net USING ({keys})"
        self.drop = f"""
DELETE FROM {name} t USING (SELECT DISTINCT {keys} FROM {name}_net) n
WHERE {" AND ".join(f"t.{k} = n.{k}" for k in keys.split(", "))}"""
        self.put = f"""
INSERT INTO {name} ({every}) SELECT {keys}, {any_of}, {added} FROM {name}_net GROUP BY {keys}
HAVING {" OR ".join(f"sum({c}) <> 0" for c in counts)} ORDER BY hour_start"""
        self.temporary = (f"{name}_moved", f"{name}_net")


_SUMS = (_Table("tallies", "seen", (), _UNITS), _Table("kind_tallies", "seen_kinds", ("class_name", "action"), _KIND_UNITS))


def before(cursor: Cursor) -> None:
    """Count off what the touched units come to now; before their facts change. `touched` and `fresh` are made."""
    cursor.execute(_HIT)
    cursor.execute(_KIN)
    for table in _SUMS:
        cursor.execute(table.empty)
    _count(cursor, -1)


def after(cursor: Cursor) -> None:
    """Count on what they come to, and bring the difference to the tables."""
    for statement in _KIN_AFTER:
        cursor.execute(statement)
    _count(cursor, 1)
    cursor.execute("DELETE FROM spread WHERE unit IN (SELECT unit FROM hit)")
    cursor.execute(_SPREAD)
    for table in _SUMS:
        for statement in (table.net, table.take, table.drop, table.put):
            cursor.execute(statement)
    for name in ("hit", "kin", "seen", "seen_kinds", *(n for table in _SUMS for n in table.temporary)):
        cursor.execute(f"DROP TABLE {name}")


def _count(cursor: Cursor, sign: int) -> None:
    cursor.execute(_SEEN)
    cursor.execute(_SEEN_KINDS)
    for table in _SUMS:
        cursor.execute(table.count, {"sign": sign})

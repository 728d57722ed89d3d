"""From raw rows and people's decisions to the verdict on each inspection: the tables `facts` and `defects`.

A verdict follows from raw rows, model thresholds and events alone; neither the clock nor the order of arrival enters, so
deriving again gives the same rows. Which inspections are derived again, `touched` says; by which rules, `judging`.

    touched     inspections to derive again, and whoever shares a picture with them (a picture counts once)
    aimed       corrections and exclusions, spread over the inspections they speak of
    fresh       raw rows with corrections applied, local time, counted or not
    again       those of them whose picture came before
    judged      detections with the rule that applies to them
    looked      what anomaly models said, with the threshold that applies; it stands beside the verdict and never enters it
"""

from backend.store import calendar, judging, tally, touched
from backend.store.database import Cursor, Database

_AIMED = """
CREATE OR REPLACE TEMP TABLE aimed AS
WITH e AS (
    SELECT event_id, "at", recipe, config, (config->>'$.run_id') AS run_id,
           coalesce(from_json((config->'$.inspection_ids'), '["BIGINT"]'), []) AS ids
    FROM events WHERE recipe IN ('correct', 'exclude', 'include') AND NOT undone)
SELECT i.inspection_id, e.event_id, e."at", e.recipe, e.config FROM e JOIN inspections i ON i.run_id = e.run_id AND len(e.ids) = 0
SEMI JOIN touched USING (inspection_id)
UNION ALL
SELECT u.inspection_id, u.event_id, u."at", u.recipe, u.config
FROM (SELECT unnest(ids) AS inspection_id, event_id, "at", recipe, config FROM e) u SEMI JOIN touched USING (inspection_id)
"""


def _latest(value: str, where: str) -> str:
    return f'max_by({value}, ("at", event_id)) FILTER (WHERE {where})'


def _field(name: str) -> str:
    return _latest(f"(config->>'$.fields.{name}')", f"recipe = 'correct' AND (config->>'$.fields.{name}') IS NOT NULL") + f" AS {name}"


# A corrected time without an offset is plant time.
_FRESH = f"""
CREATE OR REPLACE TEMP TABLE fresh AS
WITH fixed AS (
    SELECT inspection_id, {", ".join(_field(n) for n in ("line", "product", "lot", "camera", "captured_at"))},
           {_latest("recipe = 'include'", "recipe <> 'correct'")} AS switched,
           {_latest("(config->>'$.reason')", "recipe = 'exclude'")} AS reason
    FROM aimed GROUP BY inspection_id),
reviewed AS (
    SELECT try_cast((config->>'$.inspection_id') AS BIGINT) AS inspection_id, max_by((config->>'$.verdict'), ("at", event_id)) AS verdict
    FROM events WHERE recipe = 'review' AND NOT undone GROUP BY ALL),
corrected AS (
    SELECT i.inspection_id, i.run_id, i.plant, i.image_id, i.file_name,
           coalesce(nullif(i.unit_id, ''), i.inspection_id::VARCHAR) AS unit_id,
           coalesce(f.line, i.line, '') AS line, coalesce(f.product, i.product, '') AS product,
           coalesce(f.lot, i.lot, '') AS lot, coalesce(f.camera, i.camera, '') AS camera,
           CASE WHEN regexp_matches(f.captured_at, '(Z|[+-]\\d\\d(:?\\d\\d)?)$') AND f.captured_at LIKE '%:%'
                THEN try_cast(f.captured_at AS TIMESTAMPTZ)
                ELSE timezone($zone, coalesce(try_cast(f.captured_at AS TIMESTAMP), try_cast(f.captured_at || ':00' AS TIMESTAMP)))
           END AS typed,
           coalesce(typed, i.captured_at, i.ingested_at) AS captured_at,
           CASE WHEN typed IS NULL THEN i.captured_source ELSE 'corrected' END AS captured_source,
           i.ingested_at, i.width, i.height, i.model_id,
           i.kept AND i.inspection_id NOT IN (SELECT inspection_id FROM let_go SEMI JOIN touched USING (inspection_id)) AS kept,
           i.counted AS was_counted,
           coalesce(i.not_counted_why, '') AS not_counted_why,
           f.switched, f.reason, coalesce(r.verdict, '') AS review
    FROM inspections i SEMI JOIN touched USING (inspection_id)
    LEFT JOIN fixed f USING (inspection_id) LEFT JOIN reviewed r USING (inspection_id)),
placed AS (
    SELECT *, timezone($zone, captured_at) AS captured_local,
           coalesce(switched, was_counted OR not_counted_why = 'no line') AND line <> '' AND not_counted_why <> 'master part' AS eligible
    FROM corrected)
SELECT p.*, hash(p.line, p.product, p.lot, p.unit_id) AS unit, c.shift,
       date_trunc('minute', captured_local) - to_minutes(c.since) AS shift_start,
       CAST(shift_start - to_minutes($day_start) AS DATE) AS production_day
FROM placed p JOIN clock c ON c.minute = extract(hour FROM captured_local) * 60 + extract(minute FROM captured_local)
"""

# The same picture again. Few are; to number all of them took a sort of all rows, and left facts in no order of time (which is what makes a
# question about a week look at a week's rows).
_AGAIN = """
CREATE OR REPLACE TEMP TABLE again AS
SELECT inspection_id FROM (
    SELECT inspection_id, row_number() OVER (PARTITION BY plant, eligible, image_id ORDER BY ingested_at, inspection_id) AS nth FROM fresh
    SEMI JOIN (SELECT image_id FROM fresh WHERE image_id NOT LIKE 'demo:%' GROUP BY image_id HAVING count(*) > 1) USING (image_id))
WHERE nth > 1
"""

_DEFECTS = """
INSERT INTO defects SELECT inspection_id, class_name, confidence, action, x1, y1, x2, y2 FROM judged WHERE passes
"""

_FACTS = f"""
INSERT INTO facts
SELECT f.inspection_id, f.run_id, f.plant, f.image_id, hash(f.image_id), f.file_name, f.unit_id,
       f.unit, f.line, f.product, f.lot, f.camera,
       f.captured_at, f.captured_source, f.ingested_at, f.captured_local, f.production_day, f.shift, f.shift_start,
       extract(hour FROM f.captured_local), isodow(f.production_day), f.width, f.height, f.model_id, f.kept,
       f.eligible AND again.inspection_id IS NULL,
       CASE WHEN f.eligible AND again.inspection_id IS NULL THEN ''
            WHEN f.eligible THEN 'the same picture was counted before'
            WHEN f.switched = FALSE THEN 'taken out of trends' || coalesce(': ' || nullif(f.reason, ''), '')
            WHEN f.not_counted_why = 'master part' THEN 'it shows a master part'
            WHEN f.line = '' THEN 'no line was given'
            WHEN starts_with(f.not_counted_why, 'dataset ') THEN 'the picture belongs to the ' || f.not_counted_why
            WHEN f.not_counted_why IN ('', 'switched off') THEN 'counting was switched off'
            ELSE f.not_counted_why END,
       coalesce(j.defects, 0) > 0, coalesce(j.defects, 0), coalesce(j.minor, 0),
       coalesce(j.top_class, ''), j.top_confidence, j.margin, f.review, u.model_id, u.anomaly_score, u.is_unusual
FROM fresh f LEFT JOIN again USING (inspection_id) LEFT JOIN looked u USING (inspection_id)
LEFT JOIN ({judging.summed("judged")}) j USING (inspection_id)
"""


def derive(cursor: Cursor) -> None:
    """Make facts and defects of the touched inspections anew, within the caller's transaction."""
    if not cursor.execute("SELECT count(*) FROM touched").one():
        return
    touched.twins(cursor)
    cursor.execute("CREATE OR REPLACE TEMP TABLE touched AS SELECT DISTINCT inspection_id FROM touched")
    plan = calendar.current(cursor)
    cursor.execute(_AIMED)
    with cursor.lend("clock", plan.clock()):
        cursor.execute(_FRESH, {"zone": plan.time_zone, "day_start": plan.day_start})
    cursor.execute(_AGAIN)
    cursor.execute(f"CREATE OR REPLACE TEMP TABLE judged AS {judging.judged('fresh')}")
    cursor.execute(f"CREATE OR REPLACE TEMP TABLE looked AS {judging.looked('fresh')}")
    tally.before(cursor)
    _say_moved(cursor)
    for table in ("facts", "defects"):
        cursor.execute(f"DELETE FROM {table} WHERE inspection_id IN (SELECT inspection_id FROM touched)")
    cursor.execute(_DEFECTS)
    cursor.execute(_FACTS)
    tally.after(cursor)
    for table in ("touched", "aimed", "fresh", "again", "judged", "looked"):
        cursor.execute(f"DROP TABLE {table}")


def derive_all(cursor: Cursor) -> None:
    """Make every verdict anew, within the caller's transaction."""
    touched.mark_undone(cursor)
    for table in ("facts", "defects", *tally.TABLES):
        cursor.execute(f"DELETE FROM {table}")
    touched.begin(cursor)
    cursor.execute("INSERT INTO touched SELECT inspection_id FROM inspections")
    derive(cursor)
    cursor.moved = None


def _say_moved(cursor: Cursor) -> None:
    """Whose counts change: lines of the touched units as they are, and as they will be."""
    if cursor.moved is not None:
        rows = cursor.execute("SELECT DISTINCT plant, line FROM kin UNION SELECT DISTINCT plant, line FROM fresh").dicts()
        cursor.moved |= {(row["plant"], row["line"]) for row in rows}


def restate(db: Database) -> None:
    """Derive everything again."""
    def anew() -> None:
        with db.write() as cursor:
            derive_all(cursor)

    db.in_turn(anew)

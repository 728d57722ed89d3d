"""From raw rows and people's decisions to the verdict on each inspection: the tables `facts` and `defects`.

A verdict follows from raw rows, model thresholds and events alone; neither the clock nor the order of arrival enters, so
deriving again gives the same rows. Ingest derives what it touched; a decision derives what it speaks of.

    touched     inspections to derive again, and whoever shares a picture with them (a picture counts once)
    aimed       corrections and exclusions, spread over the inspections they speak of
    fresh       raw rows with corrections applied, local time, counted or not
    again       those of them whose picture came before
    judged      detections with the rule that applies to them
    looked      what anomaly models said, with the threshold that applies; it stands beside the verdict and never enters it
"""

from backend.store import calendar, tally
from backend.store.database import Cursor, Database

# The rule for each (plant, product, model_id, class_name) of `keys`: from the narrowest policy to the widest, then the model's
# own threshold, then 0.25. Each of the three settings falls through by itself. A limit set for one anomaly model is no rule on a class.
_RULES = """
SELECT k.plant, k.product, k.model_id, k.class_name,
       coalesce(a.action, b.action, c.action, d.action, 'reject') AS action,
       coalesce(a.threshold, b.threshold, c.threshold, d.threshold, t.threshold, 0.25)::FLOAT AS threshold,
       coalesce(a.min_side, b.min_side, c.min_side, d.min_side, 0)::FLOAT AS min_side,
       CASE WHEN coalesce(a.plant, b.plant, c.plant, d.plant) IS NULL THEN 'model' ELSE 'policy' END AS source
FROM ({keys}) k
LEFT JOIN policies a ON a.plant = k.plant AND a.product = k.product AND a.class_name = k.class_name AND a.model_id = '' AND k.product <> ''
LEFT JOIN policies b ON b.plant = k.plant AND b.product = '' AND b.class_name = k.class_name AND b.model_id = ''
LEFT JOIN policies c ON c.plant = k.plant AND c.product = k.product AND c.class_name = '' AND k.product <> ''
LEFT JOIN policies d ON d.plant = k.plant AND d.product = '' AND d.class_name = ''
LEFT JOIN thresholds t ON t.model_id = k.model_id AND t.class_name = k.class_name
"""

# What makes a picture unusual, for each (plant, product, model_id) of `keys`: a policy on the class 'unusual', then the model. A policy
# on all classes says nothing here (our choice): it speaks of confidences, 0 to 1, and an anomaly score has a scale of its own. So one
# that names a model holds for that model; one that names none, as they were written once, for any. Of two that hold, the newest.
_UNUSUAL = """
SELECT k.plant, k.product, k.model_id, coalesce(a.action, b.action, 'reject') AS action,
       coalesce(a.threshold, b.threshold, t.threshold)::FLOAT AS threshold,
       CASE WHEN coalesce(a.plant, b.plant) IS NULL THEN 'model' ELSE 'policy' END AS source
FROM ({keys}) k
LEFT JOIN policies a ON a.plant = k.plant AND a.product = k.product AND a.class_name = 'unusual' AND a.model_id IN ('', k.model_id)
    AND k.product <> ''
LEFT JOIN policies b ON b.plant = k.plant AND b.product = '' AND b.class_name = 'unusual' AND b.model_id IN ('', k.model_id)
LEFT JOIN thresholds t ON t.model_id = k.model_id AND t.class_name = 'unusual'
QUALIFY row_number() OVER (PARTITION BY k.plant, k.product, k.model_id ORDER BY a."at" DESC NULLS LAST, a.event_id DESC NULLS LAST,
                           b."at" DESC NULLS LAST, b.event_id DESC NULLS LAST) = 1
"""

# What an anomaly model said of each inspection of `source` (fresh or facts), with the rule that applies.
_LOOKED = """
WITH score AS (
    SELECT a.inspection_id, s.plant, s.product, a.model_id, a.anomaly_score FROM anomalies a JOIN {source} s USING (inspection_id)
    QUALIFY row_number() OVER (PARTITION BY a.inspection_id ORDER BY a.model_id, a.anomaly_score) = 1),
rule AS (""" + _UNUSUAL.format(keys="SELECT DISTINCT plant, product, model_id FROM score") + """)
SELECT score.*, rule.action, rule.threshold, CASE WHEN action <> 'ignore' THEN anomaly_score >= threshold END AS is_unusual
FROM score JOIN rule USING (plant, product, model_id)
"""

# Detections of the inspections of `source` (fresh or facts; or with another model's id), each with its rule and whether it passes.
_JUDGED = """
WITH seen AS (
    SELECT d.inspection_id, d.class_name, d.confidence, d.x1, d.y1, d.x2, d.y2, least(d.x2 - d.x1, d.y2 - d.y1) AS side,
           s.plant, s.product, s.model_id
    FROM {detections} d JOIN {source} s USING (inspection_id)),
rule AS (""" + _RULES.format(keys="SELECT DISTINCT plant, product, model_id, class_name FROM seen") + """)
SELECT seen.*, rule.action, rule.threshold, rule.min_side,
       rule.action <> 'ignore' AND seen.confidence >= rule.threshold AND seen.side >= rule.min_side AS passes
FROM seen JOIN rule USING (plant, product, model_id, class_name)
"""

# By a hash of the picture's name: of ten million names themselves a look took 300 ms, at each part that comes in. Two that share one do
# no harm, they are derived once more.
_TWINS = """
INSERT INTO touched
SELECT inspection_id FROM facts
SEMI JOIN (SELECT hash(image_id) AS image FROM inspections SEMI JOIN touched USING (inspection_id) WHERE image_id NOT LIKE 'demo:%') t
USING (image)
"""

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
           i.ingested_at, i.width, i.height, i.model_id, i.kept, i.counted AS was_counted,
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

# What the judged detections of an inspection come to.
_SUMMED = """
SELECT inspection_id, count(*) FILTER (WHERE passes AND action = 'reject') AS defects,
       count(*) FILTER (WHERE passes AND action = 'minor') AS minor,
       max_by(class_name, (passes AND action = 'reject', confidence, class_name)) AS top_class, max(confidence) AS top_confidence,
       max_by(confidence, (passes AND action = 'reject', confidence, class_name)) AS class_confidence,
       min(abs(confidence - threshold)) FILTER (WHERE action <> 'ignore') AS margin
FROM {judged} GROUP BY inspection_id
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
LEFT JOIN ({_SUMMED.format(judged="judged")}) j USING (inspection_id)
"""

# What each kind of event speaks of (a policy: of pictures in which something was seen). $ids are the new events; an undo
# speaks of what its target spoke of.
_SPOKEN_OF = """
WITH hit AS (
    SELECT * FROM events WHERE event_id IN (SELECT unnest($ids)) OR event_id IN (
        SELECT (config->>'$.run_id') FROM events WHERE recipe = 'undo' AND event_id IN (SELECT unnest($ids))))
INSERT INTO touched
SELECT d.inspection_id FROM detections d JOIN inspections i USING (inspection_id) JOIN hit ON hit.plant = i.plant
WHERE hit.recipe = 'policy' AND coalesce((hit.config->>'$.class_name'), '') IN ('', d.class_name)
UNION ALL
SELECT a.inspection_id FROM anomalies a JOIN inspections i USING (inspection_id) JOIN hit ON hit.plant = i.plant
WHERE hit.recipe = 'policy' AND (hit.config->>'$.class_name') = 'unusual'
UNION ALL
SELECT inspection_id FROM inspections WHERE EXISTS (SELECT 1 FROM hit WHERE recipe = 'calendar')
    OR run_id IN (SELECT (config->>'$.run_id') FROM hit WHERE recipe IN ('correct', 'exclude', 'include')
                  AND coalesce(json_array_length(config, '$.inspection_ids'), 0) = 0)
UNION ALL
SELECT unnest(from_json((config->'$.inspection_ids'), '["BIGINT"]')) FROM hit WHERE recipe IN ('correct', 'exclude', 'include')
"""

# A review moves no verdict and no other picture: it is set where it stands. To derive its row anew took 140 ms with 200,000 inspections,
# and a person with a key pressed waits for it.
_REVIEWS = """
CREATE OR REPLACE TEMP TABLE said AS
WITH hit AS (
    SELECT DISTINCT try_cast((config->>'$.inspection_id') AS BIGINT) AS inspection_id FROM events
    WHERE recipe = 'review' AND (event_id IN (SELECT unnest($ids)) OR event_id IN (
        SELECT (config->>'$.run_id') FROM events WHERE recipe = 'undo' AND event_id IN (SELECT unnest($ids))))),
word AS (SELECT * FROM (SELECT try_cast((config->>'$.inspection_id') AS BIGINT) AS inspection_id, (config->>'$.verdict') AS verdict, "at",
                               event_id FROM events WHERE recipe = 'review' AND NOT undone) SEMI JOIN hit USING (inspection_id))
SELECT inspection_id, coalesce(max_by(verdict, ("at", event_id)), '') AS verdict FROM hit LEFT JOIN word USING (inspection_id)
WHERE inspection_id IS NOT NULL GROUP BY ALL
"""

# What rows of runs bear on: their inspections, those that their models judged, those that they review or take a review of back.
_BORNE_ON = """
WITH gone AS (SELECT unnest($runs) AS run_id),
judging AS (SELECT model_id FROM model_thresholds SEMI JOIN gone USING (run_id))
INSERT INTO touched
SELECT inspection_id FROM inspections SEMI JOIN gone USING (run_id)
UNION SELECT inspection_id FROM detections SEMI JOIN gone USING (run_id)
UNION SELECT inspection_id FROM anomalies SEMI JOIN gone USING (run_id)
UNION SELECT inspection_id FROM inspections SEMI JOIN judging USING (model_id)
UNION SELECT inspection_id FROM anomalies SEMI JOIN judging USING (model_id)
UNION SELECT try_cast((config->>'$.inspection_id') AS BIGINT) FROM events WHERE recipe = 'review' AND (
    run_id IN (FROM gone) OR event_id IN (SELECT (config->>'$.run_id') FROM events SEMI JOIN gone USING (run_id) WHERE recipe = 'undo'))
"""

_UNDONE = """
UPDATE events SET undone = NOT undone
WHERE undone <> (event_id IN (SELECT coalesce((config->>'$.run_id'), '') FROM events WHERE recipe = 'undo'))
"""


def judged(source: str, detections: str = "detections") -> str:
    """SQL of the detections of a relation's inspections, with action, threshold and passes."""
    return _JUDGED.format(source=source, detections=detections)


def summed(judged: str) -> str:
    """SQL of what a relation of judged detections comes to: per inspection defects, minor, top_class, top_confidence, margin, and
    class_confidence, that of top_class."""
    return _SUMMED.format(judged=judged)


def rules(keys: str) -> str:
    """SQL of the rules for a query's (plant, product, model_id, class_name)."""
    return _RULES.format(keys=keys)


def looked(source: str) -> str:
    """SQL of what anomaly models said of a relation's inspections: inspection_id, model_id, anomaly_score, threshold, is_unusual ..."""
    return _LOOKED.format(source=source)


def unusual_rules(keys: str) -> str:
    """SQL of what makes a picture unusual, for a query's (plant, product, model_id)."""
    return _UNUSUAL.format(keys=keys)


def begin(cursor: Cursor) -> None:
    """An empty list of what to derive again, for this transaction."""
    cursor.execute("CREATE OR REPLACE TEMP TABLE touched (inspection_id BIGINT)")


def mark_undone(cursor: Cursor) -> None:
    """Say of each event whether somebody took it back."""
    cursor.execute(_UNDONE)


def touch_events(cursor: Cursor, event_ids: list[str]) -> None:
    """Add what these new events speak of, once what they took back is marked so."""
    mark_undone(cursor)
    cursor.execute(_SPOKEN_OF, {"ids": event_ids})
    if cursor.execute("SELECT count(*) FROM events WHERE recipe IN ('review', 'undo') AND event_id IN (SELECT unnest(?))",
                      [event_ids]).one():
        cursor.execute(_REVIEWS, {"ids": event_ids})
        ids = cursor.execute("SELECT inspection_id FROM said").column()
        cursor.execute("UPDATE facts SET review = said.verdict FROM said WHERE facts.inspection_id = said.inspection_id "
                       "AND facts.inspection_id BETWEEN $low AND $high",                # passes over most row groups
                       {"low": min(ids, default=0), "high": max(ids, default=0)})
        cursor.execute("DROP TABLE said")


def touch_gone(cursor: Cursor, run_ids: list[str]) -> None:
    """Add what rows of these runs bear on, before they are taken away; and whoever shares a picture with them."""
    cursor.execute(_BORNE_ON, {"runs": run_ids})
    events = cursor.execute("SELECT event_id FROM events WHERE run_id IN (SELECT unnest(?))", [run_ids]).column()
    cursor.execute(_SPOKEN_OF, {"ids": events})
    cursor.execute(_TWINS)


def derive(cursor: Cursor) -> None:
    """Make facts and defects of the touched inspections anew, within the caller's transaction."""
    if not cursor.execute("SELECT count(*) FROM touched").one():
        return
    cursor.execute(_TWINS)
    cursor.execute("CREATE OR REPLACE TEMP TABLE touched AS SELECT DISTINCT inspection_id FROM touched")
    plan = calendar.current(cursor)
    cursor.execute(_AIMED)
    with cursor.lend("clock", plan.clock()):
        cursor.execute(_FRESH, {"zone": plan.time_zone, "day_start": plan.day_start})
    cursor.execute(_AGAIN)
    cursor.execute(f"CREATE OR REPLACE TEMP TABLE judged AS {judged('fresh')}")
    cursor.execute(f"CREATE OR REPLACE TEMP TABLE looked AS {looked('fresh')}")
    tally.before(cursor)
    for table in ("facts", "defects"):
        cursor.execute(f"DELETE FROM {table} WHERE inspection_id IN (SELECT inspection_id FROM touched)")
    cursor.execute(_DEFECTS)
    cursor.execute(_FACTS)
    tally.after(cursor)
    for table in ("touched", "aimed", "fresh", "again", "judged", "looked"):
        cursor.execute(f"DROP TABLE {table}")


def derive_all(cursor: Cursor) -> None:
    """Make every verdict anew, within the caller's transaction."""
    mark_undone(cursor)
    for table in ("facts", "defects", *tally.TABLES):
        cursor.execute(f"DELETE FROM {table}")
    begin(cursor)
    cursor.execute("INSERT INTO touched SELECT inspection_id FROM inspections")
    derive(cursor)


def restate(db: Database) -> None:
    """Derive everything again."""
    with db.write() as cursor:
        derive_all(cursor)

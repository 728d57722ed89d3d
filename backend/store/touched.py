"""Which inspections must be judged again: what new events speak of, what the rows of runs bear on, whoever shares a picture with them.

Fills the temporary table `touched`, which `facts.derive` works off in the same transaction. A review, which moves no verdict, is set where
it stands. Knows nothing of how a verdict is reached.
"""

from backend.store.database import Cursor

# By a hash of the picture's name: of ten million names themselves a look took 300 ms, at each part that comes in. Two that share one do
# no harm, they are derived once more.
_TWINS = """
INSERT INTO touched
SELECT inspection_id FROM facts
SEMI JOIN (SELECT hash(image_id) AS image FROM inspections SEMI JOIN touched USING (inspection_id) WHERE image_id NOT LIKE 'demo:%') t
USING (image)
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
UNION SELECT inspection_id FROM let_go SEMI JOIN gone USING (run_id)
UNION SELECT inspection_id FROM inspections SEMI JOIN judging USING (model_id)
UNION SELECT inspection_id FROM anomalies SEMI JOIN judging USING (model_id)
UNION SELECT try_cast((config->>'$.inspection_id') AS BIGINT) FROM events WHERE recipe = 'review' AND (
    run_id IN (FROM gone) OR event_id IN (SELECT (config->>'$.run_id') FROM events SEMI JOIN gone USING (run_id) WHERE recipe = 'undo'))
"""

_UNDONE = """
UPDATE events SET undone = NOT undone
WHERE undone <> (event_id IN (SELECT coalesce((config->>'$.run_id'), '') FROM events WHERE recipe = 'undo'))
"""


def begin(cursor: Cursor) -> None:
    """An empty list of what to judge again, for this transaction."""
    cursor.execute("CREATE OR REPLACE TEMP TABLE touched (inspection_id BIGINT)")


def mark_undone(cursor: Cursor) -> None:
    """Say of each event whether somebody took it back."""
    cursor.execute(_UNDONE)


def by_events(cursor: Cursor, event_ids: list[str]) -> None:
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


def by_gone(cursor: Cursor, run_ids: list[str]) -> None:
    """Add what rows of these runs bear on, before they are taken away; and whoever shares a picture with them."""
    cursor.execute(_BORNE_ON, {"runs": run_ids})
    events = cursor.execute("SELECT event_id FROM events WHERE run_id IN (SELECT unnest(?))", [run_ids]).column()
    cursor.execute(_SPOKEN_OF, {"ids": events})
    twins(cursor)


def twins(cursor: Cursor) -> None:
    """Add whoever shares a picture with what is listed: it counts once."""
    cursor.execute(_TWINS)

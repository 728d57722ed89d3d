"""What the engineers' pages ask: batches, datasets, models, curves.

Every value from outside is a bound parameter. Lists are newest first unless said otherwise.
"""

import json
from typing import Any

import pandas as pd

from backend import rundir
from backend.errors import NotFoundError
from backend.store import judging
from backend.store.database import Cursor, Database

# A dataset or model that two runs delivered alike is one.
MODELS = "SELECT * FROM models QUALIFY row_number() OVER (PARTITION BY model_id ORDER BY run_id DESC) = 1"
_SNAPSHOTS = "SELECT * FROM snapshots QUALIFY row_number() OVER (PARTITION BY snapshot_id ORDER BY run_id DESC) = 1"
# Detectors and anomaly models are promoted apart; a classifier stands in a detector's place. A promotion is of the kind of its model. Only
# a person's own counts, not one in the demo plant's history; without any, the program's own model is in use.
_TAKEN = " ".join(f"WHEN '{kind}' THEN '{place}'" for kind, place in rundir.PLACES.items())
_PLACE = f"CASE {{kind}} {_TAKEN} ELSE {{kind}} END"
_PROMOTED = """
SELECT coalesce(
    (SELECT (config->>'$.model_id') FROM events LEFT JOIN (SELECT model_id, min(kind) AS kind FROM models GROUP BY model_id) known
         ON known.model_id = (config->>'$.model_id')
     WHERE recipe = 'promote' AND NOT undone AND event_id = run_id AND {place} = '{kind}'
     ORDER BY event_id DESC LIMIT 1),
    (SELECT model_id FROM models WHERE run_id = '' AND kind = '{kind}' LIMIT 1), '')
"""
_SPOKEN = _PLACE.format(kind="coalesce(known.kind, nullif((config->>'$.kind'), ''), 'detector')")
PROMOTED = {kind: _PROMOTED.format(kind=kind, place=_SPOKEN) for kind in ("detector", "anomaly")}


# batches -------------------------------------------------------------------------------------------------------------------


def settled(db: Database, run_id: str) -> bool:
    """Whether all of an ended run is in: its row comes with its end, after its last part."""
    with db.cursor() as cursor:
        return bool(cursor.execute("SELECT count(*) FROM runs WHERE run_id = ?", [run_id]).column()[0])


def batch(db: Database, run_id: str) -> dict[str, Any]:
    """A batch in figures, in pictures: inspected, defective, refused, counted, not_counted, why, by_class, captured_sources. Only
    where an anomaly model looked too: anomaly_models (their names), unusual, disagree (unusual, though no detection rejects it), both None
    without a threshold."""
    with db.cursor() as cursor:
        figures = cursor.execute("SELECT count(*) AS inspected, count(*) FILTER (is_defective) AS defective, "
                                 "count(*) FILTER (counted) AS counted, count(*) FILTER (NOT counted) AS not_counted "
                                 "FROM facts WHERE run_id = ?", [run_id]).dicts()[0]
        return figures | _odd(cursor, run_id) | {
            "refused": cursor.execute("SELECT count(*) FROM refused WHERE run_id = ?", [run_id]).one(),
            "why": _counts(cursor, "SELECT why, count(*) FROM facts WHERE run_id = ? AND NOT counted", run_id),
            "by_class": _counts(cursor, "SELECT class_name, count(DISTINCT inspection_id) FROM defects JOIN facts USING (inspection_id) "
                                        "WHERE run_id = ? AND action = 'reject'", run_id),
            "captured_sources": _counts(cursor, "SELECT captured_source, count(*) FROM facts WHERE run_id = ?", run_id)}


def _odd(cursor: Cursor, run_id: str) -> dict[str, Any]:
    found = cursor.execute(
        "SELECT list_sort(list(DISTINCT coalesce(m.name, facts.anomaly_model_id))) AS anomaly_models, "
        "CASE WHEN count(is_unusual) > 0 THEN count(*) FILTER (is_unusual) END AS unusual, "
        "CASE WHEN count(is_unusual) > 0 THEN count(*) FILTER (is_unusual AND NOT is_defective) END AS disagree FROM facts "
        "LEFT JOIN (SELECT model_id AS anomaly_model_id, min(name) AS name FROM models GROUP BY ALL) m USING (anomaly_model_id) "
        "WHERE run_id = ? AND anomaly_model_id IS NOT NULL", [run_id]).dicts()[0]
    return found if found["anomaly_models"] else {}


def _counts(cursor: Cursor, sql: str, run_id: str) -> dict[str, int]:
    """How many of each, the most frequent first."""
    table = cursor.execute(f"{sql} GROUP BY 1 ORDER BY 2 DESC, 1", [run_id]).table()
    return dict(zip(table.column(0).to_pylist(), table.column(1).to_pylist(), strict=True))


def refused(db: Database, run_id: str) -> pd.DataFrame:
    return frame(db, "SELECT file_name, reason FROM refused WHERE run_id = ? ORDER BY file_name, reason", [run_id])


def raw_scores(db: Database, run_id: str) -> pd.DataFrame:
    """inspection_id, class_name, confidence, side of every raw detection: what a threshold slider needs, without new inference."""
    return frame(db, "SELECT d.inspection_id, d.class_name, d.confidence, least(x2 - x1, y2 - y1) AS side FROM detections d "
                      "JOIN facts f USING (inspection_id) WHERE f.run_id = ? "
                      "ORDER BY d.inspection_id, d.confidence DESC, d.class_name, x1, y1", [run_id])


def anomaly_scores(db: Database, run_id: str) -> pd.DataFrame:
    """inspection_id, model_id, model (its name), anomaly_score, threshold (today's; NaN where there is none), is_unusual (None without),
    is_defective: for the histogram and its slider, in the order in which pictures came. Empty where no anomaly model looked."""
    return frame(db, f"""
        WITH batch AS (SELECT inspection_id, plant, product, is_defective FROM facts WHERE run_id = ?)
        SELECT u.inspection_id, u.model_id, coalesce(m.name, '') AS model, u.anomaly_score,
               CASE WHEN u.action <> 'ignore' THEN u.threshold END AS threshold, u.is_unusual, batch.is_defective
        FROM ({judging.looked('batch')}) u JOIN batch USING (inspection_id)
        LEFT JOIN (SELECT model_id, min(name) AS name FROM models GROUP BY model_id) m USING (model_id)
        ORDER BY u.inspection_id""", [run_id])


def damaged(db: Database) -> pd.DataFrame:
    """run_id, part, reason: what could not be read and was left out."""
    return frame(db, "SELECT run_id, part, reason FROM set_aside ORDER BY run_id, part")


# datasets ------------------------------------------------------------------------------------------------------------------


def datasets(db: Database) -> pd.DataFrame:
    return frame(db, "SELECT snapshot_id, run_id, name, layout, created_at, images, labels, refused, classes, splits_from, seed "
                      f"FROM ({_SNAPSHOTS}) ORDER BY created_at DESC, snapshot_id")


def dataset_counts(db: Database, snapshot_id: str) -> pd.DataFrame:
    """class_name, split, images, boxes; class_name '' is the images without any label."""
    return frame(db, _IMAGES + """
        SELECT coalesce(l.class_name, '') AS class_name, i.split, count(DISTINCT i.image_id) AS images, count(l.class_name) AS boxes
        FROM (SELECT DISTINCT image_id, split FROM image) i LEFT JOIN label l USING (image_id)
        GROUP BY ALL ORDER BY 1, 2""", {"id": snapshot_id})


def box_sizes(db: Database, snapshot_id: str) -> pd.DataFrame:
    """class_name, width, height of every labelled box, as a share of its image's."""
    return frame(db, _IMAGES + """
        SELECT l.class_name, (l.x2 - l.x1) / i.width AS width, (l.y2 - l.y1) / i.height AS height
        FROM label l JOIN (SELECT DISTINCT image_id, width, height FROM image) i USING (image_id) ORDER BY ALL""", {"id": snapshot_id})


def dataset_images(db: Database, snapshot_id: str, split: str = "", class_name: str = "", limit: int = 24, offset: int = 0) -> pd.DataFrame:
    """Columns of snapshot_images, boxes (how many) and classes (their names, comma-separated), by file name."""
    return frame(db, _IMAGES + """
        SELECT i.*, coalesce(n.boxes, 0) AS boxes, coalesce(n.classes, '') AS classes
        FROM image i LEFT JOIN (SELECT image_id, count(*) AS boxes, string_agg(DISTINCT class_name, ', ' ORDER BY class_name) AS classes
                                FROM label GROUP BY image_id) n USING (image_id)
        WHERE ($split = '' OR split = $split)
          AND ($class_name = '' OR image_id IN (SELECT image_id FROM label WHERE class_name = $class_name))
        ORDER BY file_name, image_id LIMIT $limit OFFSET $offset""",
                  {"id": snapshot_id, "split": split, "class_name": class_name, "limit": limit, "offset": offset})


def labels(db: Database, snapshot_id: str, image_ids: list[str]) -> pd.DataFrame:
    return frame(db, _IMAGES + "SELECT image_id, class_name, x1, y1, x2, y2, source FROM label "
                                "WHERE image_id IN (SELECT unnest($images::VARCHAR[])) ORDER BY image_id, class_name, x1, y1",
                  {"id": snapshot_id, "images": list(image_ids)})


def duplicates(db: Database, snapshot_id: str) -> pd.DataFrame:
    """group_id, kind (exact | near), file_name, split: pictures with a twin in another split. Exact is the same content."""
    return frame(db, _IMAGES + """,
        judged AS (SELECT * FROM image WHERE split <> 'unlabelled'),
        crossing AS (
            SELECT image_id AS key, 'exact' AS kind FROM judged GROUP BY image_id HAVING count(DISTINCT split) > 1
            UNION ALL
            SELECT group_id, 'near' FROM judged WHERE group_id <> '' GROUP BY group_id
            HAVING count(DISTINCT split) > 1 AND count(DISTINCT image_id) > 1)
        SELECT i.group_id, c.kind, i.file_name, i.split
        FROM crossing c JOIN judged i ON c.key = CASE c.kind WHEN 'exact' THEN i.image_id ELSE i.group_id END
        ORDER BY c.kind, i.group_id, i.split, i.file_name""", {"id": snapshot_id})


# Rows of one delivery of a snapshot, should two runs have made the same.
_IMAGES = f"""
WITH one AS (SELECT snapshot_id, run_id FROM ({_SNAPSHOTS}) WHERE snapshot_id = $id),
image AS (SELECT * EXCLUDE (run_id, part) FROM snapshot_images SEMI JOIN one USING (snapshot_id, run_id)),
label AS (SELECT * EXCLUDE (run_id, part) FROM labels SEMI JOIN one USING (snapshot_id, run_id))
"""


def newest_snapshot_of(db: Database, image_id: str) -> str:
    """The newest dataset that has a picture. Raises NotFoundError."""
    with db.cursor() as cursor:
        found = cursor.execute(f"SELECT snapshot_id FROM ({_SNAPSHOTS}) JOIN (SELECT DISTINCT snapshot_id, image_id FROM snapshot_images) "
                               "USING (snapshot_id) WHERE image_id = ? ORDER BY created_at DESC LIMIT 1", [image_id]).one()
    if found is None:
        raise NotFoundError("This picture is in no dataset.")
    return str(found)


# models --------------------------------------------------------------------------------------------------------------------


_MODEL = ("model_id", "name", "kind", "created_at", "snapshot_id", "dataset", "imgsz", "classes", "metrics", "settings",
          "promoted", "run_id")


def models(db: Database, kind: str = "detector") -> pd.DataFrame:
    """model_id, name, kind, created_at, snapshot_id, dataset (its name), imgsz, classes, metrics, settings (dicts), promoted, run_id
    of the models of one kind (detector | classifier | anomaly; '' all). Among detectors are classifiers: they stand in their place.

    A run_id of '' is the model that came with the program.
    """
    with db.cursor() as cursor:
        rows = cursor.execute(f"""
            SELECT m.model_id, m.name, m.kind, m.created_at, m.snapshot_id, coalesce(s.name, '') AS dataset, m.imgsz, m.classes,
                   m.metrics, m.settings, m.model_id IN (({PROMOTED["detector"]}), ({PROMOTED["anomaly"]})) AS promoted, m.run_id
            FROM ({MODELS}) m LEFT JOIN ({_SNAPSHOTS}) s USING (snapshot_id)
            WHERE $kind IN ('', m.kind, {_PLACE.format(kind="m.kind")})
            ORDER BY m.created_at DESC, m.model_id""", {"kind": kind}).dicts()
    for row in rows:
        row |= {"metrics": json.loads(row["metrics"] or "{}"), "settings": json.loads(row["settings"] or "{}")}
    return pd.DataFrame(rows, columns=list(_MODEL))


def metrics(db: Database, run_id: str) -> pd.DataFrame:
    return frame(db, "SELECT step, name, value FROM metrics WHERE run_id = ? ORDER BY name, step", [run_id])


def frame(db: Database, sql: str, values: Any = ()) -> pd.DataFrame:
    with db.cursor() as cursor:
        return cursor.execute(sql, values).frame()

"""Pictures that a person may label, with what is known of them: of inspections, or of a dataset.

What people drew is kept in events (`label`) and read from the runs' files (see data.labelling); here stands only which pictures wait.
"""

import json
from typing import Any

import pandas as pd

from backend.errors import ConfigError
from backend.store import queries
from backend.store.database import Database

# What waits, by its kind: a condition on facts and what comes first. `missed`: people called it defective, the model did not.
KINDS = {"doubtful": queries.DOUBTS["doubtful"], "unusual": queries.DOUBTS["disagreement"],
         "rejected": ("is_defective", "captured_at DESC"),
         "missed": ("NOT is_defective AND inspection_id IN (SELECT inspection_id FROM said)", "captured_at DESC")}
_SAID = """
WITH said AS (
    SELECT try_cast((config->>'$.inspection_id') AS BIGINT) AS inspection_id FROM events
    WHERE recipe = 'review' AND NOT undone AND plant = $plant AND (config->>'$.verdict') = 'defective'
    UNION
    SELECT unnest(from_json((config->'$.inspection_ids'), '["BIGINT"]')) FROM events
    WHERE recipe = 'read' AND NOT undone AND plant = $plant AND (config->>'$.verdict') = 'defective')
"""
_LABELLED = """
SELECT DISTINCT unnest(from_json((config->'$.pictures[*].image_id'), '["VARCHAR"]')) AS image_id FROM events
WHERE recipe = 'label' AND NOT undone AND plant = $plant
"""


def waiting(db: Database, plant: str, kind: str, limit: int, again: bool = False) -> pd.DataFrame:
    """image_id, file_name, width, height, inspection_id, unit of kept pictures of inspections, each content once; with `again` those too
    that somebody has labelled. Of the last seven days with data, but for those that people found to be defective."""
    if kind not in KINDS:
        raise ConfigError(f"{kind!r} is none of {', '.join(KINDS)}.")
    which, order = KINDS[kind]
    lately = f"captured_at > $last::TIMESTAMPTZ - INTERVAL 7 DAY{' OR TRUE' if kind == 'missed' else ''}"
    with db.cursor() as cursor:
        return cursor.execute(
            _SAID + f"SELECT image_id, file_name, width, height, inspection_id, unit_id AS unit FROM facts WHERE plant = $plant AND kept "
            f"AND {which} AND ({lately}) AND ($again OR image_id NOT IN ({_LABELLED})) "
            f"QUALIFY row_number() OVER (PARTITION BY image_id ORDER BY inspection_id) = 1 ORDER BY {order}, inspection_id LIMIT $limit",
            {"plant": plant, "again": again, "limit": limit, "last": queries.last(cursor, plant)}).frame()


def of_dataset(db: Database, plant: str, snapshot_id: str, limit: int, again: bool = False) -> pd.DataFrame:
    """image_id, file_name, width, height, split of a dataset's real pictures; with `again` those too that somebody has labelled here.
    First what has no label at all, then train, then val, then test, each by file name."""
    with db.cursor() as cursor:
        return cursor.execute(
            "SELECT image_id, any_value(file_name) AS file_name, any_value(width) AS width, any_value(height) AS height, "
            "any_value(split) AS split FROM snapshot_images WHERE snapshot_id = $id AND origin = 'real' "
            f"AND ($again OR image_id NOT IN ({_LABELLED})) GROUP BY image_id "
            "ORDER BY list_position(['unlabelled', 'train', 'val'], any_value(split)) NULLS LAST, file_name, image_id LIMIT $limit",
            {"id": snapshot_id, "plant": plant, "again": again, "limit": limit}).frame()


def word(db: Database, plant: str, image_id: str) -> list[list[Any]] | None:
    """Boxes, [kind, x1, y1, x2, y2], as a person last drew them on a picture; None where nobody has."""
    with db.cursor() as cursor:
        said = cursor.execute("SELECT config FROM events WHERE recipe = 'label' AND NOT undone AND plant = ? "
                              "AND contains(config::VARCHAR, ?) ORDER BY \"at\" DESC, event_id DESC LIMIT 1",
                              [plant, json.dumps(image_id)]).one()
    return next((list(p["boxes"]) for p in json.loads(said)["pictures"] if p["image_id"] == image_id), None) if said else None


def datasets_of(db: Database, image_ids: list[str]) -> dict[str, str]:
    """The newest dataset that has each picture, a snapshot's id; pictures of none are left out."""
    with db.cursor() as cursor:
        rows = cursor.execute("SELECT image_id, max_by(snapshot_id, s.created_at) AS snapshot_id FROM snapshot_images "
                              "JOIN (SELECT DISTINCT snapshot_id, created_at FROM snapshots) s USING (snapshot_id) "
                              "WHERE image_id IN (SELECT unnest(?::VARCHAR[])) GROUP BY image_id", [image_ids]).dicts()
    return {r["image_id"]: r["snapshot_id"] for r in rows}


def counted(db: Database, plant: str) -> int:
    """Pictures that people of a plant have labelled."""
    with db.cursor() as cursor:
        return int(cursor.execute(f"SELECT count(*) FROM ({_LABELLED})", {"plant": plant}).one())

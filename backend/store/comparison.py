"""What is asked of finished detector trainings side by side: which there are, their curves, and who has looked at a test set.

A training's answers on test are those of its own look or, where it is older than looks, of the newest `score` run of its model. Image
by image `contest` compares two of them; what one run is worth at each threshold is in `worth`. Every value from outside is a bound
parameter.
"""

import json
from dataclasses import dataclass
from typing import Any

import pandas as pd

from backend.errors import ConfigError, NotFoundError
from backend.store.database import Cursor, Database
from backend.store.engineering import PROMOTED, frame

Threshold = float | dict[str, float] | None              # one for all classes, one for each, or the model's own
_SNAPSHOTS = "SELECT * FROM snapshots QUALIFY row_number() OVER (PARTITION BY snapshot_id ORDER BY run_id DESC) = 1"
# Every finished training of a detector, and the look whose answers count: its own, else the newest of its model. A training may have come
# without its model, as the demo plant's do; then its look says what it was.
_TRAININGS = """
WITH own AS (SELECT DISTINCT run_id, model_id FROM looks WHERE split = 'test' AND model_id <> '')
SELECT r.run_id, r.recipe, r.plant, r.created_at AS began_at, r.config, r.result, m.settings, m.metrics, m.created_at,
       coalesce(m.model_id, own.model_id) AS model_id, coalesce(m.name, r.config->>'$.name', '') AS name,
       coalesce(m.snapshot_id, l.snapshot_id) AS snapshot_id, coalesce(l.classes, m.classes) AS classes, l.thresholds AS levels,
       l.test_set_id, l.run_id AS looked_in, l.images, l.good_images, l.boxes
FROM runs r LEFT JOIN models m ON m.run_id = r.run_id AND m.kind = 'detector' LEFT JOIN own ON own.run_id = r.run_id
LEFT JOIN looks l ON l.model_id = coalesce(m.model_id, own.model_id) AND l.split = 'test'
WHERE r.state = 'completed' AND r.recipe NOT IN ('score', 'demo-model', 'train-anomaly') AND coalesce(m.model_id, own.model_id) IS NOT NULL
QUALIFY row_number() OVER (PARTITION BY r.run_id ORDER BY l.run_id = r.run_id DESC NULLS LAST, l.looked_at DESC, l.run_id DESC) = 1
"""
_RUNS = f"""
WITH train AS (SELECT snapshot_id, count(DISTINCT image_id) FILTER (origin <> 'synthetic') AS real_images,
                      count(DISTINCT image_id) FILTER (origin = 'synthetic') AS synthetic_images
               FROM snapshot_images WHERE split = 'train' GROUP BY snapshot_id),
level AS (SELECT model_id, list(class_name) AS classes, list(threshold) AS levels FROM thresholds GROUP BY model_id)
SELECT t.* REPLACE (coalesce(t.created_at, t.began_at) AS created_at, coalesce(t.test_set_id, s.test_set_id, '') AS test_set_id),
       coalesce(s.name, t.result->>'$.dataset', '') AS dataset, t.looked_in IS NOT NULL AS scored, 'detector' AS kind,
       train.real_images, train.synthetic_images, level.classes AS named, level.levels AS told,
       t.model_id IN ({PROMOTED["detector"]}) AS promoted
FROM ({_TRAININGS}) t LEFT JOIN ({_SNAPSHOTS}) s USING (snapshot_id) LEFT JOIN train USING (snapshot_id) LEFT JOIN level USING (model_id)
ORDER BY t.began_at DESC, t.run_id DESC
"""
_COLUMNS = (
    "run_id", "name", "recipe", "plant", "model_id", "kind", "created_at", "dataset", "snapshot_id", "test_set_id", "scored", "seed",
    "origin", "labels", "real_images", "synthetic_images", "shown", "epochs", "steps", "images_seen", "seconds", "images", "good_images",
    "boxes", "map50", "map50_95", "val_map50", "val_map50_95", "ap50", "false_rejects", "missed_images", "promoted", "settings",
    "thresholds", "classes")
_FIGURES = ("map50", "map50_95", "ap50", "false_rejects", "missed_images", "images", "good_images", "boxes")      # of model.json, on test
_TOLD = ("real_images", "synthetic_images", "epochs", "steps", "images_seen", "seconds", "map50", "map50_95", "val_map50", "val_map50_95",
         "false_rejects", "missed_images")                                                                        # of the run's result
_WANTED = ("seed", "origin", "labels", "shown")                                                                   # of its settings


def scored_runs(db: Database) -> pd.DataFrame:
    """Every finished training of a detector, newest first. Columns are _COLUMNS: `test_set_id` and what was scored there (images,
    good_images, boxes; figures on test and val, None where they cannot be known), what it was trained on (real_images and synthetic_images
    are different ones; steps, images_seen), settings, thresholds and ap50 as dicts. `scored`: its answers are kept, else `score` it."""
    with db.cursor() as cursor:
        rows = cursor.execute(_RUNS).dicts()
    return pd.DataFrame(map(_told, rows), columns=list(_COLUMNS))


def _told(row: dict[str, Any]) -> dict[str, Any]:
    """A row with what its JSON columns say. A training of an older program is counted from its snapshot and settings."""
    config, settings, metrics, result = (json.loads(row[k] or "{}") or {} for k in ("config", "settings", "metrics", "result"))
    settings, val, test = settings or config, metrics.get("val") or {}, metrics.get("test") or {}
    before = dict(origin="both", real_images=settings.get("labels") or row["real_images"], epochs=settings.get("epochs"))
    if shown := result.get("images"):
        passes = result.get("epochs") or 0
        before |= dict(images_seen=passes * shown, steps=passes * -(-shown // settings.get("batch", 16)))
    figures = {k: test[k] for k in _FIGURES if k in test} | {f"val_{k}": val.get(k) for k in ("map50", "map50_95") if k in val}
    return {**row, **before, **{k: result[k] for k in _TOLD if k in result}, **figures,
            **{k: settings.get(k, before.get(k)) for k in _WANTED}, "settings": settings, "thresholds": _levels(row)}


def _levels(row: dict[str, Any]) -> dict[str, float]:
    """By the look, else by the model."""
    at = zip(row["classes"], row["levels"], strict=True) if row["levels"] else zip(row["named"] or (), row["told"] or (), strict=True)
    return {c: level for c, level in at if level is not None}


def curves(db: Database, run_ids: list[str], names: tuple[str, ...] = ()) -> pd.DataFrame:
    """run_id, step, name, value, at_s (seconds at work until then, NaN in runs of an older program) of ended runs; `names`: only these."""
    return frame(db, "SELECT run_id, step, name, value, at_s FROM metrics WHERE list_contains($runs::VARCHAR[], run_id) "
                     "AND (len($names) = 0 OR list_contains($names::VARCHAR[], name)) ORDER BY run_id, name, step",
                 {"runs": list(run_ids), "names": list(names)})


def curve_names(db: Database, run_ids: list[str]) -> list[str]:
    """Names of the curves that these runs have."""
    with db.cursor() as cursor:
        return cursor.execute("SELECT DISTINCT name FROM metrics WHERE list_contains(?::VARCHAR[], run_id) ORDER BY 1",
                              [list(run_ids)]).column()


def looks(db: Database, test_set_id: str) -> pd.DataFrame:
    """model_id, name, run_id, recipe, looked_at, images, good_images, boxes of every look at a test set, newest first: at each, somebody
    may have chosen by it. A model_id of '' is a teacher's, which is never deployed."""
    return frame(db, """
        SELECT l.model_id, coalesce(m.name, r.config->>'$.name', '') AS name, l.run_id, coalesce(r.recipe, '') AS recipe, l.looked_at,
               l.images, l.good_images, l.boxes
        FROM looks l LEFT JOIN (SELECT model_id, min(name) AS name FROM models GROUP BY model_id) m USING (model_id)
        LEFT JOIN runs r ON r.run_id = l.run_id
        WHERE l.split = 'test' AND l.test_set_id = ? ORDER BY l.looked_at DESC, l.run_id DESC, l.part""", [test_set_id])


@dataclass(frozen=True)
class Subject:
    """A training whose answers are kept: where they are, and by what they are judged."""

    model_id: str
    name: str
    snapshot_id: str
    test_set_id: str
    classes: list[str]
    delivered_in: str                  # run whose rows of `snapshot_images` and `labels` they are judged by
    looked_in: str                     # run whose rows of `predictions` they are
    thresholds: dict[str, float]

    def at(self, threshold: Threshold) -> dict[str, float]:
        """The confidence from which a box of each class counts."""
        one = {} if threshold is None or isinstance(threshold, dict) else dict.fromkeys(self.classes, threshold)
        given = threshold if isinstance(threshold, dict) else one
        return {c: float(given.get(c, self.thresholds.get(c, 0.25))) for c in self.classes}

    def test(self, class_name: str = "") -> dict[str, Any]:
        """What TEST asks for; with a class, only its boxes."""
        return {"snapshot": self.snapshot_id, "delivered": self.delivered_in, "class_name": class_name}


def subject(cursor: Cursor, run_id: str) -> Subject:
    """Raises NotFoundError where there is no such training, or nobody has kept its answers."""
    found = cursor.execute(f"SELECT t.*, [] AS named, [] AS told FROM ({_TRAININGS}) t WHERE run_id = ?", [run_id]).dicts()
    if not found:
        raise NotFoundError("This run is no finished training of a detector.")
    row = found[0]
    if row["looked_in"] is None:
        raise NotFoundError(f"{row['name']!r} was trained before answers on test images were kept. Score it once more first.")
    delivered = cursor.execute("SELECT max(run_id) FROM snapshot_images WHERE snapshot_id = ?", [row["snapshot_id"]]).one()
    return Subject(row["model_id"], row["name"], row["snapshot_id"], row["test_set_id"], row["classes"], delivered or "", row["looked_in"],
                   _levels(row))


def refuse_strangers(a: Subject, b: Subject) -> None:
    """Raises ConfigError where two were scored on different test sets."""
    if a.test_set_id != b.test_set_id:
        raise ConfigError(f"{a.name!r} and {b.name!r} were scored on different test sets, so they cannot be compared image by image.")


# Test images of a snapshot, each content once, and their true boxes, numbered as `predictions.hit_box` does; lists may hold a content
# twice, and so all its boxes. `image` is a hash: of 20,000 images and 100,000 answers joins take half as long as by the content's name.
TEST = """
WITH image AS (
    SELECT hash(image_id) AS image, min(image_id) AS image_id, min(file_name) FILTER (split = 'test') AS file_name, min(width) AS width,
           min(height) AS height, min(group_id) AS group_id, count(*) AS copies
    FROM snapshot_images WHERE snapshot_id = $snapshot AND run_id = $delivered GROUP BY 1 HAVING bool_or(split = 'test')),
box AS (
    SELECT image, class_name, x1, y1, x2, y2, unnest(range(greatest(1, count(*) // any_value(copies))))
    FROM (SELECT hash(image_id) AS image, class_name, x1, y1, x2, y2 FROM labels WHERE snapshot_id = $snapshot AND run_id = $delivered)
    JOIN image USING (image) GROUP BY image, class_name, x1, y1, x2, y2),
true_box AS (SELECT *, row_number() OVER (PARTITION BY image, class_name ORDER BY x1, y1, x2, y2) - 1 AS hit_box FROM box
             WHERE $class_name IN ('', class_name))
"""


def test_images(db: Database, run_id: str) -> pd.DataFrame:
    """image_id, file_name, width, height, group_id, boxes, classes (comma-separated), is_good of the test images of a run, by file name."""
    with db.cursor() as cursor:
        one = subject(cursor, run_id)
        return cursor.execute(TEST + """
            SELECT i.image_id, i.file_name, i.width, i.height, i.group_id, coalesce(n.boxes, 0) AS boxes,
                   coalesce(n.classes, '') AS classes, n.boxes IS NULL AS is_good
            FROM image i LEFT JOIN (SELECT image, count(*) AS boxes, string_agg(DISTINCT class_name, ', ' ORDER BY class_name) AS classes
                                    FROM true_box GROUP BY image) n USING (image)
            ORDER BY file_name, image_id""", one.test()).frame()

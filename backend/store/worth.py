"""What one training is worth on its test set, at each threshold: precision and recall, what is taken for what, and what is missed and
rejected wrongly. From stored answers; no picture is opened and no model asked.
"""

from typing import Any

import numpy as np
import pandas as pd

from backend.store.comparison import TEST, Subject, Threshold, subject
from backend.store.database import Database

Array = np.ndarray[Any, np.dtype[Any]]
POINTS = 400                                             # of a curve that is drawn
THRESHOLDS = np.round(np.arange(0.05, 0.995, 0.01), 2)   # no answer below the first of them is stored
IOU = 0.5
_MINE = "FROM predictions WHERE run_id = $looked_in AND model_id = $model"


def pr_curve(db: Database, run_id: str, class_name: str = "") -> pd.DataFrame:
    """class_name, confidence, precision, recall at IoU 0.5, sure to unsure, down to confidence 0.05, in at most POINTS rows a class. The
    class '' is all of them pooled; asked for, it brings the others along. Raises NotFoundError."""
    with db.cursor() as cursor:
        one = subject(cursor, run_id)
        total = cursor.execute(TEST + "SELECT class_name, count(*) AS boxes FROM true_box GROUP BY class_name ORDER BY 1",
                               one.test(class_name)).frame()
        names = total["class_name"].tolist()
        answers = cursor.execute(f"SELECT list_position($names::VARCHAR[], class_name) AS class, confidence, hit_box >= 0 AS hit {_MINE} "
                                 "ORDER BY confidence DESC", _whose(one) | {"names": names}).frame()
    boxes = total["boxes"].tolist()
    found = [_curve(name, answers[answers["class"] == i], n) for i, (name, n) in enumerate(zip(names, boxes, strict=True), 1)]
    pooled = [] if class_name or not names else [_curve("", answers, sum(boxes))]
    return pd.concat([_curve("", answers[:0], 1), *pooled, *found], ignore_index=True)


def _whose(one: Subject) -> dict[str, Any]:
    return {"looked_in": one.looked_in, "model": one.model_id}


def _curve(name: str, ranked: pd.DataFrame, boxes: int) -> pd.DataFrame:
    """Of answers from sure to unsure; a threshold cannot part equal confidences."""
    confidence, true = ranked["confidence"].to_numpy(), ranked["hit"].to_numpy(bool).cumsum()
    last = np.flatnonzero(np.diff(confidence, append=np.float32(-1)))
    drawn = last[np.unique(np.linspace(0, len(last) - 1, min(POINTS, len(last))).round().astype(int))]
    return pd.DataFrame({"class_name": name, "confidence": confidence[drawn], "precision": true[drawn] / (drawn + 1),
                         "recall": true[drawn] / boxes})


def confusion(db: Database, run_id: str, threshold: Threshold = None) -> pd.DataFrame:
    """truth, predicted, n: how many true boxes of one class were taken for which. A truth of '' is a box where nothing is, predicted '' a
    true box that was missed. A box belongs to the true one of any class that it covers best, each to one, from IoU 0.5 on. Raises
    NotFoundError."""
    with db.cursor() as cursor:
        one = subject(cursor, run_id)
        levels = one.at(threshold)
        return cursor.execute(_CONFUSION, one.test() | _whose(one) | {"classes": list(levels), "levels": list(levels.values()),
                                                                      "iou": IOU}).frame()


_CONFUSION = TEST + """,
there AS (SELECT row_number() OVER () AS t, * FROM true_box),
said AS (SELECT row_number() OVER () AS p, hash(image_id) AS image, class_name, confidence, x1, y1, x2, y2
         FROM predictions JOIN (SELECT unnest($classes) AS class_name, unnest($levels)::FLOAT AS level) USING (class_name)
         WHERE run_id = $looked_in AND model_id = $model AND confidence >= level AND hash(image_id) IN (SELECT image FROM image)),
pair AS (
    SELECT s.p, t.t, s.class_name AS predicted, t.class_name AS truth, s.confidence,
           (least(s.x2, t.x2) - greatest(s.x1, t.x1)) * (least(s.y2, t.y2) - greatest(s.y1, t.y1)) AS shared,
           shared / ((s.x2 - s.x1) * (s.y2 - s.y1) + (t.x2 - t.x1) * (t.y2 - t.y1) - shared) AS iou
    FROM said s JOIN there t ON s.image = t.image AND s.x1 < t.x2 AND t.x1 < s.x2 AND s.y1 < t.y2 AND t.y1 < s.y2),
nearest AS (SELECT * FROM pair WHERE iou >= $iou
            QUALIFY row_number() OVER (PARTITION BY p ORDER BY iou DESC, truth = predicted DESC, t) = 1),
taken AS (SELECT * FROM nearest QUALIFY row_number() OVER (PARTITION BY t ORDER BY iou DESC, confidence DESC, p) = 1)
SELECT truth, predicted, count(*) AS n FROM (
    SELECT truth, predicted FROM taken
    UNION ALL SELECT class_name, '' FROM there ANTI JOIN taken USING (t)
    UNION ALL SELECT '', class_name FROM said ANTI JOIN taken USING (p))
GROUP BY ALL ORDER BY ALL
"""


def operating(db: Database, run_id: str, class_name: str = "") -> pd.DataFrame:
    """Of each of THRESHOLDS, one for all classes (or for this one): threshold, found, missed, false (boxes at IoU 0.5), missed_images of
    defective_images that would pass as good, rejected_good of good_images. Good is an image without any box. Raises NotFoundError."""
    with db.cursor() as cursor:
        one = subject(cursor, run_id)
        images = cursor.execute(TEST + f""",
            surest AS (SELECT hash(image_id) AS image, max(confidence) AS top {_MINE} AND $class_name IN ('', class_name) GROUP BY 1)
            SELECT coalesce(n.boxes, 0) AS boxes, i.image NOT IN (SELECT image FROM box) AS good, coalesce(s.top, 0) AS top
            FROM image i LEFT JOIN (SELECT image, count(*) AS boxes FROM true_box GROUP BY image) n USING (image)
            LEFT JOIN surest s USING (image)""", one.test(class_name) | _whose(one)).frame()
        answers = cursor.execute(f"SELECT confidence, hit_box >= 0 AS hit {_MINE} AND $class_name IN ('', class_name)",
                                 _whose(one) | {"class_name": class_name}).frame()
    (confidence, hit), (boxes, good, top) = ([table[c].to_numpy() for c in table] for table in (answers, images))
    found, defective = _from(confidence[hit]), boxes > 0
    return pd.DataFrame({
        "threshold": THRESHOLDS, "found": found, "missed": boxes.sum() - found, "false": _from(confidence[~hit]),
        "missed_images": defective.sum() - _from(top[defective]), "defective_images": defective.sum(),
        "rejected_good": _from(top[good]), "good_images": good.sum()})


def _from(confidence: Array) -> Array:
    """How many of these are at least as sure as each threshold."""
    return len(confidence) - np.searchsorted(np.sort(confidence), THRESHOLDS.astype(np.float32))

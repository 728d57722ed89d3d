"""Two trainings image by image on their common test set: what one finds and the other misses, and where one marks what is not there.

Which true box each answer hits is stored, and does not change with the threshold: the surer box comes first. So a threshold moves
on stored answers, and finds are compared box by box, not by their number.
"""

from typing import Any

import numpy as np
import pandas as pd

from backend.errors import ConfigError, NotFoundError
from backend.store.comparison import TEST, Subject, Threshold, refuse_strangers, subject
from backend.store.database import Database

KINDS = ("a_only", "b_only", "both", "neither", "a_false", "b_false", "all")

# What each of the two says of an image at its thresholds; `top` whatever the threshold.
_ANSWERS = """,
answer_{x} AS (
    SELECT hash(p.image_id) AS image, p.class_name, p.confidence, p.hit_box, p.confidence >= t.level AS passes
    FROM predictions p JOIN (SELECT unnest($classes_{x}) AS class_name, unnest($levels_{x})::FLOAT AS level) t USING (class_name)
    WHERE p.run_id = $looked_in_{x} AND p.model_id = $model_{x} AND $class_name IN ('', p.class_name)),
found_{x} AS (SELECT image, class_name, hit_box, TRUE AS found FROM answer_{x} WHERE passes AND hit_box >= 0),
said_{x} AS (SELECT image, max(confidence) AS top, count(*) FILTER (passes AND hit_box < 0) AS false FROM answer_{x} GROUP BY image)"""
_CONTEST = TEST + _ANSWERS.format(x="a") + _ANSWERS.format(x="b") + """,
hit AS (
    SELECT image, count(*) AS boxes, count(a.found) AS found_a, count(b.found) AS found_b,
           count(*) FILTER (a.found AND b.found IS NULL) AS only_a, count(*) FILTER (b.found AND a.found IS NULL) AS only_b,
           count(*) FILTER (a.found IS NULL AND b.found IS NULL) AS neither
    FROM true_box LEFT JOIN found_a a USING (image, class_name, hit_box) LEFT JOIN found_b b USING (image, class_name, hit_box)
    GROUP BY image)
SELECT i.image_id, i.file_name, i.width, i.height, h.boxes IS NULL AS is_good, coalesce(h.boxes, 0) AS boxes,
       coalesce(h.found_a, 0) AS found_a, coalesce(h.boxes - h.found_a, 0) AS missed_a, coalesce(a.false, 0) AS false_a,
       coalesce(h.found_b, 0) AS found_b, coalesce(h.boxes - h.found_b, 0) AS missed_b, coalesce(b.false, 0) AS false_b,
       coalesce(h.only_a, 0) AS only_a, coalesce(h.only_b, 0) AS only_b, coalesce(h.neither, 0) AS neither,
       coalesce(a.top, 0) AS top_a, coalesce(b.top, 0) AS top_b
FROM image i LEFT JOIN hit h USING (image) LEFT JOIN said_a a USING (image) LEFT JOIN said_b b USING (image)
"""


def contest(db: Database, run_a: str, run_b: str, threshold_a: Threshold = None, threshold_b: Threshold = None, kind: str = "all",
            class_name: str = "", limit: int = 24, offset: int = 0) -> tuple[pd.DataFrame, dict[str, int]]:
    """A page of images of one kind, and how many there are of each kind. A threshold is one confidence, one for each class, or None: the
    model's own. Raises NotFoundError, and ConfigError where the two were scored on different test sets.

    Columns: image_id, file_name, width, height, is_good, boxes (true ones), and of each side found, missed, false (boxes), only (true boxes
    that it finds and the other misses), top (confidence of its surest box at all). Of an image with boxes, neither: those that both miss.

    a_only, b_only     some true box that it alone finds        both, neither      both find every box; some box is missed by both
    a_false, b_false   it marks something that is not there, the other does not
    """
    if kind not in KINDS:
        raise ConfigError(f"Images are {', '.join(KINDS)}, not {kind!r}.")
    with db.cursor() as cursor:
        a, b = subject(cursor, run_a), subject(cursor, run_b)
        refuse_strangers(a, b)
        values = _side("a", a, threshold_a) | _side("b", b, threshold_b) | a.test(class_name)
        images = cursor.execute(_CONTEST, values).frame()
    of_kind = {k: _of_kind(images, k) for k in KINDS}
    by = _order(kind)
    chosen = images[of_kind[kind]].sort_values(list(by), ascending=list(by.values())).iloc[offset:offset + limit]
    return chosen.reset_index(drop=True), {k: int(mask.sum()) for k, mask in of_kind.items()}


def _side(x: str, one: Subject, threshold: Threshold) -> dict[str, Any]:
    levels = one.at(threshold)
    return {f"looked_in_{x}": one.looked_in, f"model_{x}": one.model_id, f"classes_{x}": list(levels), f"levels_{x}": list(levels.values())}


def _of_kind(images: pd.DataFrame, kind: str) -> "np.ndarray[Any, np.dtype[np.bool_]]":
    if kind == "all":
        return np.ones(len(images), bool)
    if kind == "both":
        return np.asarray((images["boxes"] > 0) & (images["missed_a"] == 0) & (images["missed_b"] == 0))
    if kind == "neither":
        return np.asarray(images["neither"] > 0)
    side, what = kind.split("_")
    if what == "only":
        return np.asarray(images[f"only_{side}"] > 0)
    return np.asarray((images[f"false_{side}"] > 0) & (images[f"false_{'b' if side == 'a' else 'a'}"] == 0))


def _order(kind: str) -> dict[str, bool]:
    """Column -> whether it ascends. What weighs most comes first, of equals by file name."""
    side, what = kind.split("_") if "_" in kind else ("", "")
    heavy = {f"{what}_{side}": False, f"top_{side}": False} if side else {}
    return heavy | {"file_name": True, "image_id": True}


def boxes_of(db: Database, run_id: str, image_id: str) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Of one test image what a training's model found (class_name, confidence, x1, y1, x2, y2, hit, hit_box: row in the other table or -1),
    sure to unsure, from confidence 0.05 on; and what is there (class_name, x1, y1, x2, y2, found_at: the highest threshold that still finds
    it, NaN for none). Raises NotFoundError."""
    with db.cursor() as cursor:
        one = subject(cursor, run_id)
        there = cursor.execute(TEST + "SELECT class_name, hit_box, x1, y1, x2, y2 FROM true_box WHERE image = hash($image) "
                                      "ORDER BY class_name, hit_box", {**one.test(), "image": image_id}).frame()
        found = cursor.execute("SELECT class_name, confidence, x1, y1, x2, y2, hit_box FROM predictions WHERE run_id = ? AND model_id = ? "
                               "AND image_id = ? ORDER BY confidence DESC, class_name, x1", [one.looked_in, one.model_id, image_id]).frame()
        if there.empty and found.empty and not cursor.execute(TEST + "SELECT count(*) FROM image WHERE image_id = $image",
                                                               {**one.test(), "image": image_id}).one():
            raise NotFoundError("This picture is no test image of that run.")
    rows = {key: row for row, key in enumerate(zip(there["class_name"], there["hit_box"], strict=True))}
    hit = [rows.get(key, -1) for key in zip(found["class_name"], found["hit_box"], strict=True)]
    found["hit"], found["hit_box"] = [h >= 0 for h in hit], hit
    at = {h: c for h, c in zip(hit, found["confidence"], strict=True) if h >= 0}
    there["found_at"] = [at.get(row, np.nan) for row in range(len(there))]
    return found[["class_name", "confidence", "x1", "y1", "x2", "y2", "hit", "hit_box"]], there.drop(columns="hit_box")

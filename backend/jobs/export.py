"""A batch to take away: CSV, Parquet, COCO JSON, or a zip of pictures with boxes and the CSV.

Only detections that pass today's rules are in it. Columns are named for people; how CSV is written `spreadsheet` knows.
Knows nothing of pages.
"""

import json
import re
import tempfile
import time
import zipfile
from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import pandas as pd

from backend import __version__, rundir
from backend.config import data_root
from backend.errors import ConfigError, ImageError, NotFoundError
from backend.jobs import pictures, spreadsheet
from backend.records import Filters
from backend.store import queries
from backend.store.database import Database

COLUMNS = {
    "file_name": "File", "verdict": "Verdict", "class_name": "Defect", "action": "Action", "confidence": "Confidence",
    "x1": "Left (px)", "y1": "Top (px)", "x2": "Right (px)", "y2": "Bottom (px)", "unit_id": "Unit", "line": "Line",
    "product": "Product", "lot": "Lot", "camera": "Camera", "captured_local": "Taken at (plant time)", "captured_at": "Taken at (UTC)",
    "captured_source": "Time taken from", "production_day": "Production day", "shift": "Shift", "counted": "Counted in trends",
    "why": "Why not counted", "review": "Review", "image_id": "Image (SHA-256)", "inspection_id": "Inspection", "model_id": "Model"}
UNUSUAL = {"unusual": "Unusual", "anomaly_score": "Anomaly score", "anomaly_model_id": "Anomaly model"}     # where such a model looked
KEPT_S = 3600                      # a download that nobody fetched in an hour goes


def export(db: Database, run_id: str, form: str) -> bytes | Path:
    if form not in _FORMS:
        raise ConfigError(f"A batch can be taken away as {', '.join(_FORMS)}, not as {form!r}.")
    facts = queries.images(db, Filters(plant=rundir.read_json(rundir.run_path(run_id) / "job.json")["plant"], run_id=run_id, counted=False),
                           limit=1 << 40).sort_values(["file_name", "inspection_id"], ignore_index=True)
    if facts.empty:
        raise NotFoundError("There is nothing in this batch to take away yet.")
    found = queries.detections(db, facts["inspection_id"].tolist())
    return _FORMS[form](facts, found[found["passes"]])


def table(facts: pd.DataFrame, found: pd.DataFrame) -> pd.DataFrame:
    """One row per defect; a good picture has one row without."""
    boxes = found[["inspection_id", "class_name", "action", "confidence", "x1", "y1", "x2", "y2"]]
    rows = facts.merge(boxes, on="inspection_id", how="left", sort=False)
    rows["verdict"] = rows["is_defective"].map({True: "defective", False: "good"})
    rows["unusual"] = rows["is_unusual"].map({True: "yes", False: "no"})
    columns = COLUMNS | (UNUSUAL if rows["anomaly_score"].notna().any() else {})
    return rows[list(columns)].rename(columns=columns)


def _csv(facts: pd.DataFrame, found: pd.DataFrame) -> bytes:
    return spreadsheet.csv(table(facts, found))


def _parquet(facts: pd.DataFrame, found: pd.DataFrame) -> bytes:
    out = BytesIO()
    table(facts, found).to_parquet(out, index=False)
    return out.getvalue()


def _coco(facts: pd.DataFrame, found: pd.DataFrame) -> bytes:
    """COCO with scores: boxes as x, y, width, height."""
    numbers = {i: n for n, i in enumerate(facts["inspection_id"].tolist(), 1)}
    classes = {c: n for n, c in enumerate(sorted(found["class_name"].unique()), 1)}
    boxes = [dict(id=n, image_id=numbers[d["inspection_id"]], category_id=classes[d["class_name"]], iscrowd=0,
                  bbox=[round(d["x1"], 2), round(d["y1"], 2), round(d["x2"] - d["x1"], 2), round(d["y2"] - d["y1"], 2)],
                  area=round((d["x2"] - d["x1"]) * (d["y2"] - d["y1"]), 2), score=round(d["confidence"], 4), action=d["action"])
             for n, d in enumerate(pictures.rows(found), 1)]
    images = [dict(id=numbers[f["inspection_id"]], file_name=f["file_name"], width=f["width"], height=f["height"], sha256=f["image_id"],
                   date_captured=f["captured_at"].isoformat()) for f in pictures.rows(facts)]
    return json.dumps(dict(info=dict(description="Diffspect", version=__version__), images=images, annotations=boxes,
                           categories=[dict(id=n, name=c) for c, n in classes.items()]), ensure_ascii=False).encode()


def _zip(facts: pd.DataFrame, found: pd.DataFrame) -> Path:
    """Pictures with boxes as JPEG and the CSV, in a file, one picture in memory at a time. What was not kept is named in missing.txt."""
    boxes = {i: pictures.rows(rows) for i, rows in found.groupby("inspection_id")}
    missing = []
    path = temporary()
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as z:
        z.writestr("results.csv", _csv(facts, found))
        for number, row in enumerate(pictures.rows(facts), 1):
            stem = re.sub(r"[^\w.-]+", "_", Path(row["file_name"]).stem).strip("._")[:80]
            try:
                jpeg = pictures.drawn(row["image_id"], boxes.get(row["inspection_id"], []), format="jpeg")
            except (NotFoundError, ImageError):                  # not kept, or its file was damaged since
                missing.append(row["file_name"])
                continue
            z.writestr(f"{'defective' if row['is_defective'] else 'good'}/{number:06d}_{stem}.jpg", jpeg)
        if missing:
            z.writestr("missing.txt", "These pictures were not kept, or cannot be read any more:\n" + "\n".join(missing))
    return path


def temporary() -> Path:
    """A new file for a download, in the data folder; earlier ones that were left go."""
    folder = data_root() / ".downloads"
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.iterdir():
        if old.stat().st_mtime < time.time() - KEPT_S:
            old.unlink(missing_ok=True)
    with tempfile.NamedTemporaryFile(dir=folder, suffix=".zip", delete=False) as f:
        return Path(f.name)


_FORMS: dict[str, Callable[[pd.DataFrame, pd.DataFrame], bytes | Path]] = {"csv": _csv, "parquet": _parquet, "coco": _coco, "zip": _zip}

"""What the database knows, for pages and the command line: each question bound to this process's one database.

Tables come as pandas DataFrames; `revision` grows whenever an answer may have changed. See `store.queries`, `store.lines`,
`store.engineering` and `store.decisions` for what each column means. Pictures and downloads are made in `pictures` and `export`.
"""

from datetime import datetime
from pathlib import Path
from typing import Any

import pandas as pd

from backend.jobs import house
from backend.records import Filters
from backend.store import decisions, engineering, lines, queries


def revision() -> int:
    """Grows with everything that is taken in or judged anew."""
    return house.database().revision


# the plant -----------------------------------------------------------------------------------------------------------------


def plants() -> dict[str, int]:
    return queries.plants(house.database())


def choices(plant: str) -> dict[str, Any]:
    return queries.choices(house.database(), plant)


def lines_now(plant: str, at: datetime | None = None) -> pd.DataFrame:
    return lines.lines_now(house.database(), plant, at)


def totals(filters: Filters) -> dict[str, Any]:
    return queries.totals(house.database(), filters)


def trend(filters: Filters, by: str = "day", split: str = "") -> pd.DataFrame:
    return queries.trend(house.database(), filters, by, split)


def unusual_trend(filters: Filters, by: str = "day") -> pd.DataFrame:
    return queries.unusual_trend(house.database(), filters, by)


def breakdown(filters: Filters, by: str) -> pd.DataFrame:
    return queries.breakdown(house.database(), filters, by)


def pareto(filters: Filters) -> pd.DataFrame:
    return queries.pareto(house.database(), filters)


def images(filters: Filters, order: str = "newest", limit: int = 24, offset: int = 0) -> pd.DataFrame:
    return queries.images(house.database(), filters, order, limit, offset)


def images_count(filters: Filters) -> int:
    return queries.images_count(house.database(), filters)


def inspection(inspection_id: int) -> dict[str, Any]:
    return queries.inspection(house.database(), inspection_id)


def detections(inspection_ids: list[int]) -> pd.DataFrame:
    return queries.detections(house.database(), inspection_ids)


def review_queue(plant: str, limit: int = 30, kind: str = "doubtful") -> pd.DataFrame:
    """`kind`: doubtful, or disagreement."""
    return queries.review_queue(house.database(), plant, limit, kind)


# decisions -----------------------------------------------------------------------------------------------------------------


def rules(plant: str, product: str = "") -> pd.DataFrame:
    return decisions.rules(house.database(), plant, product)


def unusual_rule(plant: str, product: str = "") -> dict[str, Any] | None:
    return decisions.unusual_rule(house.database(), plant, product)


def reviews(plant: str) -> pd.DataFrame:
    return decisions.reviews(house.database(), plant)


def notes(plant: str, line: str = "") -> pd.DataFrame:
    return decisions.notes(house.database(), plant, line)


def changes(plant: str, limit: int = 20, recipe: str = "") -> pd.DataFrame:
    return decisions.changes(house.database(), plant, limit, recipe)


def calendar() -> dict[str, Any]:
    return decisions.calendar_now(house.database())


# batches, datasets, models -------------------------------------------------------------------------------------------------


def settled(run_id: str) -> bool:
    """Whether all of an ended run is in."""
    return engineering.settled(house.database(), run_id)


def batch(run_id: str) -> dict[str, Any]:
    return engineering.batch(house.database(), run_id)


def refused(run_id: str) -> pd.DataFrame:
    return engineering.refused(house.database(), run_id)


def raw_scores(run_id: str) -> pd.DataFrame:
    return engineering.raw_scores(house.database(), run_id)


def anomaly_scores(run_id: str) -> pd.DataFrame:
    return engineering.anomaly_scores(house.database(), run_id)


def damaged() -> pd.DataFrame:
    return engineering.damaged(house.database())


def datasets() -> pd.DataFrame:
    return engineering.datasets(house.database())


def dataset_counts(snapshot_id: str) -> pd.DataFrame:
    return engineering.dataset_counts(house.database(), snapshot_id)


def box_sizes(snapshot_id: str) -> pd.DataFrame:
    return engineering.box_sizes(house.database(), snapshot_id)


def dataset_images(snapshot_id: str, split: str = "", class_name: str = "", limit: int = 24, offset: int = 0) -> pd.DataFrame:
    return engineering.dataset_images(house.database(), snapshot_id, split, class_name, limit, offset)


def labels(snapshot_id: str, image_ids: list[str]) -> pd.DataFrame:
    return engineering.labels(house.database(), snapshot_id, image_ids)


def duplicates(snapshot_id: str) -> pd.DataFrame:
    return engineering.duplicates(house.database(), snapshot_id)


def models(kind: str = "detector") -> pd.DataFrame:
    """`kind`: detector, anomaly, or '' for all."""
    return engineering.models(house.database(), kind)


def metrics(run_id: str) -> pd.DataFrame:
    return engineering.metrics(house.database(), run_id)


# pictures and downloads ----------------------------------------------------------------------------------------------------


def picture(inspection_id: int | None = None, image_id: str | None = None, boxes: bool = True, width: int | None = None,
            threshold: float | dict[str, float] | None = None, format: str = "webp") -> bytes:
    """An encoded picture with its defects drawn; of a dataset (image_id alone) with its labels. Raises NotFoundError."""
    from backend.jobs import pictures

    return pictures.picture(house.database(), inspection_id, image_id, boxes, width, threshold, format)


def heat(inspection_id: int, width: int | None = None, opacity: float = 0.6, boxes: bool = False, format: str = "webp") -> bytes:
    """An encoded picture with what its anomaly model saw laid over it; `boxes`: with its defects drawn too. Raises NotFoundError."""
    from backend.jobs import pictures

    return pictures.heat(house.database(), inspection_id, width, opacity, boxes, format)


def export(run_id: str, form: str) -> bytes | Path:
    """A batch as csv, parquet or coco (bytes), or as a zip of pictures with boxes (a temporary file). Raises ConfigError, NotFoundError."""
    from backend.jobs import export as exports

    return exports.export(house.database(), run_id, form)

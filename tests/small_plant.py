"""A small plant written by hand, for tests of the store: run directories whose answers are known."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa

from backend import rundir
from backend.records import inspection_ids
from backend.store.database import Database

NOON = datetime(2026, 6, 10, 12, 0, tzinfo=UTC)          # a Wednesday


def batch(pictures: list[dict[str, Any]], plant: str = "real", end: bool = True) -> Path:
    """An inspect run. Each picture is inspection columns, and `boxes`: [(class, confidence[, side])]; one picture a minute from NOON."""
    run = rundir.create("inspect", {"line": "L1"}, plant=plant)
    add(run, pictures)
    if end:
        finish(run)
    return run


def add(run: Path, pictures: list[dict[str, Any]]) -> list[int]:
    """One more part of a batch; returns its ids."""
    part = len(rundir.parts(run, "inspections")) + 1
    ids = [int(i) for i in inspection_ids(f"{run.name}/{part}", len(pictures))]
    plant = rundir.read_json(run / "job.json")["plant"]
    rows = [inspection(i, plant=plant, **{"captured_at": NOON + timedelta(minutes=n), **{k: v for k, v in p.items() if k != "boxes"}})
            for n, (i, p) in enumerate(zip(ids, pictures, strict=True))]
    rundir.write_part(run, "detections", [detection(i, *box) for i, p in zip(ids, pictures, strict=True) for box in p.get("boxes", [])])
    rundir.write_part(run, "inspections", rows)
    return ids


def inspection(inspection_id: int, **more: Any) -> dict[str, Any]:
    return dict(inspection_id=inspection_id, plant="real", image_id=f"{inspection_id:064x}", file_name=f"{inspection_id}.png", unit_id="",
                line="L1", product="Plate", lot="", camera="", captured_at=NOON, captured_source="exif", ingested_at=NOON, width=100,
                height=100, model_id="m1", runtime="onnxruntime", counted=True, not_counted_why="", kept=True, kept_share=1.0) | more


def detection(inspection_id: int, class_name: str, confidence: float, side: float = 20.0) -> dict[str, Any]:
    return dict(inspection_id=inspection_id, class_name=class_name, confidence=confidence, x1=10.0, y1=10.0, x2=10 + side, y2=40.0)


def model(model_id: str = "m1", thresholds: dict[str, float] | None = None, **more: Any) -> Path:
    run = rundir.create("train-detector", {"name": model_id})
    at = rundir.read_json(run / "job.json")["created_at"]
    rundir.write_part(run, "models", [dict(
        model_id=model_id, name=f"Model {model_id}", kind="detector", created_at=datetime.fromisoformat(at), snapshot_id="s1", imgsz=224,
        classes=["pits", "scratch"], metrics='{"test": {"map50": 0.5}}', settings="{}") | more])
    rundir.write_part(run, "model_thresholds", [dict(model_id=model_id, class_name=c, threshold=t) for c, t in (thresholds or {}).items()])
    finish(run)
    return run


def finish(run: Path, state: str = "completed", **more: Any) -> None:
    rundir.write_json(run / "result.json", {"done": True})
    rundir.set_state(run, state, started_at=rundir.now(), finished_at=rundir.now(), **more)


def decide(recipe: str, plant: str = "real", **config: Any) -> str:
    """An inline run; its id."""
    run = rundir.create(recipe, config, plant=plant, state="staged")
    rundir.set_state(run, "completed")
    return rundir.publish(run).name


def tables(db: Database) -> dict[str, list[str]]:
    """Every row of every table, as text, in an order of its own."""
    with db.cursor() as cursor:
        names = cursor.execute("SELECT table_name FROM duckdb_tables() WHERE NOT temporary ORDER BY 1").column()
        return {n: sorted(map(repr, cursor.execute(f"SELECT * FROM {n}").dicts())) for n in names}


def facts(db: Database, columns: str = "*") -> list[dict[str, Any]]:
    with db.cursor() as cursor:
        return cursor.execute(f"SELECT {columns} FROM facts ORDER BY inspection_id").dicts()


def history(run: Path, rows: list[dict[str, Any]]) -> None:
    rundir.write_part(run, "history", pa.Table.from_pylist(rows))

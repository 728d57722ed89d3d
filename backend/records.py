"""Rows that cross from recipes to the store, and the filter that pages ask with.

`SCHEMAS` are the tables of a run's Parquet parts; `store/schema.sql` has the same columns, plus `run_id` and `part`,
which ingest adds. Times are UTC. Boxes are absolute pixels of the upright image, x1 < x2, y1 < y2.
"""

import hashlib
import zlib
from dataclasses import dataclass, replace
from datetime import date
from typing import Any, Self

import numpy as np
import pyarrow as pa

_utc = pa.timestamp("us", "UTC")
_box = pa.struct([("class_name", pa.string()), ("confidence", pa.float32()), *((side, pa.float32()) for side in ("x1", "y1", "x2", "y2"))])

SCHEMAS: dict[str, pa.Schema] = {
    "inspections": pa.schema([
        ("inspection_id", pa.int64()), ("plant", pa.string()),           # 'real' | 'demo'
        ("image_id", pa.string()),                                       # SHA-256 of the file; 'demo:<seed>' is rendered on demand
        ("file_name", pa.string()), ("unit_id", pa.string()),            # unit_id '' = this image is one unit
        ("line", pa.string()), ("product", pa.string()), ("lot", pa.string()), ("camera", pa.string()),
        ("captured_at", _utc), ("captured_source", pa.string()),         # exif | file name | typed | arrival | demo
        ("ingested_at", _utc), ("width", pa.int32()), ("height", pa.int32()),
        ("model_id", pa.string()), ("runtime", pa.string()),
        ("counted", pa.bool_()), ("not_counted_why", pa.string()),       # no line | dataset <name> | switched off | master part | ''
        ("kept", pa.bool_()), ("kept_share", pa.float32()),              # is the image on disk; chance with which good ones are kept
    ]),
    "detections": pa.schema([
        ("inspection_id", pa.int64()), ("class_name", pa.string()), ("confidence", pa.float32()),
        ("x1", pa.float32()), ("y1", pa.float32()), ("x2", pa.float32()), ("y2", pa.float32()),
    ]),
    "anomalies": pa.schema([                                             # one row per picture that an anomaly model looked at
        ("inspection_id", pa.int64()), ("model_id", pa.string()), ("anomaly_score", pa.float32()),
        ("side", pa.int32()), ("anomaly_map", pa.binary()),              # `pack_map`; null where the picture is not kept
    ]),
    "shadows": pa.schema([                                               # one row per kept picture that another model was shown later
        ("plant", pa.string()), ("image_id", pa.string()), ("model_id", pa.string()),
        ("why", pa.string()),                                            # '' | gone | what is wrong with its file: not looked at
        ("boxes", pa.list_(_box)),                                       # all that was found, so that a picture is whole or not there
    ]),
    "masters": pa.schema([                                               # one row per picture of a master part, which never counts
        ("inspection_id", pa.int64()), ("piece", pa.string()), ("brightness", pa.float32()), ("sharpness", pa.float32()),
    ]),
    "refused": pa.schema([("file_name", pa.string()), ("reason", pa.string())]),
    "snapshots": pa.schema([
        ("snapshot_id", pa.string()), ("name", pa.string()), ("layout", pa.string()), ("created_at", _utc),
        ("classes", pa.list_(pa.string())), ("seed", pa.int64()), ("splits_from", pa.string()),   # lists | folders | drawn
        ("images", pa.int64()), ("labels", pa.int64()), ("refused", pa.int64()),
        ("test_set_id", pa.string()),                                    # `rundir.test_set_id`; null in parts of an older program
    ]),
    "snapshot_images": pa.schema([
        ("snapshot_id", pa.string()), ("image_id", pa.string()), ("file_name", pa.string()), ("split", pa.string()),
        ("origin", pa.string()), ("parent", pa.string()), ("generator_run", pa.string()),        # origin: real | synthetic
        ("width", pa.int32()), ("height", pa.int32()), ("group_id", pa.string()),                 # near-duplicate group
        ("phash", pa.string()),
    ]),
    "labels": pa.schema([
        ("snapshot_id", pa.string()), ("image_id", pa.string()), ("class_name", pa.string()),
        ("x1", pa.float32()), ("y1", pa.float32()), ("x2", pa.float32()), ("y2", pa.float32()),
        ("source", pa.string()),                                         # box | mask | image (a label of the whole picture)
    ]),
    "models": pa.schema([
        ("model_id", pa.string()), ("name", pa.string()), ("kind", pa.string()), ("created_at", _utc),
        ("snapshot_id", pa.string()), ("imgsz", pa.int32()), ("classes", pa.list_(pa.string())),
        ("metrics", pa.string()), ("settings", pa.string()),                                      # JSON
    ]),
    "looks": pa.schema([                                                 # each time that a detector was shown val and test
        ("model_id", pa.string()), ("snapshot_id", pa.string()), ("test_set_id", pa.string()),    # model_id '': a teacher, never deployed
        ("split", pa.string()), ("images", pa.int32()), ("good_images", pa.int32()), ("boxes", pa.int32()), ("looked_at", _utc),
        ("classes", pa.list_(pa.string())), ("thresholds", pa.list_(pa.float32())),               # the model's, one for each class
    ]),
    "predictions": pa.schema([                                           # what it found on test from confidence 0.05 on
        ("model_id", pa.string()), ("split", pa.string()), ("image_id", pa.string()), ("class_name", pa.string()),
        ("confidence", pa.float32()), ("x1", pa.float32()), ("y1", pa.float32()), ("x2", pa.float32()), ("y2", pa.float32()),
        ("hits", pa.int32()),                                            # bit t: a true box is hit at IoU 0.50, 0.55 ... 0.95
        ("hit_box", pa.int32()),                                         # which one of its class at IoU 0.5, by x1, y1; -1: none
    ]),
    "model_thresholds": pa.schema([("model_id", pa.string()), ("class_name", pa.string()), ("threshold", pa.float32())]),
    "let_go": pa.schema([("inspection_id", pa.int64()), ("at", _utc)]),   # whose picture retention let go, and when that was asked for
    "history": pa.schema([                                               # the demo plant's events; a person's own are inline runs
        ("at", _utc), ("recipe", pa.string()), ("config", pa.string()), ("by", pa.string()),
    ]),
}


def inspection_ids(key: str, n: int) -> "np.ndarray[Any, np.dtype[np.int64]]":
    """n ids, int64 (n,), that no other key shares: 43 bits of the key's SHA-256, then 20 bits of counter.

    A million ids a key at most; with 100,000 keys the chance of any clash is 0.06 %.
    """
    assert n <= 1 << 20, "at most 1,048,576 inspections under one key"
    base = int.from_bytes(hashlib.sha256(key.encode()).digest()[:8], "big") >> 21
    return (np.int64(base) << np.int64(20)) + np.arange(n, dtype=np.int64)


def pack_map(anomaly_map: "np.ndarray[Any, Any]", low: float, high: float) -> bytes:
    """An anomaly map (side, side) as a column has it: 0 for `low` and less, 255 for `high` and more, row by row, zlib.

    A cell is off by 1/510 of the range at most; 64 cells a side take 1 to 3 KB.
    """
    share = (np.asarray(anomaly_map, np.float32) - low) / max(high - low, 1e-12)
    return zlib.compress(np.rint(share.clip(0, 1) * 255).astype(np.uint8).tobytes())


def unpack_map(packed: bytes, side: int) -> "np.ndarray[Any, np.dtype[np.uint8]]":
    """What `pack_map` packed, uint8 (side, side). Raises ValueError where it is something else."""
    try:
        return np.frombuffer(zlib.decompress(packed), np.uint8).reshape(side, side)
    except zlib.error as error:
        raise ValueError(f"no packed map: {error}") from error


@dataclass(frozen=True)
class Filters:
    """What a person is looking at. Empty means all; dates are production days, both ends included."""

    plant: str = "real"
    line: str = ""
    product: str = ""
    lot: str = ""
    camera: str = ""
    shift: str = ""
    class_name: str = ""
    run_id: str = ""
    since: date | None = None
    until: date | None = None
    verdict: str = ""          # '' | defective | good | unusual | disagree (unusual, though no detection rejects it)
    counted: bool = True       # only what counts in plant trends

    def but(self, **changes: Any) -> Self:
        return replace(self, **changes)


@dataclass(frozen=True)
class RunStatus:
    """A run as pages show it; read from its directory, never from DuckDB."""

    run_id: str
    recipe: str
    name: str                  # what a person calls it: the dataset, the model, the batch
    state: str                 # pending | running | completed | failed | canceled | interrupted
    message: str
    plant: str
    config: dict[str, Any]
    created_at: str
    started_at: str | None
    finished_at: str | None
    attempt: int
    step: int
    total: int
    eta_s: float | None
    position: int | None       # place in the queue, 1 is next; None unless pending
    result: dict[str, Any]
    canceling: bool

    @property
    def is_open(self) -> bool:
        return self.state in ("pending", "running")

"""The recipe `inspect`: a batch of pictures into a run's parts.

    inbox, folder or zip ─► reading: threads decode ahead ─► engine, a group at a time ─► grouplog: parts of the run

Beside the detector an anomaly model may look at the same pictures, decoded once. What it says is logged and kept for review; it
neither rejects a picture nor counts it otherwise.
A group is what reaches the store at once: 8 pictures first, then about a second's worth, 32 at most.
Knows nothing of jobs, of the store, or of the plant's own rules: "defective" and "unusual" here are by the models' own thresholds.
"""

import json
import shutil
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from backend import rundir
from backend.config import Inspect
from backend.data import files, images
from backend.data.files import Refusal
from backend.errors import InputError
from backend.inspection import capture, reading
from backend.inspection.anomaly_engine import AnomalyEngine, load_anomaly
from backend.inspection.engine import Engine, load
from backend.inspection.grouplog import GroupLog, Rows
from backend.inspection.keeping import Keeper
from backend.inspection.reading import Picture
from backend.records import inspection_ids, pack_map

FLOOR = 0.05                            # lowest confidence stored: as far down as the what-if slider reaches
WITHOUT = "none"                        # as the name of the anomaly model
MOST_IN_A_RUN = 1 << 20                 # as many ids as one run has
FIRST, MOST = 8, 32                     # pictures in the first group, and in any later one
NO_PICTURE = "There is no picture in {}. Pictures can be PNG, JPEG, BMP, TIFF or WebP."

Report = Callable[..., None]


def run(config: Inspect, run_dir: Path, report: Report) -> dict[str, Any]:
    """Inspect a batch. Run again after a kill, it goes on; run again after its end, it only says the result."""
    log = GroupLog(run_dir)
    if "result" not in log.notes:
        log.note(result=_inspect(config, run_dir, log, report))
    shutil.rmtree(run_dir / "inbox", ignore_errors=True)      # last: killed before this line, the bytes are there; after it, the result
    return dict(log.notes["result"])


def _inspect(config: Inspect, run_dir: Path, log: GroupLog, report: Report) -> dict[str, Any]:
    # What a person may have set wrongly is said before any work.
    inbox = run_dir / "inbox"
    path = inbox if inbox.exists() else reading.place(config.images)
    arrival = datetime.fromisoformat(rundir.read_json(run_dir / "job.json")["created_at"])
    clock, unit, count = capture.Clock(config, arrival, capture.plant_zone()), capture.unit_finder(config), capture.counter(config)
    total = images.count(path)
    if total > MOST_IN_A_RUN:
        raise InputError(f"{total:,} files are too many for one batch; send at most {MOST_IN_A_RUN:,}.")

    # The models stay those the run began with, whatever is promoted meanwhile.
    report(step=len(log.names), total=total, message="Loading the model")
    engine = load(rundir.find_model(log.notes.get("model_id") or config.model, "detector"))
    beside = _beside(config.anomaly, log.notes)
    log.note(model_id=engine.model_id, anomaly_model_id=beside.model_id if beside else WITHOUT)
    desk = Desk(config, run_dir.name, engine, beside, clock, unit, count, Keeper())

    # Group after group; each is in the store about a second after its first picture was read.
    began, before = time.monotonic(), len(log.seen)
    with files.listing(path) as entries, reading.pictures(reading.left(entries, log.names), engine, beside) as found:
        size, started = log.unfinished or FIRST, began
        while group := list(islice(found, size)):
            log.begin(len(group), _fingerprint(group))
            log.finish(*desk.inspect(group, log.seen))
            report(step=min(log.names.total(), total), total=total, message=_so_far(log))
            size = max(1, min(MOST, int(len(group) / max(time.monotonic() - started, 1e-3))))
            started = time.monotonic()

    if not log.names:
        raise InputError(NO_PICTURE.format("what was uploaded" if path == inbox else path))
    report(step=total, total=total, message=_so_far(log))
    for warning in desk.warnings:
        print(warning)
    seconds = time.monotonic() - began
    return dict(log.figures(engine.thresholds), seconds=round(seconds, 3), images_per_s=round((len(log.seen) - before) / seconds, 1),
                floor=desk.floor, warnings=desk.warnings, **_model(engine), **_unusual(beside, log))


def warm_up() -> None:
    """Load the models in use before there is anything to inspect."""
    load(rundir.find_model("", "detector"))
    _beside("", {})


def _beside(name: str, notes: dict[str, Any]) -> AnomalyEngine | None:
    """The anomaly model to run too. A run that was begun before there was one goes on without."""
    wanted = notes.get("anomaly_model_id") or (WITHOUT if "model_id" in notes else name.strip() or rundir.promoted_model("anomaly"))
    return None if wanted in ("", WITHOUT) else load_anomaly(rundir.find_model(wanted, "anomaly"))


@dataclass
class Desk:
    """Where a group of files becomes rows: what the engine finds, and what is known besides."""

    config: Inspect
    run_id: str
    engine: Engine
    beside: AnomalyEngine | None
    clock: capture.Clock
    unit: Callable[[str], str]
    count: Callable[[str], tuple[bool, str]]
    keeper: Keeper
    doubtful: int = 0

    @property
    def floor(self) -> float:
        return min(FLOOR, *self.engine.thresholds.values())

    @property
    def warnings(self) -> list[str]:
        clock = f"{self.doubtful:,} pictures carry a time before 2000 or in the future: check the camera's clock."
        blind = [self.beside.head.get("threshold_refused") or f"The anomaly model {self.beside.name!r} has no limit of its own: "
                 "its scores are logged, but it calls nothing unusual."] if self.beside and self.beside.threshold is None else []
        return self.keeper.warnings + ([clock] if self.doubtful else []) + blind

    def inspect(self, group: list[Picture | Refusal], seen: dict[str, str]) -> tuple[Rows, Rows, Rows, Rows]:
        """Rows for inspections, detections, refused and anomalies."""
        accepted, refused = _without_repeats(group, seen)
        found = self.engine.detect([p.prepared for p in accepted], self.floor)
        ids = inspection_ids(self.run_id, len(seen) + len(accepted))[len(seen):].tolist()
        anomalies, unusual = self._anomalies(ids, accepted)
        self.keeper.look()
        inspections = [self._inspection(i, p, boxes, i in unusual) for i, p, boxes in zip(ids, accepted, found, strict=True)]
        detections = [self._detection(i, box) for i, boxes in zip(ids, found, strict=True) for box in boxes.tolist()]
        for inspection, anomaly in zip(inspections, anomalies, strict=bool(anomalies)):
            anomaly["anomaly_map"] = anomaly["anomaly_map"] if inspection["kept"] else None
        return inspections, detections, [dict(file_name=r.name, reason=r.reason) for r in refused], anomalies

    def _anomalies(self, ids: list[int], pictures: list[Picture]) -> tuple[Rows, set[int]]:
        """What the anomaly model says of each picture, and which are unusual by its own threshold; nothing where none runs."""
        model = self.beside
        if model is None or not pictures:
            return [], set()
        maps = model.maps([p.beside for p in pictures if p.beside is not None])              # (n, m, m)
        scores = model.scores(maps)
        rows = [dict(inspection_id=i, model_id=model.model_id, anomaly_score=float(score), side=len(seen),
                     anomaly_map=pack_map(seen, *model.map_range)) for i, score, seen in zip(ids, scores, maps, strict=True)]
        limit = np.float32(np.inf if model.threshold is None else model.threshold)             # as the store compares
        return rows, {i for i, score in zip(ids, scores, strict=True) if score >= limit}

    def _inspection(self, inspection_id: int, picture: Picture, boxes: np.ndarray, is_unusual: bool) -> dict[str, Any]:
        config, engine = self.config, self.engine
        is_reject = any(confidence >= engine.thresholds[engine.classes[int(k)]] for confidence, k in boxes[:, 4:].tolist())
        kept, share = self.keeper.keep(picture.data, picture.image_id, picture.format, is_reject or is_unusual)
        at, source = self.clock(picture.data, picture.name)
        self.doubtful += capture.doubtful(at)
        counted, why = self.count(picture.image_id)
        return dict(inspection_id=inspection_id, plant=config.plant, image_id=picture.image_id, file_name=picture.name,
                    unit_id=self.unit(picture.name), line=config.line, product=config.product, lot=config.lot, camera=config.camera,
                    captured_at=at, captured_source=source, ingested_at=datetime.now(UTC),
                    width=picture.prepared.width, height=picture.prepared.height, model_id=engine.model_id, runtime=engine.runtime,
                    counted=counted, not_counted_why=why, kept=kept, kept_share=share)

    def _detection(self, inspection_id: int, box: list[float]) -> dict[str, Any]:
        x1, y1, x2, y2, confidence, class_id = box
        return dict(inspection_id=inspection_id, class_name=self.engine.classes[int(class_id)], confidence=confidence,
                    x1=x1, y1=y1, x2=x2, y2=y2)


def _fingerprint(group: Iterable[Picture | Refusal]) -> str:
    """Names and contents of a group, in short."""
    files = [(item.name, item.image_id if isinstance(item, Picture) else "") for item in group]
    return images.sha256(json.dumps(files).encode())[:16]


def _without_repeats(group: Iterable[Picture | Refusal], seen: dict[str, str]) -> tuple[list[Picture], list[Refusal]]:
    """Accepted and refused; a picture whose very bytes were accepted before in this run is refused."""
    accepted: dict[str, Picture] = {}
    refused = []
    for item in group:
        if isinstance(item, Refusal):
            refused.append(item)
        elif item.image_id in seen or item.image_id in accepted:
            other = seen.get(item.image_id) or accepted[item.image_id].name
            refused.append(Refusal(item.name, f"Same picture as {other}."))
        else:
            accepted[item.image_id] = item
    return list(accepted.values()), refused


def _so_far(log: GroupLog) -> str:
    return f"{len(log.seen):,} inspected, {log.names.total() - len(log.seen):,} refused"


def _unusual(beside: AnomalyEngine | None, log: GroupLog) -> dict[str, Any]:
    """How many were unusual, None where the model has no threshold; nothing where none ran."""
    if beside is None:
        return {}
    unusual = None if beside.threshold is None else log.unusual(beside.threshold)
    return dict(unusual=unusual, anomaly_model_id=beside.model_id, anomaly_model_name=beside.name)


def _model(engine: Engine) -> dict[str, str]:
    return dict(model_id=engine.model_id, model_name=engine.name, runtime=engine.runtime)

"""The recipes `inspect` (a batch of pictures into a run's parts) and `predict` (every box of a list of pictures, for scorers).

    inbox, folder or zip ─► reading: threads decode ahead ─► engine, a group at a time ─► grouplog: parts of the run

A group is what reaches the store at once: 8 pictures first, then about a second's worth, 32 at most.
Knows nothing of jobs, of the store, or of the plant's own rules: "defective" here is by the model's own thresholds.
"""

import json
import shutil
import time
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from backend import rundir
from backend.config import Inspect, Predict
from backend.data import files, images
from backend.data.files import Entry, Refusal
from backend.errors import ConfigError, InputError
from backend.inspection import capture, reading
from backend.inspection.engine import Engine, load
from backend.inspection.grouplog import GroupLog, Rows
from backend.inspection.keeping import Keeper
from backend.inspection.reading import Picture
from backend.records import inspection_ids

FLOOR = 0.05                            # lowest confidence stored: as far down as the what-if slider reaches
SCORER_FLOOR = 0.001
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

    # The model stays the one the run began with, whatever is promoted meanwhile.
    report(step=len(log.names), total=total, message="Loading the model")
    engine = load(rundir.find_model(log.notes.get("model_id") or config.model))
    log.note(model_id=engine.model_id)
    desk = Desk(config, run_dir.name, engine, clock, unit, count, Keeper())

    # Group after group; each is in the store about a second after its first picture was read.
    began, before = time.monotonic(), len(log.seen)
    with files.listing(path) as entries, reading.pictures(reading.left(entries, log.names), engine) as found:
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
                floor=desk.floor, warnings=desk.warnings, **_model(engine))


def predict(config: Predict, run_dir: Path, report: Report) -> dict[str, Any]:
    """Write `predictions.json`: up to 300 boxes a picture from confidence 0.001, in the order of the files."""
    path, out = reading.place(config.images), Path(config.out).expanduser()
    if not config.out.strip():
        raise ConfigError("Choose a folder to write predictions.json into (out).")
    report(step=0, total=images.count(path), message="Loading the model")
    engine, began, seen = load(rundir.find_model(config.model)), time.monotonic(), 0
    boxes: Rows = []
    refused: Rows = []
    with files.listing(path) as listed:
        entries = _chosen(listed, Path(config.list).expanduser(), path) if config.list else listed
        with reading.pictures(entries, engine) as found:
            while group := list(islice(found, MOST)):
                seen += len(group)
                boxes += _predictions([g for g in group if isinstance(g, Picture)], engine)
                refused += [dict(file_name=g.name, reason=g.reason) for g in group if isinstance(g, Refusal)]
                report(step=min(seen, len(entries)), total=len(entries), message=f"{seen} pictures")
    if not seen:
        raise InputError(NO_PICTURE.format(path))
    out.mkdir(parents=True, exist_ok=True)
    rundir.write_bytes(out / "predictions.json", json.dumps(boxes).encode())
    seconds = time.monotonic() - began
    return dict(path=str(out / "predictions.json"), images=seen - len(refused), boxes=len(boxes), refused=refused, floor=SCORER_FLOOR,
                seconds=round(seconds, 3), images_per_s=round((seen - len(refused)) / seconds, 1), **_model(engine))


@dataclass
class Desk:
    """Where a group of files becomes rows: what the engine finds, and what is known besides."""

    config: Inspect
    run_id: str
    engine: Engine
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
        return self.keeper.warnings + ([clock] if self.doubtful else [])

    def inspect(self, group: list[Picture | Refusal], seen: dict[str, str]) -> tuple[Rows, Rows, Rows]:
        """Rows for inspections, detections and refused."""
        accepted, refused = _without_repeats(group, seen)
        found = self.engine.detect([p.prepared for p in accepted], self.floor)
        ids = inspection_ids(self.run_id, len(seen) + len(accepted))[len(seen):].tolist()
        self.keeper.look()
        inspections = [self._inspection(i, p, boxes) for i, p, boxes in zip(ids, accepted, found, strict=True)]
        detections = [self._detection(i, box) for i, boxes in zip(ids, found, strict=True) for box in boxes.tolist()]
        return inspections, detections, [dict(file_name=r.name, reason=r.reason) for r in refused]

    def _inspection(self, inspection_id: int, picture: Picture, boxes: np.ndarray) -> dict[str, Any]:
        config, engine = self.config, self.engine
        is_reject = any(confidence >= engine.thresholds[engine.classes[int(k)]] for confidence, k in boxes[:, 4:].tolist())
        kept, share = self.keeper.keep(picture.data, picture.image_id, picture.format, is_reject)
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


def _predictions(group: list[Picture], engine: Engine) -> Rows:
    found = engine.detect([p.prepared for p in group], SCORER_FLOOR)
    return [dict(file_name=p.name, category=engine.classes[int(k)], bbox=[round(v, 3) for v in (x1, y1, x2 - x1, y2 - y1)],
                 score=round(score, 6))
            for p, boxes in zip(group, found, strict=True) for x1, y1, x2, y2, score, k in boxes.tolist()]


def _chosen(entries: list[Entry | Refusal], listing: Path, where: Path) -> list[Entry | Refusal]:
    """The entries that a list names, in the entries' order. A line is a relative path, a file name, or either without its ending."""
    try:
        wanted = [w for line in listing.read_text("utf-8-sig").splitlines() if (w := line.strip().replace("\\", "/").removeprefix("./"))]
    except (OSError, UnicodeDecodeError) as e:
        raise InputError(f"The list {listing} cannot be read as text.") from e
    index: dict[str, dict[str, Entry | Refusal]] = defaultdict(dict)
    for entry in entries:
        path = PurePosixPath(entry.name)
        if path.suffix.lower().removeprefix(".") not in files.NOT_PICTURES:
            for key in (entry.name, path.name, str(path.with_suffix("")), path.stem):
                index[key][entry.name] = entry
    chosen = {w: index[w].get(w) or next(iter(index[w].values())) for w in wanted if index[w]}
    _complain([w for w in wanted if w not in chosen], f"of the list are not in {where}")
    _complain([w for w in wanted if len(index[w]) > 1 and w not in index[w]], f"of the list name more than one picture in {where}")
    names = {e.name for e in chosen.values()}
    return [e for e in entries if e.name in names]


def _complain(lines: list[str], what: str) -> None:
    if lines:
        raise InputError(f"{len(lines)} {what}: {', '.join(lines[:5])}{' …' if len(lines) > 5 else ''}.")


def _so_far(log: GroupLog) -> str:
    return f"{len(log.seen):,} inspected, {log.names.total() - len(log.seen):,} refused"


def _model(engine: Engine) -> dict[str, str]:
    return dict(model_id=engine.model_id, model_name=engine.name, runtime=engine.runtime)

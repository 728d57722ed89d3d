"""The recipe `inspect`: a batch of pictures into a run's parts.

    inbox, folder or zip ─► reading: threads decode ahead ─► engine: requests in flight ─► desk: a thread keeps, logs and writes groups

All three work at the same time, each a bounded way ahead of the next. In the detector's place a classifier of whole images may stand.
Beside it an anomaly model may look at the same pictures, decoded once. What it says is logged and kept for review; it neither rejects
a picture nor counts it otherwise. A group is what reaches the store at once: 8 pictures first, then about two seconds' worth.
Knows nothing of jobs, of the store, or of the plant's own rules: "defective" and "unusual" here are by the models' own thresholds.
"""

import json
import shutil
import time
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from io import BytesIO
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
from PIL import Image

from backend import rundir
from backend.config import Inspect
from backend.data import files, images
from backend.data.files import Entry, Refusal
from backend.errors import InputError
from backend.inspection import capture, imaging, looking, reading
from backend.inspection.anomaly_engine import AnomalyEngine
from backend.inspection.engine import Engine, load
from backend.inspection.grouplog import GroupLog, Rows
from backend.inspection.keeping import Keeper
from backend.inspection.looking import WITHOUT, Looked, Looker, Spread
from backend.inspection.reading import Picture
from backend.records import SCHEMAS, inspection_ids, pack_map

FLOOR = 0.05                            # lowest confidence stored: as far down as the what-if slider reaches
MOST_IN_A_RUN = 1 << 20                 # as many ids as one run has
FIRST, MOST = 8, 128                    # pictures in the first group, and in any later one: each costs four files
WORTH_S = 2.0                           # of a later one: with one second 200 pictures were 12 groups, and each is taken in and drawn
SHRUNK = 8                              # as large as the network's input, this many times: a defect of 8 pixels is left with one
MOST_BYTES = 64 * 10**6                 # of their files
NO_PICTURE = "There is no picture in {}. Pictures can be PNG, JPEG, BMP, TIFF or WebP."

Report = Callable[..., None]


def run(config: Inspect, run_dir: Path, report: Report, spread: Spread | None = None) -> dict[str, Any]:
    """Inspect a batch. Run again after a kill, it goes on; run again after its end, it only says the result. `spread`: where other machines
    look at the pictures."""
    log = GroupLog(run_dir)
    if "result" not in log.notes:
        log.note(result=_inspect(config, run_dir, log, report, spread))
    shutil.rmtree(run_dir / "inbox", ignore_errors=True)      # last: killed before this line, the bytes are there; after it, the result
    return dict(log.notes["result"])


def _inspect(config: Inspect, run_dir: Path, log: GroupLog, report: Report, spread: Spread | None) -> dict[str, Any]:
    # What a person may have set wrongly is said before any work.
    inbox = run_dir / "inbox"
    path = inbox if inbox.exists() else reading.place(config.images)
    arrival = datetime.fromisoformat(rundir.read_json(run_dir / "job.json")["created_at"])
    clock, unit, count = capture.Clock(config, arrival, capture.plant_zone()), capture.unit_finder(config), capture.counter(config)
    total = images.count(path)
    if total > MOST_IN_A_RUN:
        raise InputError(f"{total:,} files are too many for one batch; send at most {MOST_IN_A_RUN:,}.")

    # The models stay those the run began with, whatever is promoted meanwhile.
    report(step=log.names.total(), total=total, message="Loading the model")
    engine = load(rundir.find_model(log.notes.get("model_id") or config.model, "detector"), config.runtime).cutting(config.tile)
    beside = _beside(config.anomaly, log.notes, config.runtime)
    log.note(model_id=engine.model_id, anomaly_model_id=beside.model_id if beside else WITHOUT)
    desk = Desk(config, run_dir.name, engine, beside, clock, unit, count, Keeper())

    # Group after group; each is written while the next is looked at.
    began, before = time.monotonic(), len(log.seen)
    with (files.listing(path) as entries, ThreadPoolExecutor(1, "desk") as writer,
          _looked(desk, path, reading.left(entries, log.names), log, spread if path.is_dir() and path != inbox else None) as looked):
        size, started = log.unfinished or FIRST, began
        written: Future[None] | None = None
        while group := _group(looked, size):
            _wait(written, log, total, report)
            written = writer.submit(desk.write, group, log)
            size = max(1, min(MOST, int(WORTH_S * len(group) / max(time.monotonic() - started, 1e-3))))
            started = time.monotonic()
        _wait(written, log, total, report)

    if not log.names:
        raise InputError(NO_PICTURE.format("what was uploaded" if path == inbox else path))
    report(step=total, total=total, message=_so_far(log))
    for warning in desk.warnings:
        print(warning)
    seconds = time.monotonic() - began
    return dict(log.figures(engine.thresholds), seconds=round(seconds, 3), images_per_s=round((len(log.seen) - before) / seconds, 1),
                floor=desk.floor, warnings=desk.warnings, **_model(engine), **_unusual(beside, log))


@contextmanager
def _looked(desk: "Desk", path: Path, entries: Iterable[Entry | Refusal], log: GroupLog,
            spread: Spread | None) -> Iterator[Iterator[Looked]]:
    """What is found in each of the entries, in their order: by this process, or by others."""
    seen, engine, beside = dict(log.seen), desk.engine, desk.beside
    if spread is not None:
        looker = Looker(engine.model_id, beside.model_id if beside else WITHOUT, desk.config.runtime, engine.tile[0], desk.floor)
        with closing(spread(looker, entries, path)) as found:
            yield looking.first_ones(found, seen)
        return
    with reading.pictures(entries, engine, beside) as items, closing(desk.looked(items, seen)) as looked:
        yield looked


def warm_up() -> None:
    """Load the models in use before there is anything to inspect, and all else that the first picture would wait for: half a second, most
    of it pandas, which PyArrow imports when it first looks at a value."""
    engine = load(rundir.find_model("", "detector"))
    _beside("", {})
    capture.dataset_of()
    with TemporaryDirectory() as scratch:
        picture, log = BytesIO(), GroupLog(Path(scratch))
        Image.new("RGB", (8, 8)).save(picture, "JPEG")
        engine.predict([np.asarray(images.decode(picture.getvalue(), ""))])
        (Path(scratch) / "parts").mkdir()
        log.begin(1, "")
        log.finish([], SCHEMAS["detections"].empty_table(), [dict(file_name="", reason="")], [], [])
        log.figures(engine.thresholds)


def _beside(name: str, notes: dict[str, Any], runtime: str = "auto") -> AnomalyEngine | None:
    """The anomaly model to run too. A run that was begun before there was one goes on without."""
    wanted = WITHOUT if "model_id" in notes else name.strip() or rundir.promoted_model("anomaly")
    return looking.anomaly(notes.get("anomaly_model_id") or wanted, runtime)


class Log(Protocol):
    """Where groups go: a batch's log, or a folder watch's."""

    @property
    def accepted(self) -> int: ...

    def begin(self, size: int, files: str) -> None: ...

    def finish(self, inspections: Rows, detections: pa.Table, refused: Rows, anomalies: Rows, masters: Rows) -> None: ...


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
    cut: int = 0
    shrunk: int = 0

    @property
    def floor(self) -> float:
        return min(FLOOR, *self.engine.thresholds.values())

    @property
    def warnings(self) -> list[str]:
        clock = f"{self.doubtful:,} pictures carry a time before 2000 or in the future: check the camera's clock."
        blind = [self.beside.head.get("threshold_refused") or f"The anomaly model {self.beside.name!r} has no limit of its own: "
                 "its scores are logged, but it calls nothing unusual."] if self.beside and self.beside.threshold is None else []
        large = "1 large picture was" if self.cut == 1 else f"{self.cut:,} large pictures were"
        cut = f"{large} looked at in tiles of {self.engine.tile[0]:,} pixels."
        notes = dict.fromkeys(self.engine.network.notes + (self.beside.network.notes if self.beside else []))
        small = "1 picture was" if self.shrunk == 1 else f"{self.shrunk:,} pictures were"
        shrunk = f"{small} shrunk to less than a {SHRUNK}th: the model does not say at which scale it learned, so small defects may be " \
                 "lost. A tile size (tile) has large pictures looked at in parts."
        told = [(self.doubtful, clock), (self.cut, cut), (self.shrunk, shrunk)]
        return [*notes, *self.keeper.warnings, *(sentence for n, sentence in told if n), *blind]

    def looked(self, items: Iterable[Picture | Refusal], seen: dict[str, str]) -> Generator[Looked]:
        """What the engine says of each picture, in their order; refusals and repeated pictures in their place."""
        return looking.looks(self.engine, looking.without_repeats(items, seen), self.floor)

    def write(self, group: list[Looked], log: Log) -> None:
        """A group into the run's parts, its pictures kept first."""
        log.begin(len(group), _fingerprint(group))
        refused = [dict(file_name=one.item.name, reason=one.item.reason) for one in group if isinstance(one.item, Refusal)]
        pictures = [(one, one.item) for one in group if isinstance(one.item, Picture)]
        ids = inspection_ids(self.run_id, log.accepted + len(pictures))[log.accepted:].tolist()
        anomalies, unusual = self._anomalies(ids, [one for one, _ in pictures])
        self.keeper.look()
        inspections = [self._inspection(i, one, picture, i in unusual) for i, (one, picture) in zip(ids, pictures, strict=True)]
        self.cut += sum(one.cut for one, _ in pictures)
        whole = self.config.tile is None and not self.engine.tile[0]                     # nobody asked for tiles, nor does the model
        if whole and self.engine.head.get("kind", "detector") == "detector":
            self.shrunk += sum(max(p.prepared.width, p.prepared.height) > SHRUNK * self.engine.imgsz for _, p in pictures)
        self.keeper.settle()
        self.doubtful += sum(capture.doubtful(row["captured_at"]) for row in inspections)
        for inspection, anomaly in zip(inspections, anomalies, strict=bool(anomalies)):
            anomaly["anomaly_map"] = anomaly["anomaly_map"] if inspection["kept"] else None
        masters = [imaging.reading(i, self.unit(p.name), p.data, p.name) for i, (_, p) in zip(ids, pictures, strict=True)
                   if self.config.master]
        log.finish(inspections, self._detections(ids, [one.boxes for one, _ in pictures]), refused, anomalies, masters)

    def _anomalies(self, ids: list[int], looked: list[Looked]) -> tuple[Rows, set[int]]:
        """What the anomaly model says of each picture, and which are unusual by its own threshold; nothing where none runs."""
        model = self.beside
        if model is None or not looked:
            return [], set()
        maps = looking.maps_of(model, looked)                                                          # (n, m, m)
        scores = model.scores(maps)
        rows = [dict(inspection_id=i, model_id=model.model_id, anomaly_score=float(score), side=len(seen),
                     anomaly_map=pack_map(seen, *model.map_range)) for i, score, seen in zip(ids, scores, maps, strict=True)]
        limit = np.float32(np.inf if model.threshold is None else model.threshold)             # as the store compares
        return rows, {i for i, score in zip(ids, scores, strict=True) if score >= limit}

    def _inspection(self, inspection_id: int, one: Looked, picture: Picture, is_unusual: bool) -> dict[str, Any]:
        config, engine, boxes = self.config, self.engine, one.boxes
        is_reject = any(confidence >= engine.thresholds[engine.classes[int(k)]] for confidence, k in boxes[:, 4:].tolist())
        kept, share = self.keeper.keep(picture.data, picture.image_id, picture.format, is_reject or is_unusual)
        at, source = self.clock(picture.data, picture.name)
        counted, why = self.count(picture.image_id)
        return dict(inspection_id=inspection_id, plant=config.plant, image_id=picture.image_id, file_name=picture.name,
                    unit_id=self.unit(picture.name), line=config.line, product=config.product, lot=config.lot, camera=config.camera,
                    captured_at=at, captured_source=source, ingested_at=datetime.now(UTC),
                    width=picture.prepared.width, height=picture.prepared.height, model_id=engine.model_id, runtime=one.runtime,
                    counted=counted, not_counted_why=why, kept=kept, kept_share=share)

    def _detections(self, ids: list[int], boxes: list[np.ndarray]) -> pa.Table:
        """Every box, (n, 6) of each picture, as a row of its inspection."""
        found = np.concatenate([np.zeros((0, 6), np.float32), *boxes])
        whose = np.repeat(np.array(ids, np.int64), [len(b) for b in boxes])
        names = pa.array(self.engine.classes, pa.string()).take(pa.array(found[:, 5].astype(np.int64)))
        return pa.table([pa.array(whose), names, *(pa.array(found[:, k]) for k in (4, 0, 1, 2, 3))],
                        names=["inspection_id", "class_name", "confidence", "x1", "y1", "x2", "y2"])


def _group(looked: Iterator[Looked], size: int) -> list[Looked]:
    """The next pictures: so many, or fewer large ones."""
    group, held = list[Looked](), 0
    while len(group) < size and held < MOST_BYTES and (one := next(looked, None)):
        group.append(one)
        held += len(one.item.data) if isinstance(one.item, Picture) else 0
    return group


def _wait(written: "Future[None] | None", log: GroupLog, total: int, report: Report) -> None:
    """Until the group before is written; then say so. One that was cut off is as large again as it was, whatever its bytes."""
    if written is not None:
        written.result()
        report(step=min(log.names.total(), total), total=total, message=_so_far(log))


def _fingerprint(group: Iterable[Looked]) -> str:
    """Names and contents of a group, in short."""
    files = [(one.item.name, one.item.image_id if isinstance(one.item, Picture) else "") for one in group]
    return images.sha256(json.dumps(files).encode())[:16]


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

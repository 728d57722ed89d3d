"""The recipe `shadow`: what would the last days have looked like with another model? Its answer stands beside the trends, never in them.

    run directories ─► kept: which pictures, once and for all ─► threads load and fit ahead ─► engine ─► parts `shadows`

`plan.json` lists the pictures in their order and `shadow.json` says what they are of; both are written before the first picture is
looked at, so a run that was stopped goes on with the same ones. Each picture becomes one row with all that was found in it, in the
plan's order: the rows that are there are the checkpoint, and a part is whole or not there. Every beginning of the plan is spread
evenly over lines and days, so a run that was stopped for good has still looked at a fair sample.
What rejects a picture the store says, by the rules in force. Knows nothing of jobs, of the store, or of the model it is compared with.
"""

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import datetime
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from backend import rundir
from backend.config import Shadow
from backend.data import images
from backend.device import cores
from backend.errors import ImageError, InputError, NotFoundError
from backend.inspection import kept
from backend.inspection.engine import Engine, Prepared, load
from backend.inspection.inspect import FLOOR

MOST, MOST_BYTES = 32, 128 * 10**6      # pictures at once, and what they may take fitted to the network; as many again wait
WRITE_S = 5.0                           # seconds of work in a part: lost at most where the power fails
GONE = "gone"                           # why a picture was not looked at; else what is wrong with its file
NONE_LEFT = ("None of the {pictures:,} pictures that count in these days can be looked at: {unkept:,} were not kept, {gone:,} are not on "
             "disk any more, and the model learned from {learned:,}.")
UNKNOWN = "The dataset that this model learned from is not here any more, so pictures that it knows may be among these."

Report = Callable[..., None]
Seen = tuple[str, Prepared | None, str]         # image id; fitted to the network, or None and why not


def run(config: Shadow, run_dir: Path, report: Report) -> dict[str, Any]:
    # Which model and which pictures, decided once: neither a promotion nor new pictures move a run that goes on.
    head = _plan(config, run_dir, report)
    ids = rundir.read_json(run_dir / "plan.json")
    done = len(_whys(run_dir))
    report(step=done, total=len(ids), message="Loading the model")
    engine, began = load(rundir.find_model(head["model_id"], "detector")), time.monotonic()

    # Picture after picture through the engine; what was looked at is on disk a few seconds later, also when a person stops the run.
    with ThreadPoolExecutor(cores(), "decode") as pool, _Writer(run_dir, config.plant, engine) as writer:
        size = max(1, min(MOST, MOST_BYTES // (3 * engine.imgsz**2)))
        ahead = _ahead(pool, engine, ids[done:], size)
        while some := list(islice(ahead, size)):
            writer.add(some)
            report(step=done + writer.rows, total=len(ids), message=f"{done + writer.rows:,} pictures looked at")

    # Every planned picture has its row now.
    whys, seconds = _whys(run_dir), time.monotonic() - began
    gone, looked = whys.count(GONE), whys.count("")
    return dict(head, looked=looked, gone=head["gone"] + gone, damaged=len(whys) - looked - gone, runtime=engine.runtime,
                seconds=round(seconds, 3), images_per_s=round((len(ids) - done) / seconds, 1), notes=_notes(head))


def _plan(config: Shadow, run_dir: Path, report: Report) -> dict[str, Any]:
    """What `shadow.json` says; it is made, and the list of pictures before it, where the run begins."""
    path = run_dir / "shadow.json"
    if path.exists():
        return dict(rundir.read_json(path))
    report(step=0, total=1, message="Looking for the pictures")
    folder = rundir.find_model(config.model, "detector")
    model, learned = rundir.read_json(folder / "model.json"), learned_from(folder)
    asked_at = datetime.fromisoformat(rundir.read_json(run_dir / "job.json")["created_at"])
    chosen = kept.choose(config, asked_at, learned or set())
    if not chosen.images:
        raise InputError(NONE_LEFT.format(**chosen.figures()))
    head = dict(model_id=model["model_id"], model_name=model["name"], plant=config.plant, line=config.line, product=config.product,
                days=config.days, **chosen.figures(), planned=len(chosen.images), knows_its_dataset=learned is not None)
    rundir.write_json(run_dir / "plan.json", chosen.images)
    rundir.write_json(path, head)
    return head


def learned_from(folder: Path) -> set[str] | None:
    """Pictures that a model learned from or had its thresholds chosen on: it would do better on them than on new ones. None where its
    dataset is gone; the model that comes with the program learned from drawn pictures that no plant has."""
    snapshot_id = rundir.read_json(folder / "model.json").get("snapshot_id")
    if not snapshot_id:
        return set()
    try:
        rows = rundir.rows(rundir.find_snapshot(snapshot_id), "snapshot_images").select(["image_id", "split"]).to_pylist()
    except NotFoundError:
        return None if folder.parent.parent == rundir.runs_root() else set()
    return {r["image_id"] for r in rows if r["split"] != "test"}


def _ahead(pool: ThreadPoolExecutor, engine: Engine, ids: Iterable[str], size: int) -> Iterator[Seen]:
    """Pictures fitted to the network, in their order; so many more are on their way."""
    waiting: deque[Future[Seen]] = deque()
    for image_id in ids:
        waiting.append(pool.submit(_look, engine, image_id))
        if len(waiting) > size:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()


def _look(engine: Engine, image_id: str) -> Seen:
    """In a thread."""
    try:
        return image_id, engine.prepare(np.asarray(images.load(image_id))), ""
    except (NotFoundError, FileNotFoundError):
        return image_id, None, GONE
    except ImageError as error:
        return image_id, None, str(error)


class _Writer:
    """Gathers rows into parts of some seconds' work; leaving writes the rest, however it is left."""

    def __init__(self, run_dir: Path, plant: str, engine: Engine) -> None:
        self._dir, self._plant, self._engine = run_dir, plant, engine
        self._floor = min(FLOOR, *engine.thresholds.values())
        self._waiting: list[dict[str, Any]] = []
        self._since, self.rows = time.monotonic(), 0

    def __enter__(self) -> "_Writer":
        return self

    def __exit__(self, *how: object) -> None:
        self._flush()

    def add(self, some: list[Seen]) -> None:
        found = iter(self._engine.detect([p for _, p, _ in some if p is not None], self._floor))
        self._waiting += [dict(plant=self._plant, image_id=image_id, model_id=self._engine.model_id, why=why,
                               boxes=[] if prepared is None else [self._box(b) for b in next(found).tolist()])
                          for image_id, prepared, why in some]
        self.rows += len(some)
        if time.monotonic() - self._since >= WRITE_S:
            self._flush()

    def _box(self, box: list[float]) -> dict[str, Any]:
        x1, y1, x2, y2, confidence, class_id = box
        return dict(class_name=self._engine.classes[int(class_id)], confidence=confidence, x1=x1, y1=y1, x2=x2, y2=y2)

    def _flush(self) -> None:
        rundir.write_part(self._dir, "shadows", self._waiting)
        self._waiting, self._since = [], time.monotonic()


def _whys(run_dir: Path) -> list[str]:
    """Of each picture that has its row, why it was not looked at; '' where it was."""
    whys: list[str] = []
    for part in rundir.parts(run_dir, "shadows"):
        whys += rundir.read_part(part, ["why"])["why"].to_pylist()
    return whys


def _notes(head: dict[str, Any]) -> list[str]:
    """What a person should know before trusting it."""
    return [] if head["knows_its_dataset"] else [UNKNOWN]

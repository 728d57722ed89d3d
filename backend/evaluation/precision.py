"""Does a faster arithmetic change what a model finds? Measured before it is put to use, never on test. Also the recipe `measure-precision`.

    end of a training, or the recipe for a model that is there ─► the same pictures in float32 and in bf16 ─► precision.json ─► engine
                                                                  (in int8, where there is no bf16 or it may not)

bf16 keeps 8 bits of a number and takes 0.45 of the time; int8 counts in bytes and takes 0.6, on processors that have no bf16 too.
Mostly nobody notices; of three weak models bf16 moved one by half a point of map50. So the model decides it and not the processor alone,
by what an engineer would look at, in this order:

    val     images of the model's dataset with their labels: no figure may move by more than `MOVED`
    kept    where that dataset is not here, the newest pictures that inspections kept: verdicts may differ on 0.2 % of them, and
            float32's sure boxes are the truth for the other's. How closely boxes lie is not asked: it would be word against word
    none    nothing is written down, and the engine keeps to float32, see `inspection.precision`

int8 is scaled by other pictures than it is measured on: train images, or kept ones apart. Of a classifier, which has no boxes, verdicts are
compared on the same pictures. A few hundred pictures and a minute at most: they come in an order drawn from their names, so those that were
looked at are a fair sample. Knows nothing of training or of who inspects.
"""

import hashlib
import re
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from backend import rundir
from backend.config import MeasurePrecision
from backend.data import demo, images, snapshot
from backend.errors import ConfigError, DiffspectError, InputError, NotFoundError, ResourceError
from backend.evaluation import detection, looks
from backend.evaluation.detection import Prediction, Truth
from backend.inspection import int8, precision, runtimes
from backend.inspection.classifier_engine import ClassifierEngine
from backend.inspection.engine import Engine, kind_in

MOVED = {"map50": 0.2, "map50_95": 0.5, "verdicts": 0.2}      # points that a figure may move by
MOST, CHUNK = 300, 16                                        # pictures; so many decoded at once
BUDGET_S, LEAST = 60.0, 32                                   # seconds, once so many pictures were looked at: large ones take long
EXACT = "openvino-f32"
NOTHING = ("There is no picture to measure on: neither val images of the model's dataset nor pictures that inspections kept. "
           "The model is inspected with in float32.")
NO_SCALE = "Beside the pictures to measure on there are none that int8 could be scaled by."
NO_CHOICE = "This processor computes neither bf16 nor int8 by itself, so there is nothing to choose: float32 is used here."


@dataclass(frozen=True)
class Pictures:
    """What is looked at. `truth`: labels by name; empty where there are none."""

    on: str                                      # val | kept
    names: list[str] = field(default_factory=list)
    load: Callable[[str], np.ndarray] = lambda name: np.asarray(images.load(name))       # (H, W, 3) RGB uint8
    truth: Truth = field(default_factory=dict)
    learned: list[str] = field(default_factory=list)         # others, for int8 to be scaled by


def decide(bundle: Path, pictures: Pictures, most: int = MOST, tell: Callable[[int, int], None] = lambda n, total: None,
           arithmetic: str = "auto") -> dict[str, Any] | None:
    """Measure and write it down beside the bundle: {model_id, bf16 (whether), on, images, points ({figure: [float32, bf16]}), runtime,
    measured_at}, and under int8 the same of it, with `allowed` for whether.

    `auto`: the arithmetics of this machine, the fastest first, until one may be used. None, and nothing written, where there is none or
    the pictures tell nothing.
    """
    record = None
    for one in runtimes.faster() if arithmetic == "auto" else [arithmetic]:
        try:
            if one == "int8":
                _make_int8(bundle, pictures)
        except InputError as problem:
            if arithmetic != "auto":
                raise
            print(problem, flush=True)
            continue
        if (found := _measured(bundle, one, pictures, most, tell)) is None:
            break
        record = _written(bundle, one, found)
        if found["allowed"]:
            break
    return record


def _measured(bundle: Path, arithmetic: str, pictures: Pictures, most: int, tell: Callable[[int, int], None]) -> dict[str, Any] | None:
    engines = [_opened(bundle, runtime) for runtime in (EXACT, f"openvino-{arithmetic}")]
    looked, found = _answers(engines, pictures, most, tell)
    figures = _figures(engines[0], pictures, looked, found)
    if not figures:
        return None
    points = {name: [round(100 * value, 2) for value in both] for name, both in figures.items()}
    return dict(allowed=all(abs(a - b) <= MOVED[name] + 1e-9 for name, (a, b) in points.items()), on=pictures.on, images=len(looked),
                points=points, runtime=engines[1].runtime, measured_at=rundir.now())


def _written(bundle: Path, arithmetic: str, found: dict[str, Any]) -> dict[str, Any]:
    """The record with what was found now; what it says of the other arithmetic stays."""
    model_id = rundir.read_json(bundle / "model.json")["model_id"]
    record = dict(precision.said(bundle, model_id), model_id=model_id)
    if arithmetic == "int8":
        record["int8"] = found | dict(sha256=record["int8"]["sha256"])
    else:
        record |= {"bf16" if name == "allowed" else name: value for name, value in found.items()}
    precision.keep(bundle, record)
    return record


def _make_int8(bundle: Path, pictures: Pictures) -> None:
    """Put the int8 form beside the bundle, not to be used yet. Raises InputError where none can be made."""
    if not pictures.learned:
        raise InputError(NO_SCALE)
    engine, model_id = _opened(bundle, EXACT), rundir.read_json(bundle / "model.json")["model_id"]
    names = sorted(pictures.learned, key=_lot)[:int8.PICTURES]

    def shown() -> Iterator[np.ndarray]:
        for name in names:
            yield from (part.pixels for part in engine.prepare(pictures.load(name)).parts[:1])

    form = int8.made((bundle / "model.onnx").read_bytes(), engine.name, shown())
    record = dict(precision.said(bundle, model_id), model_id=model_id)
    precision.keep(bundle, record | dict(int8=dict(allowed=False, sha256=precision.keep_int8(bundle, form))))


def after_training(bundle: Path, pictures: Pictures) -> None:
    """`decide`, where a failure must not cost the training: the model is then inspected with in float32, and the log says why."""
    try:
        decide(bundle, pictures)
    except DiffspectError as problem:
        print(f"No faster arithmetic was compared with float32: {problem}", flush=True)


def _lot(name: str) -> bytes:
    return hashlib.sha256(name.encode()).digest()


def _opened(bundle: Path, runtime: str) -> Engine:
    return (ClassifierEngine if kind_in(bundle) == ClassifierEngine.kind else Engine)(bundle, runtime)


def _answers(engines: Sequence[Engine], pictures: Pictures, most: int, tell: Callable[[int, int], None],
             ) -> tuple[list[str], list[list[Prediction]]]:
    """Which pictures were looked at, and what each engine found in them, from confidence 0.001 on. Decoded once for all."""
    order = sorted(pictures.names, key=_lot)[:most]
    until, looked, found = time.monotonic() + BUDGET_S, list[str](), [list[Prediction]() for _ in engines]
    for start in range(0, len(order), CHUNK):
        if start >= LEAST and time.monotonic() > until:
            break
        tell(start, len(order))
        some = order[start:start + CHUNK]
        shown = {name: pictures.load(name) for name in some}
        for engine, answers in zip(engines, found, strict=True):
            answers += detection.answers(engine, some, shown.__getitem__, lambda n: None)
        looked += some
    return looked, found


def _figures(engine: Engine, pictures: Pictures, looked: list[str], found: list[list[Prediction]]) -> dict[str, list[float]]:
    """Figures from 0 to 1 of float32 and of the other; empty where there is nothing to tell by."""
    if pictures.truth and engine.kind == "detector":
        truth = {name: pictures.truth[name] for name in looked}
        scored = [detection.evaluate(some, truth, engine.classes) for some in found]
        return {name: [s[name] for s in scored] for name in ("map50", "map50_95")} if any(truth.values()) else {}
    sure = [[p for p in some if p["score"] >= engine.thresholds[p["category"]]] for some in found]
    figures = {"verdicts": [1.0, _alike(sure[0], sure[1], looked)]} if looked else {}
    if engine.kind == "detector" and sure[0]:
        truth = {name: [(p["category"], p["bbox"]) for p in sure[0] if p["file_name"] == name] for name in looked}
        figures["map50"] = [detection.evaluate(some, truth, engine.classes)["map50"] for some in found]
    return figures


def _alike(a: list[Prediction], b: list[Prediction], names: list[str]) -> float:
    """Share of the pictures that both reject for the same kinds of defect, or both pass."""
    kinds = [{name: {p["category"] for p in sure if p["file_name"] == name} for name in names} for sure in (a, b)]
    return sum(kinds[0][name] == kinds[1][name] for name in names) / len(names)


# ---- the recipe, for models that were made before this was measured

def run(config: MeasurePrecision, run_dir: Path, report: Any) -> dict[str, Any]:
    """Measure a model that is there. Raises ConfigError where there is nothing to choose, InputError where there is nothing to look at."""
    folder = rundir.find_model(config.model, "detector")
    head = rundir.read_json(folder / "model.json")
    if not (there := runtimes.faster()):
        raise ConfigError(NO_CHOICE)
    if config.arithmetic not in ("auto", *there):
        raise ConfigError(f"This processor does not compute {config.arithmetic} by itself. Choose auto, or {' or '.join(there)}.")
    report(step=0, total=config.pictures, message="Looking for pictures")
    pictures = material(head, config.pictures)
    try:
        record = decide(folder, pictures, config.pictures, lambda n, total: report(
            step=n, total=total, message=f"image {n + 1} of {total}"), config.arithmetic)
    except OSError as error:
        raise ResourceError(f"What was measured could not be written beside the model: {error.strerror}.") from error
    if record is None:
        raise InputError(NOTHING)
    return dict(record, model_name=head["name"])


def material(head: dict[str, Any], most: int = MOST) -> Pictures:
    """What there is to look at with a model of this description. Raises InputError."""
    known = _val(head)
    if known.names and (any(known.truth.values()) or rundir.kind_of(head) == "classifier"):
        return known
    kept = _kept(most + int8.PICTURES)
    if not kept:
        raise InputError(NOTHING)
    apart = kept[LEAST:][-int8.PICTURES:] if len(kept) >= LEAST + int8.PICTURES else []
    return Pictures("kept", sorted(set(kept) - set(apart)), learned=apart)


def _val(head: dict[str, Any]) -> Pictures:
    """Val images of the dataset that the model comes from, as far as their files are here."""
    snapshot_id = str(head.get("snapshot_id") or "")
    if drawn := re.fullmatch(r"demo-(\d+)-(\d+)", snapshot_id):          # of the model that comes with the program: drawn anew
        plates = demo.split_ids(int(drawn[1]), int(drawn[2]))
        truth: Truth = {i: [(c, [x1, y1, x2 - x1, y2 - y1]) for c, x1, y1, x2, y2 in demo.boxes(i)] for i in plates["val"]}
        return Pictures("val", plates["val"], truth=truth, learned=plates["train"])
    try:
        data = snapshot.read(rundir.find_snapshot(snapshot_id))
    except NotFoundError:
        return Pictures("val")
    ids = {split: {p.file_name: p.image_id for p in data.by_split(split)} for split in ("val", "train")}
    there = {split: [n for n, i in own.items() if i.startswith("demo:") or images.path_of(i)] for split, own in ids.items()}
    every = ids["train"] | ids["val"]
    return Pictures("val", there["val"], lambda name: np.asarray(images.load(every[name])), looks.truth(data, "val"), there["train"])


def _kept(most: int) -> list[str]:
    """Ids of the newest pictures that inspections kept."""
    found: dict[str, None] = {}
    for part in (part for run in rundir.find("inspect", "watch") for part in rundir.parts(run, "inspections")[::-1]):
        rows = rundir.read_part(part, ["image_id", "kept"]).to_pylist()
        found |= {r["image_id"]: None for r in rows if r["kept"] and images.path_of(r["image_id"])}
        if len(found) >= most:
            break
    return list(found)[:most]

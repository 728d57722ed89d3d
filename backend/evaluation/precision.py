"""Does bf16 change what a model finds? Measured before the model is put to use, never on test. Also the recipe `measure-precision`.

    end of a training, or the recipe for a model that is there ─► the same pictures in float32 and in bf16 ─► precision.json ─► engine

bf16 keeps 8 bits of a number and takes 0.6 of the time. Mostly nobody notices; of three weak models it moved one by half a point of
map50. So the model decides it and not the processor alone, by what an engineer would look at, in this order:

    val     images of the model's dataset with their labels: no figure may move by more than `MOVED`
    kept    where that dataset is not here, the newest pictures that inspections kept: verdicts may differ on 0.2 % of them, and
            float32's sure boxes are the truth for bf16's. How closely boxes lie is not asked: it would be one's word against the other's
    none    nothing is written down, and the engine keeps to float32, see `inspection.precision`

Of a classifier, which has no boxes, verdicts are compared on the same pictures. A few hundred pictures and a minute at most: they come
in an order drawn from their names, so those that were looked at are a fair sample. Knows nothing of training or of who inspects.
"""

import hashlib
import re
import time
from collections.abc import Callable, Sequence
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
from backend.inspection import precision, runtimes
from backend.inspection.classifier_engine import ClassifierEngine
from backend.inspection.engine import Engine, kind_in

MOVED = {"map50": 0.2, "map50_95": 0.5, "verdicts": 0.2}      # points that a figure may move by
MOST, CHUNK = 300, 16                                        # pictures; so many decoded at once
BUDGET_S, LEAST = 60.0, 32                                   # seconds, once so many pictures were looked at: large ones take long
ASKED = ("openvino-f32", "openvino-bf16")
NOTHING = ("There is no picture to measure on: neither val images of the model's dataset nor pictures that inspections kept. "
           "The model is inspected with in float32.")


@dataclass(frozen=True)
class Pictures:
    """What is looked at. `truth`: labels by name; empty where there are none."""

    on: str                                      # val | kept
    names: list[str] = field(default_factory=list)
    load: Callable[[str], np.ndarray] = lambda name: np.asarray(images.load(name))       # (H, W, 3) RGB uint8
    truth: Truth = field(default_factory=dict)


def decide(bundle: Path, pictures: Pictures, most: int = MOST, tell: Callable[[int, int], None] = lambda n, total: None,
           ) -> dict[str, Any] | None:
    """Measure and write it down beside the bundle: model_id, bf16, on, images, points ({figure: [float32, bf16]}), runtime, measured_at.

    None, and nothing written, where this machine has no bf16 or the pictures tell nothing.
    """
    if not runtimes.has_bf16():
        return None
    engines = [_opened(bundle, runtime) for runtime in ASKED]
    looked, found = _answers(engines, pictures, most, tell)
    figures = _figures(engines[0], pictures, looked, found)
    if not figures:
        return None
    points = {name: [round(100 * value, 2) for value in both] for name, both in figures.items()}
    record = dict(model_id=engines[0].model_id, bf16=all(abs(a - b) <= MOVED[name] + 1e-9 for name, (a, b) in points.items()),
                  on=pictures.on, images=len(looked), points=points, runtime=engines[1].runtime, measured_at=rundir.now())
    precision.keep(bundle, record)
    return record


def after_training(bundle: Path, pictures: Pictures) -> None:
    """`decide`, where a failure must not cost the training: the model is then inspected with in float32, and the log says why."""
    try:
        decide(bundle, pictures)
    except DiffspectError as problem:
        print(f"bf16 was not compared with float32: {problem}", flush=True)


def _opened(bundle: Path, runtime: str) -> Engine:
    return (ClassifierEngine if kind_in(bundle) == ClassifierEngine.kind else Engine)(bundle, runtime)


def _answers(engines: Sequence[Engine], pictures: Pictures, most: int, tell: Callable[[int, int], None],
             ) -> tuple[list[str], list[list[Prediction]]]:
    """Which pictures were looked at, and what each engine found in them, from confidence 0.001 on. Decoded once for all."""
    order = sorted(pictures.names, key=lambda name: hashlib.sha256(name.encode()).digest())[:most]
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
    """Figures from 0 to 1 of float32 and of bf16; empty where there is nothing to tell by."""
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
    if not runtimes.has_bf16():
        raise ConfigError("This processor does not compute bf16 by itself, so there is nothing to choose: float32 is used here.")
    report(step=0, total=config.pictures, message="Looking for pictures")
    pictures = material(head, config.pictures)
    try:
        record = decide(folder, pictures, config.pictures, lambda n, total: report(
            step=n, total=total, message=f"image {n + 1} of {total}"))
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
    kept = Pictures("kept", _kept(most))
    if not kept.names:
        raise InputError(NOTHING)
    return kept


def _val(head: dict[str, Any]) -> Pictures:
    """Val images of the dataset that the model comes from, as far as their files are here."""
    snapshot_id = str(head.get("snapshot_id") or "")
    if drawn := re.fullmatch(r"demo-(\d+)-(\d+)", snapshot_id):          # of the model that comes with the program: drawn anew
        plates = demo.split_ids(int(drawn[1]), int(drawn[2]))["val"]
        return Pictures("val", plates, truth={i: [(c, [x1, y1, x2 - x1, y2 - y1]) for c, x1, y1, x2, y2 in demo.boxes(i)] for i in plates})
    try:
        data = snapshot.read(rundir.find_snapshot(snapshot_id))
    except NotFoundError:
        return Pictures("val")
    ids = {p.file_name: p.image_id for p in data.by_split("val")}
    names = [name for name, i in ids.items() if i.startswith("demo:") or images.path_of(i)]
    return Pictures("val", names, lambda name: np.asarray(images.load(ids[name])), looks.truth(data, "val"))


def _kept(most: int) -> list[str]:
    """Ids of the newest pictures that inspections kept."""
    found: dict[str, None] = {}
    for part in (part for run in rundir.find("inspect", "watch") for part in rundir.parts(run, "inspections")[::-1]):
        rows = rundir.read_part(part, ["image_id", "kept"]).to_pylist()
        found |= {r["image_id"]: None for r in rows if r["kept"] and images.path_of(r["image_id"])}
        if len(found) >= most:
            break
    return list(found)[:most]

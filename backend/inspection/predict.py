"""The recipe `predict`: what a model says of a list of pictures, in the form that scorers read.

A detector gives every box, a classifier the probabilities, an anomaly model a map and a score of each picture. Knows nothing of
batches, of the store, or of what a box or a score means.
"""

import json
import time
from collections import defaultdict
from collections.abc import Callable
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from backend import rundir
from backend.config import Predict
from backend.data import files, images
from backend.data.files import Entry, Refusal
from backend.errors import ConfigError, InputError
from backend.inspection import reading
from backend.inspection.anomaly_engine import AnomalyEngine, enlarged, load_anomaly
from backend.inspection.classifier_engine import ClassifierEngine
from backend.inspection.engine import Engine, Prepared, load
from backend.inspection.grouplog import Rows
from backend.inspection.inspect import MOST, NO_PICTURE
from backend.inspection.reading import Picture

SCORER_FLOOR = 0.001

Report = Callable[..., None]


def run(config: Predict, run_dir: Path, report: Report) -> dict[str, Any]:
    """Write what the model says of each picture into the folder `out`, in the order of the files."""
    path, out = reading.place(config.images), Path(config.out).expanduser()
    if not config.out.strip():
        raise ConfigError("Choose a folder to write predictions.json, or maps and scores.json, into (out).")
    report(step=0, total=images.count(path), message="Loading the model")
    answers = _answers(rundir.find_model(config.model), out, config)
    began, seen = time.monotonic(), 0
    refused: Rows = []
    with files.listing(path) as listed:
        entries = _chosen(listed, Path(config.list).expanduser(), path) if config.list else listed
        with reading.pictures(entries, answers) as found:
            while group := list(islice(found, MOST)):
                seen += len(group)
                answers.take([g for g in group if isinstance(g, Picture)])
                refused += [dict(file_name=g.name, reason=g.reason) for g in group if isinstance(g, Refusal)]
                report(step=min(seen, len(entries)), total=len(entries), message=f"{seen} pictures")
    if not seen:
        raise InputError(NO_PICTURE.format(path))
    said, engine, seconds = answers.write(), answers.engine, time.monotonic() - began
    return dict(said, images=seen - len(refused), refused=refused, seconds=round(seconds, 3),
                images_per_s=round((seen - len(refused)) / seconds, 1),
                model_id=engine.model_id, model_name=engine.name, runtime=engine.runtime)


def _answers(folder: Path, out: Path, config: Predict) -> "Boxes | Probabilities | Maps":
    """What takes pictures and keeps what the model of this folder says of them."""
    kind = rundir.kind_of(rundir.read_json(folder / "model.json"))
    if kind != "detector" and config.tile:
        raise ConfigError("Only a detector looks at pictures in tiles. Leave the setting tile away.")
    if kind == "anomaly":
        return Maps(load_anomaly(folder, config.runtime), out)
    engine = load(folder, config.runtime)
    return Probabilities(engine, out) if isinstance(engine, ClassifierEngine) else Boxes(engine.cutting(config.tile), out)


class Boxes:
    """`predictions.json`: up to 300 boxes a picture from confidence 0.001."""

    def __init__(self, engine: Engine, out: Path) -> None:
        self.engine, self.imgsz, self.prepare = engine, engine.imgsz, engine.prepare
        self.out, self.rows = out, list[dict[str, Any]]()

    def take(self, group: list[Picture]) -> None:
        found = self.engine.detect([p.prepared for p in group], SCORER_FLOOR)
        self.rows += [dict(file_name=p.name, category=self.engine.classes[int(k)], score=round(score, 6),
                           bbox=[round(v, 3) for v in (x1, y1, x2 - x1, y2 - y1)])
                      for p, boxes in zip(group, found, strict=True) for x1, y1, x2, y2, score, k in boxes.tolist()]

    def write(self) -> dict[str, Any]:
        self.out.mkdir(parents=True, exist_ok=True)
        rundir.write_bytes(self.out / "predictions.json", json.dumps(self.rows).encode())
        return dict(path=str(self.out / "predictions.json"), boxes=len(self.rows), floor=SCORER_FLOOR)


class Probabilities:
    """`predictions.json`: of each picture the likeliest class, its probability as the score, and the probabilities of all."""

    def __init__(self, engine: ClassifierEngine, out: Path) -> None:
        self.engine, self.imgsz, self.prepare = engine, engine.imgsz, engine.prepare
        self.out, self.rows = out, list[dict[str, Any]]()

    def take(self, group: list[Picture]) -> None:
        names = self.engine.all_classes
        for picture, row in zip(group, self.engine.probabilities([p.prepared for p in group]).tolist(), strict=True):
            told = {name: round(p, 6) for name, p in zip(names, row, strict=True)}
            likeliest = names[row.index(max(row))]
            self.rows.append(dict(file_name=picture.name, category=likeliest, score=told[likeliest], probabilities=told))

    def write(self) -> dict[str, Any]:
        self.out.mkdir(parents=True, exist_ok=True)
        rundir.write_bytes(self.out / "predictions.json", json.dumps(self.rows).encode())
        return dict(path=str(self.out / "predictions.json"), classes=self.engine.all_classes)


class Maps:
    """`<relative path without ending>.npy`, a map of the network's input side each, and `scores.json`, written last."""

    def __init__(self, engine: AnomalyEngine, out: Path) -> None:
        self.engine, self.imgsz, self.out, self.scores = engine, engine.imgsz, out, dict[str, float]()

    def prepare(self, image: np.ndarray) -> Prepared:
        height, width = image.shape[:2]
        return Prepared(self.engine.prepare(image), width, height, (self.imgsz / width, self.imgsz / height), (0, 0))

    def take(self, group: list[Picture]) -> None:
        maps = self.engine.maps([p.prepared.pixels for p in group])
        for picture, anomaly_map, score in zip(group, maps, self.engine.scores(maps).tolist(), strict=True):
            stem = _stem(picture.name)
            if stem in self.scores:
                raise InputError(f"Two pictures are called {stem}, with different endings; their maps would be one file. Use a list.")
            self.scores[stem] = score
            file = self.out / f"{stem}.npy"
            file.parent.mkdir(parents=True, exist_ok=True)
            np.save(file, enlarged(anomaly_map, self.imgsz, self.imgsz).astype(np.float16))

    def write(self) -> dict[str, Any]:
        rundir.write_json(self.out / "scores.json", self.scores)
        return dict(path=str(self.out / "scores.json"), maps=len(self.scores))


def _stem(name: str) -> str:
    """A picture's relative path without its ending; the one place where a name from outside becomes a path."""
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts:
        raise InputError(f"No map can be written for {name}: its name points outside the folder.")
    return str(path.with_suffix(""))


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

"""How long a person waits on the comparison page at size: 500 runs of 1,000 epochs and a million stored predictions.

    python -m tests.benchmarks.comparison_size [--keep FOLDER] [--first]

Builds such a data folder of run directories, as trainings leave them, takes it in, and asks what the page asks, each time with other
runs and thresholds. Two of the runs were scored on 20,000 test images with 100,000 answers each, the rest on 400 images. Measured in
the process, as the page does, but without the drawing. The figures join those of `tests.benchmarks.comparison` in
results/comparison.json.
"""

import argparse
import json
import os
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from backend import rundir
from backend.store import comparison, contests, ingest, worth
from backend.store.database import Database
from tests.benchmarks.record import join

RUNS, EPOCHS, CLASSES = 500, 1000, ["crazing", "inclusion", "patches", "pitted", "scale", "scratches"]
CURVES = ("box_loss", "cls_loss", "dfl_loss", "val_box_loss", "val_cls_loss", "val_dfl_loss", "map50", "map50_95", "learning_rate")
SMALL, LARGE = (400, 800_000 // (RUNS - 2)), (20_000, 100_000)      # test images, and stored predictions of a run on them
ASKED = 40                                                          # times each question is asked
BEGAN = datetime(2026, 1, 1, tzinfo=UTC)


# ---- the data folder

def build(rng: np.random.Generator, runs: int = RUNS, epochs: int = EPOCHS, small: tuple[int, int] = SMALL,
          large: tuple[int, int] = LARGE) -> None:
    sets = {name: (*dataset(name, images, rng), predictions) for name, (images, predictions) in (("small", small), ("large", large))}
    for i in range(runs):
        training(i, "large" if i < 2 else "small", epochs, *sets["large" if i < 2 else "small"], rng)


def dataset(name: str, images: int, rng: np.random.Generator) -> tuple[list[str], np.ndarray]:
    """An imported snapshot: names of its test images, and their true boxes (n, 7): image, class, x1, y1, x2, y2, and which one of its class
    in its image it is. A fifth of the images is good."""
    run = rundir.create("import", {"name": name})
    splits = ["train"] * 1260 + ["val"] * 180 + ["test"] * images
    names = [f"{name}-{i}".encode().hex().ljust(64, "0") for i in range(len(splits))]
    boxes = np.array([(i, int(rng.integers(6)), *box(rng)) for i in range(images) if i % 5 for _ in range(int(rng.integers(1, 4)))])
    boxes = boxes[np.lexsort(boxes[:, [2, 1, 0]].T)]                                                 # by image, class, x1
    starts = np.flatnonzero(np.any(np.diff(boxes[:, :2], axis=0, prepend=-1), axis=1))
    boxes = np.column_stack([boxes, np.arange(len(boxes)) - np.repeat(starts, np.diff(starts, append=len(boxes)))])
    rundir.write_part(run, "snapshots", [dict(snapshot_id=name, name=name, layout="yolo", created_at=BEGAN, classes=CLASSES, seed=0,
                                              splits_from="lists", images=len(names), labels=len(boxes), refused=0, test_set_id=name)])
    rundir.write_part(run, "snapshot_images", [dict(snapshot_id=name, image_id=n, file_name=f"{n[:24]}.png", split=s, origin="real",
                                                    parent="", generator_run="", width=640, height=640, group_id="", phash="")
                                               for n, s in zip(names, splits, strict=True)])
    rundir.write_part(run, "labels", [dict(snapshot_id=name, image_id=names[1440 + int(i)], class_name=CLASSES[int(c)], x1=x1, y1=y1, x2=x2,
                                           y2=y2, source="box") for i, c, x1, y1, x2, y2, _ in boxes])
    rundir.set_state(run, "completed", finished_at=rundir.now())
    return names[1440:], boxes


def box(rng: np.random.Generator) -> tuple[float, ...]:
    x, y = rng.uniform(0, 500, 2)
    w, h = rng.uniform(20, 140, 2)
    return round(x, 3), round(y, 3), round(x + w, 3), round(y + h, 3)


def training(i: int, dataset: str, epochs: int, images: list[str], boxes: np.ndarray, predictions: int, rng: np.random.Generator) -> None:
    """A finished training, its curves and its answers."""
    settings, model_id = dict(dataset=dataset, name=f"model {i}", seed=i % 5, epochs=epochs, origin="both"), f"{i:016x}"
    run = rundir.create("train-detector", settings)
    lines = [json.dumps({"step": e, "at_s": 30.0 * e, **{c: round(float(v), 5) for c, v in zip(CURVES, row, strict=True)}})
             for e, row in enumerate(rng.random((epochs, len(CURVES))), 1)]
    (run / "metrics.jsonl").write_text("\n".join(lines) + "\n")
    figures = dict.fromkeys(("val", "test"), dict(map50=0.6, map50_95=0.3, ap50=dict.fromkeys(CLASSES, 0.6), false_rejects=0.1))
    rundir.write_part(run, "models", [dict(model_id=model_id, name=settings["name"], kind="detector", created_at=BEGAN + timedelta(hours=i),
                                           snapshot_id=dataset, imgsz=640, classes=CLASSES, metrics=json.dumps(figures),
                                           settings=json.dumps(settings))])
    rundir.write_part(run, "model_thresholds", [dict(model_id=model_id, class_name=c, threshold=0.3) for c in CLASSES])
    rundir.write_part(run, "predictions", answers(model_id, images, boxes, predictions, rng))
    rundir.write_part(run, "looks", [dict(model_id=model_id, snapshot_id=dataset, test_set_id=dataset, split="test", images=len(images),
                                          good_images=len(images) // 5, boxes=len(boxes), looked_at=BEGAN + timedelta(hours=i),
                                          classes=CLASSES, thresholds=[0.3] * len(CLASSES))])
    rundir.write_json(run / "result.json", dict(model_id=model_id, dataset=dataset, real_images=1260, synthetic_images=0, steps=79_000))
    rundir.set_state(run, "completed", started_at=rundir.now(), finished_at=rundir.now())


def answers(model_id: str, images: list[str], boxes: np.ndarray, n: int, rng: np.random.Generator) -> pa.Table:
    """Most true boxes hit, once each, and false ones until there are n; by image, as trainings write them."""
    hit = np.flatnonzero(rng.random(len(boxes)) < 0.8)
    false = np.array([(int(rng.integers(len(images))), int(rng.integers(6)), *box(rng), -1) for _ in range(n - len(hit))])
    rows = np.concatenate([boxes[hit], false])
    sure = np.concatenate([rng.beta(4, 2, len(hit)), rng.beta(1, 5, len(false))]) * 0.95 + 0.05
    order = np.lexsort((-sure, rows[:, 1], rows[:, 0]))
    rows, sure = rows[order], sure[order]
    return pa.table({"model_id": [model_id] * n, "split": ["test"] * n, "image_id": [images[int(i)] for i in rows[:, 0]],
                     "class_name": [CLASSES[int(c)] for c in rows[:, 1]], "confidence": sure.astype(np.float32),
                     **{c: rows[:, k].astype(np.float32) for k, c in enumerate(("x1", "y1", "x2", "y2"), 2)},
                     "hits": (rows[:, 6] >= 0).astype(np.int32) * 31, "hit_box": rows[:, 6].astype(np.int32)})


# ---- the questions

def questions(db: Database, rng: np.random.Generator) -> dict[str, Callable[[], Any]]:
    """What an interaction asks, each time of other runs, images and thresholds. The larger test set has two runs."""
    runs = comparison.scored_runs(db)
    small, large = (runs[runs["test_set_id"] == name]["run_id"].tolist() for name in ("small", "large"))
    images = {one: comparison.test_images(db, runs[0])["image_id"].tolist() for one, runs in (("small", small), ("large", large))}

    def some(n: int) -> list[str]:
        return [str(r) for r in rng.choice(small, n, replace=False)]

    def contest(pair: list[str]) -> Any:
        kind, at = str(rng.choice(contests.KINDS)), float(rng.uniform(0.05, 0.9))
        return contests.contest(db, *pair, at, at, kind, str(rng.choice(["", *CLASSES])), 24, 24 * int(rng.integers(4)))

    asked: dict[str, Callable[[], Any]] = {
        "list of runs": lambda: comparison.scored_runs(db),
        "looks at a test set": lambda: comparison.looks(db, "small"),
        "all curves of 2 runs": lambda: comparison.curves(db, some(2)),
        "one curve of 20 runs": lambda: comparison.curves(db, some(20), ("map50",)),
        "names of curves": lambda: comparison.curve_names(db, some(2))}
    for one, size, pair in (("small", f"{SMALL[0]} images", lambda: some(2)), ("large", f"{LARGE[0]:,} images", lambda: large)):
        asked |= {f"win/loss page, {size}": lambda pair=pair: contest(pair()),
                  f"boxes of an image, {size}": lambda pair=pair, one=one: contests.boxes_of(db, pair()[0], str(rng.choice(images[one]))),
                  f"precision and recall, {size}": lambda pair=pair: worth.pr_curve(db, pair()[0]),
                  f"confusion, {size}": lambda pair=pair: worth.confusion(db, pair()[0], float(rng.uniform(0.05, 0.9))),
                  f"threshold slider, {size}": lambda pair=pair: worth.operating(db, pair()[0])}
    return asked


def measured(ask: Callable[[], Any], times: int) -> dict[str, list[float]]:
    wall, worked = [], []
    for _ in range(times):
        start, cpu = time.perf_counter(), time.process_time()
        ask()
        wall.append(1000 * (time.perf_counter() - start))
        worked.append(1000 * (time.process_time() - cpu))
    return {"ms, median": [round(float(np.median(wall)), 1)], "ms, 95 of 100": [round(float(np.quantile(wall, 0.95)), 1)],
            "core ms, median": [round(float(np.median(worked)), 1)]}


def comes_first() -> None:
    """Every thread of this process before any other process, as if the machine had nothing else to do."""
    for thread in os.listdir("/proc/self/task"):
        os.sched_setscheduler(int(thread), os.SCHED_RR, os.sched_param(1))


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--keep", type=Path, help="build the data folder there, or use the one that is there")
    options.add_argument("--first", action="store_true", help="ask before all other work of a busy machine (needs root)")
    given = options.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        os.environ["DIFFSPECT_DATA"] = str(given.keep or temporary)
        rng = np.random.default_rng(0)
        if not rundir.runs_root().exists():
            build(rng)
        db = Database()
        took = measured(lambda: ingest.rebuild(db), 1)["ms, median"][0] / 1000
        load = os.getloadavg()[0]
        if given.first:
            comes_first()
        arms = {name: measured(ask, ASKED) for name, ask in questions(db, rng).items()}
        db.close()
    join("comparison", "size", "python -m tests.benchmarks.comparison_size", arms, [],
         f"{RUNS} runs of {EPOCHS:,} epochs with {len(CURVES)} curves, a million stored predictions; each question asked {ASKED} times, of "
         f"other runs and thresholds, in the process that the page runs in, without drawing. All made again from the run directories in "
         f"{took:.0f} s, at a load of {load:.1f} on {os.cpu_count()} cores; asked {'before other work' if given.first else 'beside it'}.",
         ("duckdb", "pandas", "pyarrow"))


if __name__ == "__main__":
    main()

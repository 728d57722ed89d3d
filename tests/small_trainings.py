"""Finished trainings written by hand, whose answers on a test set of four images are known: two pits and a scratch, and a good one.

    t0    a pit at the left, a pit at the right      t1    a scratch      t2    good      t3    a pit, whose content lists hold twice
"""

import json
from datetime import timedelta
from pathlib import Path
from typing import Any

from backend import rundir
from tests import small_plant as plant

LEFT, RIGHT, LONG = (10.0, 10.0, 30.0, 30.0), (60.0, 10.0, 90.0, 40.0), (5.0, 50.0, 95.0, 60.0)
TRUE = {"t0": [("pits", LEFT), ("pits", RIGHT)], "t1": [("scratch", LONG)], "t2": [], "t3": [("pits", LEFT)]}
THRESHOLDS = {"pits": 0.5, "scratch": 0.4}
NOWHERE = (40.0, 70.0, 50.0, 80.0)
# of each image: class, confidence, box, which true box of its class it hits
A = {"t0": [("pits", 0.9, LEFT, 0), ("pits", 0.3, RIGHT, 1)], "t1": [("scratch", 0.8, LONG, 0), ("pits", 0.6, NOWHERE, -1)],
     "t2": [("pits", 0.7, NOWHERE, -1)], "t3": [("scratch", 0.9, LEFT, -1)]}
B = {"t0": [("pits", 0.6, RIGHT, 1), ("pits", 0.55, LEFT, -1)], "t1": [("scratch", 0.5, LONG, 0)], "t2": [("scratch", 0.1, NOWHERE, -1)],
     "t3": [("pits", 0.2, LEFT, 0)]}


def dataset(snapshot_id: str = "s1", test_set_id: str | None = "T", name: str = "steel") -> Path:
    """Two real and one synthetic train images beside the four of test. The content of t3 lies in test twice, and so do its labels."""
    run = rundir.create("import", {"name": name})
    named = [(f"{i}.png", i, "test") for i in TRUE] + [("t3 again.png", "t3", "test"), ("r0", "r0", "train"), ("r1", "r1", "train"),
                                                        ("m0", "m0", "train")]
    rundir.write_part(run, "snapshots", [dict(
        snapshot_id=snapshot_id, name=name, layout="yolo", created_at=plant.NOON, images=8, labels=5, seed=0, classes=["pits", "scratch"],
        splits_from="lists", refused=0, test_set_id=test_set_id)])
    rundir.write_part(run, "snapshot_images", [dict(
        snapshot_id=snapshot_id, image_id=i, file_name=f, split=s, origin="synthetic" if i == "m0" else "real", parent="", generator_run="",
        width=100, height=100, group_id=f"g-{i}", phash="") for f, i, s in named])
    rundir.write_part(run, "labels", [dict(snapshot_id=snapshot_id, image_id=i, class_name=c, source="box",
                                           **dict(zip(("x1", "y1", "x2", "y2"), box, strict=True)))
                                      for _, i, _ in named for c, box in TRUE.get(i, [])])
    plant.finish(run)
    return run


def training(name: str, answers: dict[str, list[Any]] | None, snapshot_id: str = "s1", test_set_id: str = "T",
             result: dict[str, Any] | None = None, modelled: bool = True, **settings: Any) -> Path:
    """A finished training; without answers one of an older program, that kept none. Not `modelled`: it has come without its model."""
    run = rundir.create("train-detector", {"name": name, "seed": 3})
    if modelled:
        model(run, name, snapshot_id, settings)
    (run / "metrics.jsonl").write_text("".join(json.dumps(dict(step=e, at_s=10.0 * e, map50=e / 10, loss=1 / e)) + "\n" for e in (1, 2)))
    if answers is not None:
        look(run, f"m-{name}", answers, snapshot_id, test_set_id)
    plant.finish(run)
    rundir.write_json(run / "result.json", dict(dataset="steel", epochs=2, seconds=20.0) | (result or {}))
    return run


def model(run: Path, name: str, snapshot_id: str, settings: dict[str, Any]) -> None:
    figures = {"test": dict(map50=0.5, map50_95=0.25, ap50={"pits": 0.4}, missed_images=0.25), "val": dict(map50=0.6, map50_95=0.3)}
    rundir.write_part(run, "models", [dict(
        model_id=f"m-{name}", name=name, kind="detector", created_at=plant.NOON, snapshot_id=snapshot_id, imgsz=64,
        classes=["pits", "scratch"], metrics=json.dumps(figures), settings=json.dumps(dict(seed=3, epochs=2, **settings)))])
    rundir.write_part(run, "model_thresholds", [dict(model_id=f"m-{name}", class_name=c, threshold=t) for c, t in THRESHOLDS.items()])


def look(run: Path, model_id: str, answers: dict[str, list[Any]], snapshot_id: str = "s1", test_set_id: str = "T",
         minutes: int = 0) -> None:
    """A look of a model at the test set, and what it found."""
    rundir.write_part(run, "predictions", [dict(
        model_id=model_id, split="test", image_id=i, class_name=c, confidence=sure, hits=1023 if at >= 0 else 0, hit_box=at,
        **dict(zip(("x1", "y1", "x2", "y2"), box, strict=True))) for i, some in answers.items() for c, sure, box, at in some])
    rundir.write_part(run, "looks", [dict(
        model_id=model_id, snapshot_id=snapshot_id, test_set_id=test_set_id, split=split, images=5, good_images=1, boxes=5,
        looked_at=plant.NOON + timedelta(minutes=minutes), classes=list(THRESHOLDS), thresholds=list(THRESHOLDS.values()))
        for split in ("val", "test")])


def scoring(model_id: str, answers: dict[str, list[Any]], minutes: int = 60) -> Path:
    """A `score` run of a model trained before."""
    run = rundir.create("score", {"model": model_id})
    look(run, model_id, answers, minutes=minutes)
    plant.finish(run)
    return run

"""Figures of an arm of the synthesis benchmark, and what it said of each test image, where there is a test.

Distances are the product's own measurement, on train images. Everything else is judged on the locked test list, once, with the
deployed model: detectors by the published scorer, classifiers by the files' names. Knows nothing of how an arm was made.
"""

import json
from pathlib import Path
from typing import Any

from backend.evaluation.detection import Truth
from backend.evaluation.scored import Scored
from tests.benchmarks.distillation import remember
from tests.benchmarks.record import product, scored
from tests.benchmarks.sets import NEU, SETS, TILE, true_boxes
from tests.benchmarks.synthesis_data import ALL_TILES, ROLLED
from tests.benchmarks.synthesis_lab import Lab
from tests.benchmarks.synthesis_record import Taken

Record = Any                         # Scored | Taken
TOLD = ("images", "classes", "attempts", "rejected", "best", "floor", "steps", "epochs", "learned_from", "about", "held", "held_loss",
        "psnr", "loss", "synthetic", "val_accuracy", "val_map50", "seconds", "warnings")
NEU_TEST, TILE_TEST = SETS["neu-det"].test, SETS["magnetic-tile"].test
# Whose test list a part is scored on. Recognition has that of detection, in which no two images are nearly equal
JUDGED = {"tail": ALL_TILES, "detection": ROLLED}


def score(lab: Lab, part: str, name: str, record: Path) -> dict[str, float]:
    """Figures; the record is written where there is one. `name` is that of the arm's last run."""
    if part == "kid":
        return distances(lab.result("measure-synthesis", name))
    if part == "recognition":
        taken = Taken.of(said(lab, name, NEU / "IMAGES", NEU_TEST), NEU_TEST)
        taken.save(record)
        return taken.figures()
    images, listing, truth = (TILE, TILE_TEST, lab.truth()) if part == "tail" else (NEU / "IMAGES", NEU_TEST, NEU / "ANNOTATIONS")
    found, boxes = said(lab, name, images, listing), true_boxes(truth, listing)
    remember(found, boxes, record)
    return detected(found, boxes, truth, listing)


def near(lab: Lab, part: str) -> dict[str, Any]:
    """What a row says of near-duplicates."""
    return lab.near(JUDGED[part]) if part in JUDGED else {}


def detected(found: Path, boxes: Truth, truth: Path, listing: Path) -> dict[str, float]:
    """The published scorer's figures. It takes no empty list: who finds nothing at all has nothing."""
    if not json.loads(found.read_text()):
        names = sorted({c for marks in boxes.values() for c, _ in marks})
        return dict(map50=0.0, map50_95=0.0, **{f"ap50 {c}": 0.0 for c in names})
    figures = scored(found, truth, listing)
    return dict(map50=figures["map50"], map50_95=figures["map50_95"], **{f"ap50 {c}": v for c, v in figures["ap50"].items()})


def said(lab: Lab, name: str, images: Path, listing: Path) -> Path:
    out = lab.data / "said" / name
    product(lab.data, "predict", "--model", name, "--images", str(images), "--list", str(listing), "--out", str(out))
    return out / "predictions.json"


def distances(result: dict[str, Any]) -> dict[str, float]:
    """Of all classes and of each: distance with its interval, the share of copies, variety. What cannot be measured is left out."""
    shown = {k: result[k] for k in ("kid", "low", "high", "copied", "copied_chance", "of_parent", "diversity")}
    for row in result["classes"]:
        shown |= {f"{k} {row['class_name']}": row[k] for k in ("kid", "low", "high", "floor", "copied", "diversity")}
    return {k: v for k, v in shown.items() if v is not None}


def load(part: str, path: Path) -> Record:
    return (Taken if part == "recognition" else Scored).load(path)


def told(lab: Lab, runs: list[str]) -> dict[str, Any]:
    """What runs say of themselves, by recipe and name: how many pictures came about, what was learned from, warnings."""
    found = {}
    for run in runs:
        recipe, _, name = run.partition(" ")
        result = lab.result(recipe, name)
        found[run] = {k: result[k] for k in TOLD if k in result and not (recipe == "measure-synthesis" and k == "classes")}
    return found

"""Does what a diffusion model knows help a light detector? NEU-DET, YOLO11n from scratch, arm by arm and seed by seed.

    python -m tests.benchmarks.distillation --data FOLDER [--arms plain ...] [--seeds 0 1 2]      run what is missing
    python -m tests.benchmarks.distillation --table                                               figures so far, as JSON

Each (arm, seed) leaves two files in results/distillation/, which are committed: its figures (.json), and what it found and hit
(.npz), from which arms are compared image by image. So a stopped benchmark goes on elsewhere, and arms can be compared there.
Everything goes through the product's own commands; scores are the published scorer's, on the locked list, once.
"""

import argparse
import json
import os
import time
import xml.etree.ElementTree as ET
from collections import defaultdict
from dataclasses import replace
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np

from backend.evaluation.detection import Truth
from backend.evaluation.paired import Scored, average_precision, compare
from tests.benchmarks.arms import ARMS, LABELS, SHAPES, Lab, Shape, commit, predictions
from tests.benchmarks.record import NEU, RESULTS, machine, scored, versions, write

SEEDS = (0, 1, 2)
PACKAGES = ("torch", "ultralytics", "diffusers", "onnxruntime", "faster-coco-eval")
RIVALS = ("plain-longer", "self", "ultralytics")                                   # what the best of ours must beat beside plain
OURS = ("ddpm-taught", "ddpm-distilled", "ddpm-taught-distilled")                  # those that are deployed; `fused` is their teacher
CONTROLS = ("no-resvae", "no-filter", "no-dynamic", "random-ddpm", "shuffled-keys")      # one seed each, against ddpm-distilled
TOLD = {"val map50": "val_map50", "epoch s": "epoch_seconds"}                      # what a run says of itself, by its name here
Runs = dict[str, dict[int, dict[str, Any]]]                                        # arm -> seed -> its file


def place(arm: str, seed: int, shape: Shape = SHAPES["cpu"]) -> Path:
    return RESULTS / shape.folder / f"{arm}-{seed}.json"


def one(lab: Lab, arm: str) -> None:
    """Train and score one arm with one seed, unless it is done."""
    path = place(arm, lab.seed, lab.shape)
    if path.exists() and path.with_suffix(".npz").exists():
        return
    began = time.monotonic()
    found = predictions(lab, arm)
    score = scored(found, NEU / "ANNOTATIONS", NEU / "splits" / "test.txt")
    path.parent.mkdir(exist_ok=True)
    remember(found, path.with_suffix(".npz"))
    figures = dict(map50=score["map50"], map50_95=score["map50_95"], **{f"ap50 {c}": v for c, v in score["ap50"].items()})
    where = dict(cores=len(os.sched_getaffinity(0)), machine=machine(), seconds=round(time.monotonic() - began))
    result = lab.result(ARMS[arm][0], f"{arm}-{lab.seed}")
    path.write_text(json.dumps(dict(arm=arm, seed=lab.seed, commit=commit(), versions=versions(PACKAGES), **where, figures=figures,
                                    result=result), indent=1) + "\n")


def remember(predictions: Path, record: Path) -> None:
    """Keep what a run found and hit."""
    boxes = true_boxes()
    found = [{**p, "file_name": Path(p["file_name"]).stem} for p in json.loads(predictions.read_text())]
    Scored.from_predictions(found, boxes, sorted({c for marks in boxes.values() for c, _ in marks})).save(record)


def true_boxes() -> Truth:
    """The true boxes of the locked list, by stem, read as the published scorer reads them."""
    return {stem: [_box(mark) for mark in ET.parse(NEU / "ANNOTATIONS" / f"{stem}.xml").getroot().iter("object")]
            for stem in (NEU / "splits" / "test.txt").read_text().split()}


def _box(mark: ET.Element) -> tuple[str, list[float]]:
    x1, y1, x2, y2 = (float(mark.findtext(f"bndbox/{side}", "nan")) for side in ("xmin", "ymin", "xmax", "ymax"))
    return mark.findtext("name", ""), [x1, y1, x2 - x1, y2 - y1]


def table(shape: Shape = SHAPES["cpu"]) -> Path:
    """results/distillation.json (or -gpu) from all the files in the folder of that name."""
    runs = finished(shape)
    seeds = sorted({seed for rows in runs.values() for seed in rows})
    made_with = [row["versions"] for rows in runs.values() for row in rows.values() if "versions" in row]
    where = sorted({row["machine"] for rows in runs.values() for row in rows.values() if "machine" in row})
    arms = {arm: figures(rows) for arm, rows in runs.items()}
    return write(shape.folder, "python -m tests.benchmarks.distillation --data FOLDER", arms, seeds, notes(runs, shape),
                 PACKAGES, comparisons(runs, shape), "; ".join(where), made_with[-1] if made_with else None)


def finished(shape: Shape) -> Runs:
    """{arm: {seed: its file}}, arms in the order of ARMS."""
    runs: Runs = defaultdict(dict)
    for path in sorted(place("", 0, shape).parent.glob("*.json")):
        row = json.loads(path.read_text())
        runs[row["arm"]][row["seed"]] = row
    order = list(ARMS)
    return {arm: dict(sorted(runs[arm].items())) for arm in sorted(runs, key=lambda a: (order.index(a) if a in order else len(order), a))}


def figures(rows: dict[int, dict[str, Any]]) -> dict[str, list[float]]:
    """{metric: one value per seed}. The epoch's time and the figure on val only where every seed tells them."""
    told = [{**row["figures"], **{name: row["result"][key] for name, key in TOLD.items() if key in row["result"]}} for row in rows.values()]
    return {metric: [row[metric] for row in told] for metric in told[0] if all(metric in row for row in told)}


def comparisons(runs: Runs, shape: Shape) -> list[dict[str, Any]]:
    pairs = [(arm, "plain-10" if arm.endswith("-10") else "plain") for arm in runs if arm not in ("plain", "plain-10")]
    pairs += [(best, rival) for best in best_of_ours(runs) for rival in RIVALS] + [("ddpm-distilled", control) for control in CONTROLS]
    records = {(arm, seed): record for arm, rows in runs.items() for seed in rows if (record := recorded(arm, seed, rows[seed], shape))}
    found = []
    for a, b in pairs:
        both = [seed for seed in runs.get(a, ()) if (a, seed) in records and (b, seed) in records]
        for metric in ("map50", "map50_95") if both else ():
            c = compare([records[a, s] for s in both], [records[b, s] for s in both], metric)
            found.append(dict(a=a, b=b, metric=metric, difference=round(c.difference, 4), low=round(c.low, 4), high=round(c.high, 4),
                              seeds=len(both), images=c.images))
    return found


def recorded(arm: str, seed: int, row: dict[str, Any], shape: Shape) -> Scored | None:
    """The record beside a run's figures, if it was kept. It must give the figures that the published scorer gave."""
    path = place(arm, seed, shape).with_suffix(".npz")
    if not path.exists():
        return None
    record = Scored.load(path)
    ours = [float(ap.mean()) for ap in average_precision(record, np.ones(len(record.images)))]
    theirs = [row["figures"]["map50"], row["figures"]["map50_95"]]
    assert np.allclose(ours, theirs, atol=1e-4), f"{path.name} is of another run than its figures: {ours}, not {theirs}"
    return record


def best_of_ours(runs: Runs) -> list[str]:
    """The one of our deployed arms that is best on val, where its figure on val is known: test chooses nothing."""
    val = {arm: mean(told["val map50"]) for arm in OURS if arm in runs and "val map50" in (told := figures(runs[arm]))}
    return [max(val, key=lambda arm: val[arm])] if val else []


def notes(runs: Runs, shape: Shape) -> str:
    missing = [f"{arm} {', '.join(map(str, seeds))}" for arm in ARMS
               if (seeds := [s for s in (SEEDS[:1] if arm in CONTROLS else SEEDS) if s not in runs.get(arm, {})])]
    unkept = [f"{arm} {seed}" for arm, rows in runs.items() for seed in rows if not place(arm, seed, shape).with_suffix(".npz").exists()]
    commits = sorted({row["commit"] for rows in runs.values() for row in rows.values()})
    return " ".join(filter(None, [
        f"NEU-DET, its lists: 1,260 train, 180 val, 360 test; YOLO11n from scratch, {shape.epochs} epochs, 224 px, bf16; weights "
        f"chosen on val, test scored once, by the published scorer. One denoiser ({shape.denoiser:,} steps of 32 crops) and one "
        f"repository for all seeds; backbones taught {shape.teach:,} steps of 32 images. Arms named -10 have {LABELS} labelled images "
        "and equal steps.",
        "Differences: 95 % intervals of a paired bootstrap over seeds and images, from the seeds that both arms have; from one seed they "
        "say nothing of other seeds.",
        *(f"Best of ours on val: {arm}." for arm in best_of_ours(runs)),
        f"Not run yet (arm, seeds): {'; '.join(missing)}." if missing else "",
        f"Not compared, for want of a record: {'; '.join(unkept)}." if unkept else "",
        f"Runs made at {', '.join(commits)}."]))


def main() -> None:
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--data", type=Path)
    ap.add_argument("--shape", choices=list(SHAPES), default="cpu")
    ap.add_argument("--table", action="store_true", help="only write results/distillation.json from the files there are")
    ap.add_argument("--shared", action="store_true", help="only make the denoiser and the repository that all seeds use")
    ap.add_argument("--arms", nargs="+", default=list(ARMS), choices=list(ARMS))
    ap.add_argument("--seeds", type=int, nargs="+", default=list(SEEDS))
    a = ap.parse_args()
    shape = SHAPES[a.shape]
    if a.table:
        print(table(shape))
        return
    if not a.data:
        ap.error("--data is needed to run anything")
    a.data.mkdir(parents=True, exist_ok=True)
    lab = Lab(a.data.resolve(), shape)
    lab.imported()
    if a.shared:
        lab.features()
        return
    for seed in a.seeds:
        for arm in a.arms:
            one(replace(lab, seed=seed), arm)


if __name__ == "__main__":
    main()

"""Does what a diffusion model knows help a light detector? YOLO11n from scratch, arm by arm and seed by seed.

    python -m tests.benchmarks.distillation --data FOLDER [--arms plain ...] [--seeds 0 1 2]      run what is missing
    python -m tests.benchmarks.distillation --table                                               figures so far, as JSON

On NEU-DET, or with `--set magnetic-tile` on a second dataset, which takes a data folder of its own. Each (arm, seed) leaves two
files in results/distillation/ (-tile, -gpu), which are committed: its figures and settings (.json), and what it found and hit
(.npz), from which arms are compared image by image. So a stopped benchmark goes on elsewhere, and arms can be compared there.
Everything goes through the product's own commands; scores are the published scorer's, on the locked list, once.
"""

import argparse
import json
import os
import sys
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np

from backend.errors import ConfigError
from backend.evaluation.detection import Truth
from backend.evaluation.paired import Scored, average_precision, compare
from tests.benchmarks.arms import ARMS, LABELS, SHAPES, Lab, commit, planned, predictions
from tests.benchmarks.record import RESULTS, machine, scored, versions, write
from tests.benchmarks.sets import SETS, true_boxes
from tests.benchmarks.settings import arithmetic, differing

PACKAGES = ("torch", "ultralytics", "diffusers", "onnxruntime", "faster-coco-eval")
RIVALS = ("plain-longer", "self", "ultralytics")                                   # what the best of ours must beat beside plain
OURS = ("ddpm-taught", "ddpm-distilled", "ddpm-taught-distilled")                  # those that are deployed; `fused` is their teacher
CONTROLS = ("no-resvae", "no-filter", "no-dynamic", "random-ddpm", "shuffled-keys")      # one seed each, against ddpm-distilled
FIRST = ("plain", "ddpm-taught", "ddpm-distilled", "ddpm-taught-distilled", "self")    # all seeds of these before anything else
AIMS = {"fused": 0.06, "ddpm-taught": 0.06, "ddpm-distilled": 0.06, "ddpm-taught-distilled": 0.06,       # of map50 above plain, or plain-10
        "ddpm-taught-10": 0.10, "ddpm-distilled-10": 0.10, "ddpm-taught-distilled-10": 0.10}
TOLD = {"val map50": "val_map50", "epoch s": "epoch_seconds"}                      # what a run says of itself, by its name here
Runs = dict[str, dict[int, dict[str, Any]]]                                        # arm -> seed -> its file


def place(lab: Lab, arm: str) -> Path:
    return RESULTS / lab.results / f"{arm}-{lab.seed}.json"


def one(lab: Lab, arm: str) -> None:
    """Train and score one arm with one seed, unless it is done. Raises ConfigError where that was with other settings."""
    path = place(lab, arm)
    if path.exists():
        refuse_others(lab, json.loads(path.read_text()))
    if path.exists() and path.with_suffix(".npz").exists():
        return
    began = time.monotonic()
    found = predictions(lab, arm)
    score = scored(found, lab.annotations, lab.dataset.test)
    path.parent.mkdir(exist_ok=True)
    remember(found, true_boxes(lab.annotations, lab.dataset.test), path.with_suffix(".npz"))
    figures = dict(map50=score["map50"], map50_95=score["map50_95"], **{f"ap50 {c}": v for c, v in score["ap50"].items()})
    where = dict(cores=len(os.sched_getaffinity(0)), machine=machine(), seconds=round(time.monotonic() - began))
    result = lab.result(ARMS[arm][0], f"{arm}-{lab.seed}")
    path.write_text(json.dumps(dict(arm=arm, seed=lab.seed, commit=commit(), versions=versions(PACKAGES), **where, figures=figures,
                                    groups=lab.groups(), result=result, settings=lab.used(planned(lab, arm))), indent=1) + "\n")


def refuse_others(lab: Lab, row: dict[str, Any]) -> None:
    """Figures of an arm that was made, or whose teacher was, with other settings than it would be now."""
    told, now = row["settings"], planned(lab, row["arm"]) if row["arm"] in ARMS else {}
    changed = {run: differing(run.split()[0], told[run], now[run]) if run in told else "it was not made then" for run in now}
    if odd := [f"{run}: {why}" for run, why in changed.items() if why]:
        raise ConfigError(f"The results of {row['arm']}-{row['seed']} in {lab.results} come from other settings ({', '.join(odd)}). "
                          "Arms are compared with equal ones only: remove these results, or go back to their settings.")


def remember(predictions: Path, boxes: Truth, record: Path) -> None:
    """Keep what a run found and hit."""
    found = [{**p, "file_name": Path(p["file_name"]).stem} for p in json.loads(predictions.read_text())]
    Scored.from_predictions(found, boxes, sorted({c for marks in boxes.values() for c, _ in marks})).save(record)


def table(lab: Lab) -> Path:
    """results/distillation.json (-tile, -gpu) from all the files in the folder of that name."""
    runs = finished(lab)
    seeds = sorted({seed for rows in runs.values() for seed in rows})
    made_with = [row["versions"] for rows in runs.values() for row in rows.values() if "versions" in row]
    where = sorted({row["machine"] for rows in runs.values() for row in rows.values() if "machine" in row})
    arms = {arm: figures(rows) for arm, rows in runs.items()}
    which = "" if lab.dataset.name == "neu-det" else f" --set {lab.dataset.name}"
    return write(lab.results, f"python -m tests.benchmarks.distillation{which} --data FOLDER", arms, seeds, notes(runs, lab),
                 PACKAGES, comparisons(runs, lab), "; ".join(where), made_with[-1] if made_with else None)


def finished(lab: Lab) -> Runs:
    """{arm: {seed: its file}}, arms in the order of ARMS. Raises ConfigError where settings differ."""
    runs: Runs = defaultdict(dict)
    for path in sorted(place(lab, "").parent.glob("*.json")):
        row = json.loads(path.read_text())
        refuse_others(replace(lab, seed=row["seed"]), row)
        runs[row["arm"]][row["seed"]] = row
    order = list(ARMS)
    return {arm: dict(sorted(runs[arm].items())) for arm in sorted(runs, key=lambda a: (order.index(a) if a in order else len(order), a))}


def figures(rows: dict[int, dict[str, Any]]) -> dict[str, list[float]]:
    """{metric: one value per seed}. The epoch's time and the figure on val only where every seed tells them."""
    told = [{**row["figures"], **{name: row["result"][key] for name, key in TOLD.items() if key in row["result"]}} for row in rows.values()]
    return {metric: [row[metric] for row in told] for metric in told[0] if all(metric in row for row in told)}


def comparisons(runs: Runs, lab: Lab) -> list[dict[str, Any]]:
    pairs = [(arm, "plain-10" if arm.endswith("-10") else "plain") for arm in runs if arm not in ("plain", "plain-10")]
    pairs += [(best, rival) for best in best_of_ours(runs) for rival in RIVALS] + [("ddpm-distilled", control) for control in CONTROLS]
    records = {arm: [record for row in rows.values() if (record := recorded(lab, row))] for arm, rows in runs.items()}
    found = []
    for a, b in pairs:
        for metric in ("map50", "map50_95") if records.get(a) and records.get(b) else ():
            c = compare(records[a], records[b], metric, groups=together(runs))
            found.append(dict(a=a, b=b, metric=metric, difference=round(c.difference, 4), low=round(c.low, 4), high=round(c.high, 4),
                              seeds=c.seeds[0], seeds_b=c.seeds[1], images=c.images, groups=c.groups))
    return found


def together(runs: Runs) -> list[list[str]]:
    """Near-duplicates among the test images, which are the same for all rows. Rows of an earlier program do not tell them."""
    told = [row["groups"] for rows in runs.values() for row in rows.values() if row.get("groups")]
    assert all(sorted(map(sorted, groups)) == sorted(map(sorted, told[0])) for groups in told), "rows of different test sets"
    return list(told[0]) if told else []


def recorded(lab: Lab, row: dict[str, Any]) -> Scored | None:
    """The record beside a run's figures, if it was kept. It must give the figures that the published scorer gave."""
    path = place(replace(lab, seed=row["seed"]), row["arm"]).with_suffix(".npz")
    if not path.exists():
        return None
    record = Scored.load(path)
    ours = [float(ap.mean()) for ap in average_precision(record, np.ones(len(record.images)))]
    theirs = [row["figures"]["map50"], row["figures"]["map50_95"]]
    assert np.allclose(ours, theirs, atol=1e-4), f"{path.name} is of another run than its figures: {ours}, not {theirs}"
    return record


def best_of_ours(runs: Runs) -> list[str]:
    """The one of our deployed arms that is best on val, where its figure on val is known, by the seeds that all of them have: test
    chooses nothing."""
    known = {arm: {seed: row["result"]["val_map50"] for seed, row in runs[arm].items() if "val_map50" in row["result"]}
             for arm in OURS if arm in runs}
    val = {arm: told for arm, told in known.items() if told}
    seeds = set.intersection(*(set(told) for told in val.values())) if val else set()
    return [max(val, key=lambda arm: mean(val[arm][seed] for seed in seeds))] if seeds else []


def notes(runs: Runs, lab: Lab) -> str:
    shape, seeds, asked = lab.shape, lab.dataset.seeds, lab.dataset.arms or tuple(ARMS)
    missing = [f"{arm} {', '.join(map(str, left))}" for arm in asked
               if (left := [s for s in (seeds[:1] if arm in CONTROLS else seeds) if s not in runs.get(arm, {})])]
    unkept = [f"{arm} {seed}" for arm, rows in runs.items() for seed in rows
              if not place(replace(lab, seed=seed), arm).with_suffix(".npz").exists()]
    commits = sorted({row["commit"] for rows in runs.values() for row in rows.values()})
    return " ".join(filter(None, [
        f"{lab.dataset.about}; YOLO11n from scratch, {shape.epochs} epochs, {shape.optimizer}, 224 px; weights "
        f"chosen on val, test scored once, by the published scorer. One denoiser ({shape.denoiser:,} steps of 32 crops) and one "
        f"repository for all seeds; backbones taught {shape.teach:,} steps of 32 images.",
        arithmetic(row for rows in runs.values() for row in rows.values()),
        f"Arms named -10 have {LABELS} labelled images and equal steps, and choose their epoch on all of val like the others."
        if any(arm.endswith("-10") for arm in asked) else "",
        tuned(shape.optimizer),
        f"Differences: 95 % intervals from a paired bootstrap of the images{grouped(runs)}, to which the variance between seeds is added, "
        "as all seeds of both arms show it; one seed against one says nothing of other seeds.",
        aimed(runs, lab),
        *(f"Best of ours on val: {arm}." for arm in best_of_ours(runs)),
        f"Not run yet (arm, seeds): {'; '.join(missing)}." if missing else "",
        f"Not compared, for want of a record: {'; '.join(unkept)}." if unkept else "",
        f"Runs made at {', '.join(commits)}."]))


def grouped(runs: Runs) -> str:
    """What the intervals say of near-duplicates."""
    groups = together(runs)
    return f", {sum(map(len, groups))} near-duplicates of them in {len(groups)} groups" if groups else ", each by itself"


def aimed(runs: Runs, lab: Lab) -> str:
    """Which aims are reached: by the whole interval, or open. So are all where one seed stands against one, which show no spread."""
    best, told = best_of_ours(runs), []
    for c in comparisons(runs, lab):
        against_plain = c["b"] in ("plain", "plain-10")
        aim = AIMS.get(c["a"]) if against_plain else 0.0 if c["a"] in best and c["b"] in RIVALS or c["b"] in CONTROLS[-2:] else None
        if c["metric"] == "map50" and aim is not None:
            sure = c["seeds"] + c["seeds_b"] > 2
            how = "reached" if sure and c["low"] >= aim else "not reached" if sure and c["high"] < aim else "open"
            told.append(f"{c['a']} above {c['b']} {how} ({100 * c['difference']:+.1f}" + (f" of {100 * aim:.0f} points)" if aim else ")"))
    return f"Aims, map50: {'; '.join(told)}." if told else ""


def tuned(optimizer: str) -> str:
    """What the one optimiser of all arms costs the plain detector, where that was measured."""
    if not (measured := RESULTS / "tuning.json").exists():
        return ""
    arms = json.loads(measured.read_text())["arms"]
    plain = {name: [told[f"plain val {metric}"][0] for metric in ("map50", "map50_95")] for name, told in arms.items()}
    others = ", ".join(f"with {name} {a:.3f} and {b:.3f}" for name, (a, b) in plain.items() if name != optimizer)
    a, b = plain[optimizer]
    return (f"{optimizer} for all, the best on val for plain and taught together; plain has map50 {a:.3f} and map50_95 {b:.3f} there, "
            f"{others}.")


def order(arms: Sequence[str], seeds: Sequence[int]) -> list[tuple[str, int]]:
    """What is run first is worth most: the first arms with all seeds, then the others, controls with one."""
    first = [arm for arm in FIRST if arm in arms]
    rest = [(arm, seed) for seed in seeds for arm in arms if arm not in (*first, *CONTROLS)]
    return [(arm, seed) for seed in seeds for arm in first] + rest + [(arm, seeds[0]) for arm in CONTROLS if arm in arms]


def main() -> None:
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--data", type=Path)
    ap.add_argument("--set", choices=list(SETS), default="neu-det")
    ap.add_argument("--shape", choices=list(SHAPES), default="cpu")
    ap.add_argument("--table", action="store_true", help="only write the results' JSON from the files there are")
    ap.add_argument("--shared", action="store_true", help="only make the denoiser and the repository that all seeds use")
    ap.add_argument("--arms", nargs="+", choices=list(ARMS), help="default: all that are asked of the dataset")
    ap.add_argument("--seeds", type=int, nargs="+", help="default: those that are asked of the dataset")
    a = ap.parse_args()
    lab = Lab((a.data or Path()).resolve(), SHAPES[a.shape], SETS[a.set])
    if not a.data and not a.table:
        ap.error("--data is needed to run anything")
    try:
        if a.table:
            print(table(lab))
        else:
            run(lab, a.arms or lab.dataset.arms or list(ARMS), a.seeds or lab.dataset.seeds, a.shared)
    except ConfigError as error:
        sys.exit(f"Error: {error}")


def run(lab: Lab, arms: Sequence[str], seeds: Sequence[int], shared: bool) -> None:
    lab.data.mkdir(parents=True, exist_ok=True)
    lab.imported()
    if shared:
        lab.features()
        return
    for arm, seed in order(arms, seeds):
        one(replace(lab, seed=seed), arm)


if __name__ == "__main__":
    main()

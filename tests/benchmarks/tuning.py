"""Which optimiser do all arms of the distillation benchmark get? Chosen on val, by the plain detector and the taught one together.

    python -m tests.benchmarks.tuning --data FOLDER [--optimizers SGD MuSGD]       train what is missing, one seed each, write tuning.json

Test is not looked at: figures are the best mAP50-95 on val during training, by which the weights are chosen too, and the map50 of
that epoch. Runs go through the product's own commands, as those of the benchmark itself.
"""

import argparse
import json
from dataclasses import replace
from pathlib import Path
from statistics import mean

from tests.benchmarks.arms import SHAPES, Lab, taught
from tests.benchmarks.record import write

ARMS = {"plain": lambda lab: (), "ddpm-taught": taught}
OPTIMIZERS = ("SGD", "MuSGD", "AdamW")
PACKAGES = ("torch", "ultralytics")


def figures(lab: Lab, arm: str) -> dict[str, list[float]]:
    """Train one arm with the shape's optimiser, unless it is there; what val says of its best epoch."""
    name = lab.plain(f"tune-{arm}-{lab.shape.optimizer}", *ARMS[arm](lab))
    lines = map(json.loads, (lab.folder("train-detector", name) / "metrics.jsonl").read_text().splitlines())
    best = max((line for line in lines if "map50_95" in line), key=lambda line: line["map50_95"])
    return {f"{arm} val map50_95": [round(best["map50_95"], 4)], f"{arm} val map50": [round(best["map50"], 4)]}


def main() -> None:
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--data", type=Path, required=True)
    ap.add_argument("--optimizers", nargs="+", default=list(OPTIMIZERS[:2]), choices=OPTIMIZERS)
    a = ap.parse_args()
    labs = [Lab(a.data.resolve(), replace(SHAPES["cpu"], optimizer=o)) for o in a.optimizers]
    labs[0].imported()
    found = {lab.shape.optimizer: {k: v for arm in ARMS for k, v in figures(lab, arm).items()} for lab in labs}
    best = max(found, key=lambda o: mean(v[0] for k, v in found[o].items() if k.endswith("map50_95")))
    print(write("tuning", "python -m tests.benchmarks.tuning --data FOLDER", found, [0],
                f"NEU-DET, YOLO11n from scratch, 40 epochs, 224 px, each optimiser with its own learning rate (0.01; AdamW 0.001). "
                f"Best mean of map50_95 on val: {best}. One seed: nothing is said of differences between seeds.", PACKAGES))


if __name__ == "__main__":
    main()

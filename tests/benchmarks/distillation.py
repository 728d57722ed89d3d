"""Does what a diffusion model knows help a light detector? NEU-DET, YOLO11n from scratch, arm by arm and seed by seed.

    python -m tests.benchmarks.distillation --data FOLDER [--arms plain ...] [--seeds 0 1 2]      run what is missing
    python -m tests.benchmarks.distillation --table                                               figures so far, as JSON

Each (arm, seed) leaves one file in results/distillation/, which is committed: a stopped benchmark goes on elsewhere.
Everything goes through the product's own commands; scores are the published scorer's, on the locked list, once.
"""

import argparse
import json
import os
import subprocess
import time
from pathlib import Path
from typing import Any

from tests.benchmarks.record import RESULTS, ROOT, SHARED, product, scored

NEU = SHARED / "data" / "NEU-DET"
SEEDS = (0, 1, 2)
SHAPE = ("--epochs", "40", "--imgsz", "224", "--precision", "bf16")


def plain(data: Path, name: str, seed: int) -> dict[str, Any]:
    return product(data, "train-detector", *common(name, seed))


def common(name: str, seed: int) -> tuple[str, ...]:
    return ("--dataset", "neu-det", "--name", name, "--seed", str(seed), *SHAPE)


ARMS = {
    "plain": plain,
}


def place(arm: str, seed: int) -> Path:
    return RESULTS / "distillation" / f"{arm}-{seed}.json"


def one(data: Path, arm: str, seed: int) -> None:
    """Train and score one arm with one seed, unless it is done."""
    if place(arm, seed).exists():
        return
    name, began = f"{arm}-{seed}", time.monotonic()
    result = ARMS[arm](data, name, seed)
    truth, split = NEU / "ANNOTATIONS", NEU / "splits" / "test.txt"
    product(data, "predict", "--model", name, "--images", str(NEU / "IMAGES"), "--list", str(split), "--out", str(data / name))
    score = scored(data / name / "predictions.json", truth, split)
    keep(arm, seed, dict(map50=score["map50"], map50_95=score["map50_95"], **{f"ap50 {c}": v for c, v in score["ap50"].items()}),
         result["result"], time.monotonic() - began)


def keep(arm: str, seed: int, figures: dict[str, float], result: dict[str, Any], seconds: float) -> None:
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()
    place(arm, seed).parent.mkdir(exist_ok=True)
    place(arm, seed).write_text(json.dumps(dict(arm=arm, seed=seed, commit=commit, cores=len(os.sched_getaffinity(0)),
                                                seconds=round(seconds), figures=figures, result=result), indent=1) + "\n")


def prepared(data: Path) -> Path:
    """A data folder of the product with the dataset in it."""
    data.mkdir(parents=True, exist_ok=True)
    if not list((data / "runs").glob("*-import-*")):
        product(data, "import", str(NEU), "--name", "neu-det", "--splits", str(NEU / "splits"))
    return data.resolve()


def main() -> None:
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--data", type=Path, required=True)
    ap.add_argument("--arms", nargs="+", default=list(ARMS), choices=list(ARMS))
    ap.add_argument("--seeds", type=int, nargs="+", default=list(SEEDS))
    a = ap.parse_args()
    data = prepared(a.data)
    for seed in a.seeds:
        for arm in a.arms:
            one(data, arm, seed)


if __name__ == "__main__":
    main()

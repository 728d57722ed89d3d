"""Are defects that a diffusion prior draws like real ones, and do they help? Beside them pasted, perturbed, and drawn without a prior.

    python -m tests.benchmarks.synthesis --data FOLDER [--parts kid ...] [--arms 10-prior ...] [--seeds 0 ...]     run what is missing
    python -m tests.benchmarks.synthesis --table                                                 figures so far, as JSON

Each (part, arm, seed) leaves its figures and settings (.json) in results/synthesis/, which are committed, and, where there is a test,
what it said of each image (.npz), from which arms are compared. So a stopped benchmark goes on elsewhere. Everything goes through
the product's own commands. Parts and what their arms are: see synthesis_arms.py.
"""

import argparse
import json
import os
import sys
import time
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from backend.errors import ConfigError
from tests.benchmarks.arms import commit
from tests.benchmarks.record import RESULTS, machine, versions, write
from tests.benchmarks.settings import differing
from tests.benchmarks.synthesis_arms import PARTS, planned
from tests.benchmarks.synthesis_compare import Runs, comparisons
from tests.benchmarks.synthesis_costs import estimated
from tests.benchmarks.synthesis_lab import SHAPES, Lab, Shape
from tests.benchmarks.synthesis_notes import notes
from tests.benchmarks.synthesis_score import near, score, told

PACKAGES = ("torch", "diffusers", "transformers", "peft", "ultralytics", "onnxruntime", "efficientnet-lite-pytorch")


def place(shape: Shape, part: str, arm: str, seed: int) -> Path:
    return RESULTS / shape.folder / f"{part}-{arm}-{seed}.json"


def one(lab: Lab, part: str, arm: str) -> None:
    """Make and score one arm with one seed, unless it is done. Raises ConfigError where that was with other settings."""
    path, record = place(lab.shape, part, arm, lab.seed), place(lab.shape, part, arm, lab.seed).with_suffix(".npz")
    if path.exists():
        refuse_others(lab, json.loads(path.read_text()))
    if path.exists() and (part == "kid" or record.exists()):
        return
    began = time.monotonic()
    path.parent.mkdir(exist_ok=True)
    name = PARTS[part].make(lab, arm)
    figures, settings = score(lab, part, name, record), lab.used(planned(lab, part, arm))
    where = dict(cores=len(os.sched_getaffinity(0)), machine=machine(), seconds=round(time.monotonic() - began))
    row = dict(part=part, arm=arm, seed=lab.seed, commit=commit(), versions=versions(PACKAGES), **where, figures=figures,
               **near(lab, part), told=told(lab, list(settings)), settings=settings)
    path.write_text(json.dumps(row, indent=1) + "\n")


def refuse_others(lab: Lab, row: dict[str, Any]) -> None:
    """Figures of an arm that was made, or something it builds on, with other settings than it would be now."""
    before, now = row["settings"], planned(lab, row["part"], row["arm"])
    changed = {run: differing(run.split()[0], before[run], now[run]) if run in before else "it was not made then" for run in now}
    if odd := [f"{run}: {why}" for run, why in changed.items() if why]:
        raise ConfigError(f"The results of {row['part']}-{row['arm']}-{row['seed']} in {lab.shape.folder} come from other settings "
                          f"({', '.join(odd)}). Arms are compared with equal ones only: remove these, or go back to their settings.")


def finished(shape: Shape) -> Runs:
    """{part: {arm: {seed: its file}}}, in the order of PARTS. Raises ConfigError where settings differ."""
    found: dict[tuple[str, str], dict[int, dict[str, Any]]] = defaultdict(dict)
    for path in sorted(place(shape, "", "", 0).parent.glob("*.json")):
        row = json.loads(path.read_text())
        refuse_others(Lab(Path(), shape, seed=row["seed"]), row)
        found[row["part"], row["arm"]][row["seed"]] = row
    return {part: {arm: dict(sorted(found[part, arm].items())) for arm in PARTS[part].all if (part, arm) in found} for part in PARTS}


def table(shape: Shape) -> Path:
    """results/synthesis.json (or -gpu) from all the files in the folder of that name."""
    runs = finished(shape)
    rows = [row for arms in runs.values() for seeds in arms.values() for row in seeds.values()]
    arms = {f"{part} {arm}": together([row["figures"] for row in seeds.values()]) for part, of in runs.items() for arm, seeds in of.items()}
    compared = comparisons(runs, RESULTS / shape.folder)
    name = shape.folder.removeprefix("synthesis").removeprefix("-")
    which = f" --shape {name}" if name else ""
    return write(shape.folder, f"python -m tests.benchmarks.synthesis{which} --data FOLDER", arms, sorted({row["seed"] for row in rows}),
                 notes(runs, compared, shape), PACKAGES, compared, "; ".join(sorted({row["machine"] for row in rows})),
                 rows[-1]["versions"] if rows else None)


def together(figures: list[dict[str, float]]) -> dict[str, list[float]]:
    """{metric: one value per seed}, where every seed has one."""
    return {metric: [f[metric] for f in figures] for metric in figures[0] if all(metric in f for f in figures)}


def asked(parts: list[str], arms: list[str], seeds: list[int]) -> Iterator[tuple[str, str, int]]:
    """Part, arm and seed, in order of worth."""
    for part in parts or PARTS:
        for group in PARTS[part].arms:
            for seed in seeds or PARTS[part].seeds:
                yield from ((part, arm, seed) for arm in group if not arms or arm in arms)


def main() -> None:
    everything = [arm for part in PARTS.values() for arm in part.all]
    ap = argparse.ArgumentParser(description=f"{__doc__}\n{estimated(SHAPES['cpu'])}", formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--data", type=Path)
    ap.add_argument("--shape", choices=list(SHAPES), default="cpu", help="how long everything is; check: a few steps, to see what breaks")
    ap.add_argument("--table", action="store_true", help="only write the results' JSON from the files there are")
    ap.add_argument("--parts", nargs="+", choices=list(PARTS), default=[])
    ap.add_argument("--arms", nargs="+", choices=list(dict.fromkeys(everything)), default=[], metavar="ARM", help=", ".join(everything))
    ap.add_argument("--seeds", type=int, nargs="+", default=[])
    ap.add_argument("--shared", choices=("steel", "tile"), help="only make the surface prior for one dataset, which many arms build on")
    a = ap.parse_args()
    shape = SHAPES[a.shape]
    if not a.data and not a.table:
        ap.error("--data is needed to run anything")
    try:
        if a.table:
            print(table(shape))
            return
        a.data.mkdir(parents=True, exist_ok=True)
        lab = Lab(a.data.resolve(), shape)
        if a.shared:
            lab.prior(a.shared)
            return
        for part, arm, seed in asked(a.parts, a.arms, a.seeds):
            one(replace(lab, seed=seed), part, arm)
    except ConfigError as error:
        sys.exit(f"Error: {error}")


if __name__ == "__main__":
    main()

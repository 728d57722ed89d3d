"""Do comparisons tell the truth? Simulated experiments whose truth is known, through the functions that the product uses.

    python -m tests.benchmarks.comparison [--experiments 100] [--batches 5]

Each experiment is a new test set of 360 images and new trainings (`tests.simulated`), one of which is better by 0, 2 or 6 points of
map50, or in one class. Counted: how often the 95 % interval holds the truth, what the verdict is, and whether the number of further seeds
that it names does settle the matter. Then the same for shares of images, costs and the worth of synthetic images. A batch that is
already in results/comparison is not computed again: delete it when the statistics change. The figures stand in results/comparison.json
with those of `comparison_size`.
"""

import argparse
import json
import time
from collections import defaultdict
from collections.abc import Iterator
from typing import Any

import numpy as np

from backend.evaluation import verdict as verdicts
from backend.evaluation.agreement import agreement
from backend.evaluation.dose import equivalent
from backend.evaluation.paired import Measured, measure
from backend.evaluation.verdict import MARGIN, OPEN, told, verdict
from tests import simulated, test_cost, test_dose, test_verdict
from tests.benchmarks.record import RESULTS, join
from tests.simulated import PLANTED, plant, recipe

NAMES = ("synthetic", "real")
ROUNDS, LOTS, SEEDS = 300, 40, 10
ONE_CLASS = {"crazing": 0.8}                 # 12 points of AP50, 2 of map50
Row = dict[str, float]


# ---- differences of map50

def differences(rng: np.random.Generator) -> Iterator[tuple[str, Row]]:
    """One experiment, looked at with several numbers of seeds and several planted gains against one baseline."""
    on = plant(rng)
    bonuses = {"0": 0.0, "2": PLANTED[2], "6": PLANTED[6], "crazing": ONE_CLASS}
    arms = {name: recipe(rng, on, bonus) for name, bonus in bonuses.items()} | {"real": recipe(rng, on)}
    runs = {name: [arm.scored(rng) for _ in range(SEEDS if name in ("0", "real") else 5)] for name, arm in arms.items()}
    measured = measure(runs, rounds=ROUNDS, seed=int(rng.integers(2**31)))
    for points, seeds in ((0, 1), (0, 2), (0, 3), (0, 5), (0, 10), (2, 3), (2, 5), (6, 3), (6, 5)):
        yield f"{points} points, {seeds} seed{'s' * (seeds > 1)}", judged(measured, str(points), seeds, points / 100)
    one = told(some(measured, "crazing", 5).compare("crazing", "real"), NAMES)
    yield "one class gains 12, 5 seeds", {"helps just this": one["helps"] == ["crazing"], "hurts some": bool(one["hurts"]),
                                          "helps another": bool(set(one["helps"]) - {"crazing"})}


def lots(rng: np.random.Generator) -> Iterator[tuple[str, Row]]:
    """Test images in 40 lots that are hard or easy together: drawn by lot, and as if they were no lots."""
    on = plant(rng, lots=LOTS, alike=0.6)
    runs = {name: [arm.scored(rng) for _ in range(5)] for name in ("0", "real") for arm in [recipe(rng, on)]}
    for name, groups in (("drawn by lot", on.groups), ("drawn by image", None)):
        yield f"0 points, 5 seeds, {LOTS} lots, {name}", judged(measure(runs, rounds=ROUNDS, groups=groups), "0", 5, 0.0)


def some(measured: Measured, arm: str, seeds: int) -> Measured:
    arms = {name: measured.arms[name][:seeds] for name in (arm, "real")}
    return Measured(arms, measured.classes, measured.metric, measured.images, measured.groups)


def judged(measured: Measured, arm: str, seeds: int, truth: float) -> Row:
    found = some(measured, arm, seeds).compare(arm, "real")
    entry = told(found, NAMES)
    row: Row = {"interval holds it": entry["low"] <= truth <= entry["high"], "half width, points": 50 * (entry["high"] - entry["low"]),
                "difference, points": 100 * entry["difference"]}
    row |= {word: entry["verdict"] == word for word in (verdicts.BETTER, verdicts.WORSE, verdicts.SAME, OPEN)}
    if truth == 0:
        row["all six classes' hold it"] = all(i.low <= 0 <= i.high for i in found.corrected.values())
    return row


# ---- what else is promised

def further_seeds(rng: np.random.Generator) -> Iterator[tuple[str, Row]]:
    """On means over images: a thousand of them cost what one detector does. Gains of 0 to 3 points."""
    seen = test_verdict.plan(int(rng.integers(2**31)), float(rng.choice([0.0, 0.01, 0.02, 0.03])), own=0.008, mixed=0.008, apart=0.004)
    now = seen(5)
    if verdicts.judged(now, MARGIN) != OPEN:
        return
    more = verdicts.more_seeds(now, MARGIN)
    later = verdicts.judged(seen(5 + (more or 100)), MARGIN) != OPEN
    yield "open after 5 seeds", {"number named": more is not None}
    yield f"open after 5 seeds, {'with so many more' if more else 'no number named, with 100 more'}", {
        "settled": later, **({"chance foreseen": verdicts.settles(now, MARGIN, more), "further seeds": more} if more else {})}


def images(rng: np.random.Generator) -> Iterator[tuple[str, Row]]:
    """Equal recipes at a threshold of 0.5, five seeds, 60 good and 60 defective images."""
    on = plant(rng, 120, good=60)
    arms: list[Any] = [[(arm.outcomes(rng), 0.5) for _ in range(5)] for arm in (recipe(rng, on), recipe(rng, on))]
    found = agreement(arms[0], arms[1], rounds=ROUNDS)
    yield "equal recipes, 60 good and 60 defective images", {
        "false rejects: interval holds 0": found["false_rejects"]["low"] <= 0 <= found["false_rejects"]["high"],
        "missed: interval holds 0": found["missed"]["low"] <= 0 <= found["missed"]["high"],
        "McNemar, mid-p below 0.05": found["mcnemar"]["mid_p"] < 0.05}


def costs(rng: np.random.Generator) -> Iterator[tuple[str, Row]]:
    yield "cost per 1,000 parts, 120 val and 120 test images", {"interval holds it": test_cost.holds_the_truth(rng)}


def worth(rng: np.random.Generator) -> Iterator[tuple[str, Row]]:
    found = equivalent(test_dose.measured(int(rng.integers(2**31)), 60), test_dose.LABELS, "both", 100, 200)
    yield "200 synthetic images worth 60 labels", {
        "interval holds it": found is not None and (found["low"] or -100) <= 60 <= (found["high"] or 300),
        "real labels": found["real"] if found else float("nan")}


PARTS = (differences, lots, further_seeds, images, costs, worth)
CHEAP = (further_seeds, images, costs, worth)


# ---- batches

def batch(seed: int, experiments: int) -> dict[str, dict[str, float]]:
    """Mean of every figure over the experiments of one batch; of the cheap ones three times as many."""
    rows: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for k, part in enumerate(PARTS):
        for e in range(experiments * (3 if part in CHEAP else 1)):
            for arm, row in part(np.random.default_rng([seed, k, e])):
                for figure, value in row.items():
                    rows[arm][figure].append(float(value))
        print(f"batch {seed}: {part.__name__}", flush=True)
    return {arm: {figure: round(float(np.nanmean(values)), 4) for figure, values in row.items()} for arm, row in rows.items()}


def kept(seed: int, experiments: int) -> dict[str, dict[str, float]]:
    path = RESULTS / "comparison" / f"statistics-{seed}.json"
    if not path.exists() or json.loads(path.read_text())["experiments"] != experiments:
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps(dict(experiments=experiments, figures=batch(seed, experiments)), indent=1) + "\n")
    return dict(json.loads(path.read_text())["figures"])


def speed() -> dict[str, list[float]]:
    """Processor time of one verdict: 5 seeds against 5 on 400 images."""
    a, b, _ = simulated.experiment(0, PLANTED[2], images=400)
    took = []
    for _ in range(3):
        began = time.process_time()
        verdict(a, b, NAMES)
        took.append(round(time.process_time() - began, 2))
    return {"seconds": took}


def main() -> None:
    ap = argparse.ArgumentParser(description=__doc__)
    ap.add_argument("--experiments", type=int, default=100)
    ap.add_argument("--batches", type=int, default=5)
    a = ap.parse_args()
    found = [kept(seed, a.experiments) for seed in range(a.batches)]
    arms = {arm: {figure: [f[arm][figure] for f in found] for figure in row} for arm, row in found[0].items()}
    arms["a verdict, 5 seeds against 5 on 400 images"] = speed()
    notes = (f"{a.batches} batches of {a.experiments} simulated experiments (of what looks at images, further seeds, costs and worth "
             f"{3 * a.experiments}), a value each. Per experiment a test set of 360 images in six classes; two seeds of a recipe differ by "
             f"a point of map50. {ROUNDS} draws of the images. Intervals are of 95 %; a verdict of 'no difference' lies within "
             f"{100 * MARGIN:g} point. With one seed a side the interval knows of images alone, and no verdict is given.")
    join("comparison", "statistics", f"python -m tests.benchmarks.comparison --experiments {a.experiments} --batches {a.batches}", arms,
         list(range(a.batches)), notes, ("numpy", "scipy"))


if __name__ == "__main__":
    main()

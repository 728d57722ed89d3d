"""How soon do charts find a change, and how often do they call for nothing? Simulated plants, whose truth is known.

    python -m tests.benchmarks.spc [--plants 100] [--seeds 5]

Each plant has a stable period of 30 shifts, from which its limits are frozen; 90 shifts that are as they should be (a month of three
shifts a day), in which every alarm is false; then one line goes from 2 % to 5 % defective. About 250 units a shift; in some plants the
true rate varies from shift to shift besides, by 15 % of itself, as the demo plant's does.
"""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from time import perf_counter

import numpy as np

from backend.quality import alarms, rules, spc
from tests.benchmarks.record import write

STABLE, CALM, AFTER = 30, 90, 40
BEFORE, CHANGED = 0.02, 0.05
SOON = 3


@dataclass(frozen=True)
class Arm:
    """One way of charting one sort of plant."""

    kind: str = "p"
    rules: Sequence[str] = rules.DEFAULT
    weight: float = 1.0
    width: float = 3.0
    units: int = 250
    spread: float = 0.15               # standard deviation of a shift's true rate, as a share of it


ARMS = {
    "p, default rules": Arm(),
    "p, default rules, no spread": Arm(spread=0.0),
    "p, 3 sigma alone": Arm(rules=("beyond",)),
    "p, Western Electric": Arm(rules=rules.WESTERN_ELECTRIC),
    "p, all Nelson rules": Arm(rules=rules.NELSON),
    "p', default rules": Arm(kind="p'"),
    "EWMA of p, weight 0.2": Arm(rules=("beyond",), weight=0.2, width=2.96),
    "p, default rules, 5,000 units": Arm(units=5000),
    "p', default rules, 5,000 units": Arm(kind="p'", units=5000),
}


def plant(rng: np.random.Generator, arm: Arm) -> tuple[np.ndarray, np.ndarray]:
    """Defective units and units of every shift, in time."""
    n = STABLE + CALM + AFTER
    sizes = rng.integers(round(arm.units * 0.8), round(arm.units * 1.2) + 1, n)
    rates = np.where(np.arange(n) < STABLE + CALM, BEFORE, CHANGED) * (1 + arm.spread * rng.standard_normal(n))
    return rng.binomial(sizes, rates.clip(0, 1)), sizes


def outcome(rng: np.random.Generator, arm: Arm) -> tuple[int, int]:
    """False alarms in the calm month, and shifts from the change to the first alarm (1: the first shift already)."""
    counts, sizes = plant(rng, arm)
    z = spc.draw(spc.fit(arm.kind, counts[:STABLE], sizes[:STABLE]), counts[STABLE:], sizes[STABLE:]).z
    if arm.weight < 1:
        called = np.flatnonzero(alarms.average_calls(z[None], arm.weight, arm.width)).tolist()
    else:
        called = alarms.calls(z, arm.rules, arm.width)
    return sum(at < CALM for at in called), min((at - CALM + 1 for at in called if at >= CALM), default=AFTER + 1)


def figures(arm: Arm, plants: int, seed: int) -> dict[str, float]:
    rng = np.random.default_rng(seed)
    false, waited = zip(*(outcome(rng, arm) for _ in range(plants)), strict=True)
    typical = spc.Limits(arm.kind, BEFORE, subgroups=STABLE, weight=arm.weight, width=arm.width)
    stated = alarms.false_alarms(typical, arm.rules, 100, arm.units)
    return {f"found within {SOON} shifts, %": 100 * sum(w <= SOON for w in waited) / plants, "shifts to find it, median": median(waited),
            "shifts to find it, longest": max(waited), "false alarms per 100 calm shifts": 100 * sum(false) / (CALM * plants),
            "plants without any in the month, %": 100 * sum(not f for f in false) / plants,
            "stated per 100 calm shifts": round(stated.per_month, 3)}


def speed(rounds: int = 50) -> dict[str, list[float]]:
    """Milliseconds for a chart of 10,000 subgroups with every rule."""
    counts, sizes = np.random.default_rng(0).binomial(250, BEFORE, 10_000), np.full(10_000, 250)
    took = []
    for _ in range(rounds):
        began = perf_counter()
        chart = spc.draw(spc.fit("p'", counts, sizes), counts, sizes)
        rules.violations(chart.z, list(rules.RULES))
        took.append(1000 * (perf_counter() - began))
    return {"ms, median": [round(median(took), 2)], "ms, longest": [round(max(took), 2)]}


def main() -> None:
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--plants", type=int, default=100)
    ap.add_argument("--seeds", type=int, default=5)
    a = ap.parse_args()
    arms: dict[str, dict[str, list[float]]] = {}
    for name, arm in ARMS.items():
        found = [figures(arm, a.plants, seed) for seed in range(a.seeds)]
        arms[name] = {metric: [round(f[metric], 3) for f in found] for metric in found[0]}
        print(name, {metric: values for metric, values in arms[name].items()})
    arms["10,000 subgroups, every rule"] = speed()
    notes = (f"{a.plants} plants a seed; {BEFORE:.0%} to {CHANGED:.0%}, limits from {STABLE} shifts, {CALM} calm ones, then up to {AFTER}. "
             "After an alarm the rules start anew. 'Stated' is what backend.quality.alarms says beforehand, of a plant without spread "
             "beyond chance.")
    write("spc", f"python -m tests.benchmarks.spc --plants {a.plants} --seeds {a.seeds}", arms, list(range(a.seeds)), notes,
          ("numpy", "scipy"))


if __name__ == "__main__":
    main()

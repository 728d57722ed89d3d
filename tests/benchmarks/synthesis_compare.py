"""Which arms of the synthesis benchmark are compared with which, and how.

Knows nothing of how arms are made.
"""

from collections.abc import Callable, Iterator
from math import hypot
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np

from backend.evaluation import paired
from backend.evaluation.paired import Interval
from backend.evaluation.scored import average_precision
from tests.benchmarks import synthesis_record
from tests.benchmarks.synthesis_arms import RATIOS, SPACES, STARTS
from tests.benchmarks.synthesis_data import TAIL
from tests.benchmarks.synthesis_score import Record, load

Row = dict[str, Any]
Runs = dict[str, dict[str, dict[int, Row]]]                                        # part -> arm -> seed -> its file

PAIRS = {
    "kid": [(f"image-{s}", f"noise-{s}") for s in SPACES] + [(f"{s}-both", f"{s}-{x}") for s in STARTS for x in SPACES[1:]],
    "recognition": [(f"{n}-{a}", f"{n}-{b}") for n in (10, 5, 20) for a, b in
                    (("prior", "aug"), ("paste", "aug"), ("scratch", "aug"), ("prior", "paste"), ("prior", "scratch"), ("aug", "real"))]
    + [(f"10-prior-{r}", "10-aug") for r in RATIOS],
    "tail": [("prior", "plain"), ("paste", "plain"), ("perturb", "plain"), ("prior", "paste"), ("prior", "perturb")],
    "detection": [("prior", "plain"), ("paste", "plain"), ("prior", "paste")]}


def comparisons(runs: Runs, folder: Path) -> list[dict[str, Any]]:
    """Of the seeds that both arms have. Arms are called '<part> <arm>', as in the table."""
    found = []
    for part, pairs in PAIRS.items():
        for names in pairs:
            seeds = sorted(set.intersection(*(set(runs[part].get(arm, ())) for arm in names)))
            a, b = ([runs[part][arm][seed] for seed in seeds] for arm in names)
            for metric, told in COMPARED[part](a, b, folder) if seeds else ():
                shown = {k: round(float(getattr(told, k)), 4) for k in ("difference", "low", "high")}
                found.append(dict(a=f"{part} {names[0]}", b=f"{part} {names[1]}", metric=metric, **shown, seeds=len(seeds)))
    return found


def _distances(a: list[Row], b: list[Row], folder: Path) -> Iterator[tuple[str, Interval]]:
    """From each side's own interval: both look at the same real pictures, and each seed draws anew, so it is rather too wide."""
    if all("kid" in row["figures"] for row in a + b):
        (one, wide), (other, wider) = (_mean_kid([row["figures"] for row in rows]) for rows in (a, b))
        reach = hypot(wide, wider)
        yield "kid", Interval(one - other, one - other - reach, one - other + reach)


def _mean_kid(figures: list[dict[str, float]]) -> tuple[float, float]:
    """Of all seeds, and half of the interval's width."""
    return mean(f["kid"] for f in figures), mean((f["high"] - f["low"]) / 2 for f in figures)


def _accuracies(a: list[Row], b: list[Row], folder: Path) -> Iterator[tuple[str, Interval]]:
    yield "accuracy", synthesis_record.compare(*_records(a, b, folder))


def _found(a: list[Row], b: list[Row], folder: Path) -> Iterator[tuple[str, Interval]]:
    told = paired.compare(*_records(a, b, folder), groups=together(a + b))
    yield "map50", told
    if a[0]["part"] == "tail":
        yield f"ap50 {TAIL}", told.classes[TAIL]


def _records(a: list[Row], b: list[Row], folder: Path) -> tuple[list[Record], list[Record]]:
    return [checked(row, folder) for row in a], [checked(row, folder) for row in b]


COMPARED: dict[str, Callable[[list[Row], list[Row], Path], Iterator[tuple[str, Interval]]]] = {
    "kid": _distances, "recognition": _accuracies, "tail": _found, "detection": _found}


def together(rows: list[Row]) -> list[list[str]]:
    """Near-duplicates among the test images of a part, which are drawn together: ten pictures of one tile are not ten pieces of evidence.
    Rows of other parts tell of none."""
    told: list[list[list[str]]] = [row.get("groups", []) for row in rows]
    assert all(groups == told[0] for groups in told), "rows of different test sets"
    return told[0] if told else []


def checked(row: Row, folder: Path) -> Record:
    """The record beside a file of figures. It must give these figures."""
    name = f"{row['part']}-{row['arm']}-{row['seed']}"
    record = load(row["part"], folder / f"{name}.npz")
    if row["part"] == "recognition":
        ours, theirs, near = record.figures()["accuracy"], row["figures"]["accuracy"], 0.01
    else:
        ours, theirs, near = float(average_precision(record, np.ones(len(record.images)))[0].mean()), row["figures"]["map50"], 1e-4
    assert abs(ours - theirs) <= near, f"{name} is of another run than its figures: {ours}, not {theirs}"
    return record

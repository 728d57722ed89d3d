"""What a person should know before trusting a comparison: that arms were not treated alike, that test images have twins among the train
images, or that many have looked at them before.

None of it stops a comparison; what does is in `comparable`. Knows nothing of statistics.
"""

import json
from collections import defaultdict
from collections.abc import Iterator, Mapping
from typing import Any

import pyarrow.compute as pc

from backend import rundir
from backend.config import TrainDetector
from backend.evaluation.entrants import Entrant

Arms = Mapping[str, list[Entrant]]
Caution = dict[str, str]                 # kind, text
NAMED = ("dataset", "name", "seed", "backbone", "origin", "synthetic", "labels")      # what arms are expected to differ in


def of(arms: Arms, looks: int) -> list[Caution]:
    """`looks`: how often the test set has been looked at, these trainings included."""
    return [dict(kind=kind, text=text) for kind, text in (*_steps(arms), *_settings(arms), *_shared(arms), *_program(arms), *_twins(arms),
                                                          *_looked(arms, looks))]


def looks(test_set_id: str) -> int:
    """How often a model was scored on this test set, by whatever run."""
    tables = (rundir.rows(path, "looks") for path in rundir.find() if rundir.parts(path, "looks"))
    return sum(pc.sum(pc.and_(pc.equal(t["test_set_id"], test_set_id), pc.equal(t["split"], "test"))).as_py() or 0 for t in tables)


def _steps(arms: Arms) -> Iterator[tuple[str, str]]:
    """The first of the two that was unequal, or is not known."""
    for figure, called in (("steps", "optimiser steps"), ("images_seen", "images seen")):
        seen = {name: {int(e.result.get(figure, -1)) for e in entrants} for name, entrants in arms.items()}
        if -1 in set().union(*seen.values()):
            yield "steps", f"Some of these trainings are older and do not tell their {called}; whether arms had equal ones is not known."
            return
        if len(set().union(*seen.values())) > 1:
            told = ", ".join(f"{name} {' or '.join(f'{n:,}' for n in sorted(found))}" for name, found in seen.items())
            yield "steps", f"The arms had unequal numbers of {called}: {told}. More training may be all that differs."
            return


def _settings(arms: Arms) -> Iterator[tuple[str, str]]:
    """Settings that two arms, or two runs of one arm, do not share. What is compared may be one of them; nobody should find out later."""
    shared = [k for k in TrainDetector.__dataclass_fields__ if k not in NAMED]
    for name, entrants in arms.items():
        if odd := _differing(entrants, [*shared, "origin", "synthetic", "labels"]):
            yield "settings", f"The runs of the arm {name!r} differ in {', '.join(odd)}; they are taken together all the same."
    if odd := _differing([entrants[0] for entrants in arms.values()], [k for k in shared if k != "shown"]):
        yield "settings", f"The arms also differ in {', '.join(odd)}."


def _differing(entrants: list[Entrant], names: list[str]) -> list[str]:
    """Of these settings, those that are not the same; one that an older program did not have counts as its default."""
    default = TrainDetector().to_json()
    return [k for k in names if len({json.dumps(e.settings.get(k, default[k])) for e in entrants}) > 1]


def _shared(arms: Arms) -> Iterator[tuple[str, str]]:
    """What all seeds of an arm build on: another one of it might have brought another figure, and their spread does not tell."""
    for name, entrants in arms.items():
        if len({e.seed for e in entrants}) > 1 and (what := _common(entrants)):
            yield "shared", (f"All seeds of {name!r} build on one {what}. How far another one would have moved the figure, "
                             "the interval does not say.")


def _common(entrants: list[Entrant]) -> str:
    if all(e.recipe == "train-distilled" for e in entrants):           # seed 0 up to the backbone, see `detection.guided`
        return "diffusion model" + (" and one taught backbone" if all(e.settings.get("teach", True) for e in entrants) else "")
    for setting, called in (("teacher", "teacher"), ("backbone", "taught backbone"), ("weights", "start")):
        if len(found := {e.settings.get(setting) or "" for e in entrants}) == 1 and found != {""}:
            return called
    return ""


def _program(arms: Arms) -> Iterator[tuple[str, str]]:
    versions = sorted({e.code_version for entrants in arms.values() for e in entrants})
    if len(versions) > 1:
        yield "program", f"The runs were made by different versions of the program: {', '.join(versions)}."


def _twins(arms: Arms) -> Iterator[tuple[str, str]]:
    for run in sorted({e.snapshot_run for entrants in arms.values() for e in entrants}):
        splits: dict[str, set[str]] = defaultdict(set)
        for row in rundir.rows(run, "snapshot_images").select(["split", "group_id"]).to_pylist():
            splits[row["group_id"]].add(row["split"])
        n = sum("train" in found and bool(found & {"val", "test"}) for group, found in splits.items() if group)
        if n:
            dataset = rundir.read_json(run / "snapshot.json")["name"]
            yield "near-duplicates", (f"Near-duplicate images of {dataset!r} stand on both sides, in train and in val or test: figures on "
                                      f"test flatter every arm (groups: {n:,}).")


def _looked(arms: Arms, looks: int) -> Iterator[tuple[str, str]]:
    others = looks - len({e.run_dir for entrants in arms.values() for e in entrants})
    if others > 0:
        yield "looks", (f"These test images have been looked at {looks:,} times, {others:,} of them for models that are not compared here. "
                        "Whoever picks the best of many on test picks luck too.")


def best_on_val(arms: Mapping[str, dict[str, Any]], metric: str) -> str:
    """The arm with the best mean on val, by which one may choose; '' where a training does not tell."""
    means = {name: arm["mean"][f"val_{metric}"] for name, arm in arms.items()}
    return "" if None in means.values() else max(means, key=lambda name: means[name])

"""Does synthetic help on real sets? Experiments that the product made, from import to verdict, into results/comparison.json.

    python -m tests.benchmarks.comparison_experiments --data FOLDER EXPERIMENT

Reads what `python -m backend experiment` left in a data folder and trains nothing. Of one model of each arm, the one with the lowest seed,
the published scorer is asked too, where the set's true boxes are Pascal VOC files: its figure must be the product's own.
"""

import argparse
import json
import os
import shlex
from dataclasses import fields
from pathlib import Path
from typing import Any

from backend import rundir
from backend.config import Config, Experiment, Synthesize
from backend.device import REFERENCE
from tests.benchmarks.record import NEU, join, product, scored

METRICS = ("map50", "map50_95", "val_map50", "missed_images", "false_rejects")


def main() -> None:
    ap = argparse.ArgumentParser(description=__doc__)
    ap.add_argument("--data", type=Path, required=True)
    ap.add_argument("--no-scorer", action="store_true", help="do not ask the published scorer")
    ap.add_argument("--about", default="", help="how the dataset came about, in a sentence")
    ap.add_argument("experiment")
    a = ap.parse_args()
    os.environ |= dict(DIFFSPECT_DATA=str(a.data.resolve()), DIFFSPECT_RUNTIME=REFERENCE)       # in the arithmetic of all figures
    add(a.experiment, a.data.resolve(), not a.no_scorer, a.about)


def add(name: str, data: Path, check: bool, about: str) -> None:
    """One experiment: each arm's figures seed by seed, the differences, the sentences."""
    run = next(p for p in rundir.find("experiment") if rundir.read_json(p / "job.json")["config"]["name"] == name)
    asked, result = Experiment.from_json(rundir.read_json(run / "job.json")["config"]), rundir.read_json(run / "result.json")
    found = rundir.read_json(rundir.run_path(result["comparison"]) / "comparison" / "comparison.json")
    arms = {arm: figures(told["runs"]) for arm, told in found["arms"].items()}
    seeds = sorted({r["seed"] for told in found["arms"].values() for r in told["runs"]})
    compared = [{k: row[k] for k in ("a", "b", "metric", "difference", "low", "high", "verdict", "helps", "hurts", "sentence")}
                | dict(seeds=min(row["seeds"])) for row in found["differences"]]
    told = f"{about} {notes(asked, found)}".strip() + (agreed(found, data) if check else "")
    join("comparison", name, "; ".join([*made(asked), words("experiment", asked)]), arms, seeds, told,
         ("torch", "ultralytics", "openvino", "onnxruntime"), compared)


def figures(runs: list[dict[str, Any]]) -> dict[str, list[float]]:
    return {m: [round(r[m], 4) for r in runs] for m in METRICS if all(r.get(m) is not None for r in runs)}


def made(asked: Experiment) -> list[str]:
    """The commands that made the synthetic sets."""
    configs = [rundir.read_json(p / "job.json")["config"] for p in rundir.find("synthesize")]
    names = [name.strip() for name in asked.sets.split(",")]
    return [words("synthesize", Synthesize.from_json(c)) for c in configs if c["name"] in names]


def words(recipe: str, asked: Config) -> str:
    """The command of these settings: what differs from the defaults."""
    plain = type(asked)()
    told = {f.name: getattr(asked, f.name) for f in fields(asked)}
    given = [f"--{k.replace('_', '-')} {shlex.quote(str(v))}" for k, v in told.items() if v != getattr(plain, k) or k in ("arms", "seeds")]
    return " ".join(["python -m backend", recipe, *given])


def notes(asked: Experiment, found: dict[str, Any]) -> str:
    counts = "; ".join(f"{arm}: {told['real_images']} real, {told['synthetic_images']} synthetic" for arm, told in found["arms"].items())
    steps = {(r["steps"], r["images_seen"]) for told in found["arms"].values() for r in told["runs"]}
    (each, seen), = steps
    warned = " ".join(w["text"] for w in found["warnings"])
    return (f"{counts}. Every training {each:,} steps, {seen:,} images seen, {asked.imgsz} px, {begun(asked)}, weights chosen on val; "
            f"{found['images']} test images, {found['good_images']} of them good, in {found['groups']} groups. Best on val: "
            f"{found['best_on_val']}. {warned}").strip().replace("\n", " ")


def begun(asked: Experiment) -> str:
    """From what the trainings began."""
    own = json.loads(asked.arms) if asked.arms.lstrip().startswith("{") else {}
    starts = {arm.get("weights", asked.weights) for arm in own.values()} or {asked.weights}
    if starts == {None}:
        return "from scratch"
    if len(starts) > 1:
        return "each arm from its own start"
    (common,) = starts
    name = common if (folder := rundir.find_artifact("weights", common)) is None else rundir.read_json(folder / "head.json")["name"]
    return f"all from the same detector ({name})"


def agreed(found: dict[str, Any], data: Path) -> str:
    """The published scorer's figures of one model of each arm. Raises AssertionError where the product says otherwise."""
    told = []
    for arm, side in found["arms"].items():
        first = side["runs"][0]
        out = data / "scorer" / first["run_id"]
        model = rundir.read_json(rundir.run_path(first["run_id"]) / "model" / "model.json")["model_id"]
        listing = NEU / "splits" / "test.txt"
        product(data, "predict", "--model", model, "--images", str(NEU / "IMAGES"), "--list", str(listing), "--out", str(out))
        by = scored(out / "predictions.json", NEU / "ANNOTATIONS", listing)
        assert abs(by["map50"] - first["map50"]) < 5e-4, (arm, by["map50"], first["map50"])
        told.append(f"{arm} {by['map50']:.4f}")
    return f" The published scorer says the same of each arm's first model: {', '.join(told)}."


if __name__ == "__main__":
    main()

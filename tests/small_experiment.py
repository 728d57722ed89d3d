"""A training in miniature for tests of experiments, added by the seam for recipes of one's own.

`DIFFSPECT_RECIPES=tests.small_experiment`: `trial-training` finds its share of the true boxes, a larger one where it saw synthetic images
too. What it finds is drawn by chance; what it leaves in its run, a training's own code leaves. It fails while the data folder holds a file
called `broken`.
"""

import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from backend import rundir
from backend.config import TrainDetector, _f, data_root
from backend.data import shares, snapshot
from backend.errors import InputError
from backend.evaluation import looks
from backend.jobs import recipes

ARMS = json.dumps({name: dict(recipe="trial-training", origin=name) for name in ("real", "both")})
SKILL = {"real": 0.5, "both": 0.9, "synthetic": 0.2}


@dataclass(frozen=True)
class TrialTraining(TrainDetector):
    """A training for tests."""

    pause: float = _f(0.0, "Seconds after each pass.", low=0.0, high=60.0)


def run(config: TrialTraining, run_dir: Path, report: Any) -> dict[str, Any]:
    if (data_root() / "broken").exists():
        raise InputError("The lamp is broken.")
    data = snapshot.read(rundir.find_snapshot(config.dataset))
    for epoch in range(1, config.epochs + 1):
        report(step=epoch, total=config.epochs, message=f"epoch {epoch} done", map50=0.1 * epoch)
        time.sleep(config.pause)
    return keep(run_dir, config, data)


def keep(run_dir: Path, config: TrainDetector, data: snapshot.Snapshot, skill: float | None = None) -> dict[str, Any]:
    """Model, records and result of a training that found what chance gave it, with the skill of its origin or another."""
    skill = SKILL[config.origin] if skill is None else skill
    rng, tally = np.random.default_rng([config.seed, len(config.origin)]), shares.tally(data.by_split("train"), shares.Share.of(config))
    known = {split: looks.truth(data, split) for split in looks.SPLITS}
    found = {split: [dict(file_name=name, category=c, bbox=box, score=float(rng.uniform(0.4, 1))) for name, boxes in known[split].items()
                     for c, box in boxes if rng.random() < skill] for split in looks.SPLITS}
    head: dict[str, Any] = dict(name=config.name, model_id=rundir.key_of(run=run_dir.name), kind="detector", created_at=rundir.now(),
                                classes=data.classes, imgsz=config.imgsz, snapshot_id=data.snapshot_id, dataset=data.head["name"],
                                thresholds=dict.fromkeys(data.classes, 0.5), settings=config.to_json())
    head["metrics"] = {split: looks.score(found[split], known[split], head) for split in looks.SPLITS}
    (run_dir / "model").mkdir(exist_ok=True)
    rundir.write_json(run_dir / "model" / "model.json", head)
    about = looks.described(head, data.test_set_id)
    (scratch := run_dir / "training").mkdir(exist_ok=True)
    looks.keep(scratch, run_dir, about, found, known, {p.file_name: p.image_id for p in data.pictures})
    return dict(name=config.name, **looks.said(about, head["metrics"]), real_images=tally.real, synthetic_images=tally.synthetic,
                images_seen=config.epochs * tally.shown, steps=config.epochs * -(-tally.shown // config.batch), seconds=1.0)


recipes.add("trial-training", TrialTraining, "tests.small_experiment:run", heavy=True)

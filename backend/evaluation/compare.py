"""The recipe `compare`: finished trainings, grouped in arms, and whether the arms really differ. Start reading here.

Stands behind every experiment and every comparison that a person asks for. Reads what the trainings kept of their one look at the test
images (`entrants`); no model is asked again. Equal inputs give the comparison that is there. Writes `<run>/comparison/comparison.json`,
and into the result the sentence to act on. Knows nothing of how a model was trained.
"""

import shutil
from pathlib import Path
from typing import Any

from backend import comparable, rundir
from backend.config import Compare
from backend.errors import ConfigError
from backend.evaluation import cautions, curves
from backend.evaluation.agreement import agreement
from backend.evaluation.entrants import Entrant, arm, together
from backend.evaluation.paired import measure
from backend.evaluation.verdict import MARGIN
from backend.evaluation.verdict import told as judged


def run(config: Compare, run_dir: Path, report: Any) -> dict[str, Any]:
    """Raises ConfigError, NotFoundError with the reason where these runs cannot be compared."""
    test_set_id = comparable.test_set(config.arms)
    if config.against not in config.arms:
        raise ConfigError(f"The baseline {config.baseline!r} is none of the arms: {', '.join(config.arms)}.")
    key = rundir.key_of(**config.inputs())
    if done := rundir.own_result(run_dir, "comparison", key):
        return done

    # who takes part, on which images
    arms = {name: sorted(map(Entrant.of, ids), key=lambda e: (e.seed, e.run_dir.name)) for name, ids in config.arms.items()}
    test = {name: [e.scored() for e in entrants] for name, entrants in arms.items()}
    images = {name: [(e.outcomes(), e.thresholds) for e in entrants] for name, entrants in arms.items()}
    base = config.against
    one, first = test[base][0], arms[base][0]
    groups, grouped_by = together(first, list(map(str, one.images)))
    good = int((one.boxes.sum(axis=1) == 0).sum())
    others = [name for name in arms if name != base]

    # all on the same draws of images, then each of them against the baseline, and the curves that they make up
    report(step=0, total=len(others), message="drawing test images anew")
    measured = measure(test, config.metric, groups=groups)
    differences = []
    for n, name in enumerate(others):
        report(step=n, total=len(others), message=f"{name} against {base}")
        differences.append(judged(measured.compare(name, base, len(others)), (name, base)) | agreement(images[name], images[base], groups))
    dose = curves.told(arms, measured)

    # what a person should know, and what to do
    looks = cautions.looks(test_set_id)
    told = {name: arm(entrants) for name, entrants in arms.items()}
    found = dict(
        name=config.name or " / ".join(arms), metric=config.metric, margin=MARGIN, created_at=rundir.now(), test_set_id=test_set_id,
        dataset=first.result["dataset"], snapshot_ids=sorted({e.result["snapshot_id"] for es in arms.values() for e in es}),
        images=len(one.images), good_images=good, groups=differences[0]["groups"], grouped_by=grouped_by, looks=looks,
        warnings=cautions.of(arms, looks), baseline=base, best_on_val=cautions.best_on_val(told, config.metric), arms=told,
        differences=differences, dose=dose)
    result = dict(name=found["name"], sentence=" ".join(d["sentence"] for d in differences), baseline=base, looks=looks,
                  warnings=[w["text"] for w in found["warnings"]])
    _keep(run_dir, key, found, result)
    report(step=len(others), total=len(others), message="compared")
    return result


def _keep(run_dir: Path, key: str, found: dict[str, Any], result: dict[str, Any]) -> None:
    scratch = run_dir / ".comparison"
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir()
    rundir.write_json(scratch / "comparison.json", found)
    rundir.keep_artifact(scratch, run_dir, "comparison", dict(key=key, name=found["name"], result=result))

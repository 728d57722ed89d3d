"""Which finished trainings may be compared: those whose answers on one locked, real test set are kept. The one rule for the dashboard, the
command line and the recipe `compare`.

From run directories alone; knows nothing of what the answers are.
"""

from functools import lru_cache
from pathlib import Path
from typing import Any

import pyarrow.compute as pc

from backend import rundir
from backend.errors import ConfigError, NotFoundError


def test_set(arms: dict[str, list[str]]) -> str:
    """Id of the one test set that all runs of all arms were scored on. Raises ConfigError with the reason where they cannot be compared,
    NotFoundError where there is no such run."""
    if len(arms) < 2 or not all(arms.values()):
        raise ConfigError("A comparison needs at least two arms with at least one run each.")
    if twice := [name for name, ids in arms.items() if len(set(ids)) < len(ids)]:
        raise ConfigError(f"The arm {twice[0]!r} names a run twice; a training counts once.")
    found: dict[str, str] = {}                                            # test set -> the first run of it
    for run_id in dict.fromkeys(i for ids in arms.values() for i in ids):
        run_dir = rundir.run_path(run_id)
        _refuse(run_dir)
        found.setdefault(_judged_by(snapshot_of(run_dir)), name(run_dir))
    if len(found) > 1:
        first, second = list(found.values())[:2]
        raise ConfigError(f"{first!r} and {second!r} were scored on different test sets, so their figures say nothing of which is better. "
                          "Compare runs of one dataset, or of datasets that share their test images and labels.")
    return next(iter(found))


def _refuse(run_dir: Path) -> None:
    state, model = rundir.read_json(run_dir / "state.json")["state"], run_dir / "model" / "model.json"
    if state != "completed":
        raise ConfigError(f"{name(run_dir)!r} is not finished (it is {state}), so it cannot be compared yet.")
    if rundir.scored(run_dir.name) is not None:
        return
    head = rundir.read_json(model) if model.exists() else {"kind": "none"}
    if rundir.kind_of(head) != "detector":
        raise ConfigError(f"{name(run_dir)!r} is no training of a detector, so there is nothing to compare.")
    raise ConfigError(f"{name(run_dir)!r} was trained before answers on test images were kept. Score it once more: "
                      f"python -m backend score --model {head['model_id']}")


@lru_cache(maxsize=100)
def _judged_by(snapshot_run: Path) -> str:
    """Id of a snapshot's test set, which never changes. Raises ConfigError where it is not real."""
    rows = rundir.rows(snapshot_run, "snapshot_images")
    if pc.any(pc.and_(pc.equal(rows["split"], "test"), pc.equal(rows["origin"], "synthetic"))).as_py():
        dataset = rundir.read_json(snapshot_run / "snapshot.json")["name"]
        raise ConfigError(f"The test split of {dataset!r} holds synthetic images; models are compared on real ones only.")
    return rundir.test_set_id(snapshot_run)


def snapshot_of(run_dir: Path) -> Path:
    """Run directory of the snapshot that a training was scored on. Raises NotFoundError."""
    try:
        return rundir.find_snapshot(str(rundir.read_json(run_dir / "result.json")["snapshot_id"]))
    except NotFoundError as problem:
        raise NotFoundError(f"The dataset of {name(run_dir)!r} is gone, so nobody can tell what it was scored on.") from problem


def name(run_dir: Path) -> str:
    config: dict[str, Any] = rundir.read_json(run_dir / "job.json")["config"]
    return str(config.get("name") or run_dir.name)

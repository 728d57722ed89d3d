"""Experiments as pages show them: how far each arm and seed is, what it scored, and how long the rest will take.

From files alone, and cheap: pages ask every other second. Knows nothing of who carries the runs out.
"""

from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from statistics import mean
from typing import Any

from backend import rundir
from backend.config import Compare, Experiment
from backend.errors import ConfigError, DiffspectError, NotFoundError
from backend.jobs import arms, holdings, plans, runs
from backend.jobs.plans import Run, path_of


def experiment(run_id: str) -> dict[str, Any]:
    """An experiment and how far each of its runs is. Raises NotFoundError."""
    run_dir = rundir.run_path(run_id)
    if rundir.recipe_of(run_id) != "experiment":
        raise NotFoundError(f"The run {run_id!r} is no experiment.")
    config, found = plans.config_of(run_dir), plans.written(run_dir)
    rows = {name: [_seed(m) for m in found["members"] if m["arm"] == name] for name in found.get("arms", ())} or _waiting(config)
    return dict(
        **_common(run_dir, config, found), config=config.to_json(), arms=rows, seeds=arms.seeds(config), metric=config.metric,
        baseline=Compare(arms={name: [] for name in rows}, baseline=config.baseline).against, combine=plans.first(found, "combine"),
        eta_s=_left(found.get("members")) if runs.state(run_dir)["state"] in rundir.OPEN_STATES else None,
        warnings=found.get("warnings", []))


def experiments() -> Iterator[dict[str, Any]]:
    """All that today's program can read, newest first."""
    for run_dir in rundir.find("experiment"):
        try:
            config, found = plans.config_of(run_dir), plans.written(run_dir)
        except (ConfigError, ValueError):                            # of a program with other settings, or damaged
            continue
        yield dict(**_common(run_dir, config, found), dataset=config.dataset, arms=list(found.get("arms", ())), seeds=config.seeds,
                   created_at=runs.job(run_dir)["created_at"])


def comparison(run_id: str) -> dict[str, Any]:
    """What a comparison came to. Raises NotFoundError while it is not made."""
    path = rundir.run_path(run_id) / "comparison" / "comparison.json"
    if not path.exists():
        raise NotFoundError("This run has compared nothing yet.")
    return dict(rundir.read_json(path))


def _common(run_dir: Path, config: Experiment, found: dict[str, Any]) -> dict[str, Any]:
    (done, total), now = plans.count(run_dir), runs.state(run_dir)
    result = rundir.read_json(run_dir / "result.json") if now["state"] == "completed" else {}
    return dict(run_id=run_dir.name, name=config.name.strip(), state=now["state"], message=now["message"], done=done, total=total,
                comparison=plans.first(found, "compare"), sentence=result.get("sentence", ""))


def _seed(member: Run) -> dict[str, Any]:
    path = path_of(member)
    if not path.exists():
        return _unborn(member["seed"])
    state, progress = runs.state(path)["state"], rundir.progress(path)
    return dict(seed=member["seed"], run_id=path.name, state=state, step=progress.get("step", 0), total=progress.get("total", 0),
                map50=_json(path / "result.json").get("map50") if state == "completed" else None)


def _unborn(seed: int) -> dict[str, Any]:
    return dict(seed=seed, run_id="", state="waiting", step=0, total=0, map50=None)


def _waiting(config: Experiment) -> dict[str, list[dict[str, Any]]]:
    """The arms of an experiment whose trainings are not planned yet: its dataset is still being put together."""
    try:
        names = arms.planned(config, holdings.expected(config))[0]
    except DiffspectError:
        return {}
    return {name: list(map(_unborn, arms.seeds(config))) for name in names}


def _json(path: Path) -> dict[str, Any]:
    return dict(rundir.read_json(path)) if path.exists() else {}


# ---- how long it will take

def _left(members: list[Run] | None) -> float | None:
    """Seconds until all are trained, one after the other: by the pace of the finished ones of the same arm, else as estimated."""
    took: dict[str, list[float]] = {}
    for m in members or ():
        if m["seconds"] != 0 and (seconds := _took(path_of(m))) is not None:
            took.setdefault(m["arm"], []).append(seconds)
    left = [_rest(path_of(m), mean(took[m["arm"]]) if m["arm"] in took else m["seconds"]) for m in members or ()]
    known = [seconds for seconds in left if seconds is not None]
    return round(sum(known), 1) if members and len(known) == len(left) else None


def _took(path: Path) -> float | None:
    """Seconds of a completed run's last attempt."""
    now = runs.state(path) if path.exists() else {}
    if now.get("state") != "completed" or not now["started_at"]:
        return None
    return (datetime.fromisoformat(now["finished_at"]) - datetime.fromisoformat(now["started_at"])).total_seconds()


def _rest(path: Path, whole: float | None) -> float | None:
    state = runs.state(path)["state"] if path.exists() else ""
    if state == "completed":
        return 0.0
    told = rundir.progress(path).get("eta_s") if state == "running" else None
    return whole if told is None else float(told)

"""The plan of an experiment: which runs it consists of, in waves. It stands in the experiment's plan.json.

    combine   synthetic sets join the dataset, where some were named
    members   a training of each arm and seed, all arms of one seed first, so that a first answer comes early
    compare   the verdict, once every member is completed

A wave is thought out once and written down with the ids of its runs before the first of them exists: whoever is killed at any moment, each
run comes about once. Knows nothing of who carries runs out.
"""

from contextlib import suppress
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from backend import __version__, rundir
from backend.config import Combine, Compare, Config, Experiment
from backend.errors import ConfigError, NotFoundError
from backend.jobs import arms, holdings, pace, recipes, runs

PLAN, WAVES = "plan.json", ("combine", "members", "compare")
Run = dict[str, Any]                    # one of a plan: run_id, recipe, config; a member also arm, seed, seconds (estimated)


def outlook(config: Experiment) -> dict[str, Any]:
    """What an experiment would do, and how long it would take. Raises ConfigError or NotFoundError with the reason why it cannot."""
    there = holdings.expected(config)
    found, warnings = arms.planned(config, there)
    members = _members(config, found, there)
    steps, shown = arms.steps(config, there), arms.shown(config, there)
    return dict(
        dataset=there.name, snapshot_id=there.snapshot_id, sets=holdings.sets(config), seeds=arms.seeds(config), metric=config.metric,
        baseline=Compare(arms={name: [] for name in found}, baseline=config.baseline).against, shown=shown, epochs=config.epochs,
        steps=steps, runs=len(members), seconds=_sum(members), warnings=warnings,
        arms={name: _told(arm, [m for m in members if m["arm"] == name], there, steps, shown * config.epochs)
              for name, arm in found.items()})


def _told(arm: arms.Arm, members: list[Run], there: holdings.Held, steps: int, images_seen: int) -> dict[str, Any]:
    """An arm as pages show it."""
    return dict(title=arm.title, about=arm.about, recipe=arm.recipe, dataset=there.name, origin=arm.settings.get("origin", "both"),
                labels=arm.settings.get("labels"), real_images=arm.real, synthetic_images=arm.synthetic, steps=steps,
                images_seen=images_seen, seconds=_sum(members), runs=[m["config"] for m in members])


def _sum(members: list[Run]) -> float | None:
    """Estimated seconds of all; None where one is unknown."""
    seconds = [m["seconds"] for m in members]
    return None if None in seconds else round(sum(seconds), 1)


# ---- waves

def written(run_dir: Path) -> dict[str, Any]:
    path = run_dir / PLAN
    return dict(rundir.read_json(path)) if path.exists() else {}


def asked(run_dir: Path, wave: str) -> list[Run]:
    """Runs of a wave; the caller holds the experiment's lock. Raises ConfigError, NotFoundError where there is nothing to carry out."""
    found = written(run_dir)
    if wave not in found:
        found |= {"combine": _combine, "members": _trainings, "compare": _comparison}[wave](config_of(run_dir), found, run_dir)
        rundir.write_json(run_dir / PLAN, found)
    return list(found[wave])


def config_of(run_dir: Path) -> Experiment:
    return Experiment.from_json(runs.job(run_dir)["config"])


def path_of(one: Run) -> Path:
    return rundir.runs_root() / str(one["run_id"])


def there(run_dir: Path) -> list[Path]:
    """Runs of the plan that have come about."""
    found = written(run_dir)
    return [path for wave in WAVES for one in found.get(wave, ()) if (path := path_of(one)).exists()]


def first(found: dict[str, Any], wave: str) -> str:
    """Id of a wave's one run, '' where it has not come about."""
    return next((str(one["run_id"]) for one in found.get(wave, ()) if path_of(one).exists()), "")


def count(run_dir: Path) -> tuple[int, int]:
    """Completed runs, and all that there will be."""
    found = written(run_dir)
    total = len(found.get("combine", ())) + (len(found["members"]) if "members" in found else found.get("expected", 0)) + 1
    return sum(runs.state(path)["state"] == "completed" for path in there(run_dir)), total


def title(one: Run) -> str:
    return f"{one['arm']}, seed {one['seed']}" if "arm" in one else {"combine": "The dataset", "compare": "The comparison"}[one["recipe"]]


def _combine(config: Experiment, found: dict[str, Any], run_dir: Path) -> dict[str, Any]:
    """What cannot be compared is refused before there is a dataset."""
    names, _ = arms.planned(config, holdings.expected(config))
    asked = Combine(dataset=holdings.held(config.dataset).snapshot_id, name=f"{config.name.strip()} · images", sets=config.sets,
                    which=config.which)
    return dict(combine=[_run(asked)] if holdings.sets(config) else [], expected=len(names) * config.seeds)


def _trainings(config: Experiment, found: dict[str, Any], run_dir: Path) -> dict[str, Any]:
    combined = [rundir.read_json(path_of(one) / "snapshot.json")["snapshot_id"] for one in found["combine"]]
    dataset = holdings.held(combined[0] if combined else config.dataset)
    names, warnings = arms.planned(config, dataset)
    return dict(snapshot_id=dataset.snapshot_id, arms={name: asdict(arm) for name, arm in names.items()}, warnings=warnings,
                members=_members(config, names, dataset))


def _comparison(config: Experiment, found: dict[str, Any], run_dir: Path) -> dict[str, Any]:
    asked = Compare(name=config.name.strip(), baseline=config.baseline, metric=config.metric, experiment=run_dir.name,
                    arms={name: [m["run_id"] for m in found["members"] if m["arm"] == name] for name in found["arms"]})
    return dict(compare=[_run(asked, compared(asked))])


def _run(config: Config, run_id: str = "") -> Run:
    recipe = recipes.name_of(config)
    return dict(run_id=run_id or _ids([recipe])[0], recipe=recipe, config=config.to_json())


def outdated(config: Experiment, run_dir: Path) -> bool:
    """Whether a dataset of this name was imported anew since an experiment was planned."""
    found = written(run_dir)
    base = found["combine"][0]["config"]["dataset"] if found.get("combine") else found.get("snapshot_id")
    try:
        return bool(base) and base != rundir.snapshot_id(rundir.find_snapshot(config.dataset))
    except NotFoundError:
        return False


def compared(config: Compare, *open_states: str) -> str:
    """The completed comparison of equal inputs, or one in these states; '' where there is none."""
    key = rundir.key_of(**config.inputs())
    for path in rundir.find("compare"):
        if runs.state(path)["state"] in ("completed", *open_states):
            with suppress(ConfigError):                                       # an older program's, with settings that are no more
                if rundir.key_of(**Compare.from_json(runs.job(path)["config"]).inputs()) == key:
                    return path.name
    return ""


# ---- trainings

def _members(config: Experiment, names: dict[str, arms.Arm], dataset: holdings.Held) -> list[Run]:
    """The trainings, seed by seed. One that was done before, of equal settings by this program, is found and not made again."""
    asked = arms.trainings(config, names, dataset)
    kinds = [recipes.name_of(c) for _, _, c in asked]
    done = {kind: _finished(kind) for kind in set(kinds)} if dataset.snapshot_id else {}
    before = [done.get(kind, {}).get(_unnamed(c.to_json()), "") for kind, (_, _, c) in zip(kinds, asked, strict=True)]
    seconds = pace.estimate_all([c for (_, _, c), run_id in zip(asked, before, strict=True) if not run_id])
    return [dict(run_id=old or new, arm=name, seed=seed, recipe=kind, config=c.to_json(), seconds=0.0 if old else next(seconds))
            for kind, (name, seed, c), old, new in zip(kinds, asked, before, _ids(kinds), strict=True)]


def _finished(recipe: str) -> dict[str, str]:
    """Settings of each completed training -> its run; those of the demo plant came without their models."""
    done = ((path.name, runs.job(path)) for path in rundir.find(recipe) if runs.state(path)["state"] == "completed")
    return {_unnamed(job["config"]): run_id for run_id, job in done if job["code_version"] == __version__ and job["plant"] != "demo"}


def _unnamed(config: dict[str, Any]) -> str:
    return rundir.key_of(**{k: v for k, v in config.items() if k != "name"})


def _ids(kinds: list[str]) -> list[str]:
    """Ids for runs to come, one microsecond apart: the queue keeps their order."""
    now = datetime.now(UTC)
    return [rundir.new_id(kind, now + timedelta(microseconds=i)) for i, kind in enumerate(kinds)]

"""Folder watches as a service: what goes on after a restart, what follows a run that is full, what is watched now.

The supervisor looks here as it looks after experiments. A watch that was cut off goes on by itself; one that failed or that a person
stopped does not. One of the command line belongs to whoever started it there. Knows nothing of pictures.
"""

import logging
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from backend import rundir
from backend.config import RECIPES
from backend.errors import DiffspectError
from backend.jobs import locks, runs

SOON_S = 60.0                            # one that was cut off so soon after it began waits so long: it may kill itself
LATELY = 200                             # runs of the recipe that are looked at, newest first
COMMAND = "command line"
log = logging.getLogger("supervisor")


def see_to_all() -> None:
    """Take up what was cut off; make the successors of those that are full."""
    for path in _lately():
        try:
            if runs.job(path)["by"] != COMMAND:
                _see_to(path)
        except (OSError, ValueError, KeyError, DiffspectError):
            log.exception("The folder watch %s cannot be taken on.", path.name)


def _see_to(path: Path) -> None:
    state = runs.state(path)
    if state["state"] == "interrupted" and not (path / "cancel").exists() and _rested(state):
        log.info("%s: goes on", path.name)
        runs.resume(path.name)
    elif state["state"] == "completed" and (following := successor(path)) and not _there(following):
        job = runs.job(path)
        log.info("%s: %s goes on", path.name, following)
        rundir.create("watch", job["config"], plant=job["plant"], by=job["by"], run_id=following)
        if (path / "cancel").exists():                           # pressed meanwhile: `stop` looked before it was there
            runs.cancel(following)


def stop(run_id: str) -> None:
    """Ask a run to stop. Of a watch that went on in another run meanwhile, that one; of one that is about to, nothing follows."""
    path = rundir.run_path(run_id)
    while rundir.recipe_of(path.name) == "watch" and (following := successor(path)):
        if not _there(following):
            (path / "cancel").touch()
            if not _there(following):
                return
        path = rundir.run_path(following)
    runs.cancel(path.name)


def successor(path: Path) -> str:
    """The id of the run that goes on where this one ended; '' where a person stopped it, were it at the last moment."""
    if (path / "cancel").exists() or not (path / "result.json").exists():
        return ""
    return str(rundir.read_json(path / "result.json").get("next", ""))


def _there(run_id: str) -> bool:
    return (rundir.runs_root() / run_id).exists()


def _rested(state: dict[str, Any]) -> bool:
    began, ended = (datetime.fromisoformat(state[k]) if state[k] else datetime.now(UTC) for k in ("started_at", "finished_at"))
    return (ended - began).total_seconds() > SOON_S or (datetime.now(UTC) - ended).total_seconds() > SOON_S or state["attempt"] == 1


def _lately() -> list[Path]:
    return [path for path, _ in zip(rundir.find("watch"), range(LATELY), strict=False)]


def watches() -> list[dict[str, Any]]:
    """What is watched, and the last watch of each folder that no longer is: folder, run_id (of the newest run), config, state (as a run's,
    or 'stopping'), message, inspected (over all its runs in a row), images_per_s, last_at, and what could not be reached."""
    found: dict[str, dict[str, Any]] = {}
    for path in _lately():
        try:
            folder = str(runs.job(path)["config"]["images"])
            if folder not in found:
                found[folder] = _told(path)
        except (OSError, ValueError, KeyError):
            continue
    return list(found.values())


def _told(path: Path) -> dict[str, Any]:
    job, state = runs.job(path), runs.state(path)
    told = rundir.read_json(path / "watching.json") if (path / "watching.json").exists() else {}
    going = state["state"] in rundir.OPEN_STATES or bool(successor(path))
    stopping = going and (path / "cancel").exists()
    fresh = going and told and time.time() - datetime.fromisoformat(told["at"]).timestamp() < 10
    return dict(folder=job["config"]["images"], run_id=path.name, config=job["config"], by=job["by"],
                state="stopping" if stopping else "running" if going and state["state"] != "pending" else state["state"],
                message=state["message"], inspected=told.get("inspected", 0), refused=told.get("refused", 0),
                images_per_s=told.get("images_per_s", 0.0) if fresh else 0.0, last_at=told.get("last_at", ""),
                waiting=told.get("waiting", 0), gone=told.get("gone", False), closed=told.get("closed", []))


def standing(config: Any) -> Path | None:
    """An unfinished watch of this very folder and settings that nobody carries out: the command line takes it up."""
    for path in _lately():
        if runs.job(path)["config"] == config.to_json() and runs.state(path)["state"] not in ("completed", "failed") \
                and not (path / "cancel").exists() and locks.holder(path / "lock") is None:
            return path
    return None


assert "watch" in RECIPES

"""What people said of made pictures: of each picture of a synthetic set, take it, leave it, or make it again.

Stands between the dashboard, which writes a verdict down as a small inline run `judge` ({"run_id", "verdicts": {file: verdict}}), and
whoever builds on a set. The newest word on a picture wins, unless it was taken back. From files alone; knows nothing of
pictures, of pages or of DuckDB.
"""

from functools import lru_cache
from pathlib import Path
from typing import Any

from backend import rundir
from backend.errors import ConfigError

RECIPE = "judge"
VERDICTS = {"accept": "take it", "reject": "leave it", "again": "make it again", "": "nobody has said"}


def verdicts(run_id: str) -> dict[str, str]:
    """{file: verdict} of a set's pictures that somebody has judged; accept, reject or again."""
    return _said(run_id).get(run_id, {})


def accepted() -> set[str]:
    """Runs of all sets of which somebody has accepted a picture, in one pass."""
    return {run_id for run_id, said in _said().items() if "accept" in said.values()}


def _said(only: str = "") -> dict[str, dict[str, str]]:
    """{run: {file: verdict}} of all sets, or of one."""
    taken_back = {_config(path).get("run_id") for path in rundir.find("undo")}
    found: dict[str, dict[str, str]] = {}
    for path in reversed(list(rundir.find(RECIPE))):                     # oldest first: a later word replaces an earlier one
        config = _config(path)
        if only in ("", run_id := str(config.get("run_id"))) and path.name not in taken_back:
            found.setdefault(run_id, {}).update(config.get("verdicts") or {})
    return {run_id: {file: v for file, v in said.items() if v and v in VERDICTS} for run_id, said in found.items()}


def check(given: dict[str, str], files: set[str]) -> None:
    """Raises ConfigError where a verdict is none of ours, or speaks of a picture that the set does not have."""
    if not given:
        raise ConfigError("Choose at least one picture to judge.")
    for file, verdict in given.items():
        if verdict not in VERDICTS:
            known = ", ".join(v or "nothing (to take a verdict back)" for v in VERDICTS)
            raise ConfigError(f"A picture is judged {known}, not {verdict!r}.")
        if file not in files:
            raise ConfigError(f"The set has no picture {file!r}.")


@lru_cache(maxsize=50_000)
def _config(path: Path) -> dict[str, Any]:
    """What an inline run says: it is complete when it appears and never changes, and a page asks for thousands after each key press.

    One that is damaged, or that was taken away while we looked, says nothing; the store names the damaged ones.
    """
    try:
        config: dict[str, Any] = rundir.read_json(path / "job.json")["config"]
    except (OSError, ValueError, KeyError):
        return {}
    return config

"""What refers to a synthetic set, so that retention leaves it: an accepted picture, a dataset that has its pictures, a run that names it.

Looked at in one pass over all runs, and once more, at what came about since, before a set is let go. A run names a set in its settings, by
run, name or key, as a value or in a list separated by commas. Verdicts and other decisions are no runs. From run directories alone.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow.compute as pc

from backend import rundir, verdicts
from backend.config import RECIPES
from backend.jobs.references import Looked, sure
from backend.jobs.runs import LET_GO, SET_ASIDE


class Wanted:
    """All of it; `again` adds what came to refer to a set since, and forgets nothing but what nobody accepts any more."""

    def __init__(self) -> None:
        self._looked, self._named, self._in_datasets = Looked(), dict[str, set[str]](), set[str]()
        self.again()

    def again(self) -> "Wanted":
        """Itself. Raises references.Unsure."""
        for path in self._looked.anew():
            with sure(path):
                self._add(path, rundir.recipe_of(path.name))
        self._accepted = verdicts.accepted()
        return self

    def _add(self, path: Path, recipe: str) -> None:
        for part in rundir.parts(path, "snapshot_images") if recipe in rundir.SNAPSHOT_MAKERS else ():
            self._in_datasets |= set(pc.unique(rundir.read_part(part, ["generator_run"])["generator_run"]).to_pylist())
        for word in set(_words(rundir.read_json(path / "job.json")["config"])) if recipe in RECIPES else ():
            self._named.setdefault(word, set()).add(path.name)

    def why(self, folder: Path) -> str:
        """Why the set in this folder, or what is left of it, stays; '' where nothing refers to it."""
        run_id = folder.parent.name
        if run_id in self._accepted:
            return "a person accepted a picture of it"
        if run_id in self._in_datasets:
            return "a dataset has its pictures"
        by = max((name for word in _names(folder) for name in self._named.get(word, ()) if name != run_id), default="")
        return f"the run {by} names it" if by else ""


def _names(folder: Path) -> set[str]:
    head: dict[str, Any] = next(rundir.read_json(p) for p in (folder / "head.json", folder / SET_ASIDE, folder / LET_GO) if p.exists())
    return {folder.parent.name, str(head.get("name") or folder.parent.name), str(head["key"])}


def _words(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list):
        for one in value:
            yield from _words(one)
    elif isinstance(value, str):
        yield from (word.strip() for word in value.split(","))

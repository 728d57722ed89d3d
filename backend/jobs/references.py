"""What refers to a picture of an inspection, so that retention leaves it where it is. From run directories alone.

    datasets       each picture of each snapshot, test sets and originals of synthetic pictures among them: so whatever a model learned
                   from, and whatever a comparison judged by
    what was made  pictures that the head of an artifact names: parents and donors of synthetic sets, outlines, references
    people         reviews, drawn boxes, random samples with all units that were written down, and what was read of them, once or again
    reports        pictures that the facts of a shift report name, from which it is made again
    alarms         while one is open, whatever was inspected since the day before it began, on any line
    look-backs     those that are going on, and those younger than the pictures that go

A thing that somebody took back (`undo`) refers to nothing. Where a file cannot be read nothing is let go at all: see `Unsure`. Whoever
lets go looks once more at each thing that he has set aside (`again`), at what came about or went on since. What refers to synthetic sets
is in `wanted`.
"""

import json
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from backend import rundir
from backend.config import RECIPES
from backend.errors import ResourceError

_IMAGE = re.compile(rb'"([0-9a-f]{64})"')
MARGIN = timedelta(days=1)              # before an alarm began: what led to it


class Unsure(ResourceError):
    """A run could not be read, so nobody can say what it refers to."""


class Looked:
    """Which runs one has to look at: all the first time; then those that are new, and those that had not ended when they were looked at."""

    def __init__(self) -> None:
        self._ended, self._open = set[str](), set[str]()
        self._listed: tuple[tuple[str, int], ...] = ()
        self._reopened = 0

    def anew(self) -> Iterator[Path]:
        """Newest first. Where nothing came or went this costs as many looks as runs go on, not as there are."""
        reopened, listed = rundir.reopened_ns(), rundir.listed()
        if reopened != self._reopened:                           # of those that had ended, one went on: nobody says which
            self._ended, self._listed, self._reopened = set(), (), reopened
        names = sorted(self._open, reverse=True) if listed is self._listed else [n for n, _ in listed if n not in self._ended]
        self._open = set()
        for name in names:
            path = rundir.runs_root() / name
            ended = _has_ended(path)                             # before it is looked at: what has ended is all there
            yield path
            (self._ended if ended else self._open).add(name)
        self._listed = listed


def _has_ended(path: Path) -> bool:
    try:
        return rundir.read_json(path / "state.json")["state"] in rundir.END_STATES
    except (OSError, ValueError, KeyError, TypeError):
        return False


@dataclass
class Held:
    """Why a picture stays, by its id or by an inspection of it; and from when on an open alarm holds all. Look-backs that were asked for
    since `cutoff` hold their pictures."""

    cutoff: datetime
    images: dict[str, str] = field(default_factory=dict)
    inspections: dict[int, str] = field(default_factory=dict)
    since: datetime | None = None
    looked: Looked = field(default_factory=Looked)
    taken_back: set[str] = field(default_factory=rundir.undone)

    def why(self, image_id: str, inspection_ids: Iterable[int], newest: datetime) -> str:
        """'' where nothing refers to it. `newest`: when it was inspected last."""
        if self.since is not None and newest >= self.since:
            return "an alarm is open"
        return self.images.get(image_id) or next((self.inspections[i] for i in inspection_ids if i in self.inspections), "")

    def again(self) -> "Held":
        """Itself, with what came to refer to something since; what no longer does holds on. Raises Unsure."""
        alarmed = False
        for path in self.looked.anew():
            with sure(path):
                _add(self, path, path.name in self.taken_back, self.cutoff)
            alarmed |= rundir.recipe_of(path.name) == "alarm"
        if alarmed:
            self.since = _alarmed()
        return self


def held(cutoff: datetime) -> Held:
    """All of it. Raises Unsure."""
    return Held(cutoff).again()


@contextmanager
def sure(path: Path) -> Iterator[None]:
    """Raises Unsure where this run, looked at in the block, cannot be read; one that was taken away meanwhile refers to nothing."""
    try:
        yield
    except FileNotFoundError:
        if path.exists():
            raise Unsure(_unread(path, "a file of it is missing")) from None
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:               # Arrow's are ValueErrors
        raise Unsure(_unread(path, str(error))) from error


def _unread(path: Path, why: str) -> str:
    return f"The run {path.name} cannot be read ({why}), so it is not known what it refers to. Nothing more was let go."


def _add(found: Held, path: Path, is_taken_back: bool, cutoff: datetime) -> None:
    recipe = rundir.recipe_of(path.name)
    if recipe in rundir.SNAPSHOT_MAKERS:
        for part in rundir.parts(path, "snapshot_images"):
            rows = rundir.read_part(part, ["image_id", "parent"])
            for column in ("image_id", "parent"):
                _hold(found.images, rows[column].to_pylist(), "a dataset has it")
    for head in path.glob("*/head.json") if recipe in RECIPES else ():
        _hold(found.images, _named(head), "something was made from it")
    if recipe == "shift-report" and (path / "facts.json").exists():
        _hold(found.images, _named(path / "facts.json"), "a shift report shows it")
    if recipe == "shadow" and (path / "plan.json").exists() and (_is_open(path) or _asked(path) >= cutoff):
        _hold(found.images, _named(path / "plan.json"), "a look-back of these days shows it")
    if recipe in _SAID and not is_taken_back:
        config, (reason, ids) = rundir.read_json(path / "job.json")["config"], _SAID[recipe]
        _hold(found.inspections, [int(i) for i in ids(config)], reason)
    if recipe == "label" and not is_taken_back:
        _hold(found.images, _named(path / "job.json"), "a person drew its boxes")


def _hold(into: dict[Any, str], keys: Any, reason: str) -> None:
    for key in keys:
        into.setdefault(key, reason)


def _named(path: Path) -> list[str]:
    """Every picture's id in a JSON file, wherever it stands there."""
    return [found.decode() for found in _IMAGE.findall(path.read_bytes())]


def _reviewed(config: dict[str, Any]) -> Iterator[Any]:
    yield from [config["inspection_id"]] if str(config.get("inspection_id", "")).lstrip("-").isdigit() else []


def _read(config: dict[str, Any]) -> Iterator[Any]:
    yield from config.get("inspection_ids") or []


def _sampled(config: dict[str, Any]) -> Iterator[Any]:
    for stratum in config.get("strata") or []:
        for views in stratum.get("order") or []:
            yield from views


_SAID = {"review": ("a person reviewed it", _reviewed), "read": ("it was read in a random sample", _read),
         "sample": ("a random sample has it", _sampled)}


def _is_open(path: Path) -> bool:
    return rundir.read_json(path / "state.json")["state"] in rundir.OPEN_STATES


def _asked(path: Path) -> datetime:
    return moment(rundir.read_json(path / "job.json")["created_at"])


def moment(said: str) -> datetime:
    """A time as files have it; without an offset it is UTC."""
    at = datetime.fromisoformat(said)
    return at if at.tzinfo else at.replace(tzinfo=UTC)


def _alarmed() -> datetime | None:
    """Since when an alarm is open that is not over, a day before included; of several the first."""
    over = {str(_config(p).get("alarm")) for p in rundir.find("alarm-over")}
    open_ = [c for c in map(_config, rundir.find("alarm")) if str(c.get("id")) not in over]
    return min((moment(str(c["since"])) - MARGIN for c in open_ if c.get("since")), default=None)


def _config(path: Path) -> dict[str, Any]:
    try:
        return dict(rundir.read_json(path / "job.json")["config"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise Unsure(_unread(path, str(error))) from error


def named_runs(path: Path) -> set[str]:
    """Ids of runs that stand anywhere in a JSON file of ours."""
    return set(re.findall(r"\d{8}-\d{6}-\d{6}-[a-z-]+-[0-9a-f]{6}", json.dumps(rundir.read_json(path)))) if path.exists() else set()

"""What a model has looked at, and so whether one that other pictures judge may start from it.

A network that learnt from pictures which judge the new one would be praised for its memory: such a start is refused, however many
trainings lie between. So is one that was chosen by pictures which test the new one. By content: a picture saved anew passes. Asked when an
experiment is planned, and as each training begins. From files alone; knows nothing of networks.
"""

from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path

from backend import rundir
from backend.data import snapshot
from backend.data.snapshot import UNLABELLED
from backend.errors import ConfigError, NotFoundError

_ORDER = {"train": 0, UNLABELLED: 0, "val": 1, "test": 2}         # what was looked at for one must not be used for a later one


def refuse(weights: Path, split_of: Mapping[str, str]) -> None:
    """`weights`: the start's folder; `split_of`: of image ids of the new model's dataset, those of val and test at least. Raises
    ConfigError where the start knows pictures that are to judge, or nobody can tell any more."""
    seen = _seen(weights, (weights / "head.json").stat().st_mtime_ns)
    if known := sum(i in seen and _ORDER[seen[i]] < _ORDER[split] for i, split in split_of.items()):
        name = rundir.read_json(weights / "head.json")["name"]
        raise ConfigError(f"{name!r}, from which it would start, knows {known} of the pictures that are to judge the new model. "
                          "Start from another one, or from none.")


@lru_cache(maxsize=16)
def _seen(weights: Path, written_ns: int) -> dict[str, str]:
    """Id -> split of the pictures that a model, and those that it started from, have seen; of several the split that teaches most. A page
    that plans an experiment asks at each key press."""
    found: dict[str, str] = {}
    folder: Path | None = weights
    while folder is not None:
        head = rundir.read_json(folder / "head.json")
        try:
            data = snapshot.read(rundir.find_snapshot(head["snapshot_id"]))
        except NotFoundError as gone:
            raise ConfigError(f"The dataset that {head['name']!r} learnt from is gone, so nobody can say whether it knows the pictures "
                              "that would judge the new model. Start from another one.") from gone
        for p in data.pictures:
            found[p.image_id] = min(p.split, found.get(p.image_id, p.split), key=lambda split: _ORDER[split])
        before = rundir.read_json(folder.parent / "job.json")["config"].get("weights")
        folder = start_of(before) if before else None
    return found


def start_of(weights: str) -> Path | None:
    """The folder of an earlier model of one's own, by name or run; None for a file, and for what is neither."""
    return None if Path(weights).is_file() else rundir.find_artifact("weights", weights)

"""What a dataset holds to learn from and to be judged by, as an experiment asks, and what synthetic sets would add to it.

Which images an arm sees is told by the rule that trainings follow themselves (`data.shares`). From files alone, since pages ask too.
Knows nothing of arms.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from backend import rundir, verdicts
from backend.config import Experiment
from backend.data import shares, snapshot
from backend.data.marks import Box
from backend.data.shares import Share
from backend.data.snapshot import Picture
from backend.errors import ConfigError, NotFoundError


@dataclass(frozen=True)
class Held:
    """What a dataset holds."""

    name: str
    snapshot_id: str               # '' where synthetic sets are still to join it
    train: tuple[Picture, ...]
    val: int                       # images with boxes, as `test`
    test: int
    made_held: int                 # synthetic images in val or test
    crossing: int                  # groups of near-duplicates that cross from train to val or test
    judging: Mapping[str, str]     # id -> split of the pictures that judge: of val and test

    @property
    def real(self) -> int:
        return sum(p.origin != "synthetic" for p in self.train)

    @property
    def labelled(self) -> int:
        """Real images with boxes."""
        return sum(p.origin != "synthetic" and bool(p.boxes) for p in self.train)

    def seen(self, share: Share) -> shares.Tally:
        """How many different images of train a share shows. Raises ConfigError where there are fewer than it asks for."""
        shares.refuse(self.train, share)
        return shares.tally(self.train, share)

    def synthetic(self, labels: int | None = None) -> int:
        """Synthetic images that tell of no more than so many labels."""
        return shares.tally(self.train, Share(labels=labels, origin="synthetic")).synthetic


def held(dataset: str) -> Held:
    """Raises NotFoundError."""
    return _held(rundir.find_snapshot(dataset))


@lru_cache(maxsize=8)
def _held(snapshot_run: Path) -> Held:
    """A snapshot never changes."""
    data = snapshot.read(snapshot_run)
    train, rest = (data.by_split("train"), [p for p in data.pictures if p.judges])
    crossing = {p.group_id for p in train if p.group_id} & {p.group_id for p in rest}
    val, test = (sum(bool(p.boxes) for p in data.by_split(split)) for split in ("val", "test"))
    made = sum(p.origin == "synthetic" for p in rest)
    return Held(str(data.head["name"]), data.snapshot_id, tuple(train), val, test, made, len(crossing),
                {p.image_id: p.split for p in rest})


def expected(config: Experiment) -> Held:
    """What the dataset will hold once the sets have joined it; at most, since what tells of val or test stays out. Raises ConfigError,
    NotFoundError."""
    there = held(config.dataset)
    if not config.sets.strip():
        return there
    if n := there.synthetic():
        raise ConfigError(f"{there.name!r} holds {n:,} synthetic images already. Compare with these, or name the dataset without them.")
    return replace(there, snapshot_id="", train=(*there.train, *(p for name in sets(config) for p in _wanted(name, config.which))))


def sets(config: Experiment) -> list[str]:
    return list(dict.fromkeys(name.strip() for name in config.sets.split(",") if name.strip()))


def _wanted(name: str, which: str) -> list[Picture]:
    """Pictures of a set that `combine` will take. Raises NotFoundError, ConfigError where there is none."""
    folder = rundir.find_artifact("synthetic", name)
    if folder is None:
        raise NotFoundError(f"There is no synthetic set called {name!r}.")
    said, keep = verdicts.verdicts(folder.parent.name), {"accept"} if which == "accepted" else {"accept", ""}
    found = [_picture(folder, item) for item in rundir.read_json(folder / "head.json")["items"] if said.get(item["file"], "") in keep]
    if not found:
        raise ConfigError(f"Nobody has accepted a picture of {name!r} yet. Accept some on the page Synthesis, or choose 'all'."
                          if which == "accepted" else f"Every picture of {name!r} was put aside.")
    return found


def _picture(folder: Path, item: dict[str, Any]) -> Picture:
    """As far as a share looks at it."""
    boxes = tuple(Box(*box) for box in item.get("boxes", ()))
    return Picture(f"{folder.parent.name}/{item['file']}", item["file"], item["width"], item["height"], "", boxes, "train",
                   origin="synthetic", parent=item["parent"], donor=item.get("donor", ""))

"""What the models say of pictures: in this process, or in another machine's, which gets names and gives back what was found.

Between `reading` and the recipe `inspect`. Knows nothing of runs, of rows, or of how the work is shared out.
"""

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from backend import rundir
from backend.data.files import Entry, Refusal
from backend.inspection import reading
from backend.inspection.anomaly_engine import AnomalyEngine, load_anomaly
from backend.inspection.engine import Engine, Prepared, load
from backend.inspection.reading import Picture
from backend.inspection.runtimes import exactly

WITHOUT = "none"                        # as the name of the anomaly model


@dataclass(frozen=True)
class Looked:
    """A picture without its pixels, and what the engine found in it: float32 (n, 6). Or a refusal."""

    item: Picture | Refusal
    boxes: np.ndarray = field(default_factory=lambda: np.zeros((0, 6), np.float32))
    runtime: str = ""                   # what computed it
    seen: np.ndarray | None = None      # the anomaly model's map, float32 (m, m), where another machine made it
    cut: bool = False                   # looked at in tiles


def anomaly(name: str, runtime: str = "auto") -> AnomalyEngine | None:
    """The anomaly model of this name or id, None for WITHOUT or nothing; where the detector beside it computes, but in float32, or where
    that cannot be in another place of this machine, which its notes tell."""
    if name in ("", WITHOUT):
        return None
    folder = rundir.find_model(name, "anomaly")
    try:
        return load_anomaly(folder, exactly(runtime))
    except Exception as problem:                         # many kinds, a KeyError among them, as with the detector's own runtimes
        if runtime == "auto":
            raise
        found, why = load_anomaly(folder), f"The anomaly model cannot be computed by {exactly(runtime)}: {problem}"
        found.network.notes[:] = dict.fromkeys([*found.network.notes, why])
        return found


def looks(engine: Engine, items: Iterable[Picture | Refusal], floor: float) -> Generator[Looked]:
    """What the engine says of each picture, in their order; refusals in their place."""
    waiting: deque[Picture | Refusal] = deque()

    def accepted() -> Iterator[Prepared]:
        for item in items:
            waiting.append(item)
            if isinstance(item, Picture):
                yield item.prepared

    for boxes in engine.stream(accepted(), floor):
        while isinstance(item := waiting.popleft(), Refusal):
            yield Looked(item)
        yield Looked(replace(item, prepared=item.prepared.emptied()), boxes, engine.runtime, cut=bool(item.prepared.tiles))
    yield from map(Looked, waiting)


def without_repeats(items: Iterable[Picture | Refusal], seen: dict[str, str]) -> Iterator[Picture | Refusal]:
    """A picture whose very bytes were accepted before in this run is refused. `seen`: accepted content, image id to file name."""
    for item in items:
        if isinstance(item, Picture) and item.image_id in seen:
            yield Refusal(item.name, f"Same picture as {seen[item.image_id]}.")
            continue
        if isinstance(item, Picture):
            seen[item.image_id] = item.name
        yield item


def first_ones(found: Iterable[Looked], seen: dict[str, str]) -> Iterator[Looked]:
    """As `without_repeats`, of pictures that were looked at already."""
    for one in found:
        (item,) = without_repeats([one.item], seen)
        yield one if item is one.item else Looked(item)


def maps_of(model: AnomalyEngine, looked: list[Looked]) -> np.ndarray:
    """float32 (n, m, m) of n pictures: those that came along, or made now of what was fitted for the model."""
    made = [one.seen for one in looked if one.seen is not None]
    fitted = [one.item.beside for one in looked if isinstance(one.item, Picture) and one.item.beside is not None]
    return np.stack(made) if made else model.maps(fitted)


@dataclass(frozen=True)
class Looker:
    """Looks at files on another machine, with the models that a run began with. Only names cross; the models are loaded there, once."""

    model_id: str
    anomaly_id: str
    runtime: str
    tile: int
    floor: float

    def __call__(self, entries: Iterable[Entry | Refusal]) -> list[Looked]:
        """Pictures, without pixels, and refusals in the order of the entries; what is clearly no picture is passed over."""
        engine = load(rundir.find_model(self.model_id, "detector"), self.runtime).cutting(self.tile)
        beside = anomaly(self.anomaly_id, self.runtime)
        with reading.pictures(entries, engine, beside) as items, closing(looks(engine, items, self.floor)) as looked:
            found = list(looked)
        if beside is None:
            return found
        maps = iter(maps_of(beside, found))
        return [replace(one, item=replace(one.item, beside=None), seen=next(maps)) if isinstance(one.item, Picture) else one
                for one in found]


# Shares the entries of a folder out, and brings what was found back in their order.
Spread = Callable[[Looker, Iterable[Entry | Refusal], Path], Generator[Looked]]

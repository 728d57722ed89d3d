"""The recipe `check`: what the model in use says today of stored pictures. Whether it is what it said at first, `jobs.checks` tells.

    first check of a model    chooses pictures, stores their bytes and scores in `check/`
    any later one             scores the same bytes again; its `check/head.json` names the run that has them

Pictures come from what the model was not trained on: val and test of its dataset, as far as they are on disk; where there are none, drawn
plates, the same on every machine. A picture's scores are the highest confidence of each class, whatever threshold is in force, so that a
box at a limit does not come and go. Knows nothing of jobs, or of what differs too much.
"""

import io
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from backend import rundir
from backend.config import Check
from backend.data import demo, images
from backend.errors import DiffspectError, NotFoundError
from backend.inspection.engine import Engine, load

DRAWN_SEED = 20_001                    # of plates that no model was trained on


def run(config: Check, run_dir: Path, report: Callable[..., None]) -> dict[str, Any]:
    folder = rundir.find_model(config.model, "detector")
    engine = load(folder, config.runtime)
    stored = baseline(engine.model_id)

    # The first check of a model stores what all later ones look at.
    report(step=0, total=2, message="Looking for the stored pictures")
    if stored is None:
        (run_dir / "check").mkdir(exist_ok=True)
        for number, data in enumerate(_pictures(folder, config.pictures)):
            rundir.write_bytes(run_dir / "check" / f"{number:03d}.bin", data)

    # The same bytes through the same call as any batch.
    report(step=1, total=2, message=f"{engine.name} looks at them")
    found = scores(engine, (stored or run_dir) / "check")
    head = dict(model_id=engine.model_id, model_name=engine.name, runtime=engine.runtime, classes=list(engine.classes),
                baseline=stored.name if stored else "", scores=found)
    (run_dir / "check").mkdir(exist_ok=True)
    rundir.write_json(run_dir / "check" / "head.json", head)
    return dict(model_id=engine.model_id, model_name=engine.name, runtime=engine.runtime, pictures=len(found), first=stored is None,
                **(_apart(found, stored) if stored else {}))


def _apart(found: dict[str, list[float]], stored: Path) -> dict[str, Any]:
    """How far today's scores are from the stored ones at most, and how many stored pictures could not be scored."""
    before = rundir.read_json(stored / "check" / "head.json")["scores"]
    apart = [abs(a - b) for name in found.keys() & before.keys() for a, b in zip(found[name], before[name], strict=True)]
    return dict(largest_deviation=round(max(apart, default=0.0), 6), not_scored=len(before.keys() - found.keys()))


def baseline(model_id: str) -> Path | None:
    """The run that stored pictures and scores for this model; the first one that was completed."""
    found = None
    for path in rundir.completed("check"):
        head = rundir.read_json(path / "check" / "head.json")
        if head["model_id"] == model_id and not head["baseline"]:
            found = path
    return found


def scores(engine: Engine, folder: Path) -> dict[str, list[float]]:
    """Highest confidence of each class in each stored picture. One that cannot be read is left out: the comparison then names it."""
    names, prepared = [], []
    for path in sorted(folder.glob("*.bin")):
        try:
            prepared.append(engine.prepare(np.asarray(images.decode(path.read_bytes(), path.name))))
            names.append(path.stem)
        except (DiffspectError, OSError):
            continue
    return {name: _highest(boxes, len(engine.classes)) for name, boxes in zip(names, engine.detect(prepared, 0.0), strict=True)}


def _highest(boxes: np.ndarray, classes: int) -> list[float]:
    found = np.zeros(classes, np.float64)
    np.maximum.at(found, boxes[:, 5].astype(np.intp), boxes[:, 4])
    return [float(v) for v in found]


def _pictures(folder: Path, n: int) -> Iterator[bytes]:
    """Bytes of so many pictures, evenly over those that there are."""
    known = _unseen(str(rundir.read_json(folder / "model.json").get("snapshot_id") or ""))
    if known:
        yield from (p.read_bytes() for p in known[::max(1, len(known) // n)][:n])
        return
    for image_id in list(demo.training_set(n, DRAWN_SEED))[:n]:
        buffer = io.BytesIO()
        demo.render(image_id).image.save(buffer, "PNG")
        yield buffer.getvalue()


def _unseen(snapshot_id: str) -> list[Path]:
    """Files of the val and test pictures of a snapshot, in an order of their content."""
    try:
        rows = rundir.rows(rundir.find_snapshot(snapshot_id), "snapshot_images").select(["image_id", "split"]).to_pylist()
    except NotFoundError:
        return []
    paths = (images.path_of(i) for i in sorted(r["image_id"] for r in rows if r["split"] in ("val", "test")))
    return [p for p in paths if p is not None]

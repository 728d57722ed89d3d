"""The recipe `collect-masks`: outlines of what an anomaly model found in production become a set of masks, of a new class.

Stands between inspection, whose runs keep the maps, and `synthesize`, which draws shapes from the set: the artifact `<run>/masks`.
Reads run directories only. Knows nothing of the store, of review, or of how a map was made.
"""

import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from backend import rundir
from backend.config import CollectMasks
from backend.errors import Canceled, ConfigError, InputError, NotFoundError
from backend.records import unpack_map
from backend.synthesis import masks
from backend.synthesis.masks import Mask

FORMAT = 1                          # of the artifact; part of its key
NOT_LOOKED = "no anomaly model looked at it"
NOT_KEPT = "its picture was not kept, nor its map"
NOTHING = "nothing in it is above the model's threshold"


def run(config: CollectMasks, run_dir: Path, report: Any) -> dict[str, Any]:
    """Keep the outlines in `<run>/masks`. An inspection without any is left out, and named. Raises ConfigError, InputError."""
    name, wanted = config.name.strip(), _wanted(config.inspections)
    if not name:
        raise ConfigError("Give the new class a name.")
    key = rundir.key_of(kind="masks", format=FORMAT, name=name, inspections=wanted)
    scratch = rundir.bound(run_dir / "collecting-masks", key)
    try:
        items, left_out, maps = list[dict[str, Any]](), list[dict[str, str]](), Maps()
        folder = scratch / "masks"
        folder.mkdir(exist_ok=True)
        for i, inspection in enumerate(wanted):
            report(step=i, total=len(wanted), message=f"outline {i + 1} of {len(wanted)}")
            found = maps.outline(inspection)
            if isinstance(found, str):
                left_out.append(dict(inspection=inspection, reason=found))
                continue
            mask, about = found
            file = f"{len(items):06d}.png"
            masks.write(folder / file, mask)
            items.append(dict(file=file, inspection=inspection, **about))
        if not items:
            raise InputError(f"There is no outline to keep. Of {left_out[0]['inspection']}: {left_out[0]['reason']}.")
        rundir.keep_artifact(folder, run_dir, "masks", dict(key=key, name=name, items=items))
    except Canceled:
        shutil.rmtree(scratch)
        raise
    shutil.rmtree(scratch)
    return dict(name=name, masks=len(items), left_out=left_out)


def _wanted(text: str) -> list[str]:
    """Inspections as they were named, run/inspection, each once. Raises ConfigError."""
    names = list(dict.fromkeys(text.split()))
    if not names:
        raise ConfigError("Choose the inspections to take outlines from.")
    for name in names:
        run_id, _, inspection_id = name.partition("/")
        if not run_id or not (inspection_id.isascii() and inspection_id.isdigit()):
            raise ConfigError(f"An inspection is named run/inspection, and its number has digits only. Not {name!r}.")
    return names


@dataclass
class Maps:
    """What runs say of their inspections; each run, and each model's description, is read once."""

    runs: dict[str, tuple[dict[int, Any], dict[int, Any]]] = field(default_factory=dict)
    models: dict[str, dict[str, Any]] = field(default_factory=dict)

    def outline(self, inspection: str) -> tuple[Mask, dict[str, Any]] | str:
        """The mask of an inspection, at its picture's size, and whose it is; or why there is none. Raises NotFoundError."""
        run_id, _, number = inspection.partition("/")
        inspections, anomalies = self._rows(run_id)
        picture, row = inspections.get(int(number)), anomalies.get(int(number))
        if picture is None:
            raise NotFoundError(f"There is no inspection {inspection!r}.")
        if row is None:
            return NOT_LOOKED
        if row["anomaly_map"] is None:
            return NOT_KEPT
        head, values = self._head(row["model_id"]), unpack_map(row["anomaly_map"], row["side"])
        mask = at_size(values, head["map_range"], head["pixel_threshold"], picture["width"], picture["height"])
        about = {k: picture[k] for k in ("image_id", "width", "height")}
        return (mask, about) if mask.any() else NOTHING

    def _rows(self, run_id: str) -> tuple[dict[int, Any], dict[int, Any]]:
        if run_id not in self.runs:
            tables = (rundir.rows(rundir.run_path(run_id), table) for table in ("inspections", "anomalies"))
            pictures, anomalies = ({r["inspection_id"]: r for r in t.to_pylist()} for t in tables)
            self.runs[run_id] = pictures, anomalies
        return self.runs[run_id]

    def _head(self, model_id: str) -> dict[str, Any]:
        if model_id not in self.models:
            self.models[model_id] = rundir.read_json(rundir.find_model(model_id, "anomaly") / "model.json")
        return self.models[model_id]


def at_size(values: "np.ndarray[Any, np.dtype[np.uint8]]", map_range: tuple[float, float], threshold: float,
            width: int, height: int) -> Mask:
    """Cells (side, side) at or above the threshold as a mask (height, width).

    The map is enlarged first, bilinear, so that outlines are no stairs; where that smooths all away, whole cells count.
    """
    low, high = map_range
    heat = low + values.astype(np.float32) * np.float32((high - low) / 255)
    smooth = cv2.resize(heat, (width, height), interpolation=cv2.INTER_LINEAR) >= threshold
    cells = cv2.resize((heat >= threshold).astype(np.uint8), (width, height), interpolation=cv2.INTER_NEAREST_EXACT) > 0
    return np.asarray(smooth if smooth.any() else cells)

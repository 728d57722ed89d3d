"""In which arithmetic OpenVINO may compute a deployed model: bf16 only where a measurement said that it changes nothing.

`precision.json` beside model.json says what was measured (`evaluation.precision` does it), and the engine asks here. Where nobody has
measured, the answer is float32: the figures on a model's page are float32's, and what bf16 does to this model nobody has seen; what
that costs is speed, which one command gives back. Knows nothing of how it is measured.
"""

from pathlib import Path
from typing import Any

from backend import rundir

FILE = "precision.json"


def said(folder: Path, model_id: str) -> dict[str, Any]:
    """What was measured of this very model; empty where nothing was, or of another network that lay here before."""
    try:
        record = rundir.read_json(folder / FILE)
    except (OSError, ValueError):
        return {}
    return dict(record) if isinstance(record, dict) and record.get("model_id") == model_id else {}


def allows_bf16(folder: Path, model_id: str) -> bool:
    return said(folder, model_id).get("bf16") is True


def keep(folder: Path, record: dict[str, Any]) -> None:
    """Write it beside the model, whole. Whoever opens the model from now on does as it says."""
    rundir.write_json(folder / FILE, record)

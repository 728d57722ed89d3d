"""In which arithmetic OpenVINO may compute a deployed model: a faster one only where a measurement said that it changes nothing.

`precision.json` beside model.json says what was measured (`evaluation.precision` does it), and the engine asks here. For int8 the network
takes another form, `model-int8.onnx`, which lies there too. Where nobody has measured, the answer is float32: the figures on a model's page
are float32's, and what another arithmetic does to this model nobody has seen; what that costs is speed, which one command gives back.
Knows nothing of how it is measured.
"""

import hashlib
from pathlib import Path
from typing import Any

from backend import rundir
from backend.inspection.description import alone
from backend.inspection.runtimes import Leave

FILE, INT8 = "precision.json", "model-int8.onnx"


def said(folder: Path, model_id: str) -> dict[str, Any]:
    """What was measured of this very model; empty where nothing was, or of another network that lay here before."""
    try:
        record = rundir.read_json(folder / FILE)
    except (OSError, ValueError):
        return {}
    return dict(record) if isinstance(record, dict) and record.get("model_id") == model_id else {}


def leave(folder: Path, model_id: str, name: str) -> Leave:
    """What a runtime may do with this model. An int8 form that is damaged, or of another network, is as good as none."""
    record = said(folder, model_id)
    measured = record.get("int8")
    if not isinstance(measured, dict):
        return Leave(bf16=record.get("bf16") is True)
    try:
        onnx = (folder / INT8).read_bytes()
    except OSError:
        onnx = b""
    if hashlib.sha256(onnx).hexdigest() != measured.get("sha256"):
        onnx = b""
    alone(onnx, name)
    return Leave(bf16=record.get("bf16") is True, int8=bool(onnx) and measured.get("allowed") is True, int8_form=onnx)


def keep(folder: Path, record: dict[str, Any]) -> None:
    """Write it beside the model, whole. Whoever opens the model from now on does as it says."""
    rundir.write_json(folder / FILE, record)


def keep_int8(folder: Path, onnx: bytes) -> str:
    """Write the int8 form beside the model, before a record speaks of it; its SHA-256, which the record names."""
    rundir.write_bytes(folder / INT8, onnx)
    return hashlib.sha256(onnx).hexdigest()

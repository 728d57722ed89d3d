"""The recipe `export-model`: a deployed model as a folder that works without this product.

model.onnx as it is, or OpenVINO's model.xml and model.bin made from it; model.json, which says what it is; `infer.py`, which uses it, and
the module that it needs. The Models page offers the first of these as a zip. Knows nothing of runs or of how a model was made.
"""

import shutil
from pathlib import Path
from typing import Any

from backend import rundir
from backend.config import ExportModel
from backend.device import openvino_core
from backend.errors import ConfigError, ResourceError

BESIDE = ("infer.py", "tiles.py")                # of this package, and of nothing else of ours


def run(config: ExportModel, run_dir: Path, report: Any) -> dict[str, Any]:
    if not config.out.strip():
        raise ConfigError("Choose a folder to write the model into (out).")
    model, out = rundir.find_model(config.model), Path(config.out).expanduser()
    report(step=0, total=1, message="Writing the model")
    try:
        write(model, out, config.form)
    except OSError as error:
        raise ResourceError(f"The model could not be written into {out}: {error.strerror}.") from error
    head = rundir.read_json(model / "model.json")
    report(step=1, total=1, message="Written")
    return dict(path=str(out), files=sorted(p.name for p in out.iterdir()), model_id=head["model_id"], model_name=head["name"])


def write(model: Path, out: Path, form: str) -> None:
    """Everything into `out`, whatever lies there already beside it."""
    out.mkdir(parents=True, exist_ok=True)
    if form == "openvino":
        import openvino as ov

        ov.save_model(openvino_core().read_model(model / "model.onnx"), out / "model.xml", compress_to_fp16=False)
    else:
        shutil.copyfile(model / "model.onnx", out / "model.onnx")
    shutil.copyfile(model / "model.json", out / "model.json")
    for name in BESIDE:
        shutil.copyfile(Path(__file__).with_name(name), out / name)

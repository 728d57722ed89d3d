"""The deployed artifact: model.onnx, checked against the network it came from, and model.json, which says what it is.

Stands after the choice of weights. The bundle is made and scored in a scratch folder and appears under its name whole.
ONNX: batches of any size, raw output, no suppression, weights as fp32. Knows nothing of data or of how the network was trained.
"""

import hashlib
import io
import warnings
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
import ultralytics
from safetensors.torch import save_file
from torch import nn

from backend import __version__, rundir
from backend.evaluation import detection as evaluation
from backend.inspection.runtimes import as_floats

OPSET = 17               # every ONNX Runtime since 1.12 and every OpenVINO since 2022.2 reads it
TOLERANCE = 1e-3         # of the image's side, and of confidence; rounding alone makes 1e-6, on a network gone wild 1e-4


def to_onnx(network: nn.Module, imgsz: int) -> bytes:
    """float32 RGB 0..1 `images` (B, 3, S, S) to `output0` (B, 4 + classes, N): x, y, w, h in network pixels, confidences."""
    network = deepcopy(network).cpu().float().eval().fuse(verbose=False)
    head = network.model[-1]
    head.export, head.dynamic, head.format = True, True, "onnx"
    buffer = io.BytesIO()
    with warnings.catch_warnings(), torch.no_grad():
        # The new exporter needs a further package; the old one says at each call that it is old.
        warnings.filterwarnings("ignore", message="You are using the legacy TorchScript-based ONNX export", category=DeprecationWarning)
        warnings.filterwarnings("ignore", message="The feature will be removed", category=DeprecationWarning)
        torch.onnx.export(network, torch.zeros(2, 3, imgsz, imgsz), buffer, input_names=["images"], output_names=["output0"],
                          dynamic_axes={"images": {0: "batch"}, "output0": {0: "batch"}}, opset_version=OPSET, dynamo=False)
    return buffer.getvalue()


def write_bundle(folder: Path, network: nn.Module, **about: Any) -> dict[str, Any]:
    """Make the bundle, not scored yet, and check that it answers as the network does. The content of model.json.

    `about` holds name, classes, imgsz, snapshot_id, dataset and settings.
    """
    folder.mkdir(parents=True, exist_ok=True)
    artifact = to_onnx(network, about["imgsz"])
    head = dict(
        name=about.pop("name"), model_id=hashlib.sha256(artifact).hexdigest()[:16], kind="detector", created_at=rundir.now(), **about,
        preprocess=dict(letterbox=True, pad=114, scale=255, channels="RGB"), nms=dict(iou=0.7, max_detections=300),
        thresholds={}, metrics={}, code_version=__version__, licence="AGPL-3.0-or-later",
        versions=dict(torch=torch.__version__, ultralytics=ultralytics.__version__, onnx=onnx.__version__, opset=OPSET))
    rundir.write_bytes(folder / "model.onnx", artifact)
    rundir.write_json(folder / "model.json", head)
    check(folder, network, about["imgsz"])
    return head


def write_weights(scratch: Path, run_dir: Path, network: nn.Module, head: dict[str, Any], result: dict[str, Any]) -> None:
    """Keep the network as it was trained, beside the artifact: a later training may learn from it or go on with it.

    Written last: with it, and the run's result in its head, all is done.
    """
    folder = scratch / "weights"
    folder.mkdir(exist_ok=True)
    save_file({k: v.contiguous() for k, v in network.state_dict().items()}, folder / "network.safetensors")
    kept = {k: head[k] for k in ("name", "model_id", "snapshot_id", "classes", "imgsz")}
    rundir.keep_artifact(folder, run_dir, "weights", dict(key=head["model_id"], size=head["settings"]["size"], result=result, **kept))


def check(folder: Path, network: nn.Module, imgsz: int) -> None:
    """The artifact's raw output is the network's, for one image and for several."""
    pixels = np.random.default_rng(0).integers(0, 256, (3, imgsz, imgsz, 3), np.uint8)
    for batch in (pixels[:1], pixels):
        with torch.inference_mode():
            expected = network.eval()(torch.from_numpy(as_floats(batch)))[0].numpy()                              # (B, 4 + classes, N)
        difference = abs(evaluation.raw_output(folder, batch) - expected)
        off = float(max(difference[:, :4].max() / imgsz, difference[:, 4:].max()))
        assert off < TOLERANCE, f"the exported network is off by {off}"

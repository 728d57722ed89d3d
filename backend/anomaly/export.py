"""The deployed artifact: model.onnx, checked against the network it came from, and model.json, which says what it is.

Stands after calibration. Everything that makes the map is in the graph (teacher, student, head, memory, smoothing, units, weights),
so an engine needs no more than a runtime. ONNX: batches of any size, weights as fp32. Knows nothing of data or of training.
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
from torch import Tensor, nn
from torch.nn import functional as F

from backend import __version__, rundir
from backend.anomaly.calibrate import Calibration, gaussian
from backend.device import REFERENCE
from backend.inspection.anomaly_engine import UNUSUAL, AnomalyEngine
from backend.inspection.runtimes import as_floats

OPSET = 17               # every ONNX Runtime since 1.12 and every OpenVINO since 2022.2 reads it
TOLERANCE = 1e-2         # of the tail of good pictures, which is 1; rounding makes 1e-5 to 1e-4


class Deployed(nn.Module):
    """images (B, 3, S, S) 0..1 to anomaly_map (B, m, m): the network, and what calibration found, as one convolution."""

    def __init__(self, net: nn.Module, found: Calibration) -> None:
        super().__init__()
        self.net = net
        shares = torch.tensor(found.weights) / torch.tensor(found.scale)
        kernel = gaussian(found.sigma)
        self.reach = len(kernel) // 2
        self.register_buffer("kernel", (shares[:, None, None] * kernel)[None])                          # (1, maps, k, k)
        self.register_buffer("bias", -(shares * torch.tensor(found.centre)).sum()[None])                # (1,)

    def forward(self, images: Tensor) -> Tensor:
        maps = torch.cat(self.net(images), 1)                                                           # (B, maps, m, m)
        maps = F.pad(maps, [self.reach] * 4, mode="replicate")
        return F.conv2d(maps, self.get_buffer("kernel"), self.get_buffer("bias"))[:, 0]                 # (B, m, m)


def to_onnx(network: Deployed, imgsz: int) -> bytes:
    """float32 RGB 0..1 `images` (B, 3, S, S) to `anomaly_map` (B, m, m)."""
    buffer = io.BytesIO()
    with warnings.catch_warnings(), torch.no_grad():
        # The new exporter needs a further package; the old one says at each call that it is old.
        warnings.filterwarnings("ignore", message="You are using the legacy TorchScript-based ONNX export", category=DeprecationWarning)
        warnings.filterwarnings("ignore", message="The feature will be removed", category=DeprecationWarning)
        warnings.filterwarnings("ignore", category=torch.jit.TracerWarning)             # sides and widths are fixed, and meant to be
        warnings.filterwarnings("ignore", message="Constant folding", category=UserWarning)      # of the padding; the runtime does it
        torch.onnx.export(network, torch.zeros(2, 3, imgsz, imgsz), buffer, input_names=["images"], output_names=["anomaly_map"],
                          dynamic_axes={"images": {0: "batch"}, "anomaly_map": {0: "batch"}}, opset_version=OPSET, dynamo=False)
    return buffer.getvalue()


def write_bundle(folder: Path, net: nn.Module, calibration: Calibration, **about: Any) -> dict[str, Any]:
    """Make the bundle, not scored yet, and check that it answers as the network does. The content of model.json.

    `about` holds name, snapshot_id, dataset and settings.
    """
    folder.mkdir(parents=True, exist_ok=True)
    found, network = calibration, Deployed(deepcopy(net).cpu().float(), calibration).eval()
    artifact = to_onnx(network, found.imgsz)
    head = dict(
        name=about.pop("name"), model_id=hashlib.sha256(artifact).hexdigest()[:16], kind="anomaly", created_at=rundir.now(), **about,
        classes=[UNUSUAL], imgsz=found.imgsz, map_side=_side(network, found.imgsz),
        preprocess=dict(resize="stretch", scale=255, channels="RGB"),
        thresholds={} if found.threshold is None else {UNUSUAL: found.threshold},
        score=dict(cells=found.cells), pixel_threshold=found.pixel_threshold, map_range=list(found.map_range), chosen=found.chosen,
        metrics={}, code_version=__version__, licence="AGPL-3.0-or-later",
        versions=dict(torch=torch.__version__, onnx=onnx.__version__, opset=OPSET))
    if found.refused:
        head["threshold_refused"] = found.refused
    rundir.write_bytes(folder / "model.onnx", artifact)
    rundir.write_json(folder / "model.json", head)
    check(folder, network, found.imgsz)
    return head


def _side(network: Deployed, imgsz: int) -> int:
    with torch.inference_mode():
        return int(network(torch.zeros(1, 3, imgsz, imgsz)).shape[-1])


def check(folder: Path, network: Deployed, imgsz: int) -> None:
    """The artifact's maps are the network's, for one image and for several."""
    pixels = np.random.default_rng(0).integers(0, 256, (3, imgsz, imgsz, 3), np.uint8)
    engine = AnomalyEngine(folder, REFERENCE)
    for batch in (pixels[:1], pixels):
        with torch.inference_mode():
            expected = network(torch.from_numpy(as_floats(batch))).numpy()                            # (B, m, m)
        off = float((abs(next(engine.raw([batch])) - expected) / (1 + abs(expected))).max())
        assert off < TOLERANCE, f"the exported network is off by {off}"

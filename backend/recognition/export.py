"""The deployed artifact: model.onnx, checked against the network it came from, and model.json, which says what it is.

Stands after training. The softmax is in the graph, so that an engine needs no more than a runtime. ONNX: batches of any size,
weights as fp32. Knows nothing of data or of training.
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

from backend import __version__, rundir
from backend.device import REFERENCE
from backend.evaluation.classification import GOOD
from backend.inspection.classifier_engine import ClassifierEngine
from backend.inspection.runtimes import as_floats

OPSET = 17               # every ONNX Runtime since 1.12 and every OpenVINO since 2022.2 reads it
TOLERANCE = 1e-2         # of a probability's logarithm, as a share of 1 more than it; rounding makes 1e-5
LEAST = 1e-30            # probabilities compared down to here, or a network that is sure of everything would pass any check


class Deployed(nn.Module):
    """images (B, 3, S, S) 0..1 to probabilities (B, classes)."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, images: Tensor) -> Tensor:
        found: Tensor = self.net(images).softmax(1)
        return found


def to_onnx(network: Deployed, imgsz: int) -> bytes:
    """float32 RGB 0..1 `images` (B, 3, S, S) to `probabilities` (B, classes)."""
    buffer = io.BytesIO()
    with warnings.catch_warnings(), torch.no_grad():
        # The new exporter needs a further package; the old one says at each call that it is old.
        warnings.filterwarnings("ignore", message="You are using the legacy TorchScript-based ONNX export", category=DeprecationWarning)
        warnings.filterwarnings("ignore", message="The feature will be removed", category=DeprecationWarning)
        warnings.filterwarnings("ignore", message="Constant folding", category=UserWarning)      # of the padding; the runtime does it
        torch.onnx.export(network, torch.zeros(2, 3, imgsz, imgsz), buffer, input_names=["images"], output_names=["probabilities"],
                          dynamic_axes={"images": {0: "batch"}, "probabilities": {0: "batch"}}, opset_version=OPSET, dynamo=False)
    return buffer.getvalue()


def write_bundle(folder: Path, net: nn.Module, **about: Any) -> dict[str, Any]:
    """Make the bundle, not scored yet, and check that it answers as the network does. The content of model.json.

    `about` holds name, all_classes (in the network's order), imgsz, snapshot_id, dataset, settings and chosen.
    """
    folder.mkdir(parents=True, exist_ok=True)
    network = Deployed(deepcopy(net).cpu().float().to(memory_format=torch.contiguous_format)).eval()
    artifact = to_onnx(network, about["imgsz"])
    head = dict(
        name=about.pop("name"), model_id=hashlib.sha256(artifact).hexdigest()[:16], kind="classifier", created_at=rundir.now(), **about,
        classes=[c for c in about["all_classes"] if c != GOOD], preprocess=dict(resize="stretch", scale=255, channels="RGB"),
        thresholds={}, metrics={}, code_version=__version__, licence="AGPL-3.0-or-later",
        versions=dict(torch=torch.__version__, onnx=onnx.__version__, opset=OPSET))
    rundir.write_bytes(folder / "model.onnx", artifact)
    rundir.write_json(folder / "model.json", head)
    check(folder, network, about["imgsz"])
    return head


def check(folder: Path, network: Deployed, imgsz: int) -> None:
    """The artifact's probabilities are the network's, for one image and for several."""
    pixels = np.random.default_rng(0).integers(0, 256, (3, imgsz, imgsz, 3), np.uint8)
    engine = ClassifierEngine(folder, REFERENCE)
    for batch in (pixels[:1], pixels):
        with torch.inference_mode():
            expected = np.log(network(torch.from_numpy(as_floats(batch))).numpy().clip(LEAST))                            # (B, classes)
        off = float((abs(np.log(next(engine.raw([batch])).clip(LEAST)) - expected) / (1 + abs(expected))).max())
        assert off < TOLERANCE, f"the exported network is off by {off}"

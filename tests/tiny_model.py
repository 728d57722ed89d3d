"""A real detector in miniature for tests: YOLO11n at 64 px with random weights, as a deployed bundle. Made once per process."""

import hashlib
import json
import os
import tempfile
import warnings
from functools import lru_cache
from pathlib import Path
from typing import Any

CLASSES = ["crack", "pits", "scratch"]
IMGSZ = 64


@lru_cache(maxsize=1)
def onnx_bytes() -> bytes:
    """Exported by Ultralytics itself, so that its own predictor can be asked about the same file."""
    os.environ |= {"YOLO_OFFLINE": "1", "YOLO_AUTOINSTALL": "0"}
    with warnings.catch_warnings(), tempfile.TemporaryDirectory() as folder:
        warnings.simplefilter("ignore")                     # of exporting, which is not what is tested
        import torch
        from ultralytics import YOLO
        from ultralytics.nn.tasks import DetectionModel

        torch.manual_seed(0)
        net = DetectionModel("yolo11n.yaml", nc=len(CLASSES), verbose=False)
        net.names = dict(enumerate(CLASSES))
        _give_opinions(net)
        torch.save({"model": net, "train_args": {}}, Path(folder) / "tiny.pt")
        made = YOLO(Path(folder) / "tiny.pt").export(format="onnx", imgsz=IMGSZ, dynamic=True, simplify=False, verbose=False)
        return Path(made).read_bytes()


def _give_opinions(net: Any) -> None:
    """A fresh network says the same everywhere: its normalisation has seen nothing, its class scores start near 0.001."""
    import torch

    for layer in net.modules():
        if isinstance(layer, torch.nn.BatchNorm2d):
            layer.momentum = None                           # average over all that it sees
    with torch.no_grad():
        for _ in range(4):
            net.train()(torch.rand(8, 3, IMGSZ // 8, IMGSZ // 8).repeat_interleave(8, 2).repeat_interleave(8, 3))
    for branch in net.model[-1].cv3:
        torch.nn.init.normal_(branch[-1].weight, std=0.25)
        torch.nn.init.constant_(branch[-1].bias, -2.0)
    for branch in net.model[-1].cv2:
        torch.nn.init.normal_(branch[-1].weight, std=0.2)
        branch[-1].bias.data.copy_((-0.5 * torch.arange(16)).repeat(4))      # near sides: else each box covers the picture
    net.eval()


def bundle(folder: Path, onnx: bytes | None = None, **changes: Any) -> Path:
    """Write model.onnx + model.json into a folder and return it. `changes` go over the description."""
    data = onnx_bytes() if onnx is None else onnx
    head = dict(name="tiny", model_id=hashlib.sha256(data).hexdigest()[:16], kind="detector", created_at="2026-01-01T00:00:00+00:00",
                classes=CLASSES, imgsz=IMGSZ, preprocess=dict(letterbox=True, pad=114, scale=255, channels="RGB"),
                nms=dict(iou=0.7, max_detections=300), thresholds={c: 0.3 for c in CLASSES}, snapshot_id="", dataset="", settings={},
                metrics={}, versions={}, code_version="0", licence="AGPL-3.0-or-later")
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "model.onnx").write_bytes(data)
    (folder / "model.json").write_text(json.dumps(head | changes))
    return folder

"""A real anomaly model in miniature for tests, as a deployed bundle: how far each cell's colour is from the picture's own mean.

A grey picture scores 0; one with a white patch in it is unusual, and the map says where. Made once per process.
"""

import hashlib
import io
import json
import warnings
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

IMGSZ, SIDE = 32, 8
THRESHOLD, PIXEL_THRESHOLD = 0.2, 0.25


@lru_cache(maxsize=1)
def onnx_bytes() -> bytes:
    import torch
    from torch import nn

    class Deviation(nn.Module):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            off = (images - images.mean((2, 3), keepdim=True)).abs().mean(1, keepdim=True)            # (B, 1, S, S)
            return nn.functional.avg_pool2d(off, IMGSZ // SIDE)[:, 0]                                 # (B, m, m)

    buffer = io.BytesIO()
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")                     # of exporting, which is not what is tested
        torch.onnx.export(Deviation().eval(), torch.zeros(2, 3, IMGSZ, IMGSZ), buffer, input_names=["images"],
                          output_names=["anomaly_map"], dynamic_axes={"images": {0: "batch"}, "anomaly_map": {0: "batch"}},
                          opset_version=17, dynamo=False)
    return buffer.getvalue()


def bundle(folder: Path, onnx: bytes | None = None, **changes: Any) -> Path:
    """Write model.onnx + model.json into a folder and return it. `changes` go over the description."""
    data = onnx_bytes() if onnx is None else onnx
    head = dict(name="odd", model_id=hashlib.sha256(data).hexdigest()[:16], kind="anomaly", created_at="2026-01-01T00:00:00+00:00",
                classes=["unusual"], imgsz=IMGSZ, map_side=SIDE, thresholds={"unusual": THRESHOLD}, score={"cells": 4},
                pixel_threshold=PIXEL_THRESHOLD, map_range=[0.0, 0.6], preprocess={"resize": "stretch"}, snapshot_id="", dataset="",
                settings={}, chosen={}, metrics={}, versions={}, code_version="0", licence="AGPL-3.0-or-later")
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "model.onnx").write_bytes(data)
    (folder / "model.json").write_text(json.dumps(head | changes))
    return folder


def picture(seed: int, patch: tuple[int, int, int, int] | None = None, size: tuple[int, int] = (60, 48)) -> bytes:
    """A PNG, nearly evenly grey; with a white patch (x1, y1, x2, y2) it is unusual."""
    pixels = np.random.default_rng(seed).integers(96, 104, (size[1], size[0], 3), np.uint8)
    if patch:
        x1, y1, x2, y2 = patch
        pixels[y1:y2, x1:x2] = 255
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "PNG")
    return out.getvalue()

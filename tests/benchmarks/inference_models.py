"""One detector in every form that `inference` lets run: our bundle, Ultralytics' own checkpoint, its own OpenVINO export.

All from the network inside a deployed bundle: the weights that `model.onnx` holds are named as in the network they came from, so it is
built again and filled with them. So the committed demo model, and any other, can be measured at any input size.
"""

import json
import os
import shutil
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import onnx
import torch
from onnx import numpy_helper
from ultralytics import YOLO
from ultralytics.nn.tasks import DetectionModel

from backend.data import images
from backend.detection.export import write_bundle
from backend.evaluation import precision
from backend.inspection.precision import INT8, keep, said
from backend.inspection.runtimes import faster
from tests.benchmarks.record import NEU


def network_of(bundle: Path) -> Any:
    """The fused network of a bundle, float32. Raises KeyError where its weights are named otherwise."""
    head = json.loads((bundle / "model.json").read_text())
    network = DetectionModel(f"yolo11{head['settings'].get('size', 'n')}.yaml", nc=len(head["classes"]), verbose=False).eval()
    network.fuse(verbose=False)
    held = {i.name: numpy_helper.to_array(i) for i in onnx.load(bundle / "model.onnx").graph.initializer}
    for name, value in network.state_dict().items():
        if "dfl" not in name:                                       # 0 to 15: the same in every network
            value.copy_(torch.from_numpy(np.array(held[name])))
    network.names = dict(enumerate(head["classes"]))
    return network


def forms(bundle: Path, imgsz: int, folder: Path) -> dict[str, Path]:
    """Folder of a bundle of this input size, checkpoint, folder of the OpenVINO export; made where they are not there yet."""
    made = {"bundle": folder / f"{imgsz}" / "model", "torch": folder / f"{imgsz}" / "best.pt",
            "openvino": folder / f"{imgsz}" / "best_openvino_model"}
    if find_spec("openvino") is None:                                # a GPU machine: its export has no place there
        del made["openvino"]
    if all(path.exists() for path in made.values()):
        return made
    shutil.rmtree(folder / f"{imgsz}", ignore_errors=True)
    network, head = network_of(bundle), json.loads((bundle / "model.json").read_text())
    about = {k: head[k] for k in ("name", "classes", "snapshot_id", "dataset", "settings")}
    written = write_bundle(made["bundle"], network, imgsz=imgsz, **about)
    (made["bundle"] / "model.json").write_text(json.dumps(written | dict(thresholds=head["thresholds"])))
    if record := said(bundle, head["model_id"]):                     # of the same weights; nobody deploys them at another size
        if "int8" in record:
            shutil.copy(bundle / INT8, made["bundle"] / INT8)
        keep(made["bundle"], record | dict(model_id=written["model_id"]))
    torch.save({"model": network, "train_args": {}}, made["torch"])
    if "openvino" in made:
        YOLO(made["torch"]).export(format="openvino", imgsz=imgsz, verbose=False)
    return made


def measured(bundle: Path) -> dict[str, Any]:
    """What is known of the model's arithmetic; what nobody has measured of this machine's, measured now on NEU-DET's val list, as the
    product does it at the end of a training."""
    head = json.loads((bundle / "model.json").read_text())
    known = said(bundle, head["model_id"])
    for arithmetic in faster():
        if arithmetic not in known:
            lists = {split: (NEU / "splits" / f"{split}.txt").read_text().split() for split in ("train", "val")}
            truth = {stem: _boxes(stem) for stem in lists["val"]}
            precision.decide(bundle, precision.Pictures("val", lists["val"], lambda stem: np.asarray(
                images.decode((NEU / "IMAGES" / f"{stem}.jpg").read_bytes(), stem)), truth, lists["train"]), arithmetic=arithmetic)
    return said(bundle, head["model_id"])


def _boxes(stem: str) -> list[tuple[str, list[float]]]:
    """Class and x, y, w, h of each box, from the VOC file."""
    found = []
    for one in ElementTree.parse(NEU / "ANNOTATIONS" / f"{stem}.xml").iter("object"):
        x1, y1, x2, y2 = (float(one.findtext(f"bndbox/{k}") or 0) for k in ("xmin", "ymin", "xmax", "ymax"))
        found.append((str(one.findtext("name")), [x1, y1, x2 - x1, y2 - y1]))
    return found


def offline() -> None:
    """Ultralytics without a network, fonts or installations, as the product's own workers run it."""
    os.environ.update(YOLO_OFFLINE="1", YOLO_AUTOINSTALL="0", ULTRALYTICS_SAFE_LOAD="0")      # the checkpoint is our own

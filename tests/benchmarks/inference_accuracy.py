"""Does every runtime give the figures that `yolo predict` gives with the same weights? On NEU-DET's test list, by the published scorer.

    python -m tests.benchmarks.inference_accuracy --models FOLDER ... [--runtimes NAME ...]

A folder is that of a deployed YOLO11 detector (model.onnx and model.json), or of a training run, or a data folder: the newest completed
training in it. Whether `openvino` is bf16 follows from what was measured of the model; where nothing was, that is done first, on val.
Both sides answer from confidence 0.001 on, up to 300 boxes an image, suppression at IoU 0.7. Within 0.2 points of map50 and 0.5 of
map50_95 is what is asked; the exit code is 1 where a runtime is not. Writes results/inference_accuracy.json, a value a model.
"""

import argparse
import json
import os
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

from backend.inspection.runtimes import faster
from tests.benchmarks.inference_contestants import silent
from tests.benchmarks.inference_models import measured, network_of, offline
from tests.benchmarks.record import NEU, scored, write

ASKED = {"map50": 0.2, "map50_95": 0.5}                              # points
REFERENCE = "yolo predict"
FORCED = tuple(f"openvino-{a}" for a in faster())                     # shown beside, not asked: what a person would have to force


def bundle_in(folder: Path) -> Path:
    """The deployed detector that a folder means. Raises FileNotFoundError."""
    for model in (folder, folder / "model", *sorted(folder.glob("runs/*-train-detector-*/model"), reverse=True)):
        state = model.parent / "state.json"
        if (model / "model.json").exists() and (not state.exists() or json.loads(state.read_text())["state"] == "completed"):
            return model
    raise FileNotFoundError(f"no deployed detector in {folder}")


def theirs(bundle: Path, out: Path) -> Path:
    """predictions.json by `yolo predict`, with the very weights."""
    import torch
    from ultralytics import YOLO

    head, stems = json.loads((bundle / "model.json").read_text()), (NEU / "splits" / "test.txt").read_text().split()
    torch.save({"model": network_of(bundle), "train_args": {}}, out / "best.pt")
    rows = []
    found = YOLO(out / "best.pt").predict([str(NEU / "IMAGES" / f"{s}.jpg") for s in stems], stream=True, imgsz=head["imgsz"], conf=0.001,
                                          iou=0.7, max_det=300, verbose=False, save=False, device="cpu")
    for result in found:
        for x1, y1, x2, y2, score, k in result.boxes.data.tolist():
            rows.append(dict(file_name=Path(result.path).name, category=head["classes"][int(k)], score=score,
                             bbox=[x1, y1, x2 - x1, y2 - y1]))
    (out / "predictions.json").write_text(json.dumps(rows))
    return out / "predictions.json"


def ours(bundle: Path, runtime: str, out: Path) -> tuple[Path, str]:
    """predictions.json by the recipe `predict`; the runtime as it names itself."""
    os.environ["DIFFSPECT_DATA"] = str(out / "data")
    from backend import rundir
    from backend.config import Predict
    from backend.inspection import predict

    shutil.copytree(bundle, rundir.create("train-detector", {}, state="completed") / "model")
    config = Predict(model=json.loads((bundle / "model.json").read_text())["name"], images=str(NEU / "IMAGES"), runtime=runtime,
                     list=str(NEU / "splits" / "test.txt"), out=str(out))
    told = predict.run(config, rundir.create("predict", config.to_json(), state="running"), silent)
    return Path(told["path"]), told["runtime"]


def figures(predictions: Path) -> dict[str, float]:
    told = scored(predictions, NEU / "ANNOTATIONS", NEU / "splits" / "test.txt")
    return {m: 100 * told[m] for m in ASKED}


def compared(bundle: Path, runtimes: list[str]) -> tuple[dict[str, dict[str, float]], dict[str, str]]:
    """Figures in points: of `yolo predict`, and of each runtime; and how each runtime calls itself."""
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "theirs").mkdir()
        told, names = {REFERENCE: figures(theirs(bundle, Path(folder) / "theirs"))}, dict[str, str]()
        for runtime in runtimes:
            path, names[runtime] = ours(bundle, runtime, Path(folder) / runtime)
            told[runtime] = figures(path)
    return told, names


def _model(head: dict[str, Any], record: dict[str, Any], names: dict[str, str]) -> str:
    """'neu (160 px): openvino is openvino-cpu-f32 2026.4.1, for on 180 val images map50 is 44.6 in float32 and 44.1 in bf16'."""
    parts = {form: part for form, part in (("bf16", record), ("int8", record.get("int8", {}))) if "points" in part}
    points = "; ".join(", ".join(f"{name} is {a:g} in float32 and {b:g} in {form}" for name, (a, b) in part["points"].items())
                       + f" on {part['images']} {part['on']} images" for form, part in parts.items())
    why = f", for {points}" if points else ", no faster arithmetic here"
    return f"{head['name']} ({head['imgsz']} px): openvino is {names.get('openvino', 'not asked')}{why}"


def main() -> int:
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--models", type=Path, nargs="+", required=True, metavar="FOLDER")
    ap.add_argument("--runtimes", nargs="+", default=["openvino", "openvino-f32", "onnxruntime-cpu", *FORCED])
    a = ap.parse_args()
    offline()
    bundles = [bundle_in(f.resolve()) for f in a.models]
    records = [measured(b) for b in bundles]
    every = [compared(b, a.runtimes) for b in bundles]
    arms = {arm: {m: [round(told[arm][m], 3) for told, _ in every] for m in ASKED} for arm in every[0][0]}
    off: list[dict[str, Any]] = []
    for arm in list(arms)[1:]:
        for metric in ASKED:
            apart = [x - y for x, y in zip(arms[arm][metric], arms[REFERENCE][metric], strict=True)]
            off.append(dict(a=arm, b=REFERENCE, metric=metric, difference=round(sum(apart) / len(apart), 3), low=round(min(apart), 3),
                            high=round(max(apart), 3)))
            print(f"{arm}: {metric} {off[-1]['difference']:+.3f} points ({off[-1]['low']:+.3f} to {off[-1]['high']:+.3f})")
    within = all(max(abs(o["low"]), abs(o["high"])) <= ASKED[o["metric"]] for o in off if o["a"] not in FORCED)
    heads = [json.loads((b / "model.json").read_text()) for b in bundles]
    notes = ("Points on NEU-DET's test list (360 images), from confidence 0.001 on, by the published scorer; models: "
             + "; ".join(_model(h, r, names) for h, r, (_, names) in zip(heads, records, every, strict=True))
             + ". Differences: mean over models, least and most. "
             + ("All within" if within else "Not all within")
             + f" 0.2 points of map50 and 0.5 of map50_95, {' and '.join(FORCED) or 'nothing'} aside: where a model's "
             "val images speak against it, or a faster one is there, a person would have to force it.")
    write("inference_accuracy", "python -m tests.benchmarks.inference_accuracy --models FOLDER ...", arms, [], notes,
          ("openvino", "onnxruntime", "ultralytics", "torch", "numpy", "opencv-python-headless"), off)
    return 0 if within else 1


if __name__ == "__main__":
    sys.exit(main())

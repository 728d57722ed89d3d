"""What `inference` lets run against each other, each in a process of its own that does nothing until it is told to.

    python -m tests.benchmarks.inference_contestants KIND IMGSZ MODEL PICTURES SCRATCH

A line on stdin is one round over all pictures; the answer is one JSON line: seconds, core seconds, pictures, boxes. All but `raw` begin
with files and end with a row a box in a Parquet file on disk; boxes from confidence 0.05 on, as the product stores them.
"""

import json
import os
import shutil
import sys
import time
from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Any

from backend.inspection.runtimes import NVIDIA

FLOOR = 0.05
Round = Callable[[], tuple[int, int]]                    # -> pictures, boxes
DEVICE = "0" if NVIDIA.exists() else "cpu"               # of `yolo predict`
TRIED = (1, 4, 8, 16, 32) if DEVICE == "cpu" else (8, 32, 64, 128)      # pictures of one call


def pipeline(model: Path, imgsz: int, pictures: Path, scratch: Path) -> tuple[Round, str]:
    """The product's own recipe, with all that it does: hashes, kept pictures, logs, parts."""
    data = scratch / "data"
    os.environ["DIFFSPECT_DATA"] = str(data)
    from backend import rundir
    from backend.config import Inspect
    from backend.inspection import inspect
    from backend.jobs.report import Reporter

    name = json.loads((model / "model.json").read_text())["name"]
    shutil.copytree(model, rundir.create("train-detector", {}, state="completed") / "model")
    config = Inspect(model=name, images=str(pictures), line="L1", product="sheet", count="yes")

    def go() -> tuple[int, int]:
        run_dir = rundir.create("inspect", config.to_json(), state="running")
        result = inspect.run(config, run_dir, Reporter(run_dir))
        told[0] = result["runtime"]
        return result["inspected"], rundir.rows(run_dir, "detections").num_rows

    def clear() -> None:
        (data / "images").rename(data / f"images-{len(list(data.iterdir()))}")      # what is kept already would not be written again
        for k in range(256):                                         # a store that is in use has its folders
            (data / "images" / f"{k:02x}").mkdir(parents=True)

    go.before = clear                                                # type: ignore[attr-defined]
    told = [""]
    go()
    return go, told[0]


def predicted(yolo: Any, batch: int, imgsz: int, pictures: Path, out: Path, most: int = 0) -> tuple[int, int]:
    """`yolo predict` in the form that costs it least: no pictures drawn, no lines printed, results as they come."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    source = str(pictures) if not most else [str(p) for p in sorted(pictures.iterdir())[:most]]
    names, boxes, count = list[str](), list[Any](), 0
    for result in yolo.predict(source, stream=True, batch=batch, imgsz=imgsz, conf=FLOOR, verbose=False, save=False, device=DEVICE,
                               half=DEVICE != "cpu"):
        found = result.boxes.data.cpu().numpy()
        names += [result.path] * len(found)
        boxes.append(found)
        count += 1
    import numpy as np

    rows = np.concatenate(boxes)
    pq.write_table(pa.table({"file": names, **{k: rows[:, i] for i, k in enumerate(("x1", "y1", "x2", "y2", "confidence", "class"))}}), out)
    return count, len(rows)


def ultralytics(model: Path, imgsz: int, pictures: Path, scratch: Path, most: tuple[int, ...] = TRIED) -> tuple[Round, str]:
    """With every core, and of the batch sizes the one that is fastest on the first pictures."""
    from tests.benchmarks.inference_models import offline

    offline()
    import torch
    from ultralytics import YOLO

    from backend.device import cores

    yolo, out = YOLO(model, task="detect"), scratch / "rows.parquet"
    predicted(yolo, 1, imgsz, pictures, out, 2)
    torch.set_num_threads(cores())                                   # it takes one core less than there are
    rates = {}
    for batch in most:
        predicted(yolo, batch, imgsz, pictures, out, batch)
        began, n = time.perf_counter(), max(32, batch)
        predicted(yolo, batch, imgsz, pictures, out, n)
        rates[batch] = n / (time.perf_counter() - began)
    best = max(rates, key=rates.__getitem__)
    predicted(yolo, best, imgsz, pictures, out, 64)
    return lambda: predicted(yolo, best, imgsz, pictures, out), f"batch {best}, {torch.get_num_threads()} threads"


def exported(model: Path, imgsz: int, pictures: Path, scratch: Path) -> tuple[Round, str]:
    """Its own OpenVINO export, which takes one picture a call."""
    return ultralytics(model, imgsz, pictures, scratch, (1,))


def raw(model: Path, imgsz: int, pictures: Path, scratch: Path) -> tuple[Round, str]:
    """OpenVINO by itself: ready tensors, requests in flight, answers thrown away; of the batch sizes, and of float32 tensors and bytes that
    OpenVINO turns and scales itself, the fastest."""
    if DEVICE != "cpu":
        return bare(model, imgsz, pictures)
    import numpy as np
    import openvino as ov

    from backend.device import cores

    core, count = ov.Core(), len(list(pictures.iterdir()))
    native = "BF16" in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")

    def of(batch: int, form: str) -> Callable[[int], None]:
        network = core.read_model(model / "model.onnx")
        network.reshape([batch, 3, imgsz, imgsz])
        rng = np.random.default_rng(0)
        tensor = rng.random((batch, 3, imgsz, imgsz), np.float32)
        if form == "bytes":
            steps = ov.preprocess.PrePostProcessor(network)
            steps.input().tensor().set_element_type(ov.Type.u8).set_layout(ov.Layout("NHWC"))
            steps.input().preprocess().convert_element_type(ov.Type.f32).scale(255.0)
            steps.input().model().set_layout(ov.Layout("NCHW"))
            network, tensor = steps.build(), rng.integers(0, 256, (batch, imgsz, imgsz, 3), np.uint8)
        compiled = core.compile_model(network, "CPU", {"PERFORMANCE_HINT": "THROUGHPUT", "INFERENCE_NUM_THREADS": cores(),
                                                       "INFERENCE_PRECISION_HINT": "bf16" if native else "f32"})
        queue = ov.AsyncInferQueue(compiled)

        def run(pictures: int) -> None:
            for _ in range(-(-pictures // batch)):
                queue.start_async({0: tensor}, share_inputs=True)
            queue.wait_all()

        run(4 * batch)
        return run

    rates = {}
    for batch, form in product(TRIED[:3], ("float32", "bytes")):
        run, n = of(batch, form), max(16, 64 * 224**2 // imgsz**2)
        began = os.times()                                           # core seconds: others may be at work while this one gets ready
        run(n)
        rates[batch, form] = n / sum(b - a for a, b in zip(began[:2], os.times()[:2], strict=True))
    best = max(rates, key=rates.__getitem__)
    run = of(*best)

    def go() -> tuple[int, int]:
        run(count)
        return count, 0

    return go, f"openvino {ov.__version__.split('-')[0]}, {'bf16' if native else 'f32'}, batch {best[0]} of {best[1]}"


def bare(model: Path, imgsz: int, pictures: Path) -> tuple[Round, str]:
    """The recorded pass on a GPU, replayed on bytes that are there already, answers thrown away."""
    import torch

    from backend.inspection.cuda import Cuda

    network, count = Cuda((model / "model.onnx").read_bytes(), "bare", imgsz, half=True), len(list(pictures.iterdir()))

    def go() -> tuple[int, int]:
        for k in range(-(-count // network.batch)):
            slot = network._slots[k % len(network._slots)]
            with torch.cuda.stream(slot.stream):
                slot.recorded.replay()
        torch.cuda.synchronize()
        return count, 0

    go()
    return go, f"{network.name}, batch {network.batch}"


def silent(**progress: Any) -> None:
    """A recipe's report that nobody reads."""


KINDS: dict[str, Callable[[Path, int, Path, Path], tuple[Round, str]]] = {
    "pipeline": pipeline, "yolo_torch": ultralytics, "yolo_openvino": exported, "raw": raw}
FORM = {"pipeline": "bundle", "yolo_torch": "torch", "yolo_openvino": "openvino", "raw": "bundle"}      # of `inference_models.forms`


def unread(pictures: Path) -> None:
    """Take the files out of the system's memory, so that they are read from disk."""
    for path in pictures.iterdir():
        with open(path, "rb") as f:
            os.posix_fadvise(f.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def main() -> None:
    kind, imgsz, model, pictures, scratch = sys.argv[1:6]
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)                                                    # what libraries print is no answer
    Path(scratch).mkdir(parents=True, exist_ok=True)
    go, how = KINDS[kind](Path(model), int(imgsz), Path(pictures), Path(scratch))
    print(json.dumps(dict(how=how)), file=out, flush=True)
    for _ in sys.stdin:
        getattr(go, "before", lambda: None)()
        unread(Path(pictures))
        began, before = time.perf_counter(), os.times()
        count, boxes = go()
        seconds, after = time.perf_counter() - began, os.times()
        print(json.dumps(dict(seconds=seconds, core_s=sum(after[:2]) - sum(before[:2]), pictures=count, boxes=boxes)), file=out, flush=True)


if __name__ == "__main__":
    main()

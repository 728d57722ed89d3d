"""NEU-DET through the product: import with its lists, train YOLO11n from scratch, score the locked test list.

    python -m tests.benchmarks.detector --data FOLDER [--seeds 0 1 2] [--epochs 20] [--imgsz 224]

One seed's figures are kept under FOLDER/seed-<k>.json, so that a stopped benchmark goes on where it was.
"""

import argparse
import json
from pathlib import Path

from tests.benchmarks.record import NEU, product, scored, write


def one_seed(data: Path, seed: int, epochs: int, imgsz: int) -> dict[str, float]:
    done = data / f"seed-{seed}.json"
    if done.exists():
        return dict(json.loads(done.read_text()))
    if not list((data / "runs").glob("*-import-*")):
        product(data, "import", str(NEU), "--name", "neu-det", "--splits", str(NEU / "splits"))
    name = f"neu-{seed}"
    product(data, "train-detector", "--dataset", "neu-det", "--name", name,
            "--epochs", str(epochs), "--imgsz", str(imgsz), "--seed", str(seed))
    product(data, "predict", "--model", name, "--images", str(NEU / "IMAGES"), "--list", str(NEU / "splits" / "test.txt"),
            "--out", str(data / name))
    score = scored(data / name / "predictions.json", NEU / "ANNOTATIONS", NEU / "splits" / "test.txt")
    figures = dict(map50=score["map50"], map50_95=score["map50_95"],
                   **{f"ap50 {c}": v for c, v in score["ap50"].items()})
    done.write_text(json.dumps(figures))
    return figures


def main() -> None:
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--data", type=Path, required=True)
    ap.add_argument("--seeds", type=int, nargs="+", default=[0])
    ap.add_argument("--epochs", type=int, default=20)
    ap.add_argument("--imgsz", type=int, default=224)
    a = ap.parse_args()
    a.data.mkdir(parents=True, exist_ok=True)
    rows = [one_seed(a.data.resolve(), seed, a.epochs, a.imgsz) for seed in a.seeds]
    arm = f"YOLO11n, {a.epochs} epochs, {a.imgsz} px"
    seeds = " ".join(map(str, a.seeds))
    write("detector", f"python -m tests.benchmarks.detector --data FOLDER --epochs {a.epochs} --imgsz {a.imgsz} --seeds {seeds}",
          {arm: {k: [r[k] for r in rows] for k in rows[0]}}, a.seeds,
          "NEU-DET, its lists: 1,260 train, 180 val, 360 test; from scratch; weights chosen on val; "
          "test looked at once, by the published scorer.",
          ("torch", "ultralytics", "onnxruntime", "faster-coco-eval"))


if __name__ == "__main__":
    main()

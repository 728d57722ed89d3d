"""The recipe of the committed demo model: draw plates that do not exist, train on them, write the bundle to `out`.

The same training as for real images; only the material is drawn rather than imported, so nothing is left in the data
folder but the run. `make demo-model` runs it. Knows nothing of the demo plant's history.
"""

from pathlib import Path
from typing import Any

import numpy as np

from backend import rundir
from backend.config import DemoModel, TrainDetector
from backend.data import demo, images
from backend.data.splits import SPLITS
from backend.detection import train

NAME = "demo"


def run(config: DemoModel, run_dir: Path, report: Any) -> dict[str, Any]:
    settings = TrainDetector(dataset=NAME, name=NAME, epochs=config.epochs, imgsz=config.imgsz, seed=config.seed)
    train.check_settings(settings)
    report(step=0, total=config.epochs, message=f"drawing {config.images} images")
    result = train.make(settings, draw(config, run_dir / "training" / "data"), run_dir, report)
    if config.out:
        out = Path(config.out)
        out.mkdir(parents=True, exist_ok=True)
        for name in (p.name for p in (run_dir / "model").iterdir()):
            rundir.write_bytes(out / name, (run_dir / "model" / name).read_bytes())
    return result


def draw(config: DemoModel, folder: Path) -> train.Material:
    """Pictures and their boxes, in three splits. The same config draws the same pixels, so a resumed run may draw again."""
    demo.write_dataset(folder, config.images, config.seed)
    paths = {path.name: path for path in sorted((folder / "images").rglob("*.png"))}
    truth = {split: {path.name: _boxes(path) for path in paths.values() if path.parent.name == split} for split in SPLITS}
    return train.Material(NAME, f"demo-{config.images}-{config.seed}", list(demo.CLASSES), folder / "data.yaml", truth,
                          lambda name: np.asarray(images.decode(paths[name].read_bytes(), name)))


def _boxes(path: Path) -> list[tuple[str, list[float]]]:
    """Boxes in pixels from the YOLO label beside a picture."""
    label = path.parents[2] / "labels" / path.parent.name / f"{path.stem}.txt"
    found = []
    for line in label.read_text().splitlines():
        class_id, x, y, w, h = (float(v) for v in line.split())
        found.append((demo.CLASSES[int(class_id)], [(x - w / 2) * demo.SIDE, (y - h / 2) * demo.SIDE, w * demo.SIDE, h * demo.SIDE]))
    return found

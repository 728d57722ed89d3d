"""The smallest thing a detector can be trained on: grey 64 px pictures with one red or blue square, and a few without.

Run as a program it trains on them in a process of its own, which tests kill: `python -m tests.squares FOLDER EPOCHS`.
"""

import socket
import sys
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from backend.config import TrainDetector

SIDE = 64
CLASSES = ["red", "blue"]
COUNTS = {"train": 10, "val": 4, "test": 4}          # 10 = 2 batches of 4 and a rest


def one_core() -> int:
    """In place of all: on a busy machine, threads that wait for each other make pictures this small ten times slower."""
    return 1


def config(epochs: int, **more: Any) -> TrainDetector:
    return TrainDetector(dataset="squares", name="squares", epochs=epochs, imgsz=SIDE, batch=4, **more)


def draw(folder: Path) -> dict[str, dict[str, list[tuple[str, list[float]]]]]:
    """A YOLO folder, and its boxes by split and file. The last picture of each split is a good one."""
    rng, truth = np.random.default_rng(0), {}
    for split, n in COUNTS.items():
        for kind in ("images", "labels"):
            (folder / kind / split).mkdir(parents=True)
        truth[split] = {f"{split}-{i}.png": _picture(folder, split, f"{split}-{i}", rng, i < n - 1) for i in range(n)}
    (folder / "data.yaml").write_text(f"path: .\ntrain: images/train\nval: images/val\nnames: {CLASSES}\n")
    return truth


def _picture(folder: Path, split: str, stem: str, rng: np.random.Generator, defective: bool) -> list[tuple[str, list[float]]]:
    pixels = rng.integers(90, 120, (SIDE, SIDE, 3)).astype(np.uint8)
    class_id, side = int(rng.integers(2)), int(rng.integers(16, 28))
    x, y = (int(v) for v in rng.integers(0, SIDE - side, 2))
    if defective:
        pixels[y:y + side, x:x + side] = [(220, 30, 30), (30, 30, 220)][class_id]
        (folder / "labels" / split / f"{stem}.txt").write_text(
            f"{class_id} {(x + side / 2) / SIDE} {(y + side / 2) / SIDE} {side / SIDE} {side / SIDE}\n")
    Image.fromarray(pixels).save(folder / "images" / split / f"{stem}.png")
    return [(CLASSES[class_id], [float(x), float(y), float(side), float(side)])] if defective else []


def material(folder: Path) -> Any:
    from backend.detection.train import Material

    truth = draw(folder)

    def load(name: str) -> np.ndarray:
        with Image.open(folder / "images" / name.split("-")[0] / name) as image:
            return np.asarray(image)

    return Material("squares", "snapshot-1", CLASSES, folder / "data.yaml", truth, load)


def forbid_network(patch: Any = setattr) -> None:
    """From here on, a connection or a look-up of a name, but of this machine's own, is an error."""
    connect, look_up = socket.socket.connect, socket.getaddrinfo

    def checked_connect(self: socket.socket, address: Any) -> None:
        if self.family != socket.AF_UNIX and address[0] not in ("127.0.0.1", "::1"):
            raise AssertionError(f"tried to reach {address}")
        connect(self, address)

    def checked_look_up(host: Any, *rest: Any, **more: Any) -> Any:
        if host not in ("127.0.0.1", "::1", "localhost", None):
            raise AssertionError(f"tried to look up {host}")
        return look_up(host, *rest, **more)

    patch(socket.socket, "connect", checked_connect)
    patch(socket, "getaddrinfo", checked_look_up)


def main() -> None:
    folder, epochs = Path(sys.argv[1]), int(sys.argv[2])
    forbid_network()
    from backend.detection import trainer

    trainer.cores = one_core
    trainer.fit(config(epochs), folder / "data" / "data.yaml", folder, lambda epoch, message, metrics: print(message, flush=True))


if __name__ == "__main__":
    main()

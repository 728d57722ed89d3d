"""Use a downloaded Diffspect model outside Diffspect: pictures in, one JSON line each out; exit code 1 where one could not be read.

Needs numpy, Pillow, and ONNX Runtime or OpenVINO.

    python infer.py picture.png folder/ ...              this file beside model.onnx, model.json and tiles.py
    python infer.py --all picture.png                    boxes below the model's thresholds too

A detector tells boxes (x1, y1, x2, y2 in the picture's pixels), a classifier the probability of each class, an anomaly model a score.
The same arithmetic as in Diffspect, written out without it; what a person has set there by hand (rules, thresholds) is not known here.
Licence: AGPL-3.0-or-later, as Diffspect.
"""

import argparse
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps

HERE = Path(__file__).resolve().parent
ENDINGS = {".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp"}
FLOOR = 0.05
Run = Callable[[np.ndarray], np.ndarray]                 # float32 (1, 3, S, S) from 0 to 1 -> the network's answer


def network(folder: Path) -> Run:
    """model.xml is OpenVINO's; model.onnx is for either runtime."""
    if (folder / "model.xml").exists():
        return openvino_network(folder / "model.xml")
    try:
        import onnxruntime
    except ImportError:
        return openvino_network(folder / "model.onnx")
    session = onnxruntime.InferenceSession(str(folder / "model.onnx"), providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return lambda batch: np.asarray(session.run(None, {name: batch})[0])


def openvino_network(path: Path) -> Run:
    import openvino

    compiled = openvino.Core().compile_model(str(path), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    return lambda batch: np.asarray(compiled(batch)[0])


def resized(image: np.ndarray, width: int, height: int) -> np.ndarray:
    """uint8 (H, W, 3), bilinear between the nearest pixels, in whole numbers as OpenCV's INTER_LINEAR does it: a grey level off at most."""
    def along(length: int, new: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        at = ((np.arange(new) + 0.5) * (length / new) - 0.5).clip(0, length - 1)
        low = at.astype(int)
        share = np.where(low < length - 1, at - low, 0).astype(np.float32)
        return low, np.minimum(low + 1, length - 1), np.rint((1 - share) * 2048).astype(int), np.rint(share * 2048).astype(int)

    (y0, y1, b0, b1), (x0, x1, a0, a1) = along(image.shape[0], height), along(image.shape[1], width)
    rows = image[:, x0] * a0[None, :, None] + image[:, x1] * a1[None, :, None]                          # 11 bits up
    low, high = (b[:, None, None] * (rows[y] >> 4) >> 16 for y, b in ((y0, b0), (y1, b1)))
    return ((low + high + 2) >> 2).clip(0, 255).astype(np.uint8)


def stretched(image: np.ndarray, side: int) -> np.ndarray:
    """uint8 (H, W, 3) to (side, side, 3); averaged over areas where it shrinks in both directions."""
    height, width = image.shape[:2]
    if min(height, width) <= side:
        return image if (height, width) == (side, side) else resized(image, side, side)

    def shares(length: int) -> np.ndarray:
        """(side, length): how much of each old pixel lies in each new one."""
        edges, old = np.arange(side + 1) * length / side, np.arange(length)
        inside = np.minimum(edges[1:, None], old + 1) - np.maximum(edges[:-1, None], old)
        return (inside.clip(0) * side / length).astype(np.float32)

    rows = np.tensordot(shares(height), image.astype(np.float32), 1)
    return np.rint(np.einsum("yxc,nx->ync", rows, shares(width))).clip(0, 255).astype(np.uint8)


def as_batch(pixels: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(pixels.transpose(2, 0, 1)[None], np.float32) / np.float32(255)


def boxes_of(image: np.ndarray, run: Run, head: dict[str, Any], floor: float) -> np.ndarray:
    """float32 (n, 6): x1, y1, x2, y2, confidence, class id, surest first. One picture or tile."""
    height, width = image.shape[:2]
    side = head["imgsz"]
    scale = min(side / height, side / width)
    w, h = max(round(width * scale), 1), max(round(height * scale), 1)
    left, top = round((side - w) / 2 - 0.1), round((side - h) / 2 - 0.1)
    fitted = np.full((side, side, 3), head.get("preprocess", {}).get("pad", 114), np.uint8)
    fitted[top:top + h, left:left + w] = image if (w, h) == (width, height) else resized(image, w, h)
    raw = run(as_batch(fitted))[0]                                                       # (4 + classes, N)
    found = suppressed(raw[:, raw[4:].max(0) > floor].astype(np.float64), head.get("nms", {}))
    found[:, [0, 2]] = ((found[:, [0, 2]] - left) / (w / width)).clip(0, width)
    found[:, [1, 3]] = ((found[:, [1, 3]] - top) / (h / height)).clip(0, height)
    return found[(found[:, 2] > found[:, 0]) & (found[:, 3] > found[:, 1])].astype(np.float32)


def suppressed(raw: np.ndarray, nms: dict[str, Any]) -> np.ndarray:
    """Overlapping boxes of one class reduced to the surest."""
    x, y, w, h = raw[:4]
    boxes = np.stack([x - w / 2, y - h / 2, x + w / 2, y + h / 2, raw[4:].max(0), raw[4:].argmax(0)], axis=1)
    boxes, kept = boxes[np.argsort(-boxes[:, 4], kind="stable")], list[np.ndarray]()
    while len(boxes) and len(kept) < nms.get("max_detections", 300):
        best, boxes = boxes[0], boxes[1:]
        kept.append(best)
        shared = (np.minimum(boxes[:, 2:4], best[2:4]) - np.maximum(boxes[:, :2], best[:2])).clip(0).prod(axis=1)
        areas = (boxes[:, 2:4] - boxes[:, :2]).prod(axis=1) + (best[2:4] - best[:2]).prod() - shared
        boxes = boxes[(shared <= nms.get("iou", 0.7) * areas) | (boxes[:, 5] != best[5])]
    return np.array(kept).reshape(-1, 6)


def detected(image: np.ndarray, run: Run, head: dict[str, Any], floor: float) -> np.ndarray:
    """Boxes of a picture; a large one is looked at in tiles of the scale that the model learned."""
    from tiles import joined, places

    height, width = image.shape[:2]
    learned = head.get("learned") or {}
    where = places(width, height, int(learned.get("side", 0)), round(1.1 * learned.get("object", 0)))
    return joined([boxes_of(image[y:y + h, x:x + w], run, head, floor) for x, y, w, h in where], where, width, height)


def answer(image: np.ndarray, run: Run, head: dict[str, Any], every: bool) -> dict[str, Any]:
    """What the model says of a picture, as it goes to JSON."""
    kind, limits = head.get("kind", "detector"), head.get("thresholds", {})
    if kind == "detector":
        rows = [dict(class_name=head["classes"][int(k)], confidence=round(c, 6), box=[round(v, 3) for v in box])
                for *box, c, k in detected(image, run, head, FLOOR).tolist()]
        passing = [r for r in rows if r["confidence"] >= limits.get(r["class_name"], 0.25)]
        return dict(defective=bool(passing), detections=rows if every else passing)
    said = run(as_batch(stretched(image, head["imgsz"])))[0]
    if kind == "classifier":
        told = dict(zip(head["all_classes"], map(float, said), strict=True))
        return dict(defective=any(told[c] >= limits.get(c, 0.25) for c in head["classes"]), probabilities=told)
    score = float(np.sort(said.ravel())[-int(head["score"]["cells"]):].mean())
    return dict(unusual=score >= limits["unusual"] if "unusual" in limits else None, score=score)


def opened(path: Path) -> np.ndarray:
    """uint8 (H, W, 3), upright; greys of more than 8 bits by the camera's depth, transparent parts white. Raises ValueError, worded."""
    try:
        with Image.open(path) as image:
            if image.format != "JPEG" and getattr(image, "n_frames", 1) > 1:
                raise ValueError("It holds several pictures; save each by itself.")
            image.load()
            upright = ImageOps.exif_transpose(image)
            if upright.mode[0] in "IF":
                return np.repeat(to_8_bits(np.asarray(upright))[..., None], 3, -1)
            if upright.has_transparency_data:
                upright = Image.alpha_composite(Image.new("RGBA", upright.size, "white"), upright.convert("RGBA"))
            return np.asarray(upright.convert("RGB"))
    except FileNotFoundError:
        raise ValueError("There is no such file.") from None
    except ValueError:
        raise
    except Exception as problem:                         # decoders raise what they like on damaged files
        raise ValueError("It is no picture that can be read.") from problem


def to_8_bits(values: np.ndarray) -> np.ndarray:
    """The smallest depth (0..1, or 8, 10, 12, 14, 16 bits) that holds the brightest pixel becomes 0..255."""
    grey = np.nan_to_num(values.astype(np.float32), nan=0.0, posinf=0.0, neginf=0.0)
    low, high = min(0.0, float(grey.min())), float(grey.max())
    depths = [1, 255, 1023, 4095, 16383, 65535][values.dtype.kind != "f":]
    top = next((d for d in depths if high <= d), high)
    return np.rint((grey - low) * (255 / max(top - low, 5e-324))).astype(np.uint8)


def pictures(paths: list[Path]) -> Iterator[Path]:
    for path in paths:
        yield from sorted(p for p in path.rglob("*") if p.suffix.lower() in ENDINGS) if path.is_dir() else [path]


def main() -> None:
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("pictures", nargs="+", type=Path)
    ap.add_argument("--model", type=Path, default=HERE, help="folder of the model; default: beside this file")
    ap.add_argument("--all", action="store_true", help="boxes below the thresholds too")
    a = ap.parse_args()
    sys.path.insert(0, str(HERE))
    head, run = json.loads((a.model / "model.json").read_bytes()), network(a.model)
    looked, bad = 0, 0
    for path in pictures(a.pictures):
        try:
            image = opened(path)
        except ValueError as problem:                    # one bad file does not keep the others from being looked at
            told, bad = dict(error=str(problem)), bad + 1
        else:
            told, looked = answer(image, run, head, a.all), looked + 1
        print(json.dumps(dict(file=str(path), **told)), flush=True)
    if not looked + bad:
        print("There is no picture in what was named.", file=sys.stderr)
    sys.exit(not looked or bool(bad))


if __name__ == "__main__":
    main()

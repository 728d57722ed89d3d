"""What a model's bundle says of itself, checked before anything is computed with it: model.json, and where its weights lie.

A bundle may have been copied from elsewhere, or written by hand. Knows nothing of runtimes.
"""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

from backend.errors import InputError

MOST_SIDE, MOST_CLASSES = 8192, 10_000
NEEDED = ("name", "model_id", "classes", "imgsz")


def called(folder: Path) -> str:
    """How a person knows the place of a bundle: its run, or its folder's name; never the whole path."""
    return folder.parent.name if folder.name == "model" else folder.name


def checked(head: Any, folder: Path) -> dict[str, Any]:
    """A description that can be used. Raises InputError."""
    lacking = [k for k in NEEDED if not isinstance(head, dict) or not head.get(k)]
    if lacking:
        raise InputError(f"The description of the model in {called(folder)} is incomplete: model.json does not say {', '.join(lacking)}.")
    if wrong := [k for k, fits in FITS.items() if k in head and not fits(head[k])]:
        said = ", ".join(wrong)
        raise InputError(f"The description of the model in {called(folder)} is wrong: what model.json says of {said} cannot be.")
    return dict(head)


def _text(value: Any) -> bool:
    return isinstance(value, str) and value.isprintable() and 0 < len(value) <= 250


def _whole(value: Any, low: int, high: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and low <= value <= high


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e9 and math.isfinite(value)


def _classes(value: Any) -> bool:
    return isinstance(value, list) and len(value) <= MOST_CLASSES and all(map(_text, value)) and len(set(value)) == len(value)


def _numbers(value: Any) -> bool:
    return isinstance(value, dict) and all(map(_number, value.values()))


FITS: dict[str, Callable[[Any], bool]] = {
    "name": _text, "model_id": _text, "classes": _classes, "all_classes": _classes, "imgsz": lambda v: _whole(v, 8, MOST_SIDE),
    "thresholds": _numbers,
    "nms": lambda v: isinstance(v, dict) and _number(v.get("iou", 0.7)) and _whole(v.get("max_detections", 300), 1, 100_000),
    "preprocess": lambda v: isinstance(v, dict) and _whole(v.get("pad", 114), 0, 255),
    "learned": lambda v: v is None or (isinstance(v, dict) and _number(v.get("side", 0)) and _number(v.get("object", 0)) and
                                       0 <= v.get("side", 0) <= 1e6 and 0 <= v.get("object", 0) <= 1e6),
    "kind": _text,
    "map_side": lambda v: _whole(v, 1, MOST_SIDE),
    "map_range": lambda v: isinstance(v, list) and len(v) == 2 and all(map(_number, v)),
    "score": lambda v: isinstance(v, dict) and _whole(v.get("cells"), 1, MOST_SIDE**2),
    "pixel_threshold": _number}


def alone(onnx: bytes, name: str) -> None:
    """Raises InputError where a network's weights lie in another file: it may name any on this machine, and a runtime would read it.

    The bytes that begin such an entry are looked for first, 1 ms for 10 MB; only what holds them is read as ONNX, 30 ms.
    """
    if b"\n\x08location" not in onnx:
        return
    import onnx as format
    from google.protobuf.message import DecodeError
    from onnx.external_data_helper import uses_external_data

    try:
        graphs = [format.load_model_from_string(onnx).graph]
    except DecodeError:                            # the runtime says so
        return
    while graphs:
        graph = graphs.pop()
        attributes = [a for node in graph.node for a in node.attribute]
        held = [*graph.initializer, *(t for s in graph.sparse_initializer for t in (s.values, s.indices)),
                *(a.t for a in attributes if a.HasField("t")), *(t for a in attributes for t in a.tensors)]
        if any(map(uses_external_data, held)):
            raise InputError(f"The model {name!r} keeps its weights in another file. Export it as one file.")
        graphs += [a.g for a in attributes if a.HasField("g")] + [g for a in attributes for g in a.graphs]

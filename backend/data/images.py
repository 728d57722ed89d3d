"""The only door pictures come in by, and the store of kept images: `<data>/images/<first 2 hex>/<sha256>.<ext>`.

Content is the name, so nothing that a file was called ever reaches the disk, and one content is kept once. Masks lie there too.
Reading folders and zips is `data.files`, from bytes to a picture `data.decoding`, both offered here too.
Knows nothing of labels, runs or classes.
"""

import ctypes
import hashlib
import os
import re
import secrets
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from backend.config import data_root
from backend.data import decoding
from backend.data.decoding import FORMATS, captured_at, decode, orientation, pixels
from backend.data.files import Refusal, Source, count, read
from backend.errors import NotFoundError

__all__ = ["FORMATS", "Refusal", "Source", "captured_at", "count", "decode", "drawn", "keep", "keep_mask", "load", "load_mask",
           "orientation", "path_of", "pixels", "read", "settle", "sha256", "size"]

_SHA = re.compile(r"[0-9a-f]{64}")


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _root() -> Path:
    return data_root() / "images"


def keep(data: bytes, image_id: str, format: str, durable: bool = True) -> Path:
    """Store a file under its content's hash, once. `format` is one of FORMATS. Not `durable`: it is on disk after the next `settle`."""
    assert _SHA.fullmatch(image_id), image_id
    path = _root() / image_id[:2] / (image_id + FORMATS[format])
    try:
        if os.stat(path).st_size == len(data):                 # a power cut may leave a name without its bytes
            os.utime(path)                                     # used again: retention counts its days from here (see letting_go)
            return path
    except FileNotFoundError:
        pass
    return _write(path, data, durable)


def settle() -> None:
    """What was kept until now is on disk when this returns: one wait for many pictures. Raises OSError."""
    root = os.open(_root(), os.O_RDONLY)
    try:
        sync = getattr(ctypes.CDLL(None, use_errno=True), "syncfs", None) if os.name == "posix" else None
        if sync is None:
            os.sync()
        elif sync(root):
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    finally:
        os.close(root)


def _write(path: Path, data: bytes, durable: bool = True) -> Path:
    temporary = f"{path.parent}/.{path.name}.{secrets.token_hex(4)}"
    try:
        fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
    except FileNotFoundError:
        path.parent.mkdir(parents=True, exist_ok=True)
        fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
    try:
        with open(fd, "wb", buffering=0) as f:
            left = memoryview(data)
            while left:                                        # the disk may take less than all at once
                left = left[f.write(left):]
            if durable:
                os.fsync(fd)                                   # 0.3 ms on an SSD
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    return path


def path_of(image_id: str) -> Path | None:
    """Where a kept image lies; None if it is not kept or the id is none of ours."""
    if not _SHA.fullmatch(image_id):
        return None
    paths = (_root() / image_id[:2] / (image_id + suffix) for suffix in FORMATS.values())
    return next((p for p in paths if p.exists()), None)


def load(image_id: str) -> Image.Image:
    """A kept image, or one of the demo plant, drawn now. Raises NotFoundError."""
    if image_id.startswith("demo:"):
        from backend.data import demo

        return demo.render(image_id).image
    path = path_of(image_id)
    if path is None:
        raise NotFoundError("This picture was not kept.")
    return decode(path.read_bytes(), path.name)


def size(image_id: str) -> tuple[int, int]:
    """Width and height of a kept image, without decoding it: 0.1 ms. Raises NotFoundError, ImageError."""
    path = None if image_id.startswith("demo:") else path_of(image_id)
    return load(image_id).size if path is None else decoding.size(path.read_bytes(), path.name)


def drawn(image_id: str) -> Path:
    """A picture of the demo plant as a file, for those that read files: drawn once. Raises NotFoundError."""
    from backend.data import demo

    demo.parse(image_id)                                       # a well-formed id is a safe name
    path = _root() / "drawn" / f"{image_id.replace(':', '-')}.png"
    if path.exists():
        return path
    out = BytesIO()
    demo.render(image_id).image.save(out, "PNG", compress_level=1)
    return _write(path, out.getvalue())


def keep_mask(mask: "np.ndarray[Any, np.dtype[np.bool_]]") -> str:
    """Store a mask, (H, W), as a PNG; returns its id. That is the hash of its size and bits, not of the file: encoders differ from
    version to version, and a snapshot's id must not."""
    height, width = mask.shape
    image_id = sha256(f"mask {width}x{height} ".encode() + np.packbits(mask).tobytes())
    out = BytesIO()
    Image.fromarray(mask).save(out, "PNG")
    keep(out.getvalue(), image_id, "PNG")
    return image_id


def load_mask(mask_id: str) -> "np.ndarray[Any, np.dtype[np.bool_]]":
    """A kept mask, (H, W). Raises NotFoundError."""
    return np.asarray(load(mask_id).convert("L")) > 127

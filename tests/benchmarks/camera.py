"""A camera at a pace of its own: writes pictures into a folder, each in a few pieces, as slowly as asked and no slower.

    python -m tests.benchmarks.camera DIR [--rate 50] [--pictures N | --seconds S] [--source DIR] [--keep S]

Without a source the pictures are coloured blocks. Each has a number inside, so none is like another. It runs on its clock:
where a picture is late, the next ones are not.
"""

import argparse
import io
import time
from itertools import count
from pathlib import Path

import numpy as np
from PIL import Image


def sources(folder: Path | None) -> list[bytes]:
    if folder is not None:
        return [p.read_bytes() for p in sorted(folder.iterdir())[:360] if p.suffix.lower() in (".jpg", ".jpeg")]
    made = []
    for seed in range(20):
        out = io.BytesIO()
        Image.fromarray(np.random.default_rng(seed).integers(0, 256, (8, 8, 3), np.uint8)).resize((200, 200)).save(out, "JPEG", quality=92)
        made.append(out.getvalue())
    return made


def numbered(jpeg: bytes, k: int) -> bytes:
    """The same picture as another file: with a number as a comment behind its first two bytes."""
    return jpeg[:2] + b"\xff\xfe\x00\x0a" + k.to_bytes(8, "big") + jpeg[2:]


def main() -> None:
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("folder", type=Path)
    ap.add_argument("--rate", type=float, default=50.0, help="pictures a second")
    ap.add_argument("--pictures", type=int)
    ap.add_argument("--seconds", type=float)
    ap.add_argument("--source", type=Path, help="folder of JPEG files to take pictures from")
    ap.add_argument("--keep", type=float, help="remove each picture after so many seconds")
    a = ap.parse_args()
    made, began, old = sources(a.source), time.monotonic(), list[tuple[float, Path]]()
    most = a.pictures if a.seconds is None else round(a.seconds * a.rate)
    for k in count() if most is None else range(most):
        time.sleep(max(0.0, began + k / a.rate - time.monotonic()))
        data = numbered(made[k % len(made)], k)
        path = a.folder / f"{k:07d}.jpg"
        with open(path, "wb", buffering=0) as f:
            for piece in range(0, len(data), 8192):
                f.write(data[piece:piece + 8192])
        old.append((time.monotonic(), path))
        while a.keep is not None and old and old[0][0] < time.monotonic() - a.keep:
            old.pop(0)[1].unlink(missing_ok=True)
        if a.keep is None:
            old.clear()


if __name__ == "__main__":
    main()

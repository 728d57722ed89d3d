"""A snapshot as the folder that YOLO trainers read: images/<split>, labels/<split>, data.yaml.

Files are named by content hash, so a prediction leads back to its picture. Knows nothing of the trainer itself.
"""

import os
import shutil
from pathlib import Path

import yaml
from PIL import Image

from backend.data import images, shares, snapshot
from backend.data.shares import ALL, Share
from backend.data.snapshot import Picture
from backend.data.splits import SPLITS

LINKABLE = ("PNG", "JPEG", "BMP")


def yolo_folder(snapshot_run: Path, out: Path, share: Share = ALL) -> Path:
    """Write a snapshot below `out`, of train the share that is shown; returns its data.yaml. Pictures without boxes are background."""
    data = snapshot.read(snapshot_run)
    numbers = {name: i for i, name in enumerate(data.classes)}
    for split in SPLITS:
        for kind in ("images", "labels"):
            (out / kind / split).mkdir(parents=True, exist_ok=True)
        seen: dict[str, int] = {}
        pictures = data.by_split(split)
        for picture in shares.laid(pictures, share) if split == "train" else pictures:
            seen[picture.image_id] = seen.get(picture.image_id, 0) + 1
            again = "" if seen[picture.image_id] == 1 else f"-{seen[picture.image_id]}"     # lists may hold one content twice
            _place(picture.path, out / "images" / split / f"{picture.image_id}{again}")
            (out / "labels" / split / f"{picture.image_id}{again}.txt").write_text(label_lines(picture, numbers))
    head = dict(path=str(out.resolve()), **{s: f"images/{s}" for s in SPLITS}, names=dict(enumerate(data.classes)))
    (out / "data.yaml").write_text(yaml.safe_dump(head, allow_unicode=True, sort_keys=False), "utf-8")
    return out / "data.yaml"


def label_lines(picture: Picture, numbers: dict[str, int]) -> str:
    """'class cx cy w h' a line, as shares of the picture's sides."""
    w, h = picture.width, picture.height
    return "".join(f"{numbers[b.class_name]} {(b.x1 + b.x2) / 2 / w:.6f} {(b.y1 + b.y2) / 2 / h:.6f} "
                   f"{(b.x2 - b.x1) / w:.6f} {(b.y2 - b.y1) / h:.6f}\n" for b in picture.boxes)


def _place(source: Path, target: Path) -> None:
    """Link the file where every reader sees in it what we see; otherwise write what `images.decode` made of it, as PNG."""
    if not _plain(source):
        images.decode(source.read_bytes(), source.name).save(target.with_name(target.name + ".png"), compress_level=1)
        return
    target = target.with_name(target.name + source.suffix)
    target.unlink(missing_ok=True)
    try:
        os.link(source, target)
    except OSError:                                     # another file system, or one without links
        shutil.copyfile(source, target)


def _plain(path: Path) -> bool:
    """8-bit grey or RGB, upright, and a JPEG whole to its last marker: a trainer may 'repair' others in place, through the link."""
    with Image.open(path) as image:
        plain = image.format in LINKABLE and image.mode in ("L", "RGB") and not image.has_transparency_data
        plain = plain and images.orientation(image) == 1
    return plain and (image.format != "JPEG" or path.read_bytes().endswith(b"\xff\xd9"))

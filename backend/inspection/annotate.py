"""Boxes and labels on a picture, crisp at the size it is shown at. Pillow only: pages draw with it in the dashboard's process.

A colour belongs to a class by its name alone, on every page and in every picture. Each line runs between a dark and a light
one, so it is seen on bright and on dark steel; the label says in words what the colour says.
Knows nothing of files, models or rules: whether a detection passes, the caller says.
"""

import hashlib
import importlib.util
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

from PIL import Image, ImageDraw, ImageFont

# Okabe and Ito's colours without black, and a wine red (Tol) as the eighth; all differ for the common colour blindnesses
COLOURS = ("#E69F00", "#56B4E9", "#009E73", "#F0E442", "#0072B2", "#D55E00", "#CC79A7", "#882255")
_SALT = "136513"                        # found by trial: the kinds of the demo plant, of NEU-DET and of the tile set differ within each
_DARK, _LIGHT = (16, 16, 16), (255, 255, 255)
_TALLEST = 8192                         # pixels: WebP ends at 16,383, and a strip 10 px wide, 25,000 long would grow to 12 GB
_LONGEST = 24                           # characters of a class name on a label

Detection = Mapping[str, Any]           # class_name, x1, y1, x2, y2; confidence (None: a person's label), passes (True), action ('reject')
Box = tuple[float, float, float, float]


class Pen(NamedTuple):
    """Sizes in pixels of the output."""

    line: int
    halo: int
    text: int


def colour(class_name: str) -> str:
    """The class's colour, '#RRGGBB': the same everywhere, always."""
    digest = hashlib.sha256(f"{_SALT}{class_name}".encode()).digest()
    return COLOURS[int.from_bytes(digest[:8], "big") % len(COLOURS)]


def draw(image: Image.Image, detections: Sequence[Detection], width: int | None = None, label: bool = True) -> Image.Image:
    """A copy of the picture, `width` pixels wide if given (less where it would be too tall), with its detections.

    Solid: it makes the unit defective. Dashed: below its threshold, too small, ignored or minor.
    """
    scale = min(width / image.width, max(_TALLEST / image.height, 1 / image.width)) if width else 1.0
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    shown = image.convert("RGB")
    shown = shown.resize(size, Image.Resampling.BICUBIC if scale > 1 else Image.Resampling.LANCZOS) if size != image.size else shown.copy()
    pen, brush = _pen(size), ImageDraw.Draw(shown)
    ordered = sorted(detections, key=lambda d: (is_solid(d), _sure(d)))                # the surest last, on top
    boxes = [_fit(d, scale, size) for d in ordered]
    for detection, box in zip(ordered, boxes, strict=True):
        _outline(brush, box, colour(detection["class_name"]), pen, is_solid(detection))
    if label:
        taken: list[Box] = []
        for detection, box in reversed(list(zip(ordered, boxes, strict=True))):         # the surest choose their places first
            taken.append(_label(brush, detection, box, pen, size, taken))
    return shown


def is_solid(detection: Detection) -> bool:
    return bool(detection.get("passes", True)) and detection.get("action", "reject") == "reject"


def _pen(size: tuple[int, int]) -> Pen:
    """A 600 px picture gets 3 px lines and 15 px letters."""
    side = (size[0] * size[1]) ** 0.5
    return Pen(max(1, round(side / 220)), max(1, round(side / 700)), max(10, round(side / 40)))


def _fit(detection: Detection, scale: float, size: tuple[int, int]) -> Box:
    """The box in output pixels, inside the picture and at least 2 px a side, so that the smallest is still seen."""
    x1, y1, x2, y2 = (float(detection[k]) * scale for k in ("x1", "y1", "x2", "y2"))
    x1, y1 = min(max(x1, 0), size[0] - 3), min(max(y1, 0), size[1] - 3)
    return x1, y1, max(min(x2, size[0] - 1), x1 + 2), max(min(y2, size[1] - 1), y1 + 2)


def _outline(brush: ImageDraw.ImageDraw, box: Box, fill: str, pen: Pen, solid: bool) -> None:
    """Dark outside, colour, light inside."""
    x1, y1, x2, y2 = map(round, box)
    band = pen.line + pen.halo
    if not solid:
        for dash in _dashes(x1, y1, x2, y2, pen):
            _piece(brush, dash, fill, pen)
        return
    brush.rectangle((x1 - pen.halo, y1 - pen.halo, x2 + pen.halo, y2 + pen.halo), outline=_DARK, width=pen.halo)
    if min(x2 - x1, y2 - y1) > 2 * band:
        brush.rectangle((x1 + pen.line, y1 + pen.line, x2 - pen.line, y2 - pen.line), outline=_LIGHT, width=pen.halo)
    brush.rectangle((x1, y1, x2, y2), outline=fill, width=pen.line)


def _dashes(x1: int, y1: int, x2: int, y2: int, pen: Pen) -> Iterator[tuple[int, int, int, int]]:
    """Rectangles, one per dash; every side begins and ends with one, so that the corners are drawn."""
    for a, b, along_x in ((x1, x2, True), (y1, y2, False)):
        length = max(2, 4 * pen.line)
        gaps = max(0, round((b - a - length) / (2 * length)))
        for k in range(gaps + 1):
            start = round(a + k * (b - a - length) / gaps) if gaps else a
            end = min(start + length, b)
            for side in ((y1, y2 - pen.line + 1) if along_x else (x1, x2 - pen.line + 1)):
                yield (start, side, end, side + pen.line - 1) if along_x else (side, start, side + pen.line - 1, end)


def _piece(brush: ImageDraw.ImageDraw, dash: tuple[int, int, int, int], fill: str, pen: Pen) -> None:
    x1, y1, x2, y2 = dash
    for rim, tone in ((2 * pen.halo, _DARK), (pen.halo, _LIGHT)):
        brush.rectangle((x1 - rim, y1 - rim, x2 + rim, y2 + rim), fill=tone)
    brush.rectangle((x1, y1, x2, y2), fill=fill)


def _label(brush: ImageDraw.ImageDraw, detection: Detection, box: Box, pen: Pen, size: tuple[int, int], taken: list[Box]) -> Box:
    """Write class and confidence near the box, inside the picture, where no other label stands if possible."""
    text, font = _text(detection, size[0], pen)
    pad, (up, down) = max(2, pen.text // 5), font.getmetrics()
    w, h = round(font.getlength(text)) + 2 * pad, up + down + pad
    x, y = _place(box, w, h, pen, size, taken)
    solid, own = is_solid(detection), colour(detection["class_name"])
    brush.rectangle((x, y, x + w - 1, y + h - 1), fill=own if solid else _DARK, outline=_DARK if solid else own)
    ink = (_DARK if _luminance(own) > 0.3 else _LIGHT) if solid else _LIGHT
    brush.text((x + pad, y + pad // 2 + up), text, fill=ink, font=font, anchor="ls")
    return x, y, x + w, y + h


def _sure(detection: Detection) -> float:
    return 1.0 if detection.get("confidence") is None else float(detection["confidence"])


def _text(detection: Detection, width: int, pen: Pen) -> tuple[str, ImageFont.FreeTypeFont]:
    """The label and its font, small enough for the picture's width; the class name is cut before the confidence is."""
    name = "".join(c if c.isprintable() else " " for c in str(detection["class_name"]))
    share, font = "" if detection.get("confidence") is None else f" {detection['confidence']:.0%}", _font(pen.text, name.isascii())
    for longest in (_LONGEST, 12, 6, 3):
        text = (name if len(name) <= longest else f"{name[:longest - 1]}…") + share
        if font.getlength(text) + pen.text <= width:
            break
    return text, font


def _place(box: Box, w: float, h: float, pen: Pen, size: tuple[int, int], taken: list[Box]) -> tuple[int, int]:
    """Top left corner of a label: above the box, below it, in it, or next to a label that already stands there."""
    x1, y1, x2, y2 = box
    edge = pen.halo + 1
    spots = [(x, y) for x in (x1 - pen.halo, x2 - w + pen.halo)
             for y in (y1 - h - pen.halo, y2 + edge, y1 + pen.line + edge, y2 - h - pen.line - edge)]
    spots += sorted(((x1, y) for b in taken for y in (b[3] + 1, b[1] - h - 1)), key=lambda spot: abs(spot[1] - y1))
    rounded = [(round(min(max(x, 0), max(size[0] - w, 0))), round(y)) for x, y in spots]
    inside = [(x, y) for x, y in rounded if 0 <= y <= size[1] - h]
    free = [(x, y) for x, y in inside if not any(x < b[2] and b[0] < x + w and y < b[3] and b[1] < y + h for b in taken)]
    return (free or inside or [(rounded[0][0], 0)])[0]


def _luminance(hexed: str) -> float:
    """Relative luminance after WCAG, 0 to 1."""
    parts = [int(hexed[i:i + 2], 16) / 255 for i in (1, 3, 5)]
    red, green, blue = (p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


@lru_cache(maxsize=32)
def _font(size: int, ascii_only: bool) -> ImageFont.FreeTypeFont:
    """Pillow's own font knows ASCII only; others (Riß, трещина) are in the one that matplotlib brings; found, not imported."""
    spec = None if ascii_only else importlib.util.find_spec("matplotlib")
    wide = Path(spec.origin).parent / "mpl-data" / "fonts" / "ttf" / "DejaVuSans.ttf" if spec and spec.origin else None
    font = ImageFont.truetype(wide, size) if wide and wide.exists() else ImageFont.load_default(size)
    assert isinstance(font, ImageFont.FreeTypeFont), "Pillow's wheels bring FreeType"
    return font

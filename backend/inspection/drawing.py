"""Pictures for pages, encoded: with boxes, side by side, under a heat map, and made ones with their masks. Runs inside a cell.

Takes ids and boxes, decodes, draws (`annotate`, `heat`), and gives bytes back. Pillow and numpy only. Which boxes are drawn others say.
Knows nothing of the database, of pages, or of rules.
"""

from collections.abc import Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw, ImageFilter

from backend.data import images
from backend.errors import NotFoundError
from backend.inspection import annotate, heat

ENCODINGS: dict[str, dict[str, Any]] = {"webp": dict(quality=85, method=2), "png": dict(compress_level=3),
                                        "jpeg": dict(quality=88, subsampling=0),      # thin coloured boxes stay sharp
                                        "paper": dict(quality=78)}                    # JPEG for a printed report
# Pages take JPEG: Streamlit would decode anything else and make one of it, 4 ms a picture, at each run of a page.
SIDES = {"webp": 16_383, "jpeg": 65_500, "paper": 65_500}     # the formats' limits
Boxes = Sequence[Mapping[str, Any]]


def shown(image_id: str, found: Boxes, width: int | None, format: str) -> bytes:
    """A kept picture with its boxes. Raises NotFoundError, ImageError."""
    return encode(annotate.draw(images.load(image_id), found, width), format)


def beside(parts: Sequence[tuple[str, Boxes, int | None]], format: str) -> bytes:
    """Several pictures of one size in one, each with its boxes. Raises NotFoundError, ImageError."""
    return encode(together([annotate.draw(images.load(i), found, width) for i, found, width in parts]), format)


def veiled(image_id: str, found: Boxes, values: heat.Array, start: float, opacity: float, width: int | None, format: str) -> bytes:
    """A picture under its heat map, boxes on top. `values`: uint8 (side, side). Raises NotFoundError, ImageError."""
    whole = images.load(image_id)
    under = heat.lay(annotate.draw(whole, [], width), values, opacity, start)
    scale = under.width / whole.width
    fitted = [{**d, **{side: d[side] * scale for side in ("x1", "y1", "x2", "y2")}} for d in found]
    return encode(annotate.draw(under, fitted), format)


def together(each: Sequence[Image.Image]) -> Image.Image:
    """Pictures of one size side by side, wide ones one above the other."""
    if len(each) == 1:
        return each[0]
    wide = each[0].width > 2 * each[0].height
    step = max(4, each[0].width // 50) + (each[0].height if wide else each[0].width)
    size = (each[0].width, step * (len(each) - 1) + each[0].height) if wide else (step * (len(each) - 1) + each[0].width, each[0].height)
    whole = Image.new("RGB", size, (128, 128, 128))
    for n, one in enumerate(each):
        whole.paste(one, (0, n * step) if wide else (n * step, 0))
    return whole


def encode(image: Image.Image, format: str = "jpeg") -> bytes:
    out, longest = BytesIO(), max(image.size)
    if longest > (most := SIDES.get(format, longest)):
        image = image.resize((max(1, image.width * most // longest), max(1, image.height * most // longest)))
    image.save(out, "JPEG" if format == "paper" else format.upper(), **ENCODINGS[format])
    return out.getvalue()


# ---- a picture of a synthetic set

def made(folder: str, item: dict[str, Any], what: str, width: int | None, format: str) -> bytes:
    """One view of an item of the set in `folder`: result | mask | original | outlined. Raises NotFoundError, ImageError."""
    place = Path(folder)
    if what == "original":
        return encode(annotate.draw(_original(item), [], width), format)
    if what == "mask":
        return encode(annotate.draw(_mask(place, item), [], width), format)
    result = _opened(place / item["file"])
    return encode(annotate.draw(result, [], width) if what == "result" else _outlined(place, item, result, width), format)


def _original(item: dict[str, Any]) -> Image.Image:
    if not item.get("parent"):
        raise NotFoundError("This picture was drawn without a real one to start from.")
    return images.load(item["parent"])


def _mask(folder: Path, item: dict[str, Any]) -> Image.Image:
    """White where the defect is; of a picture without a mask, its boxes filled."""
    if item.get("mask"):
        return _opened(folder / item["mask"]).convert("L")
    drawn = Image.new("L", (item["width"], item["height"]))
    for _, x1, y1, x2, y2 in item.get("boxes", []):
        ImageDraw.Draw(drawn).rectangle((x1, y1, x2 - 1, y2 - 1), fill=255)
    return drawn


def _outlined(folder: Path, item: dict[str, Any], result: Image.Image, width: int | None) -> Image.Image:
    """The result with its boxes; the outline of its mask is drawn too, dark beside the class's colour, so that it is seen on any ground."""
    boxes = [dict(class_name=name, confidence=None, x1=x1, y1=y1, x2=x2, y2=y2) for name, x1, y1, x2, y2 in item.get("boxes", [])]
    drawn = annotate.draw(result, boxes, width)
    if item.get("mask"):
        inside = _mask(folder, item).resize(drawn.size, Image.Resampling.BOX).point(lambda v: 255 * (v > 63))
        for reach, tone in ((5, "#101010"), (3, annotate.colour(item.get("class_name", "")))):
            ring = inside.filter(ImageFilter.MaxFilter(reach))
            ring.paste(0, mask=inside)
            drawn.paste(tone, mask=ring)
    return drawn


def _opened(path: Path) -> Image.Image:
    try:
        return images.decode(path.read_bytes(), path.name)
    except FileNotFoundError as error:
        raise NotFoundError(f"The picture {path.name} of this set is missing from its folder.") from error

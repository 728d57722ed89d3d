"""Bytes become an upright 8-bit RGB picture, or one plain sentence why not.

What is asked of decoders, how large a picture may be, which colours and depths are understood and what becomes of them, and when the camera
says that it took the picture. Others come here by way of `images`. Knows nothing of where bytes come from or where pictures are kept.
"""

import math
import sys
import threading
import warnings
from contextlib import nullcontext
from datetime import datetime
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from PIL import ExifTags, Image, ImageOps

from backend.data.files import MAX_BYTES, kind
from backend.errors import ImageError

FORMATS = {"PNG": ".png", "JPEG": ".jpg", "BMP": ".bmp", "TIFF": ".tif", "WEBP": ".webp"}
MAX_PIXELS = 100_000_000           # 300 MB decoded; line-scan cameras reach 60 megapixels
MAX_SIDE = 25_000
LARGE = 25_000_000                 # pixels; above, one at a time: a transparent picture takes 15 bytes a pixel while it is decoded
DEPTHS = (255, 1023, 4095, 16383, 65535)
_MODES = {"1", "L", "LA", "La", "P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr", "I", "F", "I;16", "I;16L", "I;16B", "I;16N"}

_one_large = threading.Lock()          # decoding threads are as many as cores

# Pillow's own guard is a second line behind ours. Set for the process, since warning filters are not safe to change per thread.
Image.MAX_IMAGE_PIXELS = MAX_PIXELS
warnings.simplefilter("error", Image.DecompressionBombWarning)


def format_of(data: bytes, name: str = "") -> str:
    """PNG, JPEG, BMP, TIFF or WEBP, by the first bytes; the name only words the refusal. Raises ImageError."""
    found = kind(data[:32])
    if found in FORMATS:
        return found
    if not data:
        raise ImageError("The file is empty.")
    if found:
        raise ImageError(f"It is a {found} file. Pictures can be PNG, JPEG, BMP, TIFF or WebP.")
    claimed = Path(name).suffix.lower()
    called = f", though its name ends in {claimed}" if claimed in {".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp"} else ""
    raise ImageError(f"It is not a picture{called}. Pictures can be PNG, JPEG, BMP, TIFF or WebP.")


def decode(data: bytes, name: str) -> Image.Image:
    """An upright picture, mode RGB, `.format` set. Raises ImageError with a plain sentence.

    CMYK is converted; transparent parts turn white; more than 8 bits are scaled by `to_8_bits`. What was changed stands
    in `.info["changed"]`. A JPEG that carries further pictures (stereo, gain map) is read as its first, as everywhere.
    """
    image = _open(data, name)
    try:
        with _one_large if image.width * image.height > LARGE else nullcontext():
            image.load()
            changed = _describe(image)
            image = _to_rgb(_upright(image) if orientation(image) != 1 else image)
    except (MemoryError, ImageError):
        raise
    except Exception as error:     # decoders raise what they like on damaged data: OSError, SyntaxError, struct.error, IndexError ...
        raise ImageError("The picture is damaged or cut short.") from error
    image.format, image.info = format_of(data), {"changed": changed}
    return image


def pixels(data: bytes, name: str) -> "tuple[np.ndarray[Any, Any], str]":
    """What `decode` says, as uint8 (H, W, 3), and the format. Raises ImageError.

    A plain JPEG goes through OpenCV where a process has loaded it: the same library underneath and the very same pixels (a test), with two
    copies less, in 0.6 of the time. One that does not end as a JPEG does, which OpenCV would fill up with grey, never does.
    """
    cv2 = sys.modules.get("cv2")
    if cv2 is not None and data[:3] == b"\xff\xd8\xff" and data[-2:] == b"\xff\xd9":
        image = _open(data, name)
        if image.mode == "RGB" and orientation(image) == 1 and image.width * image.height <= LARGE:
            found = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION)
            if found is not None and found.shape == (image.height, image.width, 3):
                return found, "JPEG"
    decoded = decode(data, name)
    return np.asarray(decoded), str(decoded.format)


def size(data: bytes, name: str) -> tuple[int, int]:
    """Width and height of what `decode` would give, by the header alone. Raises ImageError."""
    image = _open(data, name)
    return image.size if orientation(image) < 5 else (image.height, image.width)


def _open(data: bytes, name: str) -> Image.Image:
    """The header only. Everything that can be refused before pixels are decoded is refused here."""
    if len(data) > MAX_BYTES:
        raise ImageError(f"The file is larger than {MAX_BYTES // 10**6} MB.")
    form = format_of(data, name)
    try:
        image = Image.open(BytesIO(data), formats=[form])
        frames = 1 if form == "JPEG" else getattr(image, "n_frames", 1)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise ImageError(_too_large()) from error
    except MemoryError:
        raise
    except Exception as error:
        raise ImageError("The picture is damaged or cut short.") from error
    if image.width * image.height > MAX_PIXELS or max(image.size) > MAX_SIDE:
        raise ImageError(_too_large(f"{image.width:,} × {image.height:,} pixels"))
    if frames > 1:
        raise ImageError(f"It holds {frames} {'pages' if form == 'TIFF' else 'frames'}; send each as a picture of its own.")
    if image.mode not in _MODES:
        raise ImageError(f"Its colours ({image.mode}) cannot be read; save it as RGB or grey.")
    return image


def _too_large(size: str = "") -> str:
    return f"The picture is too large{f': {size}' if size else ''}. At most {MAX_PIXELS // 10**6} megapixels and {MAX_SIDE:,} a side."


def _describe(image: Image.Image) -> str:
    """What `decode` changes about this picture, in a few words; '' where it is 8-bit RGB or grey and upright."""
    said = []
    if image.mode == "CMYK":
        said.append("converted from CMYK")
    if image.mode[0] in "IF":
        said.append("scaled to 8 bits")
    if image.has_transparency_data:
        said.append("transparent parts made white")
    if orientation(image) != 1:
        said.append("turned upright")
    return ", ".join(said)


def orientation(image: Image.Image) -> int:
    """EXIF orientation, 1 where there is none or it cannot be read."""
    try:
        return int(image.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:              # a damaged EXIF block is no reason to refuse the picture
        return 1


def _upright(image: Image.Image) -> Image.Image:
    try:
        return ImageOps.exif_transpose(image)
    except Exception:
        return image


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode[0] in "IF":
        return Image.fromarray(to_8_bits(np.asarray(image))).convert("RGB")
    if image.has_transparency_data:
        white = Image.new("RGBA", image.size, "white")
        return Image.alpha_composite(white, image.convert("RGBA")).convert("RGB")
    return image if image.mode == "RGB" else image.convert("RGB")


def to_8_bits(pixels: "np.ndarray[Any, Any]") -> "np.ndarray[Any, Any]":
    """Grey of any depth, (H, W), as uint8, by the real range: the smallest camera depth (8, 10, 12, 14, 16 bits; 0..1 for
    floating point) that holds the brightest pixel becomes 0..255. So 12 bits in a 16-bit file are not shown black, and pictures
    of one camera keep their brightness against each other, which stretching each by its own extremes would destroy.
    """
    values = np.nan_to_num(pixels.astype(np.float32), nan=0.0, posinf=0.0, neginf=0.0)
    low, high = min(0.0, float(values.min())), float(values.max())
    depths = (1, *DEPTHS) if pixels.dtype.kind == "f" else DEPTHS
    top = next((d for d in depths if high <= d), high)
    scaled: np.ndarray[Any, Any] = np.rint((values - low) * (255 / max(top - low, math.ulp(1.0)))).astype(np.uint8)
    return scaled


def captured_at(data: bytes) -> datetime | None:
    """When the camera says it took the picture (EXIF DateTimeOriginal): naive, the plant's own time. None if it does not say."""
    if data[:3] == b"\xff\xd8\xff" and b"Exif\0" not in data:      # 0.02 ms less for most
        return None
    try:
        text = _open(data, "").getexif().get_ifd(ExifTags.IFD.Exif).get(ExifTags.Base.DateTimeOriginal)
        return datetime.strptime(str(text).strip("\0 "), "%Y:%m:%d %H:%M:%S")
    except Exception:              # absent, '0000:00:00 00:00:00', damaged: all the same to the caller
        return None

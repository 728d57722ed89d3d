"""The only door pictures come in by: bytes become an upright 8-bit RGB picture, or one plain sentence why not.

Then the store of kept images, `<data>/images/<first 2 hex>/<sha256>.<ext>`: content is the name, so nothing that a file
was called ever reaches the disk, and one content is kept once. Masks lie there too.
Reading folders and zips is `data.files`, offered here too.
Knows nothing of labels, runs or classes.
"""

import ctypes
import hashlib
import math
import os
import re
import secrets
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

from backend.config import data_root
from backend.data.files import MAX_BYTES, Refusal, Source, count, kind, read
from backend.errors import ImageError, NotFoundError

__all__ = ["FORMATS", "Refusal", "Source", "captured_at", "count", "decode", "drawn", "format_of", "keep", "keep_mask",
           "load", "load_mask", "path_of", "pixels", "read", "sha256"]

FORMATS = {"PNG": ".png", "JPEG": ".jpg", "BMP": ".bmp", "TIFF": ".tif", "WEBP": ".webp"}
MAX_PIXELS = 100_000_000           # 300 MB decoded; line-scan cameras reach 60 megapixels
MAX_SIDE = 25_000
LARGE = 25_000_000                 # pixels; above, one at a time: a transparent picture takes 15 bytes a pixel while it is decoded
DEPTHS = (255, 1023, 4095, 16383, 65535)
_SHA = re.compile(r"[0-9a-f]{64}")
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


def captured_at(data: bytes) -> datetime | None:
    """When the camera says it took the picture (EXIF DateTimeOriginal): naive, the plant's own time. None if it does not say."""
    if data[:3] == b"\xff\xd8\xff" and b"Exif\0" not in data:      # 0.02 ms less for most
        return None
    try:
        text = _open(data, "").getexif().get_ifd(ExifTags.IFD.Exif).get(ExifTags.Base.DateTimeOriginal)
        return datetime.strptime(str(text).strip("\0 "), "%Y:%m:%d %H:%M:%S")
    except Exception:              # absent, '0000:00:00 00:00:00', damaged: all the same to the caller
        return None

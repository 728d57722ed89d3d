"""What an anomaly model saw, laid over the picture as a heat map. Pillow and numpy only: pages draw with it in the dashboard's process.

Where all is normal the picture shows as it is; from half the model's pixel threshold on colours fade in. They grow evenly lighter from
dark violet over red to pale yellow (after the manner of matplotlib's inferno), so that their order is seen in grey and with any
colour blindness too. Knows nothing of files, models or scores.
"""

import numpy as np
from PIL import Image

Array = np.ndarray[tuple[int, ...], np.dtype[np.uint8]]
# Chosen by eye such that lightness (CIE L*) rises by 13 to 17 from one to the next; a test holds them to a rise.
_ANCHORS = ((18, 6, 70), (95, 16, 118), (165, 38, 108), (219, 78, 62), (246, 141, 30), (248, 208, 72), (253, 250, 190))


def ramp() -> Array:
    """The colours from a little unusual to very, uint8 (256, 3)."""
    at, anchors = np.linspace(0, len(_ANCHORS) - 1, 256), np.array(_ANCHORS, np.float64)
    return np.stack([np.interp(at, range(len(anchors)), anchors[:, c]) for c in range(3)], axis=1).round().astype(np.uint8)


def lay(image: Image.Image, values: Array, opacity: float, start: float) -> Image.Image:
    """A copy of the picture with a map, uint8 (side, side), stretched over all of it. `start`: the value from which a cell is unusual.

    `opacity` is what cells at `start` and above get; below, it falls to none at half of `start`.
    """
    stretched = np.asarray(Image.fromarray(values).resize(image.size, Image.Resampling.BICUBIC))          # (H, W)
    foot = min(max(start, 0.0), 254.0) / 2
    steps = np.arange(256, dtype=np.float64)
    veil = 255 * min(max(opacity, 0.0), 1.0) * ((steps - foot) / max(min(start, 254.0) - foot, 1.0)).clip(0, 1)
    colours = ramp()[np.rint(255 * ((steps - foot) / (255 - foot)).clip(0, 1)).astype(np.intp)]           # (256, 3), by value
    mask = Image.fromarray(np.rint(veil).astype(np.uint8)[stretched])
    return Image.composite(Image.fromarray(colours[stretched]), image.convert("RGB"), mask)

"""How a picture looks, apart from what is on it: brightness and sharpness, by which a camera, a lens or a lamp is watched.

Asked by `inspect` for pictures of master parts. brightness is the mean of grey, 0 to 255. sharpness is the mean square of the difference
between neighbours, divided by that between pixels three apart (both in grey): 1 where fine detail is as strong as coarse, near 0 where a
lens is out of focus, and the same whether the lamp is bright or dim. Knows nothing of models.
"""

from typing import Any

import numpy as np

from backend.data import images

NEAR, FAR = 1, 3


def reading(inspection_id: int, unit: str, data: bytes, name: str) -> dict[str, Any]:
    """A row of `masters`. `unit` tells one master part from another; '' where file names do not."""
    brightness, sharpness = measures(np.asarray(images.decode(data, name).convert("L"), np.float32))
    return dict(inspection_id=inspection_id, piece=unit, brightness=brightness, sharpness=sharpness)


def measures(grey: np.ndarray) -> tuple[float, float]:
    """Of (H, W) grey values."""
    far = _difference(grey, FAR)
    return float(grey.mean()), _difference(grey, NEAR) / far if far else 0.0


def _difference(grey: np.ndarray, apart: int) -> float:
    """Mean square difference of pixels so far apart, down and across; 0 where the picture is smaller."""
    steps = [np.square(grey[apart:] - grey[:-apart]), np.square(grey[:, apart:] - grey[:, :-apart])]
    return float(np.mean([s.mean() for s in steps if s.size] or [0.0]))

"""Where each picture of a training batch comes to lie, and feature maps carried to the same place.

Stands between the loader and fusion. Augmentation moves pixels; features are computed once per untouched picture and must
follow. The loader therefore notes, for every picture in a network input, the matrix back to it and the part of it that shows:
mosaic, perspective, flips and letterbox included. It draws no random number of its own, so that an arm with features sees the
very batches of one without. `warp` then reads the maps through those matrices. Knows nothing of what the maps mean.

Coordinates are continuous: pixel i covers i to i + 1, its centre is i + 0.5, and a share of a side is pixels / side. OpenCV's
warps count from pixel centres instead; its resizing and torch's sampling with align_corners=False do as we do.
"""

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from ultralytics.data.augment import (
    Albumentations,
    BaseMixTransform,
    Compose,
    Format,
    LetterBox,
    Mosaic,
    RandomFlip,
    RandomHSV,
    RandomPerspective,
)

from backend.detection.trainer import Boxes

CELL = 8            # px of the finest grid that features are brought to; what shows at no cell's centre would be read for nothing
_AGAIN = re.compile(r"([0-9a-f]{64}|demo:[\w:+]+)-\d+")     # `data.dataset.yolo_folder` numbers repeated contents


@dataclass(frozen=True)
class Sources:
    """Row i: network input `image[i]` shows the picture `key[i]`, where `matrix[i]` leads into `clip[i]`.

    Both sides count in shares, x right and y down: the matrix takes a point of the input to one of the picture.
    """

    image: Tensor               # int64 (N,)
    key: list[str]              # image ids
    matrix: Tensor              # float32 (N, 3, 3)
    clip: Tensor                # float32 (N, 4): x1, y1, x2, y2

    def __len__(self) -> int:
        return len(self.key)

    def pictures(self) -> tuple[list[str], Tensor]:
        """Each picture once, in order of appearance, and which of them a row shows: int64 (N,). Mosaics repeat some."""
        number = {key: i for i, key in enumerate(dict.fromkeys(self.key))}
        return list(number), torch.tensor([number[key] for key in self.key], dtype=torch.int64)

    def to(self, device: torch.device | str) -> "Sources":
        return Sources(self.image.to(device), self.key, self.matrix.to(device), self.clip.to(device))


def image_id(file: str) -> str:
    """The picture that a file of a YOLO folder holds."""
    stem = os.path.splitext(os.path.basename(file))[0]             # a Path takes eight times as long, at each picture of each mosaic
    again = _AGAIN.fullmatch(stem)
    return again[1] if again else stem


# ---- in the loader

class _Part(NamedTuple):
    """A picture within one sample under way: `matrix` takes its pixels to shares of the picture. Double precision."""

    key: str
    matrix: np.ndarray          # (3, 3)
    clip: np.ndarray            # (4,)


class Tracked(Boxes):
    """`Boxes` whose batches say under "sources" where each picture lies. All else is equal, bit by bit."""

    def get_image_and_label(self, index: int) -> dict[str, Any]:
        label = super().get_image_and_label(index)
        h, w = label["img"].shape[:2]
        label["sources"] = [_Part(image_id(label["im_file"]), np.diag([1 / w, 1 / h, 1.0]), np.array([0.0, 0.0, 1.0, 1.0]))]
        return label

    def build_transforms(self, hyp: Any) -> Compose:
        transforms = super().build_transforms(hyp)
        _watch(transforms)
        return transforms

    @staticmethod
    def collate_fn(batch: list[dict[str, Any]]) -> dict[str, Any]:
        made = Boxes.collate_fn(batch)
        h, w = made["img"].shape[2:]
        made["sources"] = _sources(made["sources"], w, h)
        return made


def _sources(samples: Sequence[list[_Part]], w: int, h: int) -> Sources:
    """Those parts of finished samples that show. A mosaic is twice the input's side; often one to three of its four do.

    Looked up for a whole batch at once: sample by sample it took a quarter of the time that loading takes.
    """
    parts = [part for sample in samples for part in sample]
    image = torch.tensor([i for i, sample in enumerate(samples) for _ in sample])
    matrix = torch.from_numpy(np.stack([p.matrix for p in parts]) * [w, h, 1.0]).float()
    clip = torch.from_numpy(np.stack([p.clip for p in parts])).float()
    kept = look_up(matrix, clip, (-(-h // CELL), -(-w // CELL)))[1].any(1)
    return Sources(image[kept], [p.key for p, k in zip(parts, kept.tolist(), strict=True) if k], matrix[kept], clip[kept])


def _shift(x: float, y: float) -> np.ndarray:
    return np.array([[1.0, 0.0, x], [0.0, 1.0, y], [0.0, 0.0, 1.0]])


def _move(labels: dict[str, Any], back: np.ndarray) -> None:
    """`back` takes a pixel after the transform to where it was before."""
    labels["sources"] = [p._replace(matrix=p.matrix @ back) for p in labels["sources"]]


class _Mosaic(Mosaic):
    def get_params(self, labels: dict[str, Any]) -> dict[str, Any]:
        params = super().get_params(labels)
        labels["sources"] = [self._placed(item) for item in params["layout"]]
        return params

    @staticmethod
    def _placed(item: dict[str, Any]) -> _Part:
        """The canvas takes the pixels b of a picture; they come to lie `padw`, `padh` further."""
        (part,) = item["labels_patch"]["sources"]                  # untouched as yet: its matrix only scales
        corners = part.matrix @ np.array([[item["x1b"], item["x2b"]], [item["y1b"], item["y2b"]], [1, 1]])
        return part._replace(matrix=part.matrix @ _shift(-item["padw"], -item["padh"]), clip=corners[:2].T.flatten())


class _Perspective(RandomPerspective):
    def get_params(self, labels: dict[str, Any]) -> dict[str, Any]:
        params = super().get_params(labels)
        there = params["M"].astype(np.float64)                     # between pixel indices: centres are whole numbers there
        _move(labels, _shift(0.5, 0.5) @ np.linalg.inv(there) @ _shift(-0.5, -0.5))
        return params


class _Flip(RandomFlip):
    def get_params(self, labels: dict[str, Any]) -> dict[str, Any]:
        params = super().get_params(labels)
        if params["flip"]:
            axis = 0 if self.direction == "horizontal" else 1
            back = np.eye(3)
            back[axis, axis], back[axis, 2] = -1, labels["img"].shape[1 - axis]
            _move(labels, back)
        return params


class _LetterBox(LetterBox):
    def get_params(self, labels: dict[str, Any]) -> dict[str, Any]:
        params = super().get_params(labels)
        (h, w), (new_w, new_h) = params["orig_shape"], params["new_unpad"]
        _move(labels, np.diag([w / new_w, h / new_h, 1.0]) @ _shift(-params["left"], -params["top"]))
        return params


_WATCHED = {c.__base__: c for c in (_Mosaic, _Perspective, _Flip, _LetterBox)}


def _watch(transform: Any) -> None:
    """Give each transform that moves pixels the class that notes it; refuse one that we could not follow."""
    if isinstance(transform, Compose):
        for each in transform.transforms:
            _watch(each)
    elif type(transform) in _WATCHED:
        transform.__class__ = _WATCHED[type(transform)]            # with all its settings
    else:
        assert _stays(transform), f"features cannot follow {type(transform).__name__}"


def _stays(transform: Any) -> bool:
    """Does it leave pixels in place? Mixup, cutmix and copy-paste do while they are off."""
    if isinstance(transform, Albumentations):
        return transform.transform is None or not transform.contains_spatial
    return isinstance(transform, (RandomHSV, Format)) or isinstance(transform, BaseMixTransform) and transform.p == 0


# ---- in the loop

def look_up(matrix: Tensor, clip: Tensor, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """For each centre of an (H, W) grid over the input, row by row: the point of each picture (N, HW, 2), and whether it shows (N, HW).

    Written out, as a matrix product would be rounded to 8 bits under autocast: a tenth of a cell at 28 x 28, and more.
    """
    ys, xs = ((torch.arange(n, device=matrix.device) + 0.5) / n for n in size)
    y, x = (v.flatten() for v in torch.meshgrid(ys, xs, indexing="ij"))                             # (HW,)
    points = matrix[:, :, :1] * x + matrix[:, :, 1:2] * y + matrix[:, :, 2:]                        # (N, 3, HW)
    ahead = points[:, 2] > 1e-6                            # the rest lies at or behind a strong perspective's horizon
    places = points[:, :2] / points[:, 2:]
    within = (places >= clip[:, :2, None]) & (places < clip[:, 2:, None])          # half-open: a border belongs to one neighbour
    return places.transpose(1, 2), ahead & within.all(1)


def _corners(places: Tensor, h: int, w: int) -> tuple[Tensor, Tensor]:
    """Bilinear reading at points (P, 2) of a map's square: indices of four cells, row by row, and their weights, both (P, 4)."""
    last = torch.tensor([w - 1, h - 1], device=places.device)
    at = (places * (last + 1) - 0.5).clamp(min=0).minimum(last)    # beyond the outer centres the map goes on as it ends
    low = at.floor()
    (x1, y1), (x2, y2) = low.long().T, (low.long() + 1).minimum(last).T
    (u, v) = (at - low).T
    return (torch.stack([y1 * w + x1, y1 * w + x2, y2 * w + x1, y2 * w + x2], 1),
            torch.stack([(1 - v) * (1 - u), (1 - v) * u, v * (1 - u), v * u], 1))


def warp(maps: Tensor, sources: Sources, extents: Tensor, batch: int, size: tuple[int, int], picture: Tensor | None = None) -> Tensor:
    """Maps (M, C, h, w) brought into the network inputs: (batch, C, H, W), zero where no source shows.

    `picture` (N,) is the map that each source shows; without it they correspond one to one. `extents` (M, 2) is the share of
    a map's width and height that its picture covers. Does what `grid_sample` per source,
    masked and summed, would (a test), but only where a source shows, which is about three times quicker on a core (16 mosaics,
    C = 64, 25 x 25 to 28 x 28: 10 ms). And PyTorch lists the gradient of `grid_sample` on CUDA as not deterministic, this one's not.
    """
    (n, c, h, w), cells = maps.shape, size[0] * size[1]
    picture = torch.arange(n, device=maps.device) if picture is None else picture
    assert n == len(extents) and len(picture) == len(sources), f"{n} maps, {len(sources)} sources, {len(extents)} extents"
    places, shows = look_up(sources.matrix, sources.clip, size)                    # (N, HW, 2), (N, HW)
    source, cell = shows.nonzero(as_tuple=True)                                    # (P,), (P,)
    shown = picture[source]                                                        # (P,): which map
    index, weight = _corners(places[source, cell] * extents[shown], h, w)          # (P, 4), (P, 4)
    target = sources.image[source] * cells + cell                                  # (P,): where in the batch
    order = target.argsort(stable=True)
    count = torch.bincount(target, minlength=batch * cells) * 4
    rows = maps.permute(0, 2, 3, 1).reshape(-1, c).float()                         # (M * h * w, C)
    made = F.embedding_bag((shown[:, None] * (h * w) + index)[order].flatten(), rows, count.cumsum(0) - count,
                           mode="sum", per_sample_weights=weight[order].flatten())         # (batch * HW, C)
    return made.view(batch, *size, c).permute(0, 3, 1, 2).to(maps.dtype)           # (batch, C, H, W), channels last
